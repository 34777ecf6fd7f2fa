"""The alerts of the last week, read from the alerts topic: for `afterwrite alerts list`."""

import asyncio
import json
from collections import deque
from collections.abc import Iterable
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from schema.alerts import Alert
from writer.kafka_errors import stop_client, translated

_ALL_S: Final = 20.0
_QUIET_MS: Final = 500


async def recent_alerts(bootstrap: str, topic: str, most: int) -> list[Alert]:
    """The last alerts, at most `most`, the oldest first. What is no alert is left out.

    Raises `LogUnavailable` when Kafka cannot be read, TimeoutError when that takes too long.
    """
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        request_timeout_ms=5000,
    )
    found: deque[Alert] = deque(maxlen=most)
    try:
        async with asyncio.timeout(_ALL_S):
            with translated():
                await consumer.start()
                partition = TopicPartition(topic, 0)
                consumer.assign([partition])
                await consumer.seek_to_beginning(partition)
                end = (await consumer.end_offsets([partition]))[partition]
                quiet = 0
                # The last offset may be a transaction's mark, which is never handed out.
                while quiet < 2 and await consumer.position(partition) < end:
                    batch = await consumer.getmany(partition, timeout_ms=_QUIET_MS)
                    records = batch.get(partition, [])
                    quiet = 0 if records else quiet + 1
                    found.extend(_alerts(record.value for record in records))
    finally:
        await stop_client(consumer)
    return list(found)


def open_incidents(alerts: Iterable[Alert]) -> list[Alert]:
    """The latest alert of each incident that has not been closed, in the order they were told."""
    latest: dict[str, Alert] = {}
    for alert in alerts:
        if alert.phase in ("opened", "reminder"):
            latest[alert.incident] = alert
        elif alert.phase == "closed":
            latest.pop(alert.incident, None)
    return list(latest.values())


def _alerts(values: Iterable[bytes | None]) -> list[Alert]:
    found = []
    for value in values:
        try:
            found.append(Alert.from_json(json.loads(value or b"")))
        except (ValueError, KeyError, TypeError):
            continue
    return found
