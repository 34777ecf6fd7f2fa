"""When a lane may be taken: at once from who has ended, after the lease from who is silent, never before."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from tests.installation import Installation, eventually_async
from writer.failures import Fenced
from writer.lane import Lane, take_lane

pytestmark = pytest.mark.integration

LONG, SHORT = timedelta(minutes=5), timedelta(seconds=0.5)
Connect = Callable[[], Coroutine[Any, Any, asyncpg.Connection]]


@pytest.fixture
async def connect(database: Installation) -> AsyncIterator[Connect]:
    """Connections as writers have them, dropped after the test."""
    made: list[asyncpg.Connection] = []

    async def one() -> asyncpg.Connection:
        made.append(await asyncpg.connect(database.writer_url, timeout=10))
        return made[-1]

    yield one
    for connection in made:
        connection.terminate()


async def _hold(connection: asyncpg.Connection, owner: str, lease: timedelta = LONG) -> Lane:
    lane = await take_lane(connection, 0, owner, lease)
    assert lane is not None
    return lane


async def _soon(connection: asyncpg.Connection, owner: str) -> Lane:
    """As a standby takes it, long before any lease has run out."""
    taken: list[Lane] = []

    async def free() -> bool:
        lane = await take_lane(connection, 0, owner, LONG)
        taken.extend([lane] if lane is not None else [])
        return lane is not None

    await eventually_async(free, 5, "the lane to be free")
    return taken[0]


async def _expire(database: Installation) -> None:
    await database.fetch("UPDATE afterwrite.lane SET leased_until = now() - interval '1 second'")


async def _deaths(database: Installation) -> int:
    return int(await database.value("SELECT deaths FROM afterwrite.lane"))


async def test_a_lane_whose_owners_session_ended_is_free_though_it_is_leased(
    connect: Connect,
) -> None:
    first, second = await connect(), await connect()
    lane = await _hold(first, "one")
    await lane.begin(first, 7)
    first.terminate()  # as the server sees it when the process is killed
    taken = await _soon(second, "two")
    assert (taken.epoch, taken.position, taken.deaths) == (2, 0, 1)


async def test_of_several_that_race_for_a_dead_owners_lane_one_wins(
    database: Installation, connect: Connect
) -> None:
    holder = await connect()
    lane = await _hold(holder, "0")
    for round_ in range(1, 8):
        racers = [await connect() for _ in range(4)]
        holder.terminate()
        won: list[tuple[asyncpg.Connection, Lane]] = []

        async def race(
            number: int,
            racers: list[asyncpg.Connection] = racers,
            won: list[tuple[asyncpg.Connection, Lane]] = won,
            name: int = round_,
        ) -> None:
            while not won:
                taken = await take_lane(racers[number], 0, f"{name}.{number}", LONG)
                if taken is not None:
                    won.append((racers[number], taken))

        await asyncio.wait_for(asyncio.gather(*(race(n) for n in range(4))), 10)
        ((holder, lane),) = won
        assert lane.epoch == round_ + 1
        assert await database.value("SELECT owner FROM afterwrite.lane") == lane.owner
        for racer in racers:
            if racer is not holder:
                await racer.close()


async def test_a_batch_may_take_longer_than_the_lease(
    database: Installation, connect: Connect
) -> None:
    """The lease ran out while the transaction was open: its owner lives, and keeps the lane."""
    first, second = await connect(), await connect()
    lane = await _hold(first, "slow", SHORT)
    seq = await lane.begin(first, 4)

    async def run_out() -> bool:
        query = "SELECT leased_until < clock_timestamp() FROM afterwrite.lane"
        return bool(await first.fetchval(query))

    await eventually_async(run_out, 5, "the lease to run out")
    lane.lease = LONG
    taking = asyncio.create_task(take_lane(second, 0, "two", LONG))
    await _waits(database, second)
    await lane.commit(first, seq + 1, 4)
    assert await taking is None
    assert await take_lane(second, 0, "two", LONG) is None, "the lease counts from the commit"
    await lane.begin(first, 5)
    await first.execute("ROLLBACK")
    assert await _locks_of(database, second) == 0, "what was claimed in vain is given back"


async def _waits(database: Installation, connection: asyncpg.Connection) -> None:
    admin = await asyncpg.connect(database.admin_url)
    pid = connection.get_server_pid()

    async def waits() -> bool:
        query = "SELECT wait_event_type FROM pg_stat_activity WHERE pid = $1"
        return bool(await admin.fetchval(query, pid) == "Lock")

    try:
        await eventually_async(waits, 10, "the taker to wait for the row")
    finally:
        await admin.close()


async def _locks_of(database: Installation, connection: asyncpg.Connection) -> int:
    query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = $1"
    return int(await database.value(query, connection.get_server_pid()))


async def test_a_lane_that_changed_hands_meanwhile_is_not_taken(
    database: Installation, connect: Connect
) -> None:
    """By a writer of an older version, which knows nothing of the lock: the epoch tells."""
    older, taker = await connect(), await connect()
    await older.execute(
        "BEGIN; UPDATE afterwrite.lane SET epoch = epoch + 1, owner = 'older', "
        "leased_until = clock_timestamp()"
    )
    taking = asyncio.create_task(take_lane(taker, 0, "newer", LONG))
    await _waits(database, taker)
    await older.execute("COMMIT")
    assert await taking is None
    assert await _locks_of(database, taker) == 0


async def test_a_frozen_owner_has_the_lane_until_its_lease_runs_out_and_no_longer(
    database: Installation, connect: Connect
) -> None:
    first, second, third = await connect(), await connect(), await connect()
    frozen = await _hold(first, "frozen")  # from here on it does nothing, and its session stays
    for _ in range(5):
        assert await take_lane(second, 0, "two", LONG) is None
    await _expire(database)
    taken = await _hold(second, "two")
    assert taken.epoch == 2
    assert await take_lane(third, 0, "three", LONG) is None
    second.terminate()
    again = await _soon(third, "three")
    assert again.epoch == 3, "the frozen one's session is in nobody's way"
    with pytest.raises(Fenced):
        await frozen.begin(first, 1)


async def test_writers_that_lose_their_connections_in_turns_are_not_dead(
    database: Installation, connect: Connect
) -> None:
    """Else the command at the position would be taken for one that kills whoever tries it."""
    names = ("one", "two", "three")
    sessions = {name: await connect() for name in names}
    await _hold(sessions["one"], "one")
    for turn in range(1, 10):
        lost, heir = names[(turn - 1) % 3], names[turn % 3]
        sessions[lost].terminate()
        lane = await _soon(sessions[heir], heir)
        assert lane.deaths == 1, "who comes back was not dead"
        sessions[lost] = await connect()
        assert await take_lane(sessions[lost], 0, lost, LONG) is None  # it stands by
        assert await _deaths(database) == 0


async def test_who_has_the_lane_again_was_not_dead(connect: Connect) -> None:
    """It comes back at the moment in which the other one's connection is lost, and never stands by."""
    connection = await connect()
    await _hold(connection, "one")
    for turn in range(6):
        connection.terminate()
        connection = await connect()
        assert (await _soon(connection, ("two", "one")[turn % 2])).deaths == 1


async def test_the_dead_are_counted_among_those_that_come_back(
    database: Installation, connect: Connect
) -> None:
    alive, victim = await connect(), await connect()
    await _hold(victim, "victim 0")
    for dead in range(1, 5):
        victim.terminate()
        assert (await _soon(alive, "alive")).deaths == dead
        alive.terminate()
        victim = await connect()
        assert (await _soon(victim, f"victim {dead}")).deaths == dead + 1
        alive = await connect()
        assert await take_lane(alive, 0, "alive", LONG) is None
        assert await _deaths(database) == dead
