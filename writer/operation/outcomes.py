"""Follows the outcomes topic: what becomes of changes, as it becomes of them. A Kafka adapter."""

import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from schema.fields import render_time
from writer.kafka_errors import stop_client, translated


async def follow(
    bootstrap: str, topic: str, partitions: int, since: datetime | None = None
) -> AsyncIterator[dict[str, Any]]:
    """Messages as they come, each with `told_at`, for ever; with `since`, those since then first.

    Raises `LogUnavailable` when Kafka cannot be read.
    """
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        client_id="afterwrite-tail",
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="latest",
        isolation_level="read_committed",
        request_timeout_ms=10_000,
    )
    places = [TopicPartition(topic, n) for n in range(partitions)]
    try:
        with translated():
            await consumer.start()
            consumer.assign(places)
            await _seek(consumer, places, since)
        while True:
            with translated():
                batches = await consumer.getmany(timeout_ms=1000)
            for records in batches.values():
                for record in records:
                    told = _message(record.value)
                    if told is not None:
                        yield told | {"told_at": _time(record.timestamp)}
    finally:
        await stop_client(consumer)


async def _seek(
    consumer: AIOKafkaConsumer, places: list[TopicPartition], since: datetime | None
) -> None:
    ends = await consumer.end_offsets(places)
    at = {} if since is None else await consumer.offsets_for_times(
        {place: int(since.timestamp() * 1000) for place in places}
    )  # fmt: skip
    for place in places:
        found = at.get(place)
        consumer.seek(place, found.offset if found is not None else ends[place])


def _message(value: bytes | None) -> dict[str, Any] | None:
    try:
        found = json.loads(value or b"")
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _time(timestamp_ms: int) -> str:
    moment = timestamp_ms if timestamp_ms >= 0 else time.time() * 1000
    return render_time(datetime.fromtimestamp(moment / 1000, tz=UTC))
