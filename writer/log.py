"""The log: one lane of the command topic, read from a position on. The only Kafka consumer here.

No consumer group: the position is PostgreSQL's. Listeners of a group swallow errors, and a member
without a partition can get stuck; `assign` and `seek` do neither.
"""

import asyncio
import uuid
from collections.abc import Sequence

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from schema.envelope import Keyring
from writer.failures import Halt, LogMismatch, LogUnavailable
from writer.kafka_errors import stop_client, translated
from writer.record import LaneRecord, read_record

_READ_MS = 10_000
_ANSWER_BYTES = 4 * 1024 * 1024
"""So much Kafka answers at once, and one record at least. A batch that has as much is not filled further."""
_FILL_MS = 100
"""So long a batch waits for what is in the log already: it comes at once, unless Kafka has just gone away."""
_AT_A_TIME = 50
"""So many records are decoded, in 0.7 ms, before PostgreSQL's answer to the batch in work is looked for.
What it does meanwhile is decoding's time: the next batch is ready when the present one is committed."""


class Log:
    """Records of one lane, in order. Made by `open_log`, closed by `close`."""

    def __init__(self, consumer: AIOKafkaConsumer, partition: TopicPartition, keyring: Keyring):
        self._consumer = consumer
        self._partition = partition
        self._keyring = keyring

    async def fetch(self, most: int, timeout_s: float) -> list[LaneRecord]:
        """The next records, at most `most`; empty when none came within the time.

        Raises `Halt` for a command of a newer version or a position that is not in the log any
        more, `LogUnavailable` while Kafka cannot be read.
        """
        records: list[LaneRecord] = []
        while not records or self._may_be_filled(records):
            with translated():
                batches = await self._consumer.getmany(
                    self._partition,
                    timeout_ms=int(timeout_s * 1000) if not records else _FILL_MS,
                    max_records=most - len(records),
                )
            found = batches.get(self._partition, ())
            if not found or not await self._decode(found, records) or len(records) >= most:
                break
        return records

    def _may_be_filled(self, records: Sequence[LaneRecord]) -> bool:
        """Whether the lane was longer when it was last asked, and the batch is small enough to go on.

        A batch may lie in two answers of Kafka.
        """
        more = records[-1].offset + 1 < (self.end() or 0)
        return more and sum(len(r.value or b"") for r in records) < _ANSWER_BYTES

    async def _decode(self, found: Sequence[ConsumerRecord], into: list[LaneRecord]) -> bool:
        """Decode records; False when one cannot be read here, which is left to the next fetch."""
        for at in range(0, len(found), _AT_A_TIME):
            if at:
                await asyncio.sleep(0)
            for r in found[at : at + _AT_A_TIME]:
                try:
                    into.append(self._read(r))
                except Halt:
                    if not into:
                        raise
                    self._consumer.seek(self._partition, r.offset)  # what is before it is applied
                    return False
        return True

    def _read(self, r: ConsumerRecord) -> LaneRecord:
        lane = self._partition.partition
        return read_record(lane, r.offset, r.timestamp, r.key, r.value, r.headers, self._keyring)

    def end(self) -> int | None:
        """The end of the lane as the last fetch told it."""
        end: int | None = self._consumer.highwater(self._partition)
        return end

    async def close(self) -> None:
        await stop_client(self._consumer)


async def open_log(
    bootstrap: str,
    topic: str,
    lane: int,
    position: int,
    applied: uuid.UUID | None,
    keyring: Keyring,
) -> tuple[Log, int]:
    """The log of a lane at a position, and its end.

    `applied` is the command that the ledger has just before the position, if it has one. Raises
    `LogMismatch` when the position lies outside the log, or another command stands there: then the
    log was made anew, and going on would skip what is in it.
    """
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        client_id=f"afterwrite-writer-{uuid.uuid4().hex[:8]}",
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        check_crcs=True,
        request_timeout_ms=10_000,
        max_partition_fetch_bytes=_ANSWER_BYTES,
        fetch_max_wait_ms=250,
    )
    partition = TopicPartition(topic, lane)
    try:
        with translated():
            await consumer.start()
            consumer.assign([partition])
            begin = (await consumer.beginning_offsets([partition]))[partition]
            end = (await consumer.end_offsets([partition]))[partition]
            _check(lane, position, begin, end)
            if applied is not None and position > begin:
                await _check_continues(consumer, partition, position, applied)
        consumer.seek(partition, position)
    except BaseException:
        await stop_client(consumer)
        raise
    return Log(consumer, partition, keyring), end


def _check(lane: int, position: int, begin: int, end: int) -> None:
    if position < begin:
        raise LogMismatch(
            f"lane {lane}: commands from {position} to {begin - 1} were deleted before they were applied"
        )
    if position > end:
        raise LogMismatch(
            f"lane {lane}: the position is {position}, the log ends at {end}: it was lost or made anew"
        )


async def _check_continues(
    consumer: AIOKafkaConsumer, partition: TopicPartition, position: int, applied: uuid.UUID
) -> None:
    consumer.seek(partition, position - 1)
    batches = await consumer.getmany(partition, timeout_ms=_READ_MS, max_records=1)
    for record in batches.get(partition, ()):
        found = dict(record.headers).get("ce_id")
        if record.offset == position - 1 and found == str(applied).encode():
            return
        raise LogMismatch(
            f"lane {partition.partition}: offset {position - 1} was command {applied} when it was "
            f"applied, now offset {record.offset} is {found!r}: the log was made anew"
        )
    raise LogUnavailable(f"offset {position - 1} could not be read")
