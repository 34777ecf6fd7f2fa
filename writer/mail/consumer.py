"""The mail topic, as one of a group of workers. The group gives partitions out, and keeps offsets; that
is all it is used for.

The client's group has traps: what a listener raises is swallowed; a member that does not poll for too
long may never get in again; a batch may come out while partitions are being given away. So the listener
only notes what happened; polling never stops while a worker lives (partitions are paused instead); the
client's own limit on pauses between polls is switched off (`watch` has ours); and whoever has got
partitions begins with them at the committed offset, whatever had been fetched before.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition

from writer.failures import LogUnavailable
from writer.kafka_errors import stop_client, translated
from writer.mail.window import MailRecord

REBALANCE_S: Final = 60.0
_SESSION_MS: Final = 6000
_DAY_MS: Final = 86_400_000
_COMMIT_S: Final = 5.0
_ANSWER_S: Final = 15.0


@dataclass(frozen=True)
class Given:
    """The group has given partitions out anew; `generation` counts how often that was."""

    partitions: frozenset[int]
    generation: int


class MailConsumer(ConsumerRebalanceListener):  # type: ignore[misc] # the client is not typed
    """`given` is what is to be taken over, `None` when that was done. Use by one task."""

    def __init__(
        self, bootstrap: str, topic: str, group: str, on_taken: Callable[[], Awaitable[None]]
    ) -> None:
        """`on_taken` is awaited before partitions are given away; it finishes what is in work."""
        self.client_id = f"afterwrite-mail-{uuid.uuid4().hex[:12]}"
        self.given: Given | None = None
        self.broken: Exception | None = None
        self._topic = topic
        self._on_taken = on_taken
        self._generation = 0
        self._having = False
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap,
            client_id=self.client_id,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            session_timeout_ms=_SESSION_MS,
            heartbeat_interval_ms=1000,
            rebalance_timeout_ms=int(REBALANCE_S * 1000),
            max_poll_interval_ms=_DAY_MS,
            request_timeout_ms=10_000,
            fetch_max_wait_ms=250,
            max_partition_fetch_bytes=1024 * 1024,
        )

    async def start(self) -> None:
        """Join the group; returns when it has given partitions out. Raises `LogUnavailable`."""
        self._consumer.subscribe([self._topic], listener=self)
        with translated():
            await self._consumer.start()

    async def close(self) -> None:
        """Leave the group, so that the others need not wait for us."""
        await stop_client(self._consumer)

    # -- called by the client, which swallows what is raised here --------------------------

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        self._generation += 1
        self._having, self.given = False, None
        try:
            await self._on_taken()
        except Exception as error:  # noqa: BLE001 (nobody else would hear of it)
            self.broken = error

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self._generation += 1
        self.given = Given(frozenset(tp.partition for tp in assigned), self._generation)

    # -- called by the worker ----------------------------------------------------------------

    async def poll(self, timeout_s: float) -> list[MailRecord]:
        """The next records of the partitions we have; nothing while they are being given out.

        Raises `LogUnavailable` while Kafka cannot be read.
        """
        with translated():
            batches = await self._consumer.getmany(
                timeout_ms=int(timeout_s * 1000), max_records=500
            )
        if not self._having:
            return []  # read again, from the committed offset, by whoever gets the partition
        return [_record(record) for records in batches.values() for record in records]

    async def begin(self, given: Given) -> dict[int, int]:
        """Go to the committed offsets of these partitions; returns them.

        Raises `LogUnavailable` or `TimeoutError`.
        """
        tps = [TopicPartition(self._topic, number) for number in given.partitions]
        positions: dict[int, int] = {}
        async with asyncio.timeout(_ANSWER_S):
            with translated():
                begins = await self._consumer.beginning_offsets(tps) if tps else {}
                for tp in tps:
                    committed = await self._consumer.committed(tp)
                    positions[tp.partition] = max(begins[tp], committed or 0)
        if given.generation != self._generation:
            raise LogUnavailable("partitions were given out anew in the meantime")
        for tp in tps:
            try:
                self._consumer.seek(tp, positions[tp.partition])
                self._consumer.resume(tp)
            except Exception as error:
                raise LogUnavailable(f"not ours any more: {error!r}") from error
        self._having, self.given = True, None
        return positions

    def pause(self, partition: int, *, paused: bool) -> None:
        """Fetch no more of a partition, or again."""
        tp = TopicPartition(self._topic, partition)
        if tp in self._consumer.assignment() and paused != (tp in self._consumer.paused()):
            (self._consumer.pause if paused else self._consumer.resume)(tp)

    async def commit(self, offsets: dict[int, int]) -> None:
        """Raises `LogUnavailable`, also when the group has gone on without us."""
        if not offsets:
            return
        named = {TopicPartition(self._topic, number): at for number, at in offsets.items()}
        try:
            async with asyncio.timeout(_COMMIT_S):
                with translated():
                    await self._consumer.commit(named)
        except TimeoutError as error:
            raise LogUnavailable("no answer to a commit") from error


def _record(record: Any) -> MailRecord:
    return MailRecord(
        record.partition, record.offset, record.key, record.value, tuple(record.headers or ())
    )
