"""What waits in the log: each lane that stands still, or is slow, is read from its position on.

A lane whose writer keeps up is not read at all: nobody in it waits long enough to be told.
"""

import asyncio
import contextlib
import time
import uuid
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from schema.commands import Command
from schema.envelope import EnvelopeError, Keyring, open_record
from schema.telemetry import Log
from writer.kafka_errors import given_time, stop_client, translated
from writer.notifier.observing import EVERY_S, Watch
from writer.notifier.waiting import LaneWaiting

_LIMIT_S: Final = 3.0
_PORTION: Final = 500
_BUDGET_S: Final = 1.0


@dataclass
class Ends:
    """Where a lane ended in the last moments: behind the position then is what waits since."""

    patience_s: float
    _seen: "deque[tuple[float, int]]" = field(default_factory=deque)

    def note(self, at_s: float, end: int) -> None:
        self._seen.append((at_s, end))
        while len(self._seen) > 1 and self._seen[1][0] <= at_s - self.patience_s:
            self._seen.popleft()

    def slow(self, position: int) -> bool:
        """Whether something at or behind the position is there for longer than our patience.

        What was there when we first looked may be there for any time.
        """
        return bool(self._seen) and position < self._seen[0][1]

    @property
    def now(self) -> int | None:
        return self._seen[-1][1] if self._seen else None


class LogReader:
    """Kafka adapter. `position` is told by `moved`; without it a lane is not read."""

    def __init__(
        self, bootstrap: str, topic: str, lanes: int, group: str, keyring: Keyring,
        patience_s: float, log: Log,
    ) -> None:  # fmt: skip
        self._bootstrap = bootstrap
        self._places = [TopicPartition(topic, lane) for lane in range(lanes)]
        self._group = group
        self._keyring = keyring
        self._log = log
        self._consumer: AIOKafkaConsumer | None = None
        self._reading: frozenset[int] = frozenset()
        self._hinted_at = 0.0
        self._ends = {lane: Ends(patience_s) for lane in range(lanes)}
        self.watch = Watch(self._look, "log", log)
        self.positions: dict[int, int] = {}
        self.hints: dict[int, int] = {}
        self.waiting: dict[int, LaneWaiting] = {}
        self.log_id: uuid.UUID | None = None
        self.wants_hints = True
        """Whether the positions that writers show to lag tools are needed."""

    async def close(self) -> None:
        await self.watch.close()
        await self._drop()

    def moved(self, positions: Mapping[int, int]) -> None:
        """Lanes are decided up to these positions."""
        for lane, position in positions.items():
            if position < self.positions.get(lane, 0):
                self.waiting.pop(lane, None)  # set back: what was dropped waits again
            self.positions[lane] = position
            if lane in self.waiting:
                self.waiting[lane].move_to(position)

    def end(self, lane: int) -> int | None:
        return self._ends[lane].now

    def total(self) -> int | None:
        """How many records wait in all lanes; None where that is not known."""
        pairs = [
            (self.end(place.partition), self.positions.get(place.partition))
            for place in self._places
        ]
        if any(end is None or position is None for end, position in pairs):
            return None
        return sum(max(0, (end or 0) - (position or 0)) for end, position in pairs)

    def complete(self, lane: int) -> bool:
        """Whether all that waits in the lane has been read."""
        waiting, end = self.waiting.get(lane), self.end(lane)
        return waiting is not None and end is not None and waiting.read_to >= end

    async def _look(self) -> None:
        try:
            with translated():
                await self._ask()
        except BaseException:
            await self._drop()
            raise

    async def _ask(self) -> None:
        async with asyncio.timeout(_LIMIT_S):
            consumer = await self._started()
            ends = await consumer.end_offsets(self._places)
        now = time.monotonic()
        for place, end in ends.items():
            self._ends[place.partition].note(now, end)
        if self.wants_hints and now - self._hinted_at > 3 * EVERY_S:
            self._hinted_at = now
            with contextlib.suppress(KafkaError, OSError, TimeoutError):  # it is a hint
                self.hints = await self._hints()
        slow = frozenset(
            place.partition
            for place in self._places
            if (position := self.positions.get(place.partition)) is not None
            and self._ends[place.partition].slow(position)
        )
        for lane in set(self.waiting) - slow:
            del self.waiting[lane]
        await self._attend(consumer, slow)
        if slow:
            await self._read(consumer)

    async def _attend(self, consumer: AIOKafkaConsumer, slow: frozenset[int]) -> None:
        """Read these lanes from now on, each from where it was read to, or from its position."""
        fresh = [lane for lane in slow if lane not in self.waiting]
        for lane in fresh:
            position = self.positions[lane]
            self.waiting[lane] = LaneWaiting(position, position)
        if slow != self._reading or fresh:
            places = [p for p in self._places if p.partition in slow]
            async with asyncio.timeout(_LIMIT_S):
                begins = await consumer.beginning_offsets(places) if places else {}
            consumer.assign(places)
            for place in places:
                # What is not in the log any more waits for nobody: its lane halts.
                consumer.seek(place, max(self.waiting[place.partition].read_to, begins[place]))
            self._reading = slow

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        """As much as can be read in a moment; the rest the next time."""
        until = time.monotonic() + _BUDGET_S
        while time.monotonic() < until:
            async with asyncio.timeout(_LIMIT_S):
                batches = await consumer.getmany(timeout_ms=200, max_records=_PORTION)
            if not batches:
                return
            for place, records in batches.items():
                waiting = self.waiting.get(place.partition)
                if waiting is not None:
                    self._take(waiting, records)
            await asyncio.sleep(0)

    def _take(self, waiting: LaneWaiting, records: Iterable[Any]) -> None:
        for record in records:
            if record.offset < waiting.read_to:
                continue
            waiting.add(record.offset, self._command(record))

    def _command(self, record: Any) -> Command | None:
        try:
            envelope = open_record(record.key, record.value, record.headers, self._keyring)
        except EnvelopeError:
            return None  # the writer will say what it is
        self.log_id = envelope.log_id
        return envelope.command

    async def _hints(self) -> dict[int, int]:
        """Positions as the writer showed them to lag tools; those it has not shown are left out."""
        admin = AIOKafkaAdminClient(
            bootstrap_servers=self._bootstrap, client_id="afterwrite-notifier"
        )
        try:
            async with asyncio.timeout(_LIMIT_S):
                await admin.start()
                found = await admin.list_consumer_group_offsets(self._group)
        finally:
            await given_time(admin.close())
        topic = self._places[0].topic
        return {
            place.partition: committed.offset
            for place, committed in found.items()
            if place.topic == topic and committed.offset >= 0
        }

    async def _started(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            consumer = AIOKafkaConsumer(
                bootstrap_servers=self._bootstrap,
                client_id="afterwrite-notifier",
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="none",
                request_timeout_ms=5000,
                fetch_max_wait_ms=100,
                max_partition_fetch_bytes=2 * 1024 * 1024,
            )
            self._consumer = consumer
            await consumer.start()
        return self._consumer

    async def _drop(self) -> None:
        consumer, self._consumer, self._reading = self._consumer, None, frozenset()
        if consumer is not None:
            await stop_client(consumer)
