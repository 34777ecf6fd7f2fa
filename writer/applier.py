"""The applier: one transaction for a batch, in which position, ledger and content move together.

First the whole batch as sets. If the database refuses something permanently, the transaction is
rolled back and the batch is done again, each command in its own savepoint, so that the one at fault
is rejected and its neighbours are saved.
"""

import asyncio
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field

import asyncpg

from schema import clock
from schema.catalog import Catalog
from schema.clock import Clock
from schema.envelope import Keyring
from schema.failpoints import reach
from schema.outcomes import Outcome
from writer import statements as sql
from writer.decisions import Decision, Park
from writer.failures import (
    FailureClass,
    Halt,
    LogMismatch,
    classify,
    constraint_of,
    problem_of,
    sqlstate_of,
)
from writer.flush import Flusher, number
from writer.knowledge import Knowledge, ParkedCommand
from writer.lane import Lane
from writer.ledger import Numbered
from writer.loader import Loader
from writer.mass_rejection import MassRejection
from writer.parking import ParkPolicy
from writer.planner import Planner
from writer.record import LaneRecord
from writer.rows import Rows

SAVEPOINT_BATCH = 50
"""More than 64 live subtransactions slow other sessions of the server down."""

_Work = tuple[LaneRecord, ParkedCommand | None]
_Decided = tuple[list[Decision], list[Numbered]]
_Decide = Callable[["_Queue", Rows, int], Awaitable[_Decided]]


class _Queue:
    """The commands to decide, in order. What a saved command releases goes before what follows it."""

    def __init__(self, knowledge: Knowledge, records: Sequence[LaneRecord]) -> None:
        self.knowledge = knowledge
        self._work: deque[_Work] = deque((record, None) for record in records)

    def __iter__(self) -> Iterator[_Work]:
        while self._work:
            yield self._work.popleft()

    def release(self, stream: uuid.UUID) -> None:
        held = self.knowledge.parked.pop(stream, [])
        self._work.extendleft((parked.record, parked) for parked in reversed(held))

    def done(self, decision: Decision, parked: ParkedCommand | None) -> None:
        if decision.outcome is Outcome.SAVED:
            created = [c.row["id"] for c in decision.changes if c.op == "create"]
            for stream in self.knowledge.streams_waiting_for(created):
                self.release(stream)
        elif decision.outcome is Outcome.PARKED and parked is not None and decision.park:
            park = decision.park
            held = [
                ParkedCommand(
                    parked.record,
                    parked.stream,
                    park.code,
                    park.waits_for,
                    park.parked_at,
                    park.attempts,
                    park.retry_at,
                )
            ]
            while self._work and (behind := self._work[0][1]) and behind.stream == parked.stream:
                held.append(behind)
                self._work.popleft()
            self.knowledge.parked[parked.stream] = held


@dataclass
class Applier:
    """Applies batches to one lane over one connection.

    Not usable after an error other than `Paused`, which any of its methods may raise: recover instead.
    """

    connection: asyncpg.Connection
    catalog: Catalog
    keyring: Keyring
    lane: Lane
    loader: Loader
    flusher: Flusher
    policy: ParkPolicy
    refusals: MassRejection
    clock: Clock = clock.now
    on_isolated: Callable[[BaseException], None] = field(default=lambda error: None)
    on_told: Callable[[int, Sequence[Numbered]], None] = field(default=lambda after, told: None)
    """Called after COMMIT with what there is to settle, and the outcome number before it."""
    on_decided: Callable[[Sequence[Decision]], None] = field(default=lambda decisions: None)
    """Called after COMMIT with what became of the transaction's commands."""

    async def apply(self, records: Sequence[LaneRecord]) -> list[Decision]:
        """Apply records that begin at the lane's position; returns what became of them.

        Raises `Fenced`, `Halt`, or whatever the connection raised; nothing of the batch is saved then,
        or, when COMMIT itself was lost, all of it: the position tells.
        """
        self._check(records)
        try:
            return await self._transaction(records, (), self._together)
        except Exception as error:
            if classify(error) is not FailureClass.PERMANENT:
                raise
            self.on_isolated(error)
        await self.connection.execute("ROLLBACK")
        return await self._in_parts(records)

    async def _in_parts(self, records: Sequence[LaneRecord]) -> list[Decision]:
        """Apply what the database has refused as a whole: by halves, as long as these are large."""
        if len(records) <= SAVEPOINT_BATCH:
            return await self.apply_isolated(records)
        decisions: list[Decision] = []
        middle = len(records) // 2
        for half in (records[:middle], records[middle:]):
            try:
                decisions += await self._transaction(half, (), self._together)
            except Exception as error:
                if classify(error) is not FailureClass.PERMANENT:
                    raise
                await self.connection.execute("ROLLBACK")
                decisions += await self._in_parts(half)
        return decisions

    async def apply_isolated(self, records: Sequence[LaneRecord]) -> list[Decision]:
        """Apply each record in a savepoint of its own."""
        decisions: list[Decision] = []
        for at in range(0, len(records), SAVEPOINT_BATCH):
            chunk = records[at : at + SAVEPOINT_BATCH]
            decisions += await self._transaction(chunk, (), self._one_by_one)
        return decisions

    async def park(self, record: LaneRecord, code: str) -> list[Decision]:
        """Hold a record back that the writer cannot work on, so that the others go on."""
        self._check([record])

        async def decide(queue: _Queue, rows: Rows, seq: int) -> _Decided:
            now = self.clock()
            planner = Planner(self.catalog, rows, queue.knowledge, self.policy, now)
            at = self.policy.within_horizon(self.policy.retry_at(0, now), record.command)
            decisions = [planner.park(record, Park(code, frozenset(), now, 0, at))]
            return decisions, await number(seq, decisions)

        return await self._transaction([record], (), decide)

    async def retry_due(self) -> list[Decision]:
        """Try parked streams whose time has come, each in a transaction of its own.

        The next try is written down first, so that a command which kills the writer is not tried
        again at once.
        """
        now = self.clock()
        decisions: list[Decision] = []
        for row in await self.connection.fetch(sql.DUE_STREAMS, self.lane.number, now):
            stream, again = row["stream"], self.policy.retry_at(row["attempts"] + 1, now)
            await self.connection.execute(
                sql.POSTPONE, self.lane.number, stream, now, again, self.policy.horizon
            )
            decisions += await self._transaction((), [stream], self._one_by_one)
        return decisions

    def _check(self, records: Sequence[LaneRecord]) -> None:
        """The log is the one PostgreSQL knows, and nothing is missing from it."""
        for expected, record in enumerate(records, self.lane.position):
            if record.offset != expected:
                raise LogMismatch(
                    f"lane {record.lane}: offset {expected} expected, {record.offset} found"
                )
            if record.envelope is not None and record.envelope.log_id != self.lane.log_id:
                raise LogMismatch(
                    f"lane {record.lane} offset {record.offset} belongs to log "
                    f"{record.envelope.log_id}, the position to {self.lane.log_id}"
                )

    async def _transaction(
        self, records: Sequence[LaneRecord], due: Sequence[uuid.UUID], decide: _Decide
    ) -> list[Decision]:
        to = records[-1].offset + 1 if records else self.lane.position
        months = {record.period for record in records}
        await self.flusher.partitions(months)
        seq = await self.lane.begin(self.connection, to)
        reach("writer_after_position")
        knowledge, rows = await self.loader.knowledge(records, months)
        queue = _Queue(knowledge, records)
        if due:
            await self.loader.held(due, (), queue.knowledge)
        for stream in due:
            queue.release(stream)
        decisions, told = await decide(queue, rows, seq)
        self.refusals.note(decisions)
        now = self.clock()
        await self.flusher.ledger(self.lane.number, self.lane.epoch, told, now)
        await self.flusher.park(self.lane.number, decisions)
        await self.flusher.bury(self.lane.number, decisions, now)
        reach("writer_before_commit")
        await self.lane.commit(self.connection, seq + len(told), to)
        reach("writer_after_commit")
        self.on_told(seq, told)
        self.on_decided(decisions)
        return decisions

    async def _together(self, queue: _Queue, rows: Rows, seq: int) -> _Decided:
        """Decide in memory on what was read, write as sets."""
        held = [p.record.command for parked in queue.knowledge.parked.values() for p in parked]
        if held:
            await self.loader.rows(held, rows, queue.knowledge)
        planner = self._planner(rows, queue.knowledge)
        decisions = []
        for record, parked in queue:
            decision = planner.decide(record, parked)
            queue.done(decision, parked)
            decisions.append(decision)
        _, told = await asyncio.gather(self.flusher.content(decisions), number(seq, decisions))
        return decisions, told

    async def _one_by_one(self, queue: _Queue, _: Rows, seq: int) -> _Decided:
        """Read, decide and write each command in a savepoint."""
        decisions = []
        for record, parked in queue:
            decision = await self._alone(record, parked, queue.knowledge)
            queue.done(decision, parked)
            decisions.append(decision)
        return decisions, await number(seq, decisions)

    async def _alone(
        self, record: LaneRecord, parked: ParkedCommand | None, knowledge: Knowledge
    ) -> Decision:
        rows = Rows()
        planner = self._planner(rows, knowledge)
        if record.envelope is None:
            return planner.decide(record)
        await self.connection.execute("SAVEPOINT command")
        decision: Decision | None = None
        try:
            await self.loader.rows([record.command], rows, knowledge)
            decision = planner.decide(record, parked)
            await self.flusher.content([decision])
        except Exception as error:
            if decision is None or classify(error) is not FailureClass.PERMANENT:
                raise
            await self.connection.execute("ROLLBACK TO SAVEPOINT command")
            if decision.outcome is Outcome.SAVED:
                decision = planner.reject(decision, problem_of(error))
                decision.sqlstate, decision.constraint = sqlstate_of(error), constraint_of(error)
            await self._tell(decision)
        await self.connection.execute("RELEASE SAVEPOINT command")
        return decision

    async def _tell(self, rejected: Decision) -> None:
        """Store the notice of a rejection. That cannot be refused for what the author sent."""
        try:
            await self.flusher.content([rejected])
        except asyncpg.PostgresError as error:
            if classify(error) is not FailureClass.PERMANENT:
                raise
            raise Halt(f"the database refuses the notice of a rejection: {error!r}") from error

    def _planner(self, rows: Rows, knowledge: Knowledge) -> Planner:
        return Planner(self.catalog, rows, knowledge, self.policy, self.clock())
