"""Publishes what became of commands: the outcomes topic, and the mirror of the dead letters."""

import asyncio
import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaProducer

from schema.envelope import headers_from_json
from schema.fields import render_time
from schema.outcomes import Outcome
from writer.kafka_errors import stop_client, translated

_TIMEOUT_S = 10.0
_SHOWN = ("type", "id", "op", "version")


@dataclass(frozen=True)
class Message:
    """One message to publish."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    partition: int | None = None


class OutcomePublisher:
    """Kafka adapter. Publishing is at least once: readers know repetitions by (lane, seq)."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._producer: AIOKafkaProducer | None = None

    async def publish(self, messages: Iterable[Message]) -> list[int | None]:
        """Publish and wait until all are confirmed; returns the offset of each, None where the broker
        does not tell it any more. After an error the producer is made anew.

        Raises `LogUnavailable` or `TimeoutError`.
        """
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                with translated():
                    return await self._publish(messages)
        except BaseException:
            await self.close()
            raise

    async def _publish(self, messages: Iterable[Message]) -> list[int | None]:
        producer = await self._started()
        futures = [
            await producer.send(
                m.topic,
                key=m.key,
                value=m.value,
                headers=list(m.headers),
                partition=m.partition,
            )
            for m in messages
        ]
        confirmed = await asyncio.gather(*futures)
        # Of a batch that was written before, when only the answer was lost, the place is not told.
        return [record.offset if record.offset >= 0 else None for record in confirmed]

    async def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is None:
            return
        await stop_client(producer)

    async def _started(self) -> AIOKafkaProducer:
        if self._producer is None:
            producer = AIOKafkaProducer(
                bootstrap_servers=self._bootstrap,
                client_id="afterwrite-writer",
                acks="all",
                enable_idempotence=True,
                request_timeout_ms=5000,
                max_request_size=1_048_576,
                linger_ms=2,
            )
            try:
                await producer.start()
            except BaseException:
                await stop_client(producer)
                raise
            self._producer = producer
        return self._producer


def outcome_message(topic: str, lane: int, row: Mapping[str, Any]) -> Message:
    """The outcome of one ledger row. Key: the author, so that one author's outcomes stay in order.

    `rows` is what the command did, as the ledger has it; of a rejected one that is its notice.
    """
    author: uuid.UUID | None = row["author_id"]
    effects = json.loads(row["effects"])
    rejected = row["outcome"] == Outcome.REJECTED
    value = {
        "command_id": str(row["command_id"]),
        "author_id": str(author),
        "outcome": row["outcome"],
        "lane": lane,
        "offset": row["offset"],
        "seq": row["seq"],
        "rows": [{name: e.get(name) for name in _SHOWN} for e in effects],
        "notice": effects[-1]["id"] if rejected and effects else None,
        "problem": json.loads(row["problem"]) if row["problem"] else None,
        "duplicate_of": str(row["duplicate_of"]) if row["duplicate_of"] else None,
    }
    return Message(topic, str(author).encode(), json.dumps(value).encode())


def dead_letter_message(
    topic: str, source: str, lane: int, row: Mapping[str, Any], group: str | None = None
) -> Message:
    """The mirror of a dead letter: key, value and headers byte for byte, then what was wrong, under the
    names by which Kafka Connect's and Spring's tools find it, and under our own.

    `group` is where lag tools see the writer. Of Spring's numbers, readers expect big-endian bytes.
    """
    headers = [(name, b) for name, b in headers_from_json(row["headers"]) if b is not None]
    undecodable = row["command_id"] is None
    fault = f"org.afterwrite.{row['code'].title().replace('_', '')}"
    told: dict[str, object] = {
        "__connect.errors.topic": source,
        "__connect.errors.partition": lane,
        "__connect.errors.offset": row["offset"],
        "__connect.errors.connector.name": "afterwrite-writer",
        "__connect.errors.task.id": lane,
        "__connect.errors.stage": "VALUE_CONVERTER" if undecodable else "TASK_PUT",
        "__connect.errors.exception.class.name": fault,
        "__connect.errors.exception.message": row["detail"],
        "kafka_dlt-original-topic": source,
        "kafka_dlt-original-partition": lane.to_bytes(4, "big"),
        "kafka_dlt-original-offset": row["offset"].to_bytes(8, "big"),
        "kafka_dlt-original-consumer-group": group,
        "kafka_dlt-exception-fqcn": fault,
        "kafka_dlt-exception-message": row["detail"],
        "afterwrite-dlq-id": f"{lane}:{row['offset']}",
        "afterwrite-dlq-code": row["code"],
        "afterwrite-dlq-sqlstate": row["sqlstate"],
        "afterwrite-dlq-constraint": row["constraint_name"],
        "afterwrite-dlq-attempts": row["attempts"],
        "afterwrite-dlq-first-failed-at": render_time(row["first_died_at"]),
        "afterwrite-dlq-last-failed-at": render_time(row["died_at"]),
        "afterwrite-dlq-replay-of": row["replay_of"],
    }
    headers += [
        (name, value if isinstance(value, bytes) else str(value).encode())
        for name, value in told.items()
        if value is not None
    ]
    return Message(topic, row["key"], row["value"], tuple(headers))
