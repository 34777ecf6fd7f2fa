"""What authors are told: finds who waits too long and whose waiting is over, and works off what is owed."""

import json
import time
import uuid
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from schema import clock
from schema.commands import Author, Command
from schema.failpoints import reach
from schema.telemetry import Log
from writer.notifier.administrators import Administrators
from writer.notifier.bounces import Bounces
from writer.notifier.bounds import Mailed
from writer.notifier.log_reader import LogReader
from writer.notifier.memory import Memory
from writer.notifier.metrics import Metrics
from writer.notifier.observing import DatabaseWatch, ParkedOf
from writer.notifier.publishing import Outbox
from writer.notifier.telling import Delay, Records, Teller, Told, told_key

_AT_ONCE: Final = 200
"""Authors who are told in one round."""
_READ_ON_S: Final = 30.0
"""How long to read a lane before authors are told although more of it is still to be read."""
_WRITE_S: Final = 15.0


@dataclass
class Authors:
    """Tells authors; only while this notifier leads and Kafka answers."""

    memory: Memory
    outbox: Outbox
    teller: Teller
    database: DatabaseWatch
    reader: LogReader
    administrators: Administrators
    bounces: Bounces
    mails_per_minute: int
    metrics: Metrics
    log: Log
    _mailed_at: "deque[float]" = field(default_factory=deque)
    _complete_at: dict[int, float] = field(default_factory=dict)
    _generation: int = -1

    async def tick(self) -> None:
        """One round. Raises `LogUnavailable` or `TimeoutError` when Kafka goes away in it."""
        if not self.memory.leading or not self.memory.reachable:
            return
        if self._generation != self.memory.generation:
            self._generation = self.memory.generation
            self.metrics.repeated.inc(len(self.memory.below("notice:")))
        self.bounces.recall()
        await self._work_off()
        now = clock.now()
        await self._remember(await self._delayed(now))
        await self._remember(await self._over(now))
        await self._remember(self._days_over(now))
        await self._remember(await self.bounces.new(now))
        await self._work_off()

    async def _remember(self, records: Records) -> None:
        """Remembered first, done after: who is killed in between finds it again."""
        if not records:
            return
        reach("notifier_before_remember")
        self.outbox.owe(records)
        if not await self.memory.written(_WRITE_S):
            raise TimeoutError("what is to be told could not be remembered")
        reach("notifier_after_remember")

    async def _work_off(self) -> None:
        self.outbox.log_id = self.reader.log_id or self._log_id() or self.outbox.log_id
        kinds = await self.outbox.notices()
        for kind in kinds:
            self.metrics.notices.labels(kind).inc()
        if kinds:
            self.log.info("authors_told", **{kind: kinds.count(kind) for kind in set(kinds)})
        self.metrics.mails.inc(await self.outbox.mails(self._mails_now()))
        copies = list(self.administrators.copies)
        if copies:
            await self.outbox.alerts(copies)
            for _ in copies:
                self.administrators.copies.popleft()

    def _log_id(self) -> uuid.UUID | None:
        lanes = self.database.seen.lanes if self.database.seen is not None else {}
        return next((lane.log_id for lane in lanes.values()), None)

    def _mails_now(self) -> int:
        """How many mails may be queued now, so that no minute has too many."""
        now = time.monotonic()
        while self._mailed_at and self._mailed_at[0] <= now - 60:
            self._mailed_at.popleft()
        room = self.mails_per_minute - len(self._mailed_at)
        owed = len(self.memory.below("mail:"))
        going = max(0, min(room, owed))
        self._mailed_at.extend([now] * going)
        return going

    # -- who waits --------------------------------------------------------------------------------

    async def _delayed(self, now: datetime) -> Records:
        records: Records = {}
        told = 0
        for delay in await self._delays(now):
            more = self.teller.through(delay)
            if not more and told < _AT_ONCE:
                more = self.teller.delayed(delay, now, records)
                told += bool(more)
            records |= more
        return records

    async def _delays(self, now: datetime) -> list[Delay]:
        """Everybody with something that waits for too long, in the log or parked."""
        before = now - self.teller.policy.delay_after
        parked = await self._parked(before)
        delays: list[Delay] = []
        for delay in self._in_the_log(before):
            other = parked.pop((delay.lane, delay.author.id), None)
            delays.append(other.and_(delay) if other is not None else delay)
        return [*delays, *parked.values()]

    def _in_the_log(self, before: datetime) -> Iterator[Delay]:
        for lane, waiting in self.reader.waiting.items():
            if not self._read_enough(lane):
                continue
            for of in waiting.older_than(before):
                yield Delay(
                    lane,
                    of.author,
                    of.count,
                    of.oldest,
                    of.first,
                    of.last,
                    of.first_id,
                    tuple(of.items),
                )

    def _read_enough(self, lane: int) -> bool:
        """Whether the lane was read to its end, so that counts are right; or for long enough."""
        began = self._complete_at.setdefault(lane, time.monotonic())
        if self.reader.complete(lane):
            self._complete_at[lane] = time.monotonic()
            return True
        return time.monotonic() - began > _READ_ON_S

    async def _parked(self, before: datetime) -> dict[tuple[int, uuid.UUID], Delay]:
        """Of those who are parked too long: who they are is told by their records."""
        seen = self.database.seen
        if seen is None:
            return {}
        late = [p for p in seen.parked if p.oldest <= before]
        known = {(p.lane, p.author): self._author_told(p) for p in late}
        fresh = [p for p in late if known[p.lane, p.author] is None][:_AT_ONCE]
        if fresh and self.database.answers:
            values = await self.database.values_of_parked([p.first_id for p in fresh])
            for parked in fresh:
                value = values.get(parked.first_id)
                known[parked.lane, parked.author] = _author_of(value)
        delays = {}
        for parked in late:
            author = known[parked.lane, parked.author]
            if author is not None:
                delays[parked.lane, parked.author] = Delay(
                    parked.lane,
                    author,
                    parked.count,
                    parked.oldest,
                    parked.first,
                    parked.last,
                    parked.first_id,
                )
        return delays

    def _author_told(self, parked: ParkedOf) -> Author | None:
        remembered = self.memory.values.get(told_key(parked.lane, parked.author))
        return Author.from_json(remembered["author"]) if remembered is not None else None

    # -- whose waiting is over --------------------------------------------------------------------

    async def _over(self, now: datetime) -> Records:
        """Those who were told, and all of whose commands are decided: the ledger says so."""
        if not self.database.answers:
            return {}
        told = [Told.from_json(value) for value in self.memory.below("told:").values()]
        passed = list(self._passed(told))[:_AT_ONCE]
        if not passed:
            return {}
        ranges = [(t.lane, t.author.id, t.first, t.through) for t in passed]
        decided = await self.database.decided(ranges)
        records: Records = {}
        for one, became in zip(passed, decided, strict=True):
            records |= self.teller.over(one, became, now, records)
        return records

    def _passed(self, told: Iterable[Told]) -> Iterator[Told]:
        """Those behind whose commands their lane has moved, and nothing of theirs is parked."""
        seen = self.database.seen
        if seen is None:
            return
        parked = {(p.lane, p.author): p.first for p in seen.parked}
        for one in told:
            lane = seen.lanes.get(one.lane)
            first = parked.get((one.lane, one.author.id))
            held = first is not None and first <= one.through
            if lane is not None and lane.position > one.through and not held:
                yield one

    def _days_over(self, now: datetime) -> Records:
        records: Records = {}
        for value in self.memory.below("mailed:").values():
            records |= self.teller.day_over(Mailed.from_json(value), now)
        return records


def _author_of(value: bytes | None) -> Author | None:
    """Who sent a record that the writer has verified."""
    if value is None:
        return None
    try:
        data: Any = json.loads(value)
        return Command.from_json(data).author
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
