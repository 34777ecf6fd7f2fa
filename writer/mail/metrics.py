"""The mail workers' metrics, on a registry of their own."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from schema.telemetry import METRICS


class Metrics:
    """Names and helps are the contract's."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.mail = Counter(*_named("afterwrite_mail_total"), ["outcome"], registry=self.registry)
        self.possible_duplicates = Counter(
            *_named("afterwrite_mail_possible_duplicates_total"), registry=self.registry
        )
        self.waiting = Gauge(*_named("afterwrite_mail_waiting"), registry=self.registry)
        self.smtp_available = Gauge(*_named("afterwrite_smtp_available"), registry=self.registry)
        self.seconds = Histogram(
            *_named("afterwrite_mail_seconds"),
            buckets=(0.1, 0.5, 1, 5, 30, 300, 3600, 86_400, 432_000),
            registry=self.registry,
        )

    def serve(self, port: int) -> None:
        """Answer `/metrics` on 127.0.0.1; nothing when the port is 0."""
        if port:
            start_http_server(port, addr="127.0.0.1", registry=self.registry)


def _named(name: str) -> tuple[str, str]:
    return name, METRICS[name]
