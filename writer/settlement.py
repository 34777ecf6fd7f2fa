"""Settlement: after commit, tell the overlay and the outcomes topic what the ledger says.

It goes on from the settled watermark: with what was just applied, while that is at hand, else with
what the ledger says. So a crash at any point is mended by reading again; every step may be repeated.
The watermark is kept by the lane and saved with its next step.
"""

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from schema.catalog import Catalog
from schema.failpoints import reach
from schema.outcomes import Outcome
from schema.overlay import EntryState
from schema.redis_keys import SHARED
from schema.telemetry import Log as EventLog
from schema.topics import Topics
from writer import statements as sql
from writer.connection import Database
from writer.lane import Lane
from writer.ledger import Numbered, told_of
from writer.overlay import SettledOverlay, Settlement
from writer.publisher import (
    Message,
    OutcomePublisher,
    Told,
    dead_letter_message,
    outcome_message,
)

_BATCH = 2000
_MOST_AT_HAND = 15_000
"""So many outcomes are kept until they are settled; beyond it they are read from the ledger again."""
_AT_A_TIME = 200
"""So many messages are made before others get their turn."""
_BACKOFF_S = (0.2, 10.0)

_STATES: dict[str, EntryState] = {
    Outcome.SAVED: EntryState.SAVED,
    Outcome.REJECTED: EntryState.REJECTED,
    Outcome.PARKED: EntryState.PARKED,
    # The original of a duplicate is what counts; this one's entry has nothing to show any more.
    Outcome.DUPLICATE: EntryState.SAVED,
}


@dataclass
class Settler:
    """Settles one lane while we hold it."""

    lane: Lane
    database: Database
    overlay: SettledOverlay
    publisher: OutcomePublisher
    topics: Topics
    log: EventLog
    catalog: Catalog
    group: str | None = None
    """The consumer group by which lag tools know the writer."""

    def __post_init__(self) -> None:
        public = [k for k in self.catalog if k.model.visible_while_pending == "everyone"]
        self._public = {kind.name for kind in public}
        # Only creating or deleting by a natural key can leave no effect in the ledger.
        self._hidden_effects = any(kind.model.natural_key for kind in public)
        self._at_hand: deque[tuple[int, list[Told]]] = deque()
        self._waiting = 0
        self._news = asyncio.Event()
        self._idle = asyncio.Event()
        self._news.set()

    def take(self, after: int, numbered: Sequence[Numbered]) -> None:
        """What a transaction has just told, and the outcome number before it."""
        if numbered and self._waiting + len(numbered) <= _MOST_AT_HAND:
            told = [told_of(made) for made in numbered]
            self._at_hand.append((after, told))
            self._waiting += len(told)
        self.notify()

    def notify(self) -> None:
        """There is something new in the ledger."""
        self._idle.clear()
        self._news.set()

    async def drained(self) -> None:
        """Wait until all that is in the ledger is settled."""
        await self._idle.wait()

    async def run(self) -> None:
        """Settle for ever; cancel to stop. A failing server delays settling, never applying."""
        delay = _BACKOFF_S[0]
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                async with self.database.connect("settle") as connection:
                    while True:
                        await self._settle_all(connection)
                        delay = _BACKOFF_S[0]
                        if not self._news.is_set():
                            self._idle.set()
                        await self._news.wait()
                        self._news.clear()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is repeated and said
                self.log.warning("settle_failed", lane=self.lane.number, error=repr(error))
                self._news.set()
                await asyncio.sleep(delay * (0.5 + random.random() / 2))  # noqa: S311
                delay = min(delay * 2, _BACKOFF_S[1])

    async def _settle_all(self, connection: asyncpg.Connection) -> None:
        while told := await self._next(connection):
            await self.publisher.publish(await self._messages(connection, told))
            await self.overlay.settle(await self._settlements(connection, told))
            reach("writer_before_watermark")
            self.lane.settled_seq = told[-1].seq

    async def _next(self, connection: asyncpg.Connection) -> list[Told]:
        """What follows the watermark, in order; empty when all is settled.

        What is at hand is used while it follows without a gap; the ledger is read up to it.
        """
        settled = self.lane.settled_seq
        while self._at_hand and self._at_hand[0][0] < settled:
            self._drop()
        found: list[Told] = []
        for after, told in self._at_hand:
            if after != (found[-1].seq if found else settled) or len(found) >= _BATCH:
                break
            found += told
        if found:
            return found
        rows = await connection.fetch(sql.UNSETTLED, self.lane.number, settled, _BATCH)
        read = [Told.of(dict(row)) for row in rows]
        if self._at_hand:
            until = self._at_hand[0][0]
            return [told for told in read if told.seq <= until] or read
        return read

    def _drop(self) -> None:
        _, told = self._at_hand.popleft()
        self._waiting -= len(told)

    async def _messages(
        self, connection: asyncpg.Connection, rows: Sequence[Told]
    ) -> list[Message]:
        lane, topic = self.lane.number, self.topics.outcomes.name
        messages: list[Message] = []
        for at in range(0, len(rows), _AT_A_TIME):
            part = rows[at : at + _AT_A_TIME]
            messages += [outcome_message(topic, lane, t) for t in part if t.author_id is not None]
            await asyncio.sleep(0)
        buried = [t.offset for t in rows if t.outcome in ("rejected", "dead")]
        if buried:
            letters = await connection.fetch(sql.DEAD_LETTERS, lane, buried)
            source, topic = self.topics.commands.name, self.topics.dead_letters.name
            messages += [
                dead_letter_message(topic, source, lane, dict(row), self.group) for row in letters
            ]
        return messages

    async def _settlements(
        self, connection: asyncpg.Connection, rows: Sequence[Told]
    ) -> list[Settlement]:
        """What the entries of these rows become.

        A command that was delivered again follows its first delivery. Its entry may have been laid
        anew by the repeat, after the first one was swept, so that it is settled once more.
        """
        again = [t.command_id for t in rows if t.command_id and t.duplicate_of == t.command_id]
        first = {}
        if again:
            found = await connection.fetch(sql.FIRST_OUTCOMES, again)
            first = {row["command_id"]: row for row in found}
        settlements = []
        for told in rows:
            if told.author_id is None or told.command_id is None:
                continue
            lane, outcome, offset = self.lane.number, told.outcome, told.offset
            if told.duplicate_of == told.command_id:
                if told.command_id not in first:
                    continue  # retention has dropped it
                repeated = first[told.command_id]
                lane, outcome, offset = repeated["lane"], repeated["outcome"], repeated["offset"]
            state = _STATES[outcome]
            settlements.append(Settlement(told.author_id, told.command_id, state, lane, offset))
            if self._public and self._shared(told):
                settlements.append(Settlement(SHARED, told.command_id, state, lane, offset))
        return settlements

    def _shared(self, told: Told) -> bool:
        """Whether others may have been shown this command while it was pending, or still may be."""
        complete = told.outcome == Outcome.SAVED and not self._hidden_effects
        return not complete or any(type_ in self._public for type_ in told.types)


async def sweep_forever(overlay: SettledOverlay, log: EventLog, every_s: float = 5.0) -> None:
    """Remove settled entries when their grace is over; cancel to stop."""
    while True:
        try:
            while await overlay.sweep():
                pass
        except Exception as error:  # noqa: BLE001 - Redis may be away; it is tried again
            log.warning("overlay_unavailable", error=repr(error))
        await asyncio.sleep(every_s)
