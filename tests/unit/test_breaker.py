"""The breaker before PostgreSQL: its states, its one probe, its pauses."""

import asyncio
import itertools
from collections.abc import Callable

import pytest

from schema.telemetry import Event, Log
from writer.breaker import Breaker, Circuit, DatabaseAway, backoff_s

pytestmark = pytest.mark.unit

LOW_S, HIGH_S = 1.0, 60.0


class Events(Log):
    """A log that remembers."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def warning(self, event: Event, **fields: object) -> None:
        self.seen.append(event)

    def info(self, event: Event, **fields: object) -> None:
        self.seen.append(f"{event} {fields}")


class World:
    """A breaker, a clock that is moved by hand, and what it told."""

    def __init__(self, spread: Callable[[], float] = lambda: 1.0) -> None:
        self.now = 1000.0
        self.states: list[Circuit] = []
        self.log = Events()
        self.breaker = Breaker(
            LOW_S, HIGH_S, self.log, self.states.append, lambda: self.now, spread
        )

    def state(self) -> Circuit:
        return self.breaker.state

    async def attempt(self, error: Exception | None = None) -> None:
        async with self.breaker.attempt():
            if error is not None:
                raise error

    async def refused_s(self) -> float:
        """The wait that an attempt is turned away with, without being made."""
        with pytest.raises(DatabaseAway) as caught:
            async with self.breaker.attempt():
                pytest.fail("it was let through")
        return caught.value.wait_s

    async def fails(self) -> float:
        with pytest.raises(DatabaseAway) as caught:
            await self.attempt(OSError("refused"))
        return caught.value.wait_s


async def test_it_opens_probes_and_closes_and_says_so_once() -> None:
    world = World()
    await world.attempt()
    assert await world.fails() == LOW_S
    assert world.state() is Circuit.OPEN
    world.now += 0.75
    assert await world.refused_s() == pytest.approx(0.25)
    world.now += 0.25
    assert await world.fails() == 2 * LOW_S
    world.now += 2
    await world.attempt()
    await world.attempt()
    assert world.states == [
        Circuit.CLOSED,
        Circuit.OPEN,
        Circuit.HALF_OPEN,
        Circuit.OPEN,
        Circuit.HALF_OPEN,
        Circuit.CLOSED,
    ]
    assert world.log.seen == [
        "database_unavailable",
        "database_available {'away_s': 3.0, 'attempts': 3}",
    ]


async def test_the_pauses_double_up_to_the_longest_and_begin_anew_after_a_success() -> None:
    world = World()
    pauses = []
    for _ in range(9):
        pauses.append(await world.fails())
        world.now += pauses[-1]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    await world.attempt()
    assert await world.fails() == LOW_S


@pytest.mark.parametrize("failures", [1, 2, 5, 7, 8, 1000])
def test_the_jitter_takes_the_whole_room_under_the_ceiling(failures: int) -> None:
    ceiling = min(HIGH_S, LOW_S * 2 ** (failures - 1))
    assert backoff_s(failures, LOW_S, HIGH_S, lambda: 0.0) == LOW_S / 2
    assert backoff_s(failures, LOW_S, HIGH_S, lambda: 1.0) == ceiling
    seen = [backoff_s(failures, LOW_S, HIGH_S) for _ in range(500)]
    assert LOW_S / 2 <= min(seen) < max(seen) <= ceiling
    assert max(seen) - min(seen) > 0.9 * (ceiling - LOW_S / 2)


def test_a_longest_pause_below_the_shortest_is_kept_to() -> None:
    assert backoff_s(9, 5.0, 1.0) == 1.0


async def test_there_is_one_probe_whoever_asks() -> None:
    world = World()
    await world.fails()
    world.now += LOW_S
    under_way = most = probes = 0
    answer = asyncio.Event()

    async def ask() -> str:
        nonlocal under_way, most, probes
        try:
            async with world.breaker.attempt():
                under_way += 1
                probes += 1
                most = max(most, under_way)
                await answer.wait()
                under_way -= 1
                raise OSError("refused")
        except DatabaseAway:
            return "away"

    asking = [asyncio.create_task(ask()) for _ in range(8)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert (probes, world.state()) == (1, Circuit.HALF_OPEN)
    answer.set()
    assert await asyncio.gather(*asking) == ["away"] * 8
    assert (probes, most) == (1, 1)


async def test_also_of_those_who_ask_before_it_is_known_only_one_is_let_through() -> None:
    world = World()
    made = itertools.count()

    async def ask() -> None:
        async with world.breaker.attempt():
            next(made)
            await asyncio.sleep(0)
            raise OSError("refused")

    answers = await asyncio.gather(*(ask() for _ in range(8)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [DatabaseAway] * 8
    assert next(made) == 1


async def test_when_the_probe_is_let_in_all_who_waited_for_it_are() -> None:
    world = World()
    await world.fails()
    world.now += LOW_S
    await asyncio.gather(*(world.attempt() for _ in range(8)))
    assert world.state() is Circuit.CLOSED


async def test_a_probe_that_is_cancelled_leaves_its_place_to_the_next() -> None:
    world = World()
    await world.fails()
    world.now += LOW_S

    async def never() -> None:
        async with world.breaker.attempt():
            await asyncio.Event().wait()

    probe = asyncio.create_task(never())
    await asyncio.sleep(0)
    assert world.state() is Circuit.HALF_OPEN
    probe.cancel()
    await asyncio.gather(probe, return_exceptions=True)
    assert world.state() is Circuit.OPEN
    await world.attempt()
    assert world.state() is Circuit.CLOSED
