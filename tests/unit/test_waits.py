"""The histogram that takes a batch at a time says the same as the library's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from writer.metrics import Waits

pytestmark = pytest.mark.unit

BOUNDS = (0.5, 1, 300, 86_400)


def _shown(registry: CollectorRegistry) -> list[str]:
    """What is scraped; but not when the library's histogram was made, which nothing asks for."""
    lines = generate_latest(registry).decode().splitlines()
    return [line for line in lines if "_created" not in line]


@given(st.lists(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0, 300.0, 86_400.0, 1e6]))))
def test_batches_are_told_as_single_values_are(batches: list[list[float]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    waits = Waits("waits", "How long.", BOUNDS)
    ours.register(waits)
    single = Histogram("waits", "How long.", buckets=BOUNDS, registry=theirs)
    for batch in batches:
        waits.observe(batch)
        for value in batch:
            single.observe(value)
    assert _shown(ours) == _shown(theirs)
