"""The writer's metrics, on a registry of its own."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from schema.telemetry import METRICS


class Metrics:
    """Names and helps are the contract's."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.outcomes = Counter(
            *_named("afterwrite_outcomes_total"), ["outcome"], registry=self.registry
        )
        self.apply_s = Histogram(*_named("afterwrite_apply_seconds"), registry=self.registry)
        self.batch = Histogram(
            *_named("afterwrite_batch_commands"),
            buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
            registry=self.registry,
        )
        self.position = Gauge(*_named("afterwrite_lane_position"), ["lane"], registry=self.registry)
        self.settle_lag = Gauge(*_named("afterwrite_settle_lag"), ["lane"], registry=self.registry)
        self.end = Gauge(*_named("afterwrite_lane_end"), ["lane"], registry=self.registry)
        self.halted = Gauge(*_named("afterwrite_lane_halted"), ["lane"], registry=self.registry)
        self.begin = Gauge(*_named("afterwrite_log_begin"), ["lane"], registry=self.registry)
        self.circuit = Gauge(
            *_named("afterwrite_circuit_state"), ["target"], registry=self.registry
        )
        self.paused = Gauge(*_named("afterwrite_lane_paused"), ["lane"], registry=self.registry)
        self.command_s = Waits(
            *_named("afterwrite_command_seconds"),
            (0.01, 0.05, 0.1, 0.5, 1, 5, 30, 300, 3600, 86_400),
        )
        self.registry.register(self.command_s)

    def serve(self, port: int) -> None:
        """Answer `/metrics` on 127.0.0.1; nothing when the port is 0."""
        if port:
            start_http_server(port, addr="127.0.0.1", registry=self.registry)


class Waits(Collector):
    """A histogram that takes a batch at a time: a `Histogram` takes 2 µs for each value, this 0.3."""

    def __init__(self, name: str, text: str, bounds: Sequence[float]) -> None:
        self._name, self._text = name, text
        self._bounds = tuple(float(bound) for bound in bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, values: Sequence[float]) -> None:
        for value in values:
            self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += sum(values)

    def collect(self) -> Iterator[Metric]:
        named = [*map(floatToGoString, self._bounds), "+Inf"]
        buckets = list(zip(named, accumulate(self._counts), strict=True))
        yield HistogramMetricFamily(self._name, self._text, buckets=buckets, sum_value=self._sum)


def _named(name: str) -> tuple[str, str]:
    return name, METRICS[name]
