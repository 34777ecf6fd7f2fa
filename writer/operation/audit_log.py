"""The audit log: one row for every act of an operator, by which asking twice is asking once.

An act is begun before anything is done, with the places that it is about: whoever has to go on with it
after a crash finds them there, and does not take others that have come to match its filter since.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import asyncpg

from schema.acts import Act, Place
from schema.fields import render_time

_BEGIN: Final = """
INSERT INTO afterwrite.audit_log (act_id, at, who, act, target, reason, result)
VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (act_id) DO NOTHING
"""
_READ: Final = """
SELECT act_id, at, who, act, target, reason, result FROM afterwrite.audit_log
"""
# What is done stays as it is: a process that was thought dead may wake up and write its half of it.
_RESULT: Final = """
UPDATE afterwrite.audit_log SET result = $2
WHERE act_id = $1 AND result->'done' <> 'true'::jsonb
"""


@dataclass(frozen=True)
class Entry:
    """One act and what became of it. `result` has `done`: False while it is under way."""

    act_id: Any
    at: datetime
    who: str
    act: str
    target: Mapping[str, Any]
    reason: str | None
    result: Mapping[str, Any]

    @property
    def done(self) -> bool:
        return self.result.get("done") is True

    @property
    def places(self) -> list[Place]:
        return [(lane, offset) for lane, offset in self.target.get("places", ())]

    def to_json(self) -> dict[str, Any]:
        return {
            "act_id": str(self.act_id),
            "at": render_time(self.at),
            "who": self.who,
            "act": self.act,
            "target": self.target,
            "reason": self.reason,
            "result": self.result,
        }


async def begin(
    connection: asyncpg.Connection, act: Act, places: Sequence[Place] | None, now: datetime
) -> Entry:
    """Write an act down, unless it is there already; returns what is there."""
    target: dict[str, Any] = {}
    if places is not None:
        target["places"] = [list(place) for place in places]
    if act.letters is not None and act.letters.places is None:
        target["filter"] = act.letters.to_json()
    if act.lane is not None:
        target["lane"] = act.lane
    if act.values or act.any_version:
        target["values"] = {str(n): dict(values) for n, values in act.values.items()}
    who = f"{act.who.name} ({act.who.id})" if act.who.id.int else act.who.name
    await connection.execute(
        _BEGIN,
        act.act_id,
        now,
        who,
        act.kind,
        json.dumps(target),
        act.reason,
        json.dumps({"done": False}),
    )
    found = await entry_of(connection, act)
    if found is None:
        raise AssertionError("an act that was written down is not there")
    return found


async def entry_of(connection: asyncpg.Connection, act: Act) -> Entry | None:
    """What is known of an act; None if it was not begun."""
    row = await connection.fetchrow(f"{_READ} WHERE act_id = $1", act.act_id)
    return None if row is None else _entry(row)


async def write_result(
    connection: asyncpg.Connection, act: Act, result: Mapping[str, Any], *, done: bool
) -> None:
    """Write down how far an act is. Inside the transaction that does what it says."""
    await connection.execute(_RESULT, act.act_id, json.dumps({"done": done} | dict(result)))


async def latest(connection: asyncpg.Connection, limit: int) -> list[Entry]:
    """The last acts, newest first."""
    rows = await connection.fetch(f"{_READ} ORDER BY at DESC, act_id DESC LIMIT $1", limit)
    return [_entry(row) for row in rows]


def _entry(row: asyncpg.Record) -> Entry:
    return Entry(**dict(row) | {n: json.loads(row[n]) for n in ("target", "result")})
