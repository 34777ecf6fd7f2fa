"""Looks for one command in what the log has beyond the positions. A Kafka adapter."""

import asyncio
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from writer.kafka_errors import stop_client, translated

_ALL_S: Final = 20.0
MOST: Final = 200_000
"""Records of one lane that are looked at."""


@dataclass(frozen=True)
class Found:
    """A command that waits in the log, and how many are before it."""

    lane: int
    offset: int
    appended_at: datetime
    before: int

    def to_json(self) -> dict[str, Any]:
        return {"lane": self.lane, "offset": self.offset, "before": self.before}


async def search(
    bootstrap: str, topic: str, positions: Mapping[int, int], command_id: uuid.UUID
) -> Found | None:
    """The place of a command that is not decided yet, None if it is not there.

    Raises `LogUnavailable` or TimeoutError.
    """
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        client_id="afterwrite-search",
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        request_timeout_ms=10_000,
    )
    try:
        async with asyncio.timeout(_ALL_S):
            with translated():
                await consumer.start()
                for lane, position in positions.items():
                    place = TopicPartition(topic, lane)
                    found = await _in_lane(consumer, place, position, str(command_id).encode())
                    if found is not None:
                        return found
    finally:
        await stop_client(consumer)
    return None


async def _in_lane(
    consumer: AIOKafkaConsumer, place: TopicPartition, position: int, wanted: bytes
) -> Found | None:
    consumer.assign([place])
    end = min((await consumer.end_offsets([place]))[place], position + MOST)
    consumer.seek(place, position)
    first = position
    while position < end:
        for record in (await consumer.getmany(place, timeout_ms=1000)).get(place, ()):
            if dict(record.headers).get("ce_id") == wanted:
                at = datetime.fromtimestamp(record.timestamp / 1000, tz=UTC)
                return Found(place.partition, record.offset, at, record.offset - first)
        position = await consumer.position(place)
    return None
