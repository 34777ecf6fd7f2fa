"""The servers of the tests themselves: what fault tests rely on when they kill one."""

import asyncio

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from redis.asyncio import Redis

from tests.installation import fresh_name
from tests.services import ServiceName, Services

pytestmark = pytest.mark.integration


def kill_and_restart(services: Services, name: ServiceName) -> None:
    # Blocking, on purpose: an embedded server ends with the thread that started it.
    services.kill(name)
    services.restart(name)


async def test_postgres_comes_back_with_its_data(services: Services) -> None:
    table = fresh_name()
    connection = await asyncpg.connect(services.admin_url)
    await connection.execute(f'CREATE TABLE "{table}" AS SELECT 1 AS i')
    connection.terminate()

    kill_and_restart(services, "postgres")

    connection = await asyncpg.connect(services.admin_url)
    assert await connection.fetchval(f'SELECT i FROM "{table}"') == 1
    await connection.execute(f'DROP TABLE "{table}"')
    await connection.close()


async def test_redis_comes_back_with_its_data(services: Services) -> None:
    key = fresh_name()
    async with Redis.from_url(services.redis_url) as redis:
        await redis.set(key, "kept")

    kill_and_restart(services, "redis")

    async with Redis.from_url(services.redis_url) as redis:
        assert await redis.getdel(key) == b"kept"


@pytest.mark.timeout(150)
async def test_kafka_comes_back_with_its_data(services: Services) -> None:
    topic = fresh_name()
    admin = AIOKafkaAdminClient(bootstrap_servers=services.kafka_bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1)])
    await admin.close()
    producer = AIOKafkaProducer(
        bootstrap_servers=services.kafka_bootstrap, acks="all", enable_idempotence=True
    )
    await producer.start()
    await producer.send_and_wait(topic, b"kept", partition=0)
    await producer.stop()

    kill_and_restart(services, "kafka")

    # A killed broker looks through all of its logs first: at the end of a run it has hundreds.
    consumer = AIOKafkaConsumer(
        bootstrap_servers=services.kafka_bootstrap,
        group_id=None,
        auto_offset_reset="earliest",
        request_timeout_ms=5000,
    )
    await consumer.start()
    lane = TopicPartition(topic, 0)
    consumer.assign([lane])
    assert (await asyncio.wait_for(consumer.getone(), 90)).value == b"kept"
    await consumer.stop()


@pytest.mark.parametrize("name", ["postgres", "redis"])
async def test_a_paused_server_does_not_answer_until_it_is_resumed(
    services: Services, name: ServiceName
) -> None:
    async def ask() -> None:
        if name == "postgres":
            await (await asyncpg.connect(services.admin_url)).close()
        else:
            async with Redis.from_url(services.redis_url) as redis:
                await redis.info()

    services.pause(name)
    asking = asyncio.create_task(ask())
    try:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(asking), 0.3)
    finally:
        services.resume(name)
    await asyncio.wait_for(asking, 20)
