"""What many requests want to see of the database in one turn is asked of it in one statement.

One statement is one snapshot and one round trip. Requests that come while it is under way gather for
the next one; those who would rather do without do so as soon as it takes unusually long.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from frontend_api.statements import Statements, page_parameters
from frontend_api.view import DatabaseUnavailable, Glance, LanePosition
from schema.catalog import ListOf
from schema.content import Kind, Row
from schema.structs import struct

_AT_ONCE: Final = 8
"""Statements under way at once..."""
_AT_ONCE_IN_HASTE: Final = 1
"""...and of those who would rather do without than wait long. More would be smaller ones."""
_MOST: Final = 200
"""Requests in one statement."""
_UNUSUAL: Final = 4.0
"""A statement takes unusually long after so many times what those before it took..."""
_UNUSUAL_MIN_S: Final = 0.04
"""...and never sooner than this: a pause of one process is no standstill of the server."""
_WEIGHT: Final = 0.125
"""How much one statement says of what is usual."""

_LATE_S: Final = 0.01
"""How much later than asked for a timer may ring."""

Run = Callable[[str, Sequence[Any], float | None], Awaitable[Sequence[Any]]]
"""Runs one statement, with parameters and a time limit in seconds, and returns its only row."""


@struct(frozen=True)
class _Ask:
    wanted: Sequence[tuple[Kind, uuid.UUID]]
    author: uuid.UUID
    commands: Sequence[uuid.UUID]
    seen: "asyncio.Future[Glance]"


@dataclass
class _Queue:
    """Who waits with the same time limit."""

    timeout_s: float | None
    waiting: list[_Ask] = field(default_factory=list)
    under_way: set[asyncio.Task[None]] = field(default_factory=set)
    flushing: bool = False
    usual_s: float | None = None
    """How long statements take, of late; None until one was answered."""
    overdue: bool = False
    """The one that is under way takes unusually long."""

    def note(self, took_s: float) -> None:
        """One was answered."""
        before_s = self.usual_s if self.usual_s is not None else took_s
        self.usual_s = before_s + _WEIGHT * (took_s - before_s)

    def patience_s(self) -> float | None:
        """How long others wait for one that is under way; None if they have no limit of their own."""
        if self.timeout_s is None or self.usual_s is None:
            return None
        return min(max(_UNUSUAL * self.usual_s, _UNUSUAL_MIN_S), self.timeout_s)

    def turn_away(self) -> None:
        """Those who wait go on without."""
        waiting, self.waiting = self.waiting, []
        for ask in waiting:
            _refuse(ask, DatabaseUnavailable("it takes unusually long"))


class _Watch:
    """Says of a queue that its statement is overdue, from `due` on, on the loop's clock, to its `end`."""

    def __init__(self, queue: _Queue, due: float) -> None:
        self._queue = queue
        self._due = due
        self._timer = asyncio.get_running_loop().call_at(due, self._ring)

    def _ring(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        if now - self._due > _LATE_S:
            # The loop itself stood still: what was answered meanwhile is only seen in its next turn.
            self._due = now + _LATE_S / 2
            self._timer = loop.call_at(self._due, self._ring)
            return
        self._queue.overdue = True
        self._queue.turn_away()

    def end(self) -> None:
        self._timer.cancel()
        self._queue.overdue = False


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
        """These rows, and what the ledger has of the author's commands.

        With a time limit it waits for a statement of others only as long as they usually take."""
        loop = asyncio.get_running_loop()
        queue = self._queues.get(timeout_s)
        if queue is None:
            queue = self._queues[timeout_s] = _Queue(timeout_s)
        ask = _Ask(wanted, author, commands, loop.create_future())
        queue.waiting.append(ask)
        if queue.overdue:
            queue.turn_away()
        elif not queue.flushing:
            queue.flushing = True
            loop.call_soon(self._flush, queue)
        return ask.seen

    async def page(
        self,
        lst: ListOf,
        limit: int,
        after: uuid.UUID | None,
        parent: uuid.UUID | None,
        reader: uuid.UUID,
        commands: Sequence[uuid.UUID] | None,
    ) -> Glance:
        """A page of at most `limit` rows with its parent, for one reader alone.

        Without `commands`, not even none of them, neither lanes nor ledger are looked at."""
        args = page_parameters(lst, limit, after, parent, reader)
        statement = self._statements.glance_page(
            lst, behind=after is not None, places=commands is not None
        )
        if commands is not None:
            args += [reader, commands]
        found = iter(await self._run(statement, args, None))
        lanes: dict[int, LanePosition] = {}
        ledger: list[Mapping[str, Any]] = []
        if commands is not None:
            lanes, ledger = lanes_of(next(found)), ledger_of(next(found))
        above: dict[tuple[str, uuid.UUID], Row] = {}
        if lst.parent is not None:
            rows = rows_of(lst.parent, next(found))
            above = {(lst.parent.name, row["id"]): row for row in rows}
        return Glance(lanes, ledger, above, rows_of_columns(lst.kind, list(found)))

    def _flush(self, queue: _Queue) -> None:
        queue.flushing = False
        most = _AT_ONCE if queue.timeout_s is None else _AT_ONCE_IN_HASTE
        while queue.waiting and len(queue.under_way) < most:
            asks, queue.waiting = queue.waiting[:_MOST], queue.waiting[_MOST:]
            task = asyncio.create_task(self._see(asks, queue))
            queue.under_way.add(task)

            def seen(done: "asyncio.Task[None]") -> None:
                queue.under_way.discard(done)
                if not queue.flushing:
                    self._flush(queue)

            task.add_done_callback(seen)

    async def _see(self, asks: Sequence[_Ask], queue: _Queue) -> None:
        asks = [ask for ask in asks if not ask.seen.done()]
        if not asks:
            return
        loop = asyncio.get_running_loop()
        begun, patience_s = loop.time(), queue.patience_s()
        watch = _Watch(queue, begun + patience_s) if patience_s is not None else None
        try:
            seen = await self._together(asks, queue.timeout_s)
        except Exception as error:  # noqa: BLE001 - whoever asked is told, and knows what it means
            for ask in asks:
                _refuse(ask, error)
        except BaseException:
            for ask in asks:
                ask.seen.cancel()
            raise
        else:
            queue.note(loop.time() - begun)
            for ask in asks:
                if not ask.seen.done():
                    ask.seen.set_result(seen)
        finally:
            if watch is not None:
                watch.end()

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
        args: list[Any] = [list(ids[kind.name]) for kind in ordered]
        if commands:  # mostly there are none: nothing that is asked for is pending
            args = [authors, commands, *args]
        statement = self._statements.glance(ordered, ledger=bool(commands))
        found = iter(await self._run(statement, args, timeout_s))
        lanes = lanes_of(next(found))
        ledger = ledger_of(next(found)) if commands else []
        rows = {
            (kind.name, row["id"]): row
            for kind, records in zip(ordered, found, strict=True)
            for row in rows_of(kind, records)
        }
        return Glance(lanes, ledger, rows)


def _refuse(ask: _Ask, error: Exception) -> None:
    if not ask.seen.done():
        ask.seen.set_exception(error)
        ask.seen.exception()  # looked at: whoever asked may have gone


def rows_of(kind: Kind, records: Sequence[Any]) -> list[Row]:
    columns = kind.columns
    return [dict(zip(columns, record, strict=True)) for record in records]


def rows_of_columns(kind: Kind, values: Sequence[Sequence[Any] | None]) -> list[Row]:
    """The rows, out of the values of each column; all of these are None where there are none."""
    if values[0] is None:
        return []
    columns = kind.columns
    return [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]


def lanes_of(records: Sequence[Any]) -> dict[int, LanePosition]:
    return {
        lane: LanePosition(position, begin, frozenset(map(int, filter(None, parked.split(",")))))
        for lane, position, begin, parked in records
    }


def ledger_of(records: Sequence[Any]) -> list[Mapping[str, Any]]:
    names = ("author_id", "command_id", "outcome", "lane", "offset")
    return [dict(zip(names, record, strict=True)) for record in records]
