"""Records on their way to Kafka: who waits for each, what goes together, and what is certain of it.

NotAccepted        it is certain that the record is not and will not be in the log
OutcomeUnknown     it may be in the log, or come into it later
ProducerBurned     its producer is of no more use; `queued` says whether it had the record
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from aiokafka.producer.message_accumulator import BatchBuilder

from schema.envelope import Record


class NotAccepted(Exception):
    """The record is not in the log and will not come into it."""


class OutcomeUnknown(Exception):
    """It is not known whether the record is, or will be, in the log."""


class ProducerBurned(Exception):
    """The producer has to be replaced. `queued`: the record may have been sent."""

    def __init__(self, why: str, *, queued: bool) -> None:
        super().__init__(why)
        self.queued = queued


@dataclass(frozen=True)
class Published:
    """Where Kafka put a record. `offset` is None if an earlier attempt may be in the log too."""

    lane: int
    offset: int | None


Why = Callable[[], Exception]
"""Makes what is raised: each who waits gets an exception of his own."""


@dataclass(eq=False, slots=True)
class Sending:
    """One record, and who waits for it until then on the loop's clock."""

    record: Record
    until: float
    on_late: Callable[[Published], None]
    published: "asyncio.Future[Published]"
    sent: bool = False
    """It is in a batch: only Kafka knows what becomes of it."""
    overdue: bool = False
    """Its outcome was said to be unknown; if it is confirmed, that is late."""

    def fail(self, why: Why) -> None:
        """Nothing changes if it is known already what became of it, or if who waited has gone."""
        if not self.published.done():
            self.published.set_exception(why())
            self.published.exception()  # seen: who waited may go before he looks


@dataclass(eq=False, slots=True)
class Lane:
    """What of a lane is under way, and what waits for the next batch.

    `busy`: a batch is under way, or is being handed over, since `begun` on the loop's clock.
    """

    number: int
    waiting: deque[Sending] = field(default_factory=deque)
    batch: list[Sending] = field(default_factory=list)
    handing_over: "asyncio.Task[None] | None" = None
    begun: float = 0.0
    busy: bool = False

    def fill(self, batch: BatchBuilder) -> int:
        """Move what waits into a batch, as far as it has room. Returns how many have gone meanwhile."""
        gone = 0
        while self.waiting:
            one, record = self.waiting[0], self.waiting[0].record
            if one.published.done():
                gone += 1
            elif (
                batch.append(
                    timestamp=None,
                    key=record.key,
                    value=record.value,
                    headers=list(record.headers),
                )
                is not None
            ):
                one.sent = True
                self.batch.append(one)
            else:
                break
            self.waiting.popleft()
        batch.close()
        return gone

    def take_batch(self) -> list[Sending]:
        """What was under way; nothing is any more."""
        batch, self.batch = self.batch, []
        self.busy = False
        return batch

    def take_waiting(self) -> deque[Sending]:
        """What waits; nothing does any more."""
        waiting, self.waiting = self.waiting, deque()
        return waiting
