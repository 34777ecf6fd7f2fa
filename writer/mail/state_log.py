"""The state topic in Kafka: every worker follows all of it, and writes what it does.

No group: who owns a mail partition may change at any moment, and must not have to read first what others
did. What is in the memory is at most a moment old, and `reached` waits for that moment.
"""

import asyncio
import uuid
from collections.abc import Iterable
from datetime import datetime
from typing import Final, Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition

from schema.fields import render_time
from schema.telemetry import Log
from writer.failures import LogUnavailable
from writer.kafka_errors import stop_client, translated
from writer.mail.state import (
    AddressMark,
    MailState,
    Memory,
    address_key,
    address_partition,
    encoded,
    mail_key,
    owner_key,
)
from writer.publisher import Message

_REACH_S: Final = 15.0
_AGAIN_S: Final = 1.0
_POLL_MS: Final = 500


class Publisher(Protocol):
    """Publishes and returns the offsets; `writer.publisher.OutcomePublisher`."""

    async def publish(self, messages: Iterable[Message]) -> list[int | None]: ...


class StateLog:
    """`memory` is complete up to a moment ago once `start` has returned, while `follow` runs."""

    def __init__(
        self, bootstrap: str, topic: str, partitions: int, publisher: Publisher, log: Log
    ) -> None:
        self.memory = Memory()
        self._bootstrap = bootstrap
        self._topic = topic
        self._partitions = [TopicPartition(topic, number) for number in range(partitions)]
        self._publisher = publisher
        self._log = log
        self._consumer: AIOKafkaConsumer | None = None
        self._positions: dict[TopicPartition, int] = {}
        self._moved = asyncio.Event()

    async def start(self) -> None:
        """Read all that is there. Raises `LogUnavailable`."""
        consumer = await self._opened()
        try:
            with translated():
                ends = await consumer.end_offsets(self._partitions)
            while any(self._positions[p] < ends[p] for p in self._partitions):
                await self._read(consumer)
        except BaseException:
            await self.close()
            raise

    async def follow(self) -> None:
        """Read on, for ever; cancel to stop. Raises `LogMismatch` if the topic was made anew."""
        while True:
            try:
                await self._read(self._consumer or await self._opened())
            except LogUnavailable as error:
                self._log.warning(
                    "recovering", what="mail state", error=str(error), wait_s=_AGAIN_S
                )
                await self.close()
                await asyncio.sleep(_AGAIN_S)

    async def reached(self, partition: int, offset: int) -> None:
        """Wait until the memory has this record. Raises `LogUnavailable` after 15 s."""
        tp = TopicPartition(self._topic, partition)
        try:
            async with asyncio.timeout(_REACH_S):
                while self._positions.get(tp, 0) <= offset:
                    moved = self._moved
                    await moved.wait()
        except TimeoutError as error:
            raise LogUnavailable("the state topic could not be read in time") from error

    async def note(self, partition: int, mail_id: uuid.UUID, state: MailState) -> int:
        """Write what became of a mail; returns the offset. Raises `LogUnavailable` or `TimeoutError`.

        The memory has it at once: the next mail may be the same one, queued twice. Only whether a mail may
        be sent is decided by where that stands in the topic: `reached`.
        """
        key, value = mail_key(mail_id), encoded(state.to_json())
        offset = await self._write(partition, key, value)
        if state.state != "sending":
            self.memory.fold(partition, key, value)
        return offset

    async def forget(self, partition: int, mail_ids: list[uuid.UUID]) -> None:
        """Take finished mails out of the topic."""
        await self._publisher.publish(
            [Message(self._topic, mail_key(i), None, partition=partition) for i in mail_ids]
        )

    async def mark(self, address: str, mark: AddressMark | None) -> None:
        """Mark an address as one that refused, or clear its mark; returns when the memory has it."""
        partition = address_partition(address, len(self._partitions))
        value = None if mark is None else encoded(mark.to_json())
        await self.reached(partition, await self._write(partition, address_key(address), value))

    async def own(self, partition: int, worker: str, now: datetime) -> None:
        """From now on the partition is this worker's; what was done with it before is in the memory."""
        value = encoded({"worker": worker, "at": render_time(now)})
        await self.reached(partition, await self._write(partition, owner_key(partition), value))

    async def close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await stop_client(consumer)

    async def _write(self, partition: int, key: bytes, value: bytes | None) -> int:
        message = Message(self._topic, key, value, partition=partition)
        offset = (await self._publisher.publish([message]))[0]
        if offset is None:
            raise LogUnavailable("where the record stands is not known")
        return offset

    async def _opened(self) -> AIOKafkaConsumer:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            client_id=f"afterwrite-mail-state-{uuid.uuid4().hex[:8]}",
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            request_timeout_ms=10_000,
            fetch_max_wait_ms=250,
        )
        try:
            with translated():
                await consumer.start()
                consumer.assign(self._partitions)
                begins = await consumer.beginning_offsets(self._partitions)
            for partition, begin in begins.items():
                at = max(self._positions.get(partition, begin), begin)
                self._positions[partition] = at
                consumer.seek(partition, at)
        except BaseException:
            await stop_client(consumer)
            raise
        self._consumer = consumer
        return consumer

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        with translated():
            batches = await consumer.getmany(timeout_ms=_POLL_MS)
        for tp, records in batches.items():
            for record in records:
                self.memory.fold(tp.partition, record.key, record.value)
            if records:
                self._positions[tp] = records[-1].offset + 1
        if batches:
            moved, self._moved = self._moved, asyncio.Event()
            moved.set()
