"""The front end's metrics, in a registry of its own that is handed down."""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from schema.telemetry import METRICS

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


@dataclass(frozen=True)
class Metrics:
    registry: CollectorRegistry
    submissions: Counter
    accepted: Counter
    """Those of `submissions` that were: found once, as each of them counts."""
    accept_seconds: Histogram
    publish_seconds: Histogram
    producer_replacements: Counter
    overlay_failures: Counter
    overlay_complete: Gauge
    overlay_rebuilds: Counter
    event_streams: Gauge
    read_cache: Counter
    database_available: Gauge
    disk_used: Gauge


def build_metrics() -> Metrics:
    registry = CollectorRegistry()

    def counter(name: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(name, METRICS[name], labels, registry=registry)

    def gauge(name: str, labels: tuple[str, ...] = ()) -> Gauge:
        return Gauge(name, METRICS[name], labels, registry=registry)

    def histogram(name: str) -> Histogram:
        return Histogram(name, METRICS[name], buckets=_FAST, registry=registry)

    submissions = counter("afterwrite_submissions_total", ("result",))
    return Metrics(
        registry=registry,
        submissions=submissions,
        accepted=submissions.labels("accepted"),
        accept_seconds=histogram("afterwrite_accept_seconds"),
        publish_seconds=histogram("afterwrite_publish_seconds"),
        producer_replacements=counter("afterwrite_producer_replacements_total"),
        overlay_failures=counter("afterwrite_overlay_failures_total"),
        overlay_complete=gauge("afterwrite_overlay_complete"),
        overlay_rebuilds=counter("afterwrite_overlay_rebuilds_total"),
        event_streams=gauge("afterwrite_event_streams"),
        read_cache=counter("afterwrite_read_cache_total", ("result",)),
        database_available=gauge("afterwrite_database_available"),
        disk_used=gauge("afterwrite_disk_used_ratio", ("broker",)),
    )
