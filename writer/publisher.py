"""Publishes what became of commands: the outcomes topic, and the mirror of the dead letters."""

import asyncio
import json
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.producer.message_accumulator import BatchBuilder

from schema.envelope import headers_from_json
from schema.fields import render_time
from schema.outcomes import Outcome
from writer.kafka_errors import stop_client, translated

_TIMEOUT_S = 10.0
_MANY = 16
_BATCH_BYTES = 262_144
"""Of one request to one partition: a quarter of what the topics allow."""
_PARTITIONER = DefaultPartitioner()
_SHOWN = ("type", "id", "op", "version")


class Message(NamedTuple):
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
        messages = list(messages)
        if len(messages) >= _MANY and all(m.key is not None for m in messages):
            return await self._publish_many(producer, messages)
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

    async def _publish_many(
        self, producer: AIOKafkaProducer, messages: Sequence[Message]
    ) -> list[int | None]:
        """Publish as few large batches, filled here: sent one by one, each message costs a future."""
        topics = {m.topic for m in messages}
        partitions = {topic: sorted(await producer.partitions_for(topic)) for topic in topics}
        by_partition: dict[tuple[str, int], list[int]] = defaultdict(list)
        for at, message in enumerate(messages):
            place = message.partition
            if place is None:
                place = _partition_of(message.key, tuple(partitions[message.topic]))
            by_partition[message.topic, place].append(at)
        sent: list[tuple[list[int], asyncio.Future[Any]]] = []
        for (topic, partition), places in by_partition.items():
            while places:
                batch = producer.create_batch()
                taken = _fill(batch, (messages[at] for at in places))
                batch.close()
                future = await producer.send_batch(batch, topic, partition=partition)
                sent.append((places[:taken], future))
                places = places[taken:]
        offsets: list[int | None] = [None] * len(messages)
        for places, future in sent:
            first = (await future).offset
            for number, at in enumerate(places):
                offsets[at] = first + number if first >= 0 else None
        return offsets

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
                linger_ms=0,  # who waits to be told waits for it; many are sent as batches
                max_batch_size=_BATCH_BYTES,
            )
            try:
                await producer.start()
            except BaseException:
                await stop_client(producer)
                raise
            self._producer = producer
        return self._producer


@lru_cache(maxsize=10_000)
def _partition_of(key: bytes, partitions: tuple[int, ...]) -> int:
    """Where a key belongs: as the client itself would put it."""
    return int(_PARTITIONER(key, list(partitions), list(partitions)))


def _fill(batch: BatchBuilder, messages: Iterable[Message]) -> int:
    """Put messages into a batch until it is full; returns how many it has taken, one at least."""
    taken = 0
    for message in messages:
        if (
            batch.append(
                timestamp=None, key=message.key, value=message.value, headers=list(message.headers)
            )
            is None
        ):
            break
        taken += 1
    return taken


class Told(NamedTuple):
    """What is told of a ledger row. `effects` are its effects as shown, a JSON list; `problem` is a
    JSON object; `types` are the content types that it touched; `notice` is the message of a rejection.
    """

    seq: int
    offset: int
    outcome: str
    command_id: uuid.UUID | None
    author_id: uuid.UUID | None
    problem: str | None
    duplicate_of: uuid.UUID | None
    effects: str
    types: tuple[str, ...]
    notice: str | None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Told":
        """From a row as the ledger has it."""
        effects = json.loads(row["effects"])
        rejected = row["outcome"] == Outcome.REJECTED
        return cls(
            row["seq"],
            row["offset"],
            row["outcome"],
            row["command_id"],
            row["author_id"],
            row["problem"],
            row["duplicate_of"],
            json.dumps([{name: e.get(name) for name in _SHOWN} for e in effects]),
            tuple(e.get("type") for e in effects),
            effects[-1]["id"] if rejected and effects else None,
        )


def outcome_message(topic: str, lane: int, told: Told) -> Message:
    """The outcome of one ledger row. Key: the author, so that one author's outcomes stay in order.

    Put together as text: nothing in it but the JSON it was given needs escaping.
    """
    author = str(told.author_id)
    notice = f'"{told.notice}"' if told.notice else "null"
    duplicate_of = f'"{told.duplicate_of}"' if told.duplicate_of else "null"
    value = (
        f'{{"command_id": "{told.command_id}", "author_id": "{author}", '
        f'"outcome": "{told.outcome}", "lane": {lane}, "offset": {told.offset}, '
        f'"seq": {told.seq}, "rows": {told.effects}, "notice": {notice}, '
        f'"problem": {told.problem or "null"}, "duplicate_of": {duplicate_of}}}'
    )
    return Message(topic, author.encode(), value.encode())


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
