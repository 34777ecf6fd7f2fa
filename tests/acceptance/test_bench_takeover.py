"""The measurements of takeover, memory and scaling run, small, and find what they are there to find."""

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


async def test_a_takeover_is_measured(bench: Bench) -> None:
    result = await takeover.killed(bench)
    (seconds,) = result.samples.values()
    assert len(seconds) == 1
    assert result.met
    assert _line(result)["ratio"]["max"] == pytest.approx(max(seconds), rel=0.01)


async def test_the_bytes_of_a_command_are_measured(bench: Bench) -> None:
    result = await memory.bytes_a_command(bench)
    assert set(result.samples) == {
        f"{server}, {case.name}" for server in ("Redis", "Kafka") for case in memory.CASES[:1]
    }
    for name, (figure,) in result.samples.items():
        assert 0.3 < figure < 10, name
    redis, kafka = (figure for (figure,) in result.samples.values())
    assert result.met == (redis <= memory.REDIS_GOAL and kafka <= memory.KAFKA_GOAL)


async def test_scaling_is_measured(bench: Bench) -> None:
    result = await scaling.lanes_and_processes(bench)
    assert all(rate > 0 for rates in result.samples.values() for rate in rates)
    assert len(result.samples) == 3
    assert sum("on paper" in note for note in result.notes) == 1


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
