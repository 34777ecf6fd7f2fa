"""What opens the breaker of reads: a server that does not answer, and not a process that slept."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from prometheus_client import Gauge

from frontend_api.content_reader import ContentReader
from frontend_api.snapshots import Snapshot
from frontend_api.view import DatabaseUnavailable
from schema.catalog import load_catalog
from tests.installation import Installation

pytestmark = [pytest.mark.integration, pytest.mark.once]

LIMIT_S = 0.3


@pytest.fixture
async def reader(database: Installation) -> AsyncIterator[ContentReader]:
    made = ContentReader(
        database.frontend_url,
        load_catalog("schema.forum"),
        pool_size=2,
        timeout_s=LIMIT_S,
        gauge=Gauge("unused", "Of no use here.", registry=None),
        on_writable_role=pytest.fail,
    )
    made.start()
    await made.until_available()
    yield made
    await made.close()


async def _one(snapshot: Snapshot) -> int:
    found: int = await snapshot.connection.fetchval("SELECT 1")
    return found


async def test_a_process_that_stood_still_does_not_take_postgresql_for_away(
    reader: ContentReader,
) -> None:
    for turns in range(4):  # wherever it is when it falls asleep
        asking = asyncio.create_task(reader.read(_one))
        for _ in range(turns):
            await asyncio.sleep(0)
        time.sleep(LIMIT_S + 0.2)  # noqa: ASYNC251 - this is what is tested: nothing runs meanwhile
        assert await asking == 1
        assert reader.available


async def test_a_statement_that_hangs_is_given_up_even_then(reader: ContentReader) -> None:
    async def hang(snapshot: Snapshot) -> None:
        await snapshot.connection.fetchval("SELECT pg_sleep(10)")

    asking = asyncio.create_task(reader.read(hang))
    for _ in range(3):
        await asyncio.sleep(0)
    time.sleep(LIMIT_S + 0.2)  # noqa: ASYNC251
    async with asyncio.timeout(2):
        with pytest.raises(DatabaseUnavailable):
            await asking
