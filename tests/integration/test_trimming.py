"""What is deleted from the log, on a real Kafka: what is applied, settled and old, but for the last."""

import asyncio
import time

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from schema.telemetry import Log
from tests.installation import Installation
from writer.metrics import Metrics
from writer.trimming import KEPT, Trimmer

pytestmark = [pytest.mark.integration, pytest.mark.once]

AT_ONCE_S = -3600.0
"""A window that ends in the future: everything is old."""


def _trimmer(
    installation: Installation, window_s: float = AT_ONCE_S, grace_s: float = AT_ONCE_S
) -> Trimmer:
    return Trimmer(
        installation.services.kafka_bootstrap,
        f"{installation.name}.commands",
        window_s,
        grace_s,
        Metrics(),
        Log("test"),
    )


async def _fill(installation: Installation, count: int) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=installation.services.kafka_bootstrap, linger_ms=5
    )
    await producer.start()
    try:
        for n in range(count):
            await producer.send(f"{installation.name}.commands", str(n).encode(), partition=0)
        await producer.flush()
    finally:
        await producer.stop()


async def _begin(installation: Installation) -> int:
    place = TopicPartition(f"{installation.name}.commands", 0)
    consumer = AIOKafkaConsumer(bootstrap_servers=installation.services.kafka_bootstrap)
    await consumer.start()
    try:
        begin: int = (await consumer.beginning_offsets([place]))[place]
        return begin
    finally:
        await consumer.stop()


async def test_nothing_is_deleted_at_or_beyond_what_is_applied(installation: Installation) -> None:
    await _fill(installation, 500)
    trimmer = _trimmer(installation)
    for applied, left in ((0, 0), (KEPT, 0), (KEPT + 30, 30), (KEPT + 30, 30), (450, 350)):
        assert await trimmer.trim(0, applied) == left
        assert await _begin(installation) == left
    assert await trimmer.trim(0, 10) == 350  # a zombie, far behind
    assert trimmer.metrics.begin.labels(0)._value.get() == 350


async def test_the_younger_of_window_and_grace_stays_by_the_brokers_time(
    installation: Installation,
) -> None:
    await _fill(installation, 200)
    await asyncio.sleep(0.1)
    between = time.time()
    await asyncio.sleep(0.1)
    await _fill(installation, 200)

    def ago() -> float:
        return time.time() - between

    assert await _trimmer(installation, 3600, 0).trim(0, 400) == 0
    assert await _trimmer(installation, 0, 3600).trim(0, 400) == 0
    assert await _trimmer(installation, ago(), AT_ONCE_S).trim(0, 250) == 150
    assert await _trimmer(installation, AT_ONCE_S, ago()).trim(0, 400) == 200
    assert await _trimmer(installation).trim(0, 400) == 300


async def test_without_kafka_it_fails_in_time(installation: Installation) -> None:
    trimmer = _trimmer(installation)
    away = Trimmer("127.0.0.1:1", trimmer.topic, 0, 0, trimmer.metrics, trimmer.log)
    with pytest.raises(Exception, match="bootstrap"):
        await away.trim(0, 1000)
