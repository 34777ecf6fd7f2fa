"""Dead letters as an operator sees them: listed, counted in groups, shown whole."""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

import asyncpg

from schema.acts import Letters, Place
from schema.commands import Command
from schema.envelope import headers_from_json
from schema.fields import render_time
from writer.operation.mending import NotReplayable, command_of

_COLUMNS: Final = """lane, "offset", command_id, author_id, key, value, headers, code, detail, sqlstate,
    constraint_name, attempts, died_at, type, closed, closed_at, replay_id, replay_edit, replay_lane,
    replay_offset"""
_OPEN: Final = "closed IS NULL"


@dataclass(frozen=True)
class DeadLetter:
    """One dead letter. `command` is None for bytes that are none; `why_not` says what they are.

    `replay_id` of an open letter: a replay of it was begun, and may be in the log.
    """

    lane: int
    offset: int
    command_id: uuid.UUID | None
    author_id: uuid.UUID | None
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    code: str
    detail: str
    sqlstate: str | None
    constraint: str | None
    attempts: int
    died_at: datetime
    type: str | None
    closed: str | None
    closed_at: datetime | None
    replay_id: uuid.UUID | None
    replay_edit: Mapping[str, Any] | None
    command: Command | None
    why_not: str | None

    @property
    def place(self) -> Place:
        return self.lane, self.offset

    @property
    def name(self) -> str:
        """How an operator names it: `LANE:OFFSET`."""
        return f"{self.lane}:{self.offset}"

    def to_json(self) -> dict[str, Any]:
        """The letter as scripts read it, without its bytes."""
        shown: dict[str, Any] = {
            "letter": self.name,
            "died_at": render_time(self.died_at),
            "code": self.code,
            "detail": self.detail,
            "type": self.type,
            "sqlstate": self.sqlstate,
            "constraint": self.constraint,
            "attempts": self.attempts,
            "command_id": _text(self.command_id),
            "author_id": _text(self.author_id),
            "author": self.command.author.name if self.command else None,
            "closed": self.closed,
            "closed_at": render_time(self.closed_at) if self.closed_at else None,
            "replay_id": _text(self.replay_id),
        }
        return shown

    def whole(self) -> dict[str, Any]:
        """The letter with all that was sent: the command decoded, or why it is none."""
        shown = self.to_json() | {"replayable": self.command is not None}
        if self.command is None:
            return shown | {"why_not": self.why_not}
        return shown | {"command": self.command.to_json()}


@dataclass(frozen=True)
class Group:
    """Letters that died of the same: code, content type, and day (UTC)."""

    code: str
    type: str | None
    day: date
    count: int
    oldest: datetime
    sample: str
    detail: str

    def to_json(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "type": self.type,
            "day": self.day.isoformat(),
            "count": self.count,
            "oldest": render_time(self.oldest),
            "sample": self.sample,
            "detail": self.detail,
        }


async def find(
    connection: asyncpg.Connection, wanted: Letters, *, closed: bool = False
) -> list[DeadLetter]:
    """The letters that are wanted, in the order of (lane, offset). With `closed`, those, too, that
    were dealt with."""
    where, arguments = _where(wanted, closed)
    limit = f"LIMIT {int(wanted.limit)}" if wanted.limit is not None else ""
    rows = await connection.fetch(
        f"SELECT {_COLUMNS} FROM afterwrite.dead_letter WHERE {where} "  # noqa: S608
        f'ORDER BY lane, "offset" {limit}',
        *arguments,
    )
    return [letter_of(dict(row)) for row in rows]


async def places_of(connection: asyncpg.Connection, wanted: Letters) -> list[Place]:
    """Where the open letters that are wanted are, in order: without their bytes, however many."""
    where, arguments = _where(wanted, closed=False)
    limit = f"LIMIT {int(wanted.limit)}" if wanted.limit is not None else ""
    rows = await connection.fetch(
        f'SELECT lane, "offset" FROM afterwrite.dead_letter WHERE {where} '  # noqa: S608
        f'ORDER BY lane, "offset" {limit}',
        *arguments,
    )
    return [(row["lane"], row["offset"]) for row in rows]


async def count(connection: asyncpg.Connection, wanted: Letters, *, closed: bool = False) -> int:
    """How many there are, whatever the limit."""
    where, arguments = _where(wanted, closed)
    found: int = await connection.fetchval(
        f"SELECT count(*) FROM afterwrite.dead_letter WHERE {where}",  # noqa: S608
        *arguments,
    )
    return found


async def groups(connection: asyncpg.Connection, wanted: Letters) -> list[Group]:
    """Open letters by code, type and day; the largest groups first."""
    where, arguments = _where(wanted, closed=False)
    limit = f"LIMIT {int(wanted.limit)}" if wanted.limit is not None else ""
    rows = await connection.fetch(
        f"""
        SELECT code, type, (died_at AT TIME ZONE 'UTC')::date AS day, count(*) AS count,
            min(died_at) AS oldest,
            (array_agg(lane || ':' || "offset" ORDER BY lane, "offset"))[1] AS sample,
            (array_agg(detail ORDER BY lane, "offset"))[1] AS detail
        FROM afterwrite.dead_letter WHERE {where}
        GROUP BY 1, 2, 3 ORDER BY count(*) DESC, min(died_at) {limit}
        """,  # noqa: S608
        *arguments,
    )
    return [Group(**dict(row)) for row in rows]


async def named(
    connection: asyncpg.Connection, names: Sequence[str]
) -> tuple[list[Place], list[str]]:
    """The places of letters named by `LANE:OFFSET` or by the id of their command, and the names that
    nothing has. Raises ValueError for a name that is neither."""
    places: list[Place] = []
    unknown: list[str] = []
    for name in names:
        lane, colon, offset = name.partition(":")
        if colon and lane.isdecimal() and offset.isdecimal():
            condition, arguments = 'lane = $1 AND "offset" = $2', (int(lane), int(offset))
        else:
            condition, arguments = "command_id = $1", (uuid.UUID(name),)  # type: ignore[assignment]
        row = await connection.fetchrow(
            f'SELECT lane, "offset" FROM afterwrite.dead_letter WHERE {condition}',  # noqa: S608
            *arguments,
        )
        if row is None:
            unknown.append(name)
        else:
            places.append((row["lane"], row["offset"]))
    return places, unknown


def letter_of(row: Mapping[str, Any]) -> DeadLetter:
    """The letter of a row of `afterwrite.dead_letter`."""
    command, why_not = None, None
    try:
        command = command_of(row["command_id"], row["value"], row["code"])
    except NotReplayable as error:
        why_not = str(error)
    edit = row["replay_edit"]
    return DeadLetter(
        lane=row["lane"],
        offset=row["offset"],
        command_id=row["command_id"],
        author_id=row["author_id"],
        key=row["key"],
        value=row["value"],
        headers=tuple(headers_from_json(row["headers"])),
        code=row["code"],
        detail=row["detail"],
        sqlstate=row["sqlstate"],
        constraint=row["constraint_name"],
        attempts=row["attempts"],
        died_at=row["died_at"],
        type=row["type"],
        closed=row["closed"],
        closed_at=row["closed_at"],
        replay_id=row["replay_id"],
        replay_edit=edit_of(edit),
        command=command,
        why_not=why_not,
    )


def edit_of(text: str | None) -> Mapping[str, Any] | None:
    """An edit as it was written down with its replay; None if there was none."""
    found: Mapping[str, Any] | None = json.loads(text) if text is not None else None
    return found


def _where(wanted: Letters, closed: bool) -> tuple[str, list[Any]]:
    conditions = [] if closed else [_OPEN]
    arguments: list[Any] = []

    def add(condition: str, *values: Any) -> None:
        numbers = range(len(arguments) + 1, len(arguments) + len(values) + 1)
        conditions.append(condition.format(*(f"${n}" for n in numbers)))
        arguments.extend(values)

    if wanted.places is not None:
        lanes, offsets = [p[0] for p in wanted.places], [p[1] for p in wanted.places]
        add('(lane, "offset") IN (SELECT * FROM unnest({}::int[], {}::bigint[]))', lanes, offsets)
    if wanted.code is not None:
        add("code = {}", wanted.code)
    if wanted.type is not None:
        add("type = {}", wanted.type)
    if wanted.author is not None:
        add("author_id = {}", wanted.author)
    if wanted.since is not None:
        add("died_at >= {}", wanted.since)
    if wanted.until is not None:
        add("died_at < {}", wanted.until)
    return " AND ".join(conditions) or "true", arguments


def _text(value: object) -> str | None:
    return None if value is None else str(value)
