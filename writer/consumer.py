"""The loop of one lane: take it, read on from its position, apply, settle; one way to recover.

Whatever goes wrong outside a savepoint ends the same way: the connection is dropped, the lane is
taken again, its position read, the log sought. There is no second way.
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

import asyncpg

from schema import clock
from schema.catalog import Catalog
from schema.clock import Clock
from schema.envelope import Keyring
from schema.failpoints import reach
from schema.settings import WriterSettings
from schema.tasks import end_tasks
from schema.telemetry import Log as EventLog
from schema.topics import Topics
from writer import statements as sql
from writer.applier import Applier
from writer.breaker import DatabaseAway, backoff_s
from writer.connection import Database, roll_back
from writer.decisions import Decision
from writer.failures import (
    FailureClass,
    Fenced,
    Halt,
    Paused,
    classify,
    may_be_one_commands_fault,
    sqlstate_of,
)
from writer.flush import Flusher
from writer.lag_hint import LagHint
from writer.lane import Lane, Look, take_lane
from writer.loader import Loader
from writer.log import Log, open_log
from writer.mass_rejection import MassRejection
from writer.metrics import Metrics
from writer.migrate import check_tables
from writer.overlay import SettledOverlay
from writer.parking import ParkPolicy
from writer.publisher import OutcomePublisher
from writer.read_ahead import ReadAhead
from writer.record import LaneRecord
from writer.settlement import Settler
from writer.statements import Statements
from writer.suspicion import ALONE_AFTER, Suspicion
from writer.trimming import Trimmer

_STANDBY_S = 0.25
_LOST_S = 0.5
_HALTED_S = 2.0
_DRAIN_S = 5.0
_PAUSED_S = 0.5
_LOOK_S = 0.5
"""So often a busy writer looks for what is due, and whether an operator wants it to pause."""
_LONGEST_FETCH_S = 1.0
"""So soon an idle one does, whatever the lease is."""

_GUARDED = """
SELECT DISTINCT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'public' AND NOT i.indisprimary AND (i.indisunique OR i.indisexclusion)
"""


@dataclass
class LaneWriter:
    """Writes one lane whenever it can have it."""

    number: int
    owner: str
    settings: WriterSettings
    catalog: Catalog
    keyring: Keyring
    topics: Topics
    database: Database
    overlay: SettledOverlay
    publisher: OutcomePublisher
    metrics: Metrics
    hint: LagHint
    trimmer: Trimmer
    log: EventLog
    stopping: asyncio.Event
    clock: Clock = clock.now
    _failures: int = 0
    _halted: str | None = None
    _paused: str | None = None
    _suspicion: Suspicion = field(default_factory=Suspicion)
    _statements: dict[str, Statements] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._statements = {kind.name: Statements.of(kind) for kind in self.catalog}

    async def run(self) -> None:
        """Until `stopping` is set: hold the lane, stand by for it, or wait for its servers."""
        while not self.stopping.is_set():
            try:
                await self._hold_once()
                wait_s = 0.0
            except Fenced as error:
                self.log.warning("lane_lost", lane=self.number, reason=str(error))
                wait_s = _LOST_S
            except Halt as error:
                if self._halted != str(error):
                    self.log.error("lane_halted", lane=self.number, reason=str(error))
                self._halted = str(error)
                self.metrics.halted.labels(self.number).set(1)
                wait_s = _HALTED_S
            except DatabaseAway as error:
                wait_s = error.wait_s  # the breaker's, and it has said so
            except Exception as error:  # noqa: BLE001 - classified inside
                wait_s = self._recovery_wait(error)
            await self._pause(wait_s)

    async def _hold_once(self) -> None:
        """Stand by for the lane, take it and work on it until something ends that."""
        async with self.database.connect(f"lane {self.number}") as connection:
            lane = await self._take(connection)
            if lane is None:
                return
            self.log.info("lane_taken", lane=lane.number, position=lane.position, epoch=lane.epoch)
            self.metrics.halted.labels(self.number).set(0)
            self._halted = None
            try:
                await self._work(lane, connection)
            except Halt as error:
                await roll_back(connection)
                await self._write_down(lane, str(error))
                raise
            except Exception as error:
                if classify(error) is FailureClass.SYSTEMIC and not isinstance(error, Fenced):
                    await roll_back(connection)
                    self.log.error("unexpected_error", lane=self.number, error=repr(error))
                    reason = f"{type(error).__name__} {sqlstate_of(error) or ''}: {error}"
                    await self._write_down(lane, reason)
                    raise Halt(reason) from error
                raise
            await lane.release(connection)
            self.log.info("lane_released", lane=lane.number, position=lane.position)

    async def _take(self, connection: asyncpg.Connection) -> Lane | None:
        """The lane as soon as it is free; None when told to stop before that."""
        lease = timedelta(seconds=self.settings.lease_s)
        while not self.stopping.is_set():
            lane = await take_lane(connection, self.number, self.owner, lease)
            if lane is not None:
                return lane
            await self._pause(_STANDBY_S)
        return None

    async def _work(self, lane: Lane, connection: asyncpg.Connection) -> None:
        applier = await self._applier(lane, connection)
        settler = Settler(
            lane,
            self.database,
            self.overlay,
            self.publisher,
            self.topics,
            self.log,
            self.catalog,
            self.hint.group,
        )
        applier.on_told = settler.take
        applier.on_decided = self._told
        applied = await connection.fetchval(sql.LAST_APPLIED, lane.number, lane.position - 1)
        log, end = await open_log(
            self.settings.kafka_bootstrap,
            self.topics.commands.name,
            lane.number,
            lane.position,
            applied,
            self.keyring,
        )
        settling = asyncio.create_task(settler.run())
        trimming = asyncio.create_task(self.trimmer.run(lane))
        try:
            if end == lane.position:
                lane.deaths = 0  # nobody dies of an empty log
            await self._loop(lane, applier, log)
            await self._drain(settler)
        finally:
            await end_tasks(settling, trimming)
            await log.close()

    async def _loop(self, lane: Lane, applier: Applier, log: Log) -> None:
        """Fetch → apply → settle. What comes next is fetched while the present batch is applied."""
        ahead = ReadAhead(partial(self._fetch, log), self.settings.batch_size)
        taking = asyncio.create_task(ahead.next())
        stopped = asyncio.create_task(self.stopping.wait())
        renewed = time.monotonic()
        looked = -math.inf
        try:
            while not self.stopping.is_set():
                await asyncio.wait({taking, stopped}, return_when=asyncio.FIRST_COMPLETED)
                if not taking.done():
                    break
                records = taking.result()
                reach("writer_after_fetch")
                if records:
                    await self._apply(lane, applier, records)
                    self.hint.note(lane.number, lane.position)
                    renewed = time.monotonic()
                elif time.monotonic() - renewed > self.settings.lease_s / 4:
                    await lane.renew(applier.connection)
                    renewed = time.monotonic()
                # Behind a batch, whose authors wait: that it must not be applied its transaction knows.
                if not records or time.monotonic() - looked > _LOOK_S:
                    look = await self._look(lane, applier.connection)
                    looked = time.monotonic()
                    if look.due is not None and look.due <= self.clock():
                        with suppress(Paused):  # just now: they are tried when it is over
                            await applier.retry_due()
                self._gauge(lane, log)
                taking = asyncio.create_task(ahead.next())
        finally:
            await end_tasks(taking, stopped)
            await ahead.close()

    async def _fetch(self, log: Log) -> list[LaneRecord]:
        longest_s = min(self.settings.lease_s / 5, _LONGEST_FETCH_S)
        return await log.fetch(self.settings.batch_size, longest_s)

    async def _look(self, lane: Lane, connection: asyncpg.Connection) -> Look:
        """What is due; while an operator wants the lane to stand still, it is kept here."""
        while self._is_paused(look := await lane.look(connection)):
            await lane.keep(connection)
            await self._pause(_PAUSED_S)
            if self.stopping.is_set():
                return Look(look.paused, None)
        return look

    def _is_paused(self, look: Look) -> bool:
        """Whether an operator wants the lane to stand still; said once."""
        if look.paused != self._paused:
            if look.paused is not None:
                self.log.warning("lane_paused", lane=self.number, reason=look.paused)
            else:
                self.log.info("lane_continued", lane=self.number)
        self._paused = look.paused
        self.metrics.paused.labels(self.number).set(look.paused is not None)
        return look.paused is not None

    async def _apply(self, lane: Lane, applier: Applier, records: Sequence[LaneRecord]) -> None:
        """Apply a batch; what an operator's pause leaves of it when the pause is over."""
        while not self.stopping.is_set():
            began_at = lane.position
            try:
                await self._try(lane, applier, records)
                break
            except Paused:
                records = records[lane.position - began_at :]
                await self._look(lane, applier.connection)

    async def _try(self, lane: Lane, applier: Applier, records: Sequence[LaneRecord]) -> None:
        """Apply records; alone and at last parked, what keeps failing at this position."""
        trouble = self._suspicion.at(lane.position, lane.deaths)
        started, began_at = time.monotonic(), lane.position
        try:
            if trouble < ALONE_AFTER:
                await applier.apply(records)
            else:
                await self._one_at_a_time(lane, applier, records, trouble)
        except Exception as error:
            if may_be_one_commands_fault(error):
                self._suspicion.failed(began_at, lane.position, lane.deaths)
            raise
        finally:
            self.metrics.apply_s.observe(time.monotonic() - started)

    async def _one_at_a_time(
        self, lane: Lane, applier: Applier, records: Sequence[LaneRecord], trouble: int
    ) -> None:
        """Each in a transaction of its own, so that the position tells which one is at fault."""
        for record in records:
            author = record.command.author.id if record.envelope is not None else None
            if author is not None and self._suspicion.must_park(trouble, author):
                at = {"lane": lane.number, "offset": record.offset}
                self.log.error("command_parked", **at, **_whose(record))
                await applier.park(record, "crashed_writer")
                self._suspicion.parked.add(author)
            else:
                await applier.apply_isolated([record])
            trouble = lane.deaths = 0

    async def _applier(self, lane: Lane, connection: asyncpg.Connection) -> Applier:
        await check_tables(connection, self.catalog)
        rows = await connection.fetch(_GUARDED)
        guarded = frozenset(row["relname"] for row in rows)
        return Applier(
            connection=connection,
            catalog=self.catalog,
            keyring=self.keyring,
            lane=lane,
            loader=Loader(connection, self.catalog, self.keyring, lane.number, self._statements),
            flusher=Flusher(connection, self.catalog, self._statements, guarded),
            policy=ParkPolicy.of(self.settings),
            refusals=MassRejection(self.settings.mass_rejection_limit),
            clock=self.clock,
            on_isolated=lambda error: self.log.info(
                "batch_isolated", lane=lane.number, sqlstate=sqlstate_of(error), error=repr(error)
            ),
        )

    async def _drain(self, settler: Settler) -> None:
        try:
            async with asyncio.timeout(_DRAIN_S):
                await settler.drained()
        except TimeoutError:
            self.log.warning("settle_failed", lane=self.number, error="left for the next writer")

    async def _write_down(self, lane: Lane, reason: str) -> None:
        """Note the reason in the lane, on a connection of its own: the other one is in doubt."""
        try:
            async with self.database.connect("halt") as connection:
                await lane.halt(connection, reason)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            self.log.warning("database_unavailable", lane=self.number, error=repr(error))

    def _recovery_wait(self, error: Exception) -> float:
        """Exponential with full jitter, so that a returning server is not met by everybody at once."""
        self._failures += 1
        low, high = self.settings.database_backoff_min_s, self.settings.database_backoff_max_s
        wait_s = backoff_s(self._failures, low, high)
        self.log.warning(
            "recovering",
            lane=self.number,
            error=repr(error),
            sqlstate=sqlstate_of(error),
            wait_s=round(wait_s, 2),
        )
        return wait_s

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self.stopping.wait()
        except TimeoutError:
            return

    def _told(self, decisions: Sequence[Decision]) -> None:
        """What a transaction has decided is committed."""
        self._failures = 0
        self._suspicion.note(decisions)
        now = self.clock()
        self.metrics.batch.observe(len(decisions))
        for outcome, many in Counter(d.outcome for d in decisions).items():
            self.metrics.outcomes.labels(outcome.value).inc(many)
        since = [d.record.command.accepted_at for d in decisions if d.record.envelope is not None]
        self.metrics.command_s.observe([max((now - at).total_seconds(), 0) for at in since])
        for decision in decisions:
            if decision.problem is not None:
                self.log.info(
                    "command_rejected" if decision.record.envelope else "dead_letter",
                    lane=self.number,
                    offset=decision.record.offset,
                    **_whose(decision.record),
                    code=decision.problem.code,
                    sqlstate=decision.sqlstate,
                )
        self.log.info("batch_applied", lane=self.number, commands=len(decisions))

    def _gauge(self, lane: Lane, log: Log) -> None:
        self.metrics.position.labels(lane.number).set(lane.position)
        self.metrics.settle_lag.labels(lane.number).set(lane.outcome_seq - lane.settled_seq)
        end = log.end()
        if end is not None:
            self.metrics.end.labels(lane.number).set(end)


def _whose(record: LaneRecord) -> dict[str, str]:
    """For a log line about one command: which one, and of which request."""
    if record.envelope is None:
        return {}
    found = {"command": str(record.command.command_id)}
    trace_id = record.envelope.trace_id
    return found | ({"trace_id": trace_id} if trace_id is not None else {})
