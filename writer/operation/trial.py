"""What the writer would answer, tried in a transaction that is rolled back.

The same reading, deciding and writing as the writer's, so that rules, missing rows and the database's
own constraints all have their say. What has changed by the time of the real replay can still change the
answer: it is a forecast.
"""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from schema import clock
from schema.catalog import Catalog
from schema.commands import Command
from schema.envelope import Envelope, Keyring, seal
from schema.outcomes import Outcome, Problem
from schema.settings import WriterSettings
from writer.decisions import Decision
from writer.failures import FailureClass, Halt, classify, problem_of
from writer.flush import Flusher
from writer.loader import Loader
from writer.parking import ParkPolicy
from writer.planner import Planner
from writer.record import LaneRecord, read_record
from writer.rows import Rows
from writer.statements import Statements

MOST_TRIED: Final = 500
"""Letters of one dry run that are tried; the trial holds locks that the writer may want."""
MOST_S: Final = 2.0
"""How long a trial may take; what it has not come to by then is unknown."""
# The writer must not wait for a trial, nor a trial for the writer.
_BEGIN: Final = """
BEGIN; SET CONSTRAINTS ALL IMMEDIATE; SET LOCAL lock_timeout = '500ms';
SET LOCAL statement_timeout = '3s'
"""


@dataclass(frozen=True)
class Forecast:
    """What the writer would probably make of a command; `outcome` is `unknown` where the trial could
    not be made. `waits_for` are the rows that it would have to wait for."""

    outcome: str
    code: str | None = None
    detail: str | None = None
    waits_for: tuple[uuid.UUID, ...] = ()

    def to_json(self) -> dict[str, Any]:
        shown: dict[str, Any] = {"outcome": self.outcome}
        told = {"code": self.code, "detail": self.detail}
        shown |= {name: value for name, value in told.items() if value is not None}
        return shown | ({"waits_for": [str(i) for i in self.waits_for]} if self.waits_for else {})


async def forecast(
    connection: asyncpg.Connection, catalog: Catalog, lane: int, commands: Sequence[Command]
) -> list[Forecast]:
    """One for each command of a lane, in order: each meets what those before it would have left.

    At most `MOST_TRIED`; more would hold their locks too long.
    """
    try:
        await connection.execute(_BEGIN)
        return await _tried(connection, catalog, lane, commands)
    except (Halt, asyncpg.PostgresError) as error:
        unknown = Forecast("unknown", detail=f"it could not be tried now: {error}")
        return [unknown] * len(commands)
    finally:
        await connection.execute("ROLLBACK")


async def _tried(
    connection: asyncpg.Connection, catalog: Catalog, lane: int, commands: Sequence[Command]
) -> list[Forecast]:
    keyring = Keyring({"trial": uuid.uuid4().bytes * 2})  # its records go nowhere
    statements = {kind.name: Statements.of(kind) for kind in catalog}
    loader = Loader(connection, catalog, keyring, lane, statements)
    flusher = Flusher(connection, catalog, statements, frozenset())
    records = [_record(lane, command, keyring) for command in commands]
    knowledge, _ = await loader.knowledge(records, {record.period for record in records})
    policy = ParkPolicy.of(WriterSettings.model_construct())
    found: list[Forecast] = []
    until = time.monotonic() + MOST_S
    for record in records:
        if time.monotonic() > until:
            late = Forecast("unknown", detail=f"only {len(found)} could be tried in {MOST_S:.0f} s")
            return found + [late] * (len(records) - len(found))
        await connection.execute("SAVEPOINT command")
        rows = Rows()
        await loader.rows([record.command], rows, knowledge)
        planner = Planner(catalog, rows, knowledge, policy, clock.now())
        decision = planner.decide(record)
        try:
            await flusher.content([decision])
        except Exception as error:
            if classify(error) is not FailureClass.PERMANENT:
                raise
            await connection.execute("ROLLBACK TO SAVEPOINT command")
            problem = problem_of(error)
            planner.reject(decision, problem)
            found.append(_told(Outcome.REJECTED, problem))
            continue
        found.append(_forecast(decision))
    return found


def _record(lane: int, command: Command, keyring: Keyring) -> LaneRecord:
    sealed = seal(Envelope(command, uuid.UUID(int=0)), keyring, "/afterwrite/trial")
    return read_record(lane, 0, 0, sealed.key, sealed.value, sealed.headers, keyring)


def _forecast(decision: Decision) -> Forecast:
    if decision.problem is not None:
        return _told(decision.outcome, decision.problem)
    if decision.park is not None:
        waits_for = tuple(sorted(decision.park.waits_for))
        return Forecast(decision.outcome.value, decision.park.code, waits_for=waits_for)
    return Forecast(decision.outcome.value)


def _told(outcome: Outcome, problem: Problem) -> Forecast:
    faults = "; ".join(f"{f['pointer']}: {f['detail']}" for f in problem.errors)
    return Forecast(outcome.value, problem.code, faults or problem.detail)
