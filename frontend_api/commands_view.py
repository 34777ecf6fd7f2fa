"""What became of a command: from the ledger, or while it is undecided from the overlay."""

import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from frontend_api.merge import Entry, Shown, initial_actor
from frontend_api.overlay import OverlayState
from frontend_api.reading_ports import DatabasePort
from frontend_api.redis_access import RedisUnavailable
from frontend_api.seen import CommandPage, Freshness, OverlayIncomplete
from frontend_api.view import DatabaseUnavailable, SnapshotPort, settle_rows
from schema.clock import Clock
from schema.content import Kind
from schema.fields import render_time
from schema.identifiers import CommandId
from schema.outcomes import Outcome, State
from schema.overlay import SETTLED, EntryState

_MAX_STEPS: Final = 3
_NEWEST: Final = 100
_SPARE_ROWS: Final = 10
"""A command may have several ledger rows; a page asks for that many more than it shows."""

_STATES: Final = {
    Outcome.SAVED: State.SAVED,
    Outcome.REJECTED: State.REJECTED,
    Outcome.DEAD: State.REJECTED,
    Outcome.PARKED: State.PARKED,
    EntryState.SAVED: State.SAVED,
    EntryState.REJECTED: State.REJECTED,
    EntryState.PARKED: State.PARKED,
}


class LookPort(Protocol):
    """Raises `RedisUnavailable`."""

    async def look(
        self, author: uuid.UUID, command_id: CommandId
    ) -> tuple[Entry | None, OverlayState]: ...

    async def newest(
        self, author: uuid.UUID, limit: int, before: CommandId | None
    ) -> tuple[list[Entry], OverlayState]: ...


@dataclass(frozen=True)
class Patience:
    """When a command that waits is called delayed, and how long it is tried."""

    delayed_after_s: float
    horizon_s: float
    clock: Clock

    def tried_until(self, accepted_at: datetime) -> datetime:
        """When it bounces, if it is not decided before."""
        return accepted_at + timedelta(seconds=self.horizon_s)

    def delayed(self, accepted_at: datetime) -> bool:
        """Whether it has waited longer than is usual."""
        return (self.clock() - accepted_at).total_seconds() >= self.delayed_after_s


class CommandsView:
    """The commands of one author; those of others are not there.

    `problem_of` tells why a command was rejected, as far as that is known without PostgreSQL.
    `notice` is the type of the messages to authors: commands that Afterwrite made itself to tell him
    something can be looked up, but are not listed among his own.
    """

    def __init__(
        self,
        overlay: LookPort,
        database: DatabasePort,
        patience: Patience,
        notice: str,
        problem_of: Callable[[uuid.UUID], Mapping[str, Any] | None],
    ) -> None:
        self._overlay = overlay
        self._database = database
        self._patience = patience
        self._notice = notice
        self._problem_of = problem_of

    async def command(self, author: uuid.UUID, command: CommandId) -> dict[str, Any] | None:
        """The command as JSON, None if there is none.

        Raises `DatabaseUnavailable` or `OverlayIncomplete` if it may be there all the same.
        """
        try:
            entry, state = await self._overlay.look(author, command)
        except RedisUnavailable:
            entry, state = None, OverlayState.UNAVAILABLE
        try:
            ledger = await self._ledger(author, command)
        except DatabaseUnavailable:
            if entry is None:
                raise
            ledger = None
        if ledger is not None:
            return self._from_ledger(command, ledger, entry)
        if entry is not None:
            return self._from_overlay(entry)
        if state is not OverlayState.COMPLETE:
            raise OverlayIncomplete
        return None

    async def actor_to_be(self, kind: Kind, author: uuid.UUID) -> Shown | None:
        """The author's own row, which is not there yet, as the first command that waits will make it.

        None if none waits. Never raises.
        """
        try:
            entries, _ = await self._overlay.newest(author, _NEWEST, None)
            waiting = [e for e in entries if e.status.state not in SETTLED]
            if not waiting:
                return None
            first = waiting[-1].command
            found = await self.command(author, first.command_id)
        except (RedisUnavailable, DatabaseUnavailable, OverlayIncomplete):
            return None
        if found is None or found["state"] not in (State.PENDING, State.DELAYED, State.PARKED):
            return None
        return Shown(initial_actor(kind, first), State.PENDING, first.command_id)

    async def page(self, author: uuid.UUID, after: CommandId | None, limit: int) -> CommandPage:
        """The author's commands, newest first, those behind `after`. Repeats are left out.

        With one of overlay and ledger away it tells what the other knows, and says so. Raises
        `DatabaseUnavailable` if both are.
        """
        try:
            entries, state = await self._overlay.newest(author, limit + 1, after)
        except RedisUnavailable:
            entries, state = [], OverlayState.UNAVAILABLE
        ask = limit + _SPARE_ROWS

        async def work(snapshot: SnapshotPort) -> list[Mapping[str, Any]]:
            return await snapshot.commands(author, after, ask)

        ledger_read = True
        try:
            found = await self._database.read(work)
        except DatabaseUnavailable:
            if state is OverlayState.UNAVAILABLE:
                raise
            found, ledger_read = [], False
        rows = settle_rows(found)
        known: dict[uuid.UUID, Entry] = {e.command.command_id: e for e in entries}
        # Of the last one of either side, and of all older ones, that side may not have told all.
        ends = [min(known, key=lambda c: c.int)] if len(entries) > limit else []
        ends += [found[-1]["command_id"]] if len(found) == ask else []
        bound = max((end.int for end in ends), default=-1)
        ids = sorted({*rows, *known}, key=lambda c: c.int, reverse=True)
        told = [c for c in ids if c.int > bound]
        shown = [c for c in told if self._listed(rows.get(c), known.get(c))]
        items = [
            self._from_ledger(CommandId(c), rows[c], known.get(c))
            if c in rows
            else self._from_overlay(known[c])
            for c in shown[:limit]
        ]
        more = len(shown) > limit or bound >= 0
        last = shown[limit - 1] if len(shown) > limit else told[-1] if told else None
        next_after = CommandId(last) if more and last is not None else None
        return CommandPage(items, next_after, Freshness(state), ledger_read)

    async def _ledger(self, author: uuid.UUID, command: uuid.UUID) -> Mapping[str, Any] | None:
        """The ledger row that counts: a duplicate's is that of the command it repeats."""

        async def work(snapshot: SnapshotPort) -> Mapping[str, Any] | None:
            asked, row = command, None
            for _ in range(_MAX_STEPS):
                found = settle_rows(await snapshot.decisions(author, [asked]))
                row = found.get(asked, row)
                again = row["duplicate_of"] if row is not None else None
                if again is None or again == asked:
                    break
                asked = again
            return row

        return await self._database.read(work)

    def _listed(self, row: Mapping[str, Any] | None, entry: Entry | None) -> bool:
        """Whether it is one of the author's own, and no repeat. Only Afterwrite saves notices."""
        if entry is not None and entry.command.system:
            return False
        if row is None:
            return True
        made = [e for e in _effects(row) if (e["type"], e["op"]) == (self._notice, "create")]
        return row["outcome"] != Outcome.DUPLICATE and not (
            made and row["outcome"] == Outcome.SAVED
        )

    def _from_ledger(
        self, command: CommandId, row: Mapping[str, Any], entry: Entry | None
    ) -> dict[str, Any]:
        outcome = Outcome(row["outcome"])
        state = _STATES.get(outcome, State.PENDING)
        accepted_at = row["accepted_at"] or (entry.command.accepted_at if entry else None)
        rows = [
            {"type": e["type"], "id": e["id"], "op": e["op"], "version": e.get("version")}
            for e in _effects(row)
        ]
        body: dict[str, Any] = {
            "id": str(command),
            "state": state,
            "accepted_at": render_time(accepted_at) if accepted_at else None,
            "settled_at": None if state is State.PARKED else render_time(row["decided_at"]),
            "outcome": outcome,
            "rows": rows or (_rows(entry) if entry else []),
        }
        if row["problem"] is not None:
            body["problem"] = _json(row["problem"])
        if row["command_id"] != command:
            body["duplicate_of"] = str(row["command_id"])
        return body | self._trying(state, accepted_at)

    def _from_overlay(self, entry: Entry) -> dict[str, Any]:
        command, at = entry.command.command_id, entry.command.accepted_at
        state = _STATES.get(entry.status.state, State.PENDING)
        settled = state in (State.SAVED, State.REJECTED)
        if entry.status.state is EntryState.PENDING and self._patience.delayed(at):
            state = State.DELAYED
        body: dict[str, Any] = {
            "id": str(command),
            "state": state,
            "accepted_at": render_time(at),
            "settled_at": None,
            "outcome": entry.status.state if settled or state is State.PARKED else None,
            "rows": _rows(entry),
        }
        problem = self._problem_of(command) if state is State.REJECTED else None
        if problem is not None:
            body["problem"] = problem
        return body | self._trying(state, at)

    def _trying(self, state: State, accepted_at: datetime | None) -> dict[str, str]:
        """How long what waits unusually long is tried."""
        if state not in (State.DELAYED, State.PARKED) or accepted_at is None:
            return {}
        return {"keeps_trying_until": render_time(self._patience.tried_until(accepted_at))}


def _effects(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    effects = _json(row["effects"])
    return effects if isinstance(effects, list) else []


def _json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def _rows(entry: Entry) -> list[dict[str, Any]]:
    return [{"type": m.type, "id": str(m.id), "op": m.op} for m in entry.command.mutations]
