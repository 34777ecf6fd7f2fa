"""PostgreSQL is away: the writer asks for it with one connection at a time, and its memory stays flat."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import psutil
import pytest
from aiokafka import AIOKafkaProducer

from schema.envelope import Record
from tests.acceptance.helpers import Site, applied, down, figure, hung
from tests.commands import author, command, sealed, topic_with_post
from tests.installation import Installation, eventually_async, free_port, fresh_name
from tests.proxy import PostgresProxy
from tests.services import Services

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(120)]

LANES = 3
REFUSED_AFTER_S = 0.3
"""So long does the proxy keep a connection that it cannot pass on; two at once would meet there."""


@pytest.fixture
async def wide(services: Services, tmp_path: Path) -> AsyncIterator[Installation]:
    """An installation with several lanes."""
    made = Installation(services, fresh_name(), tmp_path, lanes=LANES)
    await made.create()
    yield made
    await made.destroy()


async def test_one_connection_at_a_time_looks_whether_postgresql_is_back(
    wide: Installation,
) -> None:
    port = free_port()
    async with Site(wide) as site, PostgresProxy(wide.writer_url) as proxy:
        await site.start_api()
        wide.through("127.0.0.1", proxy.port)
        writer = await wide.start("writer", metrics_port=str(port)).ready()
        wide.direct()
        for lane in range(LANES):
            await writer.logged("lane_taken", lane=lane)
        await site.many(2)
        assert await _circuit(port) == 0
        with down(wide.services, "postgres"):
            proxy.latency(REFUSED_AFTER_S)
            await writer.logged("database_unavailable")
            await site.many(2, "bert")

            async def open_() -> bool:
                return await _circuit(port) == 2

            await eventually_async(open_, 10, "the metric to say that the circuit is open")
            proxy.attempts = proxy.most_at_once = 0

            async def tried_often() -> bool:
                return proxy.attempts >= 4

            await eventually_async(tried_often, 30, "it to look again and again")
            assert proxy.most_at_once == 1
        proxy.latency(0)
        await writer.logged("database_available")
        assert await _circuit(port) == 0
        await site.prove()
        events = [e["event"] for e in writer.events()]
        assert events.count("database_unavailable") == events.count("database_available") == 1
        assert await wide.value("SELECT count(*) FROM afterwrite.parked") == 0


async def _circuit(port: int) -> float:
    async with httpx2.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{port}/metrics")
    name = 'afterwrite_circuit_state{target="postgresql"} '
    return float(next(n for n in answer.text.splitlines() if n.startswith(name))[len(name) :])


BACKLOG = 20_000
ROUND = 2000
TEXT = "A text that has to wait. " * 100
SPARE_MB = 12
"""A fifth of the backlog: what Kafka's client fetches ahead (4 MiB), one batch read and one in work."""


async def test_the_writers_memory_is_flat_while_a_backlog_grows(
    installation: Installation,
) -> None:
    writer = await installation.start("writer").ready()
    log_id = await installation.value("SELECT log_id FROM afterwrite.lane")
    ada = author("ada")
    records = [sealed(command(ada, *topic_with_post(body=TEXT)), log_id) for _ in range(ROUND)]
    round_mb = sum(len(record.value) for record in records) / 1e6
    async with _fast_producer(installation) as publish:
        # It works at full speed for a while: its memory has then what any batch takes.
        await publish(records)
        await applied(installation, ROUND)
        process = psutil.Process(writer.pid)
        with hung(installation.services, "postgres"):
            before = most = process.memory_info().rss
            for _ in range(BACKLOG // ROUND):
                # The same commands again: to a writer that held them they would be as large as others.
                await publish(records)
                most = max(most, process.memory_info().rss)
            for _ in range(20):  # time to take in what it should not
                await asyncio.sleep(0.1)
                most = max(most, process.memory_info().rss)
    grown_mb, backlog_mb = (most - before) / 1e6, round_mb * BACKLOG / ROUND
    figure("backlog_mb, writer_grew_mb", f"{backlog_mb:.0f}, {grown_mb:.1f}")
    assert backlog_mb > 4 * SPARE_MB
    assert grown_mb < SPARE_MB


@asynccontextmanager
async def _fast_producer(
    installation: Installation,
) -> AsyncIterator[Callable[[list[Record]], Awaitable[None]]]:
    """Publishes to lane 0, many commands in one request."""
    producer = AIOKafkaProducer(
        bootstrap_servers=installation.services.kafka_bootstrap,
        linger_ms=5,
        max_batch_size=500_000,
    )
    topic = f"{installation.name}.commands"

    async def publish(records: list[Record]) -> None:
        for record in records:
            await producer.send(
                topic, record.value, record.key, partition=0, headers=list(record.headers)
            )
        await producer.flush()

    await producer.start()
    try:
        yield publish
    finally:
        await producer.stop()
