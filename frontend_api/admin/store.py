"""What the operators' pages read from PostgreSQL, by way of the read-only adapter and its breaker."""

import json
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol, TypeVar

from frontend_api.admin import statements
from frontend_api.admin.facts import CommandsFound, Counts, Lane, Ledger, LettersFound, Row
from frontend_api.admin.filters import AuditFilter, CommandFilter, LetterFilter, moment_of
from frontend_api.snapshots import Snapshot
from schema.catalog import Catalog
from schema.clock import now
from schema.envelope import headers_from_json

T = TypeVar("T")
PAGE: Final = 50
Place = tuple[int, int]
Cursor = tuple[datetime, int, int]
_JSON: Final = ("effects", "problem", "target", "result")
_NEWEST: Final = uuid.UUID(int=(1 << 128) - 1)


class SnapshotsPort(Protocol):
    """Raises `DatabaseUnavailable`."""

    async def read(self, work: Callable[[Snapshot], Awaitable[T]]) -> T: ...


class AdminStore:
    """Every method reads one snapshot in a bounded time, and raises `DatabaseUnavailable`.

    Rows are mappings by column; JSON is decoded, and so are headers.
    """

    def __init__(self, database: SnapshotsPort, catalog: Catalog) -> None:
        self._database = database
        self._catalog = catalog

    async def ledger(self) -> Ledger:
        """How the lanes stand, and what waits."""

        async def work(snapshot: Snapshot) -> Ledger:
            lanes = await snapshot.connection.fetch(statements.LANES)
            counts = await snapshot.connection.fetchrow(statements.COUNTS)
            took = await snapshot.connection.fetchval(statements.LATENCY)
            p50, p95 = (float(took[0]), float(took[1])) if took is not None else (None, None)
            return Ledger(
                tuple(_lane(row) for row in lanes), Counts(**dict(counts), p50_s=p50, p95_s=p95)
            )

        return await self._database.read(work)

    # -- commands -------------------------------------------------------------------------------

    async def commands(self, filter_: CommandFilter, before: uuid.UUID | None) -> CommandsFound:
        """Decided ones, newest first, those older than `before`."""
        author, time = filter_.author, now()
        until = _first_id(moment_of(filter_.until, time))
        top = min((id_ for id_ in (before, until) if id_ is not None), default=_NEWEST)
        since = _first_id(moment_of(filter_.since, time)) or uuid.UUID(int=0)
        state, named = filter_.state, author is not None
        wanted = (filter_.code or None, filter_.type or None)

        async def work(snapshot: Snapshot) -> CommandsFound:
            fetch = snapshot.connection.fetch
            bounds = (top, since, author)
            found = await fetch(
                statements.commands(state, author=named), *bounds, *wanted, PAGE + 1
            )
            rows = [_row(row) for row in found]
            if len(rows) > PAGE:
                return CommandsFound(rows[:PAGE], rows[PAGE - 1]["command_id"])
            look = await fetch(statements.looked_at(state, author=named), *bounds)
            if look[0]["number"] < statements.MOST_LOOKED_AT:
                return CommandsFound(rows)
            return CommandsFound(rows, look[0]["last"], partial=True)

        return await self._database.read(work)

    async def command(self, command: uuid.UUID) -> tuple[list[Row], int | None]:
        """The ledger rows of a command, and up to which outcome number its lane is settled."""

        async def work(snapshot: Snapshot) -> tuple[list[Row], int | None]:
            rows = [_row(r) for r in await snapshot.connection.fetch(statements.COMMAND, command)]
            if not rows:
                return [], None
            settled = await snapshot.connection.fetchval(statements.SETTLED, rows[0]["lane"])
            return rows, settled

        return await self._database.read(work)

    async def names(self, users: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, str]:
        """What users are called, of those that have a name."""
        actor = self._catalog.actor

        async def work(snapshot: Snapshot) -> Mapping[uuid.UUID, str]:
            rows = await snapshot.rows(actor, list(users))
            return {i: str(row["name"]) for i, row in rows.items() if row.get("name")}

        return await self._database.read(work)

    # -- dead letters and what is parked --------------------------------------------------------

    async def groups(self, filter_: LetterFilter) -> list[Row]:
        return await self._fetch(statements.groups(filter_.closed), *_letters(filter_))

    async def letters(
        self, filter_: LetterFilter, after: Cursor | None = None, limit: int = PAGE
    ) -> LettersFound:
        """Newest first, those behind `after`."""
        rows = await self._fetch(
            statements.letters(filter_.closed),
            *_letters(filter_),
            *(after or (None, None, None)),
            limit + 1,
        )
        return LettersFound(rows[:limit], len(rows) > limit)

    async def in_order(self, filter_: LetterFilter, limit: int) -> LettersFound:
        """What an act with this filter would take, in the order in which it would."""
        rows = await self._fetch(statements.in_order(filter_.closed), *_letters(filter_), limit + 1)
        return LettersFound(rows[:limit], len(rows) > limit)

    async def at(self, places: Sequence[Place]) -> list[Row]:
        """The dead letters at these places, those that there are, in order."""
        lanes, offsets = [p[0] for p in places], [p[1] for p in places]
        return await self._fetch(statements.PLACES, lanes, offsets)

    async def letter(self, place: Place) -> Row | None:
        """A dead letter with its bytes."""
        rows = await self._fetch(statements.LETTER, *place)
        return rows[0] if rows else None

    async def held(self, place: Place) -> Row | None:
        """A parked command with its bytes."""
        rows = await self._fetch(statements.HELD, *place)
        return rows[0] if rows else None

    async def parked(self) -> list[Row]:
        """The head of each parked stream, those that are tried next at the top."""
        return await self._fetch(statements.PARKED)

    # -- what operators did ---------------------------------------------------------------------

    async def audit(
        self, filter_: AuditFilter, after: tuple[datetime, uuid.UUID] | None
    ) -> LettersFound:
        time = now()
        rows = await self._fetch(
            statements.AUDIT,
            filter_.who or None,
            filter_.act or None,
            moment_of(filter_.since, time),
            moment_of(filter_.until, time),
            *(after or (None, None)),
            PAGE + 1,
        )
        return LettersFound(rows[:PAGE], len(rows) > PAGE)

    async def act(self, act: uuid.UUID) -> Row | None:
        rows = await self._fetch(statements.ACT, act)
        return rows[0] if rows else None

    async def _fetch(self, statement: str, *args: Any) -> list[Row]:
        async def work(snapshot: Snapshot) -> list[Row]:
            return [_row(row) for row in await snapshot.connection.fetch(statement, *args)]

        return await self._database.read(work)


def _letters(filter_: LetterFilter) -> tuple[Any, ...]:
    time = now()
    return (
        filter_.code or None,
        filter_.type or None,
        filter_.author,
        moment_of(filter_.since, time),
        moment_of(filter_.until, time),
    )


def _lane(row: Mapping[str, Any]) -> Lane:
    owner = row["owner"] if row["leased"] else None
    return Lane(
        row["lane"], row["position"], row["epoch"], owner, row["halted"], row["paused"],
        row["deaths"], row["unsettled"], row["settled"],
    )  # fmt: skip


def _row(row: Mapping[str, Any]) -> Row:
    shown = dict(row)
    for name in _JSON:
        if isinstance(shown.get(name), str):
            shown[name] = json.loads(shown[name])
    if isinstance(shown.get("headers"), str):
        shown["headers"] = headers_from_json(shown["headers"])
    return shown


def _first_id(at: datetime | None) -> uuid.UUID | None:
    """Below every UUIDv7 that was made at this time or later."""
    if at is None:
        return None
    ms = max(0, int((at - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000))
    return uuid.UUID(int=ms << 80)
