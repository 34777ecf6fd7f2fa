"""The measurements of takeover, memory and scaling run, small, and find what they are there to find."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.bench import memory, scaling, takeover
from tests.bench.result import Result
from tests.bench.rig import Bench
from tests.services import Embedded, Services

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(120)]


@pytest.fixture
def bench(services: Services) -> Iterator[Bench]:
    if not isinstance(services, Embedded):
        pytest.skip("what is measured are servers of our own")
    with Bench(quick=True, services=services) as made:
        yield made


async def test_takeover_and_scaling_are_measured(bench: Bench) -> None:
    """At the same time: each has an installation of its own, and figures mean nothing here."""
    taken_over, scaled = await asyncio.gather(
        takeover.killed(bench), scaling.lanes_and_processes(bench)
    )
    (seconds,) = taken_over.samples.values()
    assert len(seconds) == 1
    assert taken_over.met
    assert _line(taken_over)["ratio"]["max"] == pytest.approx(max(seconds), rel=0.01)
    assert all(rate > 0 for rates in scaled.samples.values() for rate in rates)
    assert len(scaled.samples) == 3
    assert sum("on paper" in note for note in scaled.notes) == 1


async def test_the_bytes_of_a_command_are_measured(bench: Bench) -> None:
    result = await memory.bytes_a_command(bench)
    (case,) = memory.CASES[:1]
    names = [f"{what}, {case.name}" for what in ("Redis", "Redis and read cache", "Kafka")]
    redis, with_cache, kafka = (result.samples[name][0] for name in names)
    assert len(result.samples) == len(names)
    assert 0.3 < kafka < 10
    assert 0.3 < redis < with_cache < 10, "the read cache is not the command's"
    assert result.met == (redis <= memory.REDIS_GOAL and kafka <= memory.KAFKA_GOAL)


def test_the_model_ends_where_the_cores_end() -> None:
    model = scaling.Cost(alone=1000, cpu_s=0.001)
    assert [model.rate(n, 2) for n in (1, 2, 4)] == [1000, 2000, 2000]
    assert model.rate(4, 16) == 4000


def test_texts_are_as_people_wrote_them_and_none_twice() -> None:
    found = memory.pieces(memory.POSTS)
    assert len(set(found)) == memory.POSTS
    assert min(map(len, found)) > memory.CHARS / 2


def _line(result: Result) -> dict[str, dict[str, float]]:
    return result.to_json()
