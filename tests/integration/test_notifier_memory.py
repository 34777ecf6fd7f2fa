"""The notifier's memory on a real Kafka: what is remembered is there for the next one, and one leads."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from schema.telemetry import Log
from tests.installation import Installation, eventually
from writer.notifier.memory import Memory, Role

# No version of PostgreSQL or Redis matters.
pytestmark = [pytest.mark.integration, pytest.mark.once]


@pytest.fixture(autouse=True)
async def told_now() -> AsyncIterator[None]:
    """A fenced client leaves an error that nobody asks for. It is told of here, and not when the garbage
    is collected by chance: within a compilation that confuses Python 3.11 (python/cpython#106905)."""
    yield
    gc.collect()


@asynccontextmanager
async def memory(
    installation: Installation, owner: str, *, silent_s: float = 3.0
) -> AsyncIterator[Memory]:
    made = Memory(
        installation.services.kafka_bootstrap,
        f"{installation.name}.notices",
        f"{installation.name}.notifier",
        Log("test"),
        owner=f"machine||{owner}|0",
        silent_s=silent_s,
    )
    made.start()
    try:
        yield made
    finally:
        await made.close()


async def leads(of: Memory, timeout: float = 20) -> None:
    await eventually(lambda: of.leading and of.reachable, timeout, f"{of.owner} to lead")


async def test_what_is_remembered_is_there_for_the_next_one(installation: Installation) -> None:
    async with memory(installation, "1") as first:
        await leads(first)
        first.put({"told:0:ada": {"n": 1}, "told:0:bob": {"n": 2}})
        assert await first.written(5)
        first.put({"told:0:ada": None, "told:0:cem": {"n": 3}})
        assert await first.written(5)
    async with memory(installation, "2") as second:
        await leads(second, 10)  # the first one gave way: nobody waits for its silence
        assert second.below("told:") == {"told:0:bob": {"n": 2}, "told:0:cem": {"n": 3}}


async def test_one_leads_the_other_stands_by_and_takes_over_when_it_is_silent(
    installation: Installation,
) -> None:
    async with memory(installation, "1", silent_s=30) as first:
        await leads(first)
        async with memory(installation, "2", silent_s=30) as second:
            await eventually(lambda: second.role is Role.STANDBY, 15, "the second to stand by")
            assert (first.leading, first.generation, second.generation) == (True, 1, 0)
            second.put({"told:0:ada": {"from": "the standby"}})
            assert second.values == {}  # what it thinks is nothing
            first.put({"told:0:ada": {"n": 1}})
            assert await first.written(5)
            second.silent_s = 0.5  # shorter than the heartbeat: as if the first one were silent
            await leads(second)
            second.silent_s = 30
            assert second.recall("told:0:ada") == {"n": 1}
            # The first one is fenced: nothing that it writes from now on counts.
            first.put({"told:0:ada": {"n": 2}, "told:0:bob": {"n": 2}})
            await eventually(lambda: first.role is Role.STANDBY, 15, "the first to stand by")
            assert first.values == {}
            assert second.leading
            second.put({"told:0:cem": {"n": 3}})
            assert await second.written(5)
    async with memory(installation, "3", silent_s=0.5) as third:
        await leads(third)
        assert third.below("told:") == {"told:0:ada": {"n": 1}, "told:0:cem": {"n": 3}}


async def test_while_kafka_hangs_a_leader_stays_one_and_writes_it_down_later(
    installation: Installation,
) -> None:
    async with memory(installation, "1", silent_s=2) as first:
        await leads(first)
        installation.services.pause("kafka")
        try:
            first.put({"incident:database_down": {"n": 1}})
            assert not await first.written(0.5)
            await eventually(lambda: not first.reachable, 30, "the memory to be out of reach")
            assert first.leading
            first.put({"incident:redis_down": {"n": 2}})
        finally:
            installation.services.resume("kafka")
        assert await asyncio.wait_for(_written(first), 40)
    async with memory(installation, "2", silent_s=2) as second:
        await leads(second)
        assert set(second.below("incident:")) == {"incident:database_down", "incident:redis_down"}


async def _written(of: Memory) -> bool:
    await eventually(lambda: of.reachable, 30, "Kafka to be back")
    return await of.written(10)
