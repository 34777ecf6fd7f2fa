"""What became of commands, followed in the outcomes topic: what was rejected, and how far lanes are decided.

Where to go on is remembered together with what was made of it, so that each rejection counts once.
"""

import asyncio
import json
import uuid
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from schema.outcomes import Outcome
from schema.telemetry import Log
from writer.kafka_errors import stop_client, translated
from writer.notifier.observing import Watch

_LIMIT_S: Final = 3.0
_PORTION: Final = 1000
_MAX_REJECTED: Final = 2000
"""Rejections that are kept until they are worked on; with more, following waits."""


@dataclass(frozen=True)
class Rejected:
    """One rejected command. `notice` is the one that was made for it; None if it was added to another."""

    place: tuple[int, int]
    author: uuid.UUID
    code: str
    detail: str
    notice: uuid.UUID | None


@dataclass(frozen=True)
class Batch:
    """What is new. `next` is where to go on then, by partition; `decided` are positions by lane."""

    rejected: tuple[Rejected, ...] = ()
    next: Mapping[int, int] = field(default_factory=dict)
    decided: Mapping[int, int] = field(default_factory=dict)
    preferring: frozenset[uuid.UUID] = frozenset()
    """Users who have changed how they want to be told."""

    def to_json(self) -> dict[str, Any]:
        """How far it has got, as it is remembered."""
        return {
            "next": {str(part): offset for part, offset in self.next.items()},
            "decided": {str(lane): position for lane, position in self.decided.items()},
        }


class OutcomeFollower:
    """Kafka adapter. Follows from where it was told to go on; without that, from the end."""

    def __init__(
        self, bootstrap: str, topic: str, lanes: int, preference: str | None, log: Log
    ) -> None:
        self._bootstrap = bootstrap
        self._places = [TopicPartition(topic, lane) for lane in range(lanes)]
        self._consumer: AIOKafkaConsumer | None = None
        self._preference = preference
        self._log = log
        self._rejected: deque[Rejected] = deque()
        self._preferring: set[uuid.UUID] = set()
        self._next: dict[int, int] = {}
        self._following = False
        self.decided: dict[int, int] = {}
        """Lanes are decided at least up to here."""
        self.watch = Watch(self._look, "outcomes", log)

    async def close(self) -> None:
        await self.watch.close()
        await self._drop()

    def go_on(self, remembered: Mapping[str, Any] | None) -> None:
        """Follow from what `Batch.to_json` said; None: from the end."""
        known = remembered or {"next": {}, "decided": {}}
        self._rejected.clear()
        self._preferring.clear()
        self._next = {int(part): offset for part, offset in known["next"].items()}
        for lane, position in known["decided"].items():
            self._decide(int(lane), position)
        self._following, consumer = True, self._consumer
        if consumer is not None:
            consumer.unsubscribe()  # places are sought anew with the next look

    def new(self) -> Batch:
        """What there is to be worked on; it stays so until it is `done`."""
        preferring = frozenset(self._preferring)
        return Batch(tuple(self._rejected), dict(self._next), dict(self.decided), preferring)

    def done(self, batch: Batch) -> None:
        for _ in batch.rejected:
            self._rejected.popleft()

    def preferred(self, users: frozenset[uuid.UUID]) -> None:
        """It is known how these want to be told."""
        self._preferring -= users

    async def _look(self) -> None:
        if not self._following or self._full():
            return
        try:
            with translated():
                async with asyncio.timeout(_LIMIT_S):
                    consumer = await self._started()
                    if not consumer.assignment():
                        await self._seek(consumer)
                    await self._read(consumer)
        except BaseException:
            await self._drop()
            raise

    async def _seek(self, consumer: AIOKafkaConsumer) -> None:
        begins = await consumer.beginning_offsets(self._places)
        ends = await consumer.end_offsets(self._places)
        consumer.assign(self._places)
        for place in self._places:
            known = self._next.get(place.partition)
            there = known is not None and begins[place] <= known <= ends[place]
            start = known if there else (ends[place] if known is None else begins[place])
            consumer.seek(place, start)
            self._next[place.partition] = start or 0
        self._log.info("following", next=dict(self._next))

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        while not self._full():
            try:
                batches = await consumer.getmany(timeout_ms=100, max_records=_PORTION)
            except OffsetOutOfRangeError:
                self._next.clear()
                raise
            if not batches:
                return
            for place, records in batches.items():
                for record in records:
                    self._take(record.value)
                    self._next[place.partition] = record.offset + 1

    def _full(self) -> bool:
        return len(self._rejected) + len(self._preferring) >= _MAX_REJECTED

    def _take(self, value: bytes | None) -> None:
        try:
            message: Any = json.loads(value or b"")
            if not isinstance(message, dict) or "kind" in message:
                return
            lane, offset = int(message["lane"]), int(message["offset"])
            self._decide(lane, offset + 1)
            if message["outcome"] == Outcome.REJECTED:
                self._rejected.append(_rejected(message, (lane, offset)))
            elif any(row["type"] == self._preference for row in message.get("rows") or ()):
                self._preferring.add(uuid.UUID(message["author_id"]))
        except (ValueError, KeyError, TypeError):
            return  # not one of ours

    def _decide(self, lane: int, position: int) -> None:
        self.decided[lane] = max(position, self.decided.get(lane, 0))

    async def _started(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            self._consumer = AIOKafkaConsumer(
                bootstrap_servers=self._bootstrap,
                client_id="afterwrite-notifier",
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="none",
                request_timeout_ms=5000,
                fetch_max_wait_ms=100,
            )
            await self._consumer.start()
        return self._consumer

    async def _drop(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await stop_client(consumer)


def _rejected(message: Mapping[str, Any], place: tuple[int, int]) -> Rejected:
    problem = message.get("problem") or {}
    notice, rows = message.get("notice"), message.get("rows") or []
    made = notice is not None and any(r["id"] == notice and r["op"] == "create" for r in rows)
    return Rejected(
        place=place,
        author=uuid.UUID(message["author_id"]),
        code=str(problem.get("code", "invalid")),
        detail=str(problem.get("detail", "")),
        notice=uuid.UUID(notice) if made else None,
    )


def counted(before: Mapping[str, int], rejected: Iterable[Rejected]) -> dict[str, int]:
    """So many were rejected for each reason."""
    codes = dict(before)
    for one in rejected:
        codes[one.code] = codes.get(one.code, 0) + 1
    return codes
