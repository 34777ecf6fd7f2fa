"""The measurements by name, in the order of the report."""

import importlib
from collections.abc import Awaitable, Callable

from tests.bench.result import Result
from tests.bench.rig import Bench

Benchmark = Callable[[Bench], Awaitable[Result]]

BENCHMARKS: dict[str, tuple[str, str]] = {
    "D1": ("tests.bench.drains:against_sink", "drain creates ÷ tuned JDBC sink"),
    "D2": ("tests.bench.drains:against_copy", "drain creates ÷ COPY of the same rows"),
    "D3": ("tests.bench.drains:against_plain", "drain creates ÷ a transaction a command"),
    "D4": ("tests.bench.drains:against_creates", "mixed drain ÷ drain of creates"),
    "D5": ("tests.bench.drains:with_bad_ones", "mixed drain with 1 % bad ÷ without"),
    "D6": ("tests.bench.backlog:growing", "backlog: rate of the last tenth ÷ the first"),
    "A1": ("tests.bench.accept:against_noop", "accept ÷ no-op endpoint"),
    "A2": ("tests.bench.accept:against_insert", "accept ÷ synchronous INSERT endpoint"),
    "A3": ("tests.bench.accept:alone", "accept at 1 connection ÷ bare Redis + Kafka"),
    "A4": ("tests.bench.outage:standstill", "accept while PostgreSQL stands still"),
    "A5": ("tests.bench.spike:ten_times", "a spike of ten times the sustained rate"),
    "R1": ("tests.bench.reads:nothing_pending", "page of posts ÷ a page by hand"),
    "R2": ("tests.bench.reads:some_pending", "page with 50 pending ÷ a page by hand"),
    "E1": ("tests.bench.latency:until_saved", "202 → saved ÷ synchronous INSERT"),
    "M1": ("tests.bench.memory:bytes_a_command", "bytes of a command ÷ its payload"),
    "S1": ("tests.bench.scaling:lanes_and_processes", "scaling with lanes and processes"),
    "T1": ("tests.bench.takeover:killed", "killed writer → saved by its standby"),
}


def load(name: str) -> Benchmark:
    """The function of a measurement. Only its module is imported."""
    module, _, attribute = BENCHMARKS[name][0].partition(":")
    found: Benchmark = getattr(importlib.import_module(module), attribute)
    return found
