"""Settlement: after commit, tell the overlay and the outcomes topic what the ledger says.

It reads the ledger from the settled watermark on, so a crash at any point is mended by reading
again; every step may be repeated. The watermark is kept by the lane and saved with its next step.
"""

import asyncio
import json
import random
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
from writer.overlay import SettledOverlay, Settlement
from writer.publisher import Message, OutcomePublisher, dead_letter_message, outcome_message

_BATCH = 500
_BACKOFF_S = (0.2, 10.0)

_STATES = {
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
        self._news = asyncio.Event()
        self._idle = asyncio.Event()
        self._news.set()

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
        while True:
            rows = await connection.fetch(
                sql.UNSETTLED, self.lane.number, self.lane.settled_seq, _BATCH
            )
            if not rows:
                return
            await self.publisher.publish(await self._messages(connection, rows))
            await self.overlay.settle(await self._settlements(connection, rows))
            reach("writer_before_watermark")
            self.lane.settled_seq = rows[-1]["seq"]

    async def _messages(
        self, connection: asyncpg.Connection, rows: Sequence[asyncpg.Record]
    ) -> list[Message]:
        lane = self.lane.number
        messages = [
            outcome_message(self.topics.outcomes.name, lane, dict(row))
            for row in rows
            if row["author_id"] is not None
        ]
        buried = [r["offset"] for r in rows if r["outcome"] in ("rejected", "dead")]
        if buried:
            letters = await connection.fetch(sql.DEAD_LETTERS, lane, buried)
            source, topic = self.topics.commands.name, self.topics.dead_letters.name
            messages += [
                dead_letter_message(topic, source, lane, dict(row), self.group) for row in letters
            ]
        return messages

    async def _settlements(
        self, connection: asyncpg.Connection, rows: Sequence[asyncpg.Record]
    ) -> list[Settlement]:
        """What the entries of these rows become.

        A command that was delivered again follows its first delivery. Its entry may have been laid
        anew by the repeat, after the first one was swept, so that it is settled once more.
        """
        mine = [row for row in rows if row["author_id"] is not None]
        again = [r["command_id"] for r in mine if r["duplicate_of"] == r["command_id"]]
        first = {}
        if again:
            found = await connection.fetch(sql.FIRST_OUTCOMES, again)
            first = {row["command_id"]: row for row in found}
        settlements = []
        for row in mine:
            repeated = row["duplicate_of"] == row["command_id"]
            lane, told = self.lane.number, row
            if repeated:
                if row["command_id"] not in first:
                    continue  # retention has dropped it
                told = first[row["command_id"]]
                lane = told["lane"]
            state = _STATES[Outcome(told["outcome"])]
            for owner in (row["author_id"], *([SHARED] if self._shared(row) else [])):
                settlements.append(
                    Settlement(owner, row["command_id"], state, lane, told["offset"])
                )
        return settlements

    def _shared(self, row: asyncpg.Record) -> bool:
        """Whether others may have been shown this command while it was pending, or still may be."""
        if not self._public:
            return False
        told = row["outcome"] == Outcome.SAVED and not self._hidden_effects
        return not told or any(e["type"] in self._public for e in json.loads(row["effects"]))


async def sweep_forever(overlay: SettledOverlay, log: EventLog, every_s: float = 5.0) -> None:
    """Remove settled entries when their grace is over; cancel to stop."""
    while True:
        try:
            while await overlay.sweep():
                pass
        except Exception as error:  # noqa: BLE001 - Redis may be away; it is tried again
            log.warning("overlay_unavailable", error=repr(error))
        await asyncio.sleep(every_s)
