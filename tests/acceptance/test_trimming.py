"""The log is trimmed behind what is applied, and never in front of it; what reads it goes on working."""

import time

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from redis.asyncio import Redis

from tests.acceptance.helpers import Site, hung
from tests.installation import Installation, eventually_async
from writer.trimming import KEPT

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(120)]

EAGER_S = 10
EAGER = {"trim_window_s": "0", "settled_grace_s": str(EAGER_S)}
"""As soon as a rebuild does not read it again; a writer looks each second then."""


async def test_with_nothing_to_keep_what_is_not_applied_is_kept_all_the_same(
    installation: Installation,
) -> None:
    async with Site(installation) as site:
        writer = await installation.start("writer", **EAGER).ready()
        await site.start_api(settled_grace_s="10")
        await site.many(KEPT + 5)
        await site.drained()
        with hung(installation.services, "postgres"):
            pending = await site.many(KEPT + 20, "bert")
            await writer.logged("log_trimmed", 40, begin=5)
            await _older_than(installation, EAGER_S + 1)
            assert await _bounds(installation) == (5, 2 * KEPT + 25)
            await _forget_redis(installation)

            async def shown_again() -> bool:
                one = await site.ask("bert", "GET", f"/v1/posts/{pending[-1].post}")
                return one.status_code == 200 and bool(one.json()["state"] == "pending")

            await eventually_async(shown_again, 30, "the overlay to be made again from the log")
        await writer.logged("log_trimmed", 40, begin=KEPT + 25)
        await _forget_redis(installation)
        await site.prove()
        assert writer.terminate() == 0
        again = await installation.start("writer", "again", **EAGER).ready()
        await again.logged("lane_taken", position=2 * KEPT + 25)
        await site.accepted("ada", "After all that")
        await site.drained()


async def _forget_redis(installation: Installation) -> None:
    async with Redis.from_url(installation.services.redis_url) as redis:
        await redis.flushall()


async def _older_than(installation: Installation, seconds: float) -> None:
    """Wait until everything in the log is so old, by the broker's time."""
    place = TopicPartition(f"{installation.name}.commands", 0)
    consumer = AIOKafkaConsumer(bootstrap_servers=installation.services.kafka_bootstrap)
    await consumer.start()
    try:

        async def all_old() -> bool:
            since = {place: int((time.time() - seconds) * 1000)}
            return (await consumer.offsets_for_times(since))[place] is None

        await eventually_async(all_old, 30, "the log to grow old")
    finally:
        await consumer.stop()


async def _bounds(installation: Installation) -> tuple[int, int]:
    place = TopicPartition(f"{installation.name}.commands", 0)
    consumer = AIOKafkaConsumer(bootstrap_servers=installation.services.kafka_bootstrap)
    await consumer.start()
    try:
        begin = (await consumer.beginning_offsets([place]))[place]
        end = (await consumer.end_offsets([place]))[place]
        return begin, end
    finally:
        await consumer.stop()
