"""What many requests want to see of the database in one turn is asked of it in one statement.

One statement is one snapshot and one round trip. Requests that come while it is under way gather for
the next one.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from frontend_api.statements import Statements
from frontend_api.view import Glance, LanePosition
from schema.catalog import ListOf
from schema.content import Kind, Row

_AT_ONCE: Final = 8
"""Statements under way at once..."""
_AT_ONCE_IN_HASTE: Final = 1
"""...and of those who would rather do without than wait long. More would be smaller ones."""
_MOST: Final = 200
"""Requests in one statement."""

Run = Callable[[str, Sequence[Any], float | None], Awaitable[Sequence[Any]]]
"""Runs one statement, with parameters and a time limit in seconds, and returns its only row."""


@dataclass(frozen=True)
class _Ask:
    wanted: Sequence[tuple[Kind, uuid.UUID]]
    author: uuid.UUID
    commands: Sequence[uuid.UUID]
    seen: "asyncio.Future[Glance]"


@dataclass
class _Queue:
    """Who waits with the same time limit."""

    waiting: list[_Ask] = field(default_factory=list)
    under_way: set[asyncio.Task[None]] = field(default_factory=set)
    flushing: bool = False


class Glances:
    """Raises what `run` raises, to everyone who waits for that statement."""

    def __init__(self, statements: Statements, run: Run) -> None:
        self._statements = statements
        self._run = run
        self._queues: dict[float | None, _Queue] = {}

    def ask(
        self,
        wanted: Sequence[tuple[Kind, uuid.UUID]],
        author: uuid.UUID,
        commands: Sequence[uuid.UUID],
        timeout_s: float | None,
    ) -> "asyncio.Future[Glance]":
        """These rows, and what the ledger has of the author's commands."""
        loop = asyncio.get_running_loop()
        queue = self._queues.setdefault(timeout_s, _Queue())
        ask = _Ask(wanted, author, commands, loop.create_future())
        queue.waiting.append(ask)
        if not queue.flushing:
            queue.flushing = True
            loop.call_soon(self._flush, queue, timeout_s)
        return ask.seen

    async def page(
        self,
        lst: ListOf,
        limit: int,
        after: uuid.UUID | None,
        parent: uuid.UUID | None,
        reader: uuid.UUID,
        commands: Sequence[uuid.UUID],
    ) -> Glance:
        """A page of at most `limit` rows with its parent, for one reader alone."""
        kinds = [lst.parent] if lst.parent is not None else []
        args: list[Any] = [[reader] * len(commands), commands]
        args += [[parent] for _ in kinds]
        args += [limit, after]
        if lst.parent is not None:
            args.append(parent)
        if lst.kind.model.private_to is not None:
            args.append(reader)
        found = await self._run(self._statements.glance(kinds, lst), args, None)
        above = {(kind.name, row["id"]): row for kind in kinds for row in rows_of(kind, found[2])}
        page = rows_of(lst.kind, found[-1])
        return Glance(lanes_of(found[0]), ledger_of(found[1]), above, page)

    def _flush(self, queue: _Queue, timeout_s: float | None) -> None:
        queue.flushing = False
        most = _AT_ONCE if timeout_s is None else _AT_ONCE_IN_HASTE
        while queue.waiting and len(queue.under_way) < most:
            asks, queue.waiting = queue.waiting[:_MOST], queue.waiting[_MOST:]
            task = asyncio.create_task(self._see(asks, timeout_s))
            queue.under_way.add(task)

            def seen(done: "asyncio.Task[None]") -> None:
                queue.under_way.discard(done)
                if not queue.flushing:
                    self._flush(queue, timeout_s)

            task.add_done_callback(seen)

    async def _see(self, asks: Sequence[_Ask], timeout_s: float | None) -> None:
        asks = [ask for ask in asks if not ask.seen.done()]
        if not asks:
            return
        try:
            seen = await self._together(asks, timeout_s)
        except Exception as error:  # noqa: BLE001 - whoever asked is told, and knows what it means
            for ask in asks:
                if not ask.seen.done():
                    ask.seen.set_exception(error)
                    ask.seen.exception()  # looked at: whoever asked may have gone
        except BaseException:
            for ask in asks:
                ask.seen.cancel()
            raise
        else:
            for ask in asks:
                if not ask.seen.done():
                    ask.seen.set_result(seen)

    async def _together(self, asks: Sequence[_Ask], timeout_s: float | None) -> Glance:
        """All of what is asked, and so at least what each asks."""
        kinds: dict[str, Kind] = {}
        ids: dict[str, set[uuid.UUID]] = {}
        authors: list[uuid.UUID] = []
        commands: list[uuid.UUID] = []
        for ask in asks:
            for kind, row_id in ask.wanted:
                kinds[kind.name] = kind
                ids.setdefault(kind.name, set()).add(row_id)
            authors += [ask.author] * len(ask.commands)
            commands += ask.commands
        ordered = [kinds[name] for name in sorted(kinds)]
        args = [authors, commands, *(list(ids[kind.name]) for kind in ordered)]
        found = await self._run(self._statements.glance(ordered), args, timeout_s)
        rows = {
            (kind.name, row["id"]): row
            for kind, records in zip(ordered, found[2:], strict=True)
            for row in rows_of(kind, records)
        }
        return Glance(lanes_of(found[0]), ledger_of(found[1]), rows)


def rows_of(kind: Kind, records: Sequence[Any]) -> list[Row]:
    columns = kind.columns
    return [dict(zip(columns, record, strict=True)) for record in records]


def lanes_of(records: Sequence[Any]) -> dict[int, LanePosition]:
    return {
        lane: LanePosition(position, begin, frozenset(map(int, filter(None, parked.split(",")))))
        for lane, position, begin, parked in records
    }


def ledger_of(records: Sequence[Any]) -> list[Mapping[str, Any]]:
    names = ("author_id", "command_id", "outcome", "lane", "offset")
    return [dict(zip(names, record, strict=True)) for record in records]
