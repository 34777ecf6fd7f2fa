"""The fence on a real server: one writer commits, whoever else believes that he has the lane."""

import asyncio
import sys
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest

from tests.installation import ROOT, Installation, eventually_async
from writer.failures import FailureClass, Fenced, Halt, Paused, SilentRollback, classify
from writer.lane import Lane, take_lane

pytestmark = pytest.mark.integration

LONG, SHORT = timedelta(minutes=5), timedelta(seconds=1)
_STATE = """
SELECT lane, position, epoch, owner, outcome_seq, settled_seq, deaths, halted,
       leased_until > clock_timestamp() AS leased
FROM afterwrite.lane WHERE lane = 0
"""


@asynccontextmanager
async def _connected(database: Installation) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database.writer_url, timeout=10)
    try:
        yield connection
    finally:
        connection.terminate()


@pytest.fixture
async def connection(database: Installation) -> AsyncIterator[asyncpg.Connection]:
    async with _connected(database) as made:
        yield made


@pytest.fixture
async def another(database: Installation) -> AsyncIterator[asyncpg.Connection]:
    async with _connected(database) as made:
        yield made


async def _state(database: Installation) -> asyncpg.Record:
    return (await database.fetch(_STATE))[0]


async def _take(connection: asyncpg.Connection, owner: str, lease: timedelta = LONG) -> Lane:
    lane = await take_lane(connection, 0, owner, lease)
    assert lane is not None
    return lane


async def _expire(database: Installation) -> None:
    await database.fetch("UPDATE afterwrite.lane SET leased_until = now() - interval '1 second'")


async def _commit(connection: asyncpg.Connection, lane: Lane, to: int) -> None:
    seq = await lane.begin(connection, to)
    await lane.commit(connection, seq + 1, to)


async def test_taking_raises_the_epoch_and_reads_the_position(
    database: Installation, connection: asyncpg.Connection
) -> None:
    lane = await _take(connection, "one")
    assert (lane.number, lane.epoch, lane.position) == (0, 1, 0)
    assert lane.log_id == await database.value("SELECT log_id FROM afterwrite.lane")
    await _commit(connection, lane, 5)
    assert lane.position == 5
    again = await _take(connection, "one")
    assert (again.epoch, again.position) == (2, 5)
    state = await _state(database)
    assert (state["owner"], state["outcome_seq"], state["leased"]) == ("one", 1, True)


async def test_a_leased_lane_is_not_given_to_another(
    connection: asyncpg.Connection, another: asyncpg.Connection
) -> None:
    await _take(connection, "one")
    assert await take_lane(another, 0, "two", LONG) is None


async def test_a_released_lane_is_free_at_once_and_keeps_what_is_settled(
    database: Installation, connection: asyncpg.Connection, another: asyncpg.Connection
) -> None:
    lane = await _take(connection, "one")
    await _commit(connection, lane, 3)
    lane.settled_seq = 1
    await lane.release(connection)
    state = await _state(database)
    assert (state["owner"], state["leased"], state["settled_seq"]) == (None, None, 1)
    taken = await _take(another, "two")
    assert (taken.epoch, taken.position, taken.settled_seq, taken.deaths) == (2, 3, 1, 0)


async def test_of_two_that_race_for_a_lane_one_wins(
    database: Installation, connection: asyncpg.Connection, another: asyncpg.Connection
) -> None:
    for round_ in range(20):
        found = await asyncio.gather(
            take_lane(connection, 0, "one", LONG), take_lane(another, 0, "two", LONG)
        )
        winners = [lane for lane in found if lane is not None]
        assert len(winners) == 1
        assert winners[0].epoch == round_ + 1
        assert (await _state(database))["owner"] == winners[0].owner
        await winners[0].release(connection)


async def test_a_zombie_changes_nothing_any_more(
    database: Installation, connection: asyncpg.Connection, another: asyncpg.Connection
) -> None:
    zombie = await _take(connection, "one")
    await _expire(database)
    successor = await _take(another, "two")
    before = await _state(database)
    with pytest.raises(Fenced):
        await zombie.begin(connection, 10)
    await connection.execute("ROLLBACK")
    with pytest.raises(Fenced):
        await zombie.renew(connection)
    zombie.settled_seq = 99
    await zombie.release(connection)
    await zombie.halt(connection, "from the grave")
    assert dict(await _state(database)) == dict(before)
    await _commit(another, successor, 4)
    assert (await _state(database))["position"] == 4


@pytest.mark.parametrize(("believed", "value"), [("position", 3), ("outcome_seq", 0)])
async def test_position_and_outcomes_must_be_as_expected_even_in_the_same_epoch(
    database: Installation, connection: asyncpg.Connection, believed: str, value: int
) -> None:
    lane = await _take(connection, "one")
    await _commit(connection, lane, 4)
    setattr(lane, believed, value)
    with pytest.raises(Fenced):
        await lane.begin(connection, 5)
    await connection.execute("ROLLBACK")
    state = await _state(database)
    assert (state["position"], state["outcome_seq"]) == (4, 1)


async def _waits_for_a_lock(database: Installation, connection: asyncpg.Connection) -> None:
    """Only a superuser sees what another role waits for."""
    pid = connection.get_server_pid()
    admin = await asyncpg.connect(database.admin_url)

    async def waits() -> bool:
        query = "SELECT wait_event_type FROM pg_stat_activity WHERE pid = $1"
        return bool(await admin.fetchval(query, pid) == "Lock")

    try:
        await eventually_async(waits, 10, "the taker to wait for the row")
    finally:
        await admin.close()


async def test_taking_waits_for_an_open_transaction_and_reads_what_it_left(
    database: Installation, connection: asyncpg.Connection, another: asyncpg.Connection
) -> None:
    """The former owner was in the middle of a batch: his lease had run out, his commit was not."""
    former = await _take(connection, "one", timedelta(0))
    former.lease = timedelta(0)
    seq = await former.begin(connection, 7)
    taking = asyncio.create_task(take_lane(another, 0, "two", LONG))
    await _waits_for_a_lock(database, another)
    await former.commit(connection, seq, 7)
    taken = await taking
    assert taken is not None
    assert (taken.epoch, taken.position) == (2, 7)
    with pytest.raises(Fenced):
        await former.begin(connection, 8)


async def test_taking_after_a_rolled_back_transaction_finds_the_position_before_it(
    database: Installation, connection: asyncpg.Connection, another: asyncpg.Connection
) -> None:
    former = await _take(connection, "one", timedelta(0))
    await former.begin(connection, 7)
    taking = asyncio.create_task(take_lane(another, 0, "two", LONG))
    await _waits_for_a_lock(database, another)
    connection.terminate()
    taken = await taking
    assert taken is not None
    assert (taken.epoch, taken.position) == (2, 0)


async def test_a_batch_renews_the_lease_so_that_a_busy_owner_keeps_his_lane(
    database: Installation, connection: asyncpg.Connection, another: asyncpg.Connection
) -> None:
    lane = await _take(connection, "one")
    await _expire(database)
    seq = await lane.begin(connection, 1)
    taking = asyncio.create_task(take_lane(another, 0, "two", LONG))
    await _waits_for_a_lock(database, another)
    await lane.commit(connection, seq, 1)
    assert await taking is None


async def test_renewing_keeps_the_lease_and_tells_what_is_settled(
    database: Installation, connection: asyncpg.Connection
) -> None:
    lane = await _take(connection, "one")
    await _commit(connection, lane, 1)
    await _expire(database)
    lane.settled_seq = 1
    await lane.renew(connection)
    state = await _state(database)
    assert (state["leased"], state["settled_seq"]) == (True, 1)


async def test_a_killed_owners_lease_runs_out(
    database: Installation, connection: asyncpg.Connection
) -> None:
    program = (
        "import asyncio, asyncpg, datetime, sys\n"
        "from writer.lane import take_lane\n"
        "async def main():\n"
        "    connection = await asyncpg.connect(sys.argv[1])\n"
        "    lane = await take_lane(connection, 0, 'killed', datetime.timedelta(seconds=1))\n"
        "    await lane.begin(connection, 9)\n"
        "    print('taken', flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, database.writer_url, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert owner.stdout is not None
    assert await owner.stdout.readline() == b"taken\n"
    owner.kill()
    started = time.monotonic()
    await owner.wait()

    async def free() -> bool:
        return await take_lane(connection, 0, "next", LONG) is not None

    await eventually_async(free, 15, "the lease of the killed owner to run out")
    assert time.monotonic() - started < 10
    state = await _state(database)
    assert (state["owner"], state["epoch"], state["position"]) == ("next", 2, 0)


async def test_deaths_at_one_position_are_counted_and_forgotten_when_it_moves(
    database: Installation, connection: asyncpg.Connection
) -> None:
    for deaths in range(3):
        lane = await _take(connection, f"writer {deaths}")
        assert lane.deaths == deaths
        await _expire(database)
    lane = await _take(connection, "last")
    assert lane.deaths == 3
    await _commit(connection, lane, 1)
    await _expire(database)
    assert (await _take(connection, "next")).deaths == 1


async def test_a_halted_lane_is_given_to_nobody_and_says_why(
    database: Installation, connection: asyncpg.Connection, another: asyncpg.Connection
) -> None:
    lane = await _take(connection, "one")
    await lane.halt(connection, "offset 3 is missing" + "." * 5000)
    with pytest.raises(Halt, match="offset 3 is missing"):
        await lane.renew(connection)
    with pytest.raises(Fenced):
        await lane.begin(connection, 1)
    await connection.execute("ROLLBACK")
    await _expire(database)
    epoch = (await _state(database))["epoch"]
    with pytest.raises(Halt, match="offset 3 is missing"):
        await take_lane(another, 0, "two", LONG)
    assert (await _state(database))["epoch"] == epoch
    await database.fetch("UPDATE afterwrite.lane SET halted = NULL")
    assert (await _take(another, "two")).position == 0


async def test_a_paused_lane_refuses_the_next_transaction_and_is_not_lost(
    database: Installation, connection: asyncpg.Connection, another: asyncpg.Connection
) -> None:
    """Who pauses waits for the transaction that is open, and none comes after it."""
    lane = await _take(connection, "one")
    seq = await lane.begin(connection, 5)
    pausing = asyncio.create_task(another.execute("UPDATE afterwrite.lane SET paused = 'x'"))
    await eventually_async(
        lambda: _waits(database, another), 10, "the pause to wait for the transaction"
    )
    await lane.commit(connection, seq + 1, 5)
    await pausing
    for _ in range(2):
        with pytest.raises(Paused):
            await lane.begin(connection, 6)
        assert not connection.is_in_transaction()
    zombie = replace(lane, epoch=lane.epoch - 1)
    with pytest.raises(Fenced):
        await zombie.begin(connection, 6)
    await connection.execute("ROLLBACK")

    await another.execute("UPDATE afterwrite.lane SET paused = NULL")
    await _commit(connection, lane, 6)
    await another.execute("BEGIN; UPDATE afterwrite.lane SET paused = 'y'")
    late = asyncio.create_task(lane.begin(connection, 7))
    await eventually_async(
        lambda: _waits(database, connection), 10, "the writer to wait for the operator"
    )
    await another.execute("COMMIT")
    with pytest.raises(Paused):
        await late
    assert (await _state(database))["position"] == lane.position == 6


async def _waits(database: Installation, connection: asyncpg.Connection) -> bool:
    pid = connection.get_server_pid()
    query = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = $1"
    return bool(await database.value(query, pid))


async def test_a_lane_that_has_no_row_says_what_to_do(connection: asyncpg.Connection) -> None:
    with pytest.raises(Halt, match="lane 7 has no row: run `afterwrite migrate`"):
        await take_lane(connection, 7, "one", LONG)


class _Swallowing:
    """A connection on which an error before COMMIT goes unnoticed, as a careless handler would do."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def execute(self, query: str, *args: object) -> str:
        before, commit, _ = query.partition("COMMIT")
        if commit:
            await self._connection.execute(before, *args)
            with pytest.raises(asyncpg.DivisionByZeroError):
                await self._connection.execute("SELECT 1 / 0")
        tag: str = await self._connection.execute(commit or query)
        return tag


async def test_a_commit_that_was_none_is_noticed(
    database: Installation, connection: asyncpg.Connection
) -> None:
    """After a swallowed error PostgreSQL answers COMMIT with ROLLBACK, and no error at all."""
    lane = await _take(connection, "one")
    seq = await lane.begin(connection, 5)
    with pytest.raises(SilentRollback, match="COMMIT answered ROLLBACK"):
        await lane.commit(_Swallowing(connection), seq + 1, 5)  # type: ignore[arg-type]
    assert lane.position == 0
    state = await _state(database)
    assert (state["position"], state["outcome_seq"]) == (0, 0)


async def test_an_error_swallowed_earlier_cannot_be_committed_either(
    database: Installation, connection: asyncpg.Connection
) -> None:
    lane = await _take(connection, "one")
    seq = await lane.begin(connection, 5)
    with pytest.raises(asyncpg.DivisionByZeroError):
        await connection.execute("SELECT 1 / 0")
    with pytest.raises(asyncpg.InFailedSQLTransactionError) as refused:
        await lane.commit(connection, seq + 1, 5)
    assert classify(refused.value) is FailureClass.SYSTEMIC
    assert (await _state(database))["position"] == 0


async def test_settled_outcomes_never_exceed_those_given(
    database: Installation, connection: asyncpg.Connection
) -> None:
    lane = await _take(connection, "one")
    lane.settled_seq = 10
    with pytest.raises(asyncpg.CheckViolationError):
        await lane.renew(connection)


async def test_a_deferred_violation_is_met_at_its_statement(
    database: Installation, connection: asyncpg.Connection
) -> None:
    await database.fetch(
        "ALTER TABLE topic ADD CONSTRAINT once UNIQUE (title) DEFERRABLE INITIALLY DEFERRED"
    )
    await database.fetch(
        'INSERT INTO "user" (id, version, created_at, updated_at, name) '
        "VALUES ($1, 1, now(), now(), 'ada')",
        uuid.UUID(int=1),
    )
    lane = await _take(connection, "one")
    await lane.begin(connection, 1)
    insert = (
        "INSERT INTO topic (id, version, created_at, updated_at, author_id, title) "
        "VALUES (gen_random_uuid(), 1, now(), now(), $1, 'the same')"
    )
    await connection.execute(insert, uuid.UUID(int=1))
    with pytest.raises(asyncpg.UniqueViolationError):
        await connection.execute(insert, uuid.UUID(int=1))
