"""The proxy of the fault tests does to a real COMMIT what it says."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.proxy import PostgresProxy
from tests.services import Services

pytestmark = [pytest.mark.integration, pytest.mark.once]


@pytest.fixture
async def direct(services: Services) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(services.admin_url)
    await connection.execute("CREATE TABLE proxied (i int)")
    yield connection
    await connection.execute("DROP TABLE proxied")
    await connection.close()


@pytest.fixture
async def proxy(direct: asyncpg.Connection, services: Services) -> AsyncIterator[PostgresProxy]:
    # After `direct`, so as to end before it: a transaction held open here would block its DROP.
    assert not direct.is_closed()
    async with PostgresProxy(services.admin_url) as proxy:
        yield proxy


async def saved(direct: asyncpg.Connection) -> int:
    # The lock waits until a transaction that is still being ended is over.
    async with direct.transaction():
        await direct.execute("LOCK TABLE proxied")
        return int(await direct.fetchval("SELECT count(*) FROM proxied"))


async def insert(proxy: PostgresProxy) -> str:
    connection = await asyncpg.connect(proxy.url)
    try:
        await connection.execute("BEGIN")
        await connection.execute("INSERT INTO proxied VALUES ($1)", 1)
        return await connection.execute("COMMIT")
    finally:
        connection.terminate()


async def test_passes_a_commit_on(proxy: PostgresProxy, direct: asyncpg.Connection) -> None:
    assert await insert(proxy) == "COMMIT"
    assert await saved(direct) == 1


async def test_cut_reply_saves(proxy: PostgresProxy, direct: asyncpg.Connection) -> None:
    proxy.arm("cut_reply")
    with pytest.raises((asyncpg.PostgresConnectionError, ConnectionError)):
        await insert(proxy)
    assert proxy.fired.is_set()
    assert await saved(direct) == 1


async def test_cut_request_does_not_save(proxy: PostgresProxy, direct: asyncpg.Connection) -> None:
    proxy.arm("cut_request")
    with pytest.raises((asyncpg.PostgresConnectionError, ConnectionError)):
        await insert(proxy)
    assert proxy.fired.is_set()
    assert await saved(direct) == 0


async def test_blackhole_leaves_the_transaction_open(
    proxy: PostgresProxy, direct: asyncpg.Connection
) -> None:
    proxy.arm("blackhole")
    inserting = asyncio.create_task(insert(proxy))
    await proxy.fired.wait()
    with pytest.raises(asyncpg.LockNotAvailableError):
        async with direct.transaction():
            await direct.execute("LOCK TABLE proxied NOWAIT")
    proxy.heal()
    with pytest.raises((asyncpg.PostgresConnectionError, ConnectionError)):
        await inserting
    assert await saved(direct) == 0


async def test_commit_of_a_transaction_block_is_one(
    proxy: PostgresProxy, direct: asyncpg.Connection
) -> None:
    connection = await asyncpg.connect(proxy.url)
    proxy.arm("cut_reply")
    with pytest.raises((asyncpg.PostgresConnectionError, ConnectionError)):
        async with connection.transaction():
            await connection.execute("INSERT INTO proxied VALUES (1)")
    connection.terminate()
    assert await saved(direct) == 1
