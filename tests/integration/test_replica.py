"""The replica of the tests themselves: its lag is what a test says, and it survives what is done to it."""

import asyncio
import time
from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.installation import Installation
from tests.replica import Replica, replica_of

pytestmark = [pytest.mark.integration, pytest.mark.once, pytest.mark.timeout(120)]

NUMBERS = "SELECT coalesce(sum(n), 0) FROM number"


@pytest.fixture
async def replica(installation: Installation) -> AsyncIterator[Replica]:
    async with replica_of(installation.services) as made:
        await _write(installation, "CREATE TABLE number (n bigint)")
        await _write(installation, "GRANT SELECT ON number TO afterwrite_frontend")
        await made.caught_up()
        yield made


async def _write(installation: Installation, statement: str) -> None:
    connection = await asyncpg.connect(installation.owner_url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def _sum(installation: Installation, replica: Replica) -> int:
    """What the front end's role reads at the replica."""
    return int(await replica.value(NUMBERS, url=replica.url_like(installation.frontend_url)))


async def test_it_follows_the_primary_and_takes_no_writes(
    installation: Installation, replica: Replica
) -> None:
    await _write(installation, "INSERT INTO number VALUES (1)")
    await replica.caught_up()
    assert await _sum(installation, replica) == 1
    assert await replica.value("SELECT pg_is_in_recovery()")
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        await replica.value("CREATE TABLE mine (a integer)", url=replica.admin_url)


async def test_held_it_shows_the_past_and_released_the_present(
    installation: Installation, replica: Replica
) -> None:
    await replica.hold()
    await _write(installation, "INSERT INTO number VALUES (10)")
    for _ in range(5):
        assert await _sum(installation, replica) == 0
    assert await installation.value(NUMBERS) == 10
    await replica.release()
    await replica.caught_up()
    assert await _sum(installation, replica) == 10


async def test_with_a_delay_it_shows_each_commit_that_much_later(
    installation: Installation, replica: Replica
) -> None:
    await replica.delay(1.5)
    begun = time.monotonic()
    await _write(installation, "INSERT INTO number VALUES (100)")
    assert await _sum(installation, replica) == 0
    await replica.caught_up()
    assert time.monotonic() - begun >= 1.4
    assert await _sum(installation, replica) == 100
    await replica.delay(60)
    await _write(installation, "INSERT INTO number VALUES (1000)")
    await replica.delay(0)  # what waits already does not wait any longer
    await replica.caught_up(10)
    assert await _sum(installation, replica) == 1100


async def test_killed_or_paused_it_finds_what_it_has_missed(
    installation: Installation, replica: Replica
) -> None:
    replica.kill()
    await _write(installation, "INSERT INTO number VALUES (1)")
    with pytest.raises(ConnectionError):
        await _sum(installation, replica)
    await replica.restart()
    await replica.caught_up()
    assert await _sum(installation, replica) == 1

    replica.pause()
    asking = asyncio.create_task(_sum(installation, replica))
    try:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(asking), 0.3)
    finally:
        replica.resume()
    assert await asyncio.wait_for(asking, 20) == 1

    installation.services.kill("postgres")
    assert await _sum(installation, replica) == 1
    installation.services.restart("postgres")
    await _write(installation, "INSERT INTO number VALUES (2)")
    await replica.caught_up()
    assert await _sum(installation, replica) == 3


async def test_what_is_cleaned_up_under_a_reader_is_told_him(
    installation: Installation, replica: Replica
) -> None:
    """The very error that a read served from a replica has to survive."""
    await replica.restart(max_standby_streaming_delay="0")
    await _write(installation, "INSERT INTO number SELECT generate_series(1, 100)")
    await replica.caught_up()
    reader = await asyncpg.connect(replica.url_like(installation.frontend_url))
    try:
        await reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        assert await reader.fetchval(NUMBERS) == 5050
        waiting = asyncio.create_task(reader.execute("SELECT pg_sleep(20)"))
        await _write(installation, "DELETE FROM number")
        await _write(installation, "VACUUM (FREEZE) number")
        with pytest.raises(asyncpg.SerializationError):
            await asyncio.wait_for(waiting, 15)
    finally:
        reader.terminate()
