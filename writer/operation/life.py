"""The whole life of one command: from the request to what its author was told, with times."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import asyncpg

from schema.catalog import Catalog
from schema.fields import render_time
from schema.identifiers import is_uuid7, time_of

_LEDGER: Final = """
SELECT l.lane, l."offset", l.seq, l.outcome, l.author_id, l.stream, l.accepted_at, l.decided_at,
    l.effects, l.problem, l.duplicate_of, lane.settled_seq >= l.seq AS settled
FROM afterwrite.ledger l JOIN afterwrite.lane USING (lane)
WHERE l.command_id = $1 ORDER BY l.outcome = 'duplicate', l.lane, l."offset"
"""
_PARKED: Final = """
SELECT lane, "offset", stream, code, waits_for, parked_at, attempts, retry_at,
    (SELECT min(h."offset") FROM afterwrite.parked h
     WHERE h.lane = p.lane AND h.stream = p.stream) AS head
FROM afterwrite.parked p WHERE command_id = $1
"""
_LETTERS: Final = """
SELECT lane, "offset", command_id, code, detail, died_at, closed, closed_at, replay_id
FROM afterwrite.dead_letter WHERE command_id = $1 OR replay_id = $1
"""


@dataclass(frozen=True)
class Moment:
    """Something that happened; `at` is None where nobody has written down when."""

    what: str
    at: datetime | None
    detail: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        at = render_time(self.at) if self.at is not None else None
        return {"what": self.what, "at": at} | dict(self.detail)


@dataclass(frozen=True)
class Life:
    """`state` is the ledger's outcome, or `unknown` when PostgreSQL has not met the command yet."""

    command_id: uuid.UUID
    state: str
    moments: list[Moment]

    def to_json(self) -> dict[str, Any]:
        return {
            "command_id": str(self.command_id),
            "state": self.state,
            "moments": [moment.to_json() for moment in self.moments],
        }


async def life_of(connection: asyncpg.Connection, catalog: Catalog, command_id: uuid.UUID) -> Life:
    """What PostgreSQL knows of a command, in the order in which it happened."""
    moments: list[Moment] = []
    state = "unknown"
    if is_uuid7(command_id):
        moments.append(Moment("made", time_of(command_id), {}))
    for row in await connection.fetch(_LEDGER, command_id):
        if row["outcome"] == "duplicate":
            moments.append(_repeated(row))
        else:
            state = row["outcome"]
            moments += _decided(row)
    for row in await connection.fetch(_PARKED, command_id):
        moments.append(_parked(row))
    for row in await connection.fetch(_LETTERS, command_id):
        moments += _letter(row, command_id)
    notice = catalog.notice.name
    rows = await connection.fetch(
        f'SELECT id, created_at, kind, code, detail FROM public."{notice}" '  # noqa: S608
        "WHERE command_id = $1 ORDER BY id",
        command_id,
    )
    moments += [
        Moment("notice", r["created_at"], {n: str(r[n]) for n in ("id", "kind", "code", "detail")})
        for r in rows
    ]
    first, rest = moments[:1], moments[1:]
    return Life(command_id, state, first + sorted(rest, key=_by_time))


def _by_time(moment: Moment) -> tuple[bool, float]:
    return moment.at is None, moment.at.timestamp() if moment.at is not None else 0.0


def _decided(row: asyncpg.Record) -> list[Moment]:
    place = {"lane": row["lane"], "offset": row["offset"]}
    accepted = {"author_id": str(row["author_id"]), "stream": str(row["stream"])}
    decided: dict[str, Any] = {
        **place,
        "outcome": row["outcome"],
        "seq": row["seq"],
        "rows": [
            {name: effect.get(name) for name in ("op", "type", "id", "version")}
            for effect in json.loads(row["effects"])
        ],
    }
    if row["problem"]:
        decided["problem"] = json.loads(row["problem"])
    moments = [
        Moment("accepted", row["accepted_at"], accepted | place),
        Moment("decided", row["decided_at"], decided),
    ]
    settled = "settled" if row["settled"] else "not settled yet"
    return [*moments, Moment(settled, None, {"seq": row["seq"]})]


def _repeated(row: asyncpg.Record) -> Moment:
    return Moment(
        "met again, no effect",
        row["decided_at"],
        {"lane": row["lane"], "offset": row["offset"], "duplicate_of": str(row["duplicate_of"])},
    )


def _parked(row: asyncpg.Record) -> Moment:
    detail: dict[str, Any] = {"code": row["code"], "attempts": row["attempts"]}
    if row["waits_for"]:
        detail["waits_for"] = [str(row_id) for row_id in row["waits_for"]]
    if row["head"] == row["offset"]:
        detail["retry_at"] = render_time(row["retry_at"])
    else:
        detail["behind"] = f"{row['lane']}:{row['head']}"
    return Moment("parked", row["parked_at"], detail)


def _letter(row: asyncpg.Record, command_id: uuid.UUID) -> list[Moment]:
    name = f"{row['lane']}:{row['offset']}"
    if row["command_id"] != command_id:  # it is what that letter was replayed as
        detail = {"letter": name, "replays": str(row["command_id"])}
        return [Moment("replay of", row["closed_at"], detail)]
    moments = [Moment("dead letter", row["died_at"], {"letter": name, "code": row["code"]})]
    if row["closed"] is not None:
        more = {"replay_id": str(row["replay_id"])} if row["replay_id"] else {}
        moments.append(Moment(row["closed"], row["closed_at"], {"letter": name} | more))
    elif row["replay_id"] is not None:
        detail = {"letter": name, "replay_id": str(row["replay_id"])}
        moments.append(Moment("replay begun", None, detail))
    return moments
