"""The notifier's metrics, on a registry of its own."""

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from schema.telemetry import METRICS


class Metrics:
    """Names and helps are the contract's."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.incidents = Gauge(
            *_named("afterwrite_incidents_open"), ["kind"], registry=self.registry
        )
        self.alerts = Counter(*_named("afterwrite_alerts_total"), ["phase"], registry=self.registry)
        self.notices = Counter(
            *_named("afterwrite_notices_total"), ["kind"], registry=self.registry
        )
        self.repeated = Counter(
            *_named("afterwrite_notices_repeated_total"), registry=self.registry
        )
        self.mails = Counter(*_named("afterwrite_mails_queued_total"), registry=self.registry)
        self.oldest_s = Gauge(*_named("afterwrite_oldest_pending_seconds"), registry=self.registry)
        self.leading = Gauge(*_named("afterwrite_notifier_leading"), registry=self.registry)

    def serve(self, port: int) -> None:
        """Answer `/metrics` on 127.0.0.1; nothing when the port is 0."""
        if port:
            start_http_server(port, addr="127.0.0.1", registry=self.registry)


def _named(name: str) -> tuple[str, str]:
    return name, METRICS[name]
