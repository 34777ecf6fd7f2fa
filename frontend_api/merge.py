"""Merging the pending overlay over what PostgreSQL returned. Pure: no clock, no I/O."""

import functools
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from frontend_api.ids import read_id
from schema.commands import Command, Mutation
from schema.content import Kind, Row
from schema.identifiers import CommandId
from schema.outcomes import State
from schema.overlay import EntryState, Status
from schema.structs import struct

# Looked up through its class, a member takes a tenth of a microsecond.
_SAVED, _PARKED, _UNCONFIRMED = EntryState.SAVED, EntryState.PARKED, EntryState.UNCONFIRMED
_SHOWN_SAVED, _SHOWN_PARKED, _SHOWN_PENDING = State.SAVED, State.PARKED, State.PENDING


@struct(frozen=True)
class Entry:
    """One command of the author's overlay that is undecided in the snapshot read with it."""

    command: Command
    status: Status
    own: bool = True
    """False for what another author shares while it is pending."""


def in_order(entries: Sequence[Entry]) -> Sequence[Entry]:
    """Entries of one row in the order in which they take effect, as far as it is known.

    Confirmed ones by their offset: one row's commands are in one lane, but for notices, which are made
    in the stream of their reader; those go by the time of their acceptance. One whose place in the log
    is not known goes before what was accepted after it: so what is deleted stays deleted, although Kafka
    never confirmed that it was created.
    """
    if len(entries) < 2:
        return entries
    ordered = [e for e in entries if e.status.offset is not None]
    if len({e.status.lane for e in ordered}) > 1:
        ordered.sort(key=lambda e: e.command.accepted_at)
    else:
        ordered.sort(key=lambda e: e.status.offset or 0)
    unplaced = [e for e in entries if e.status.offset is None]
    for entry in sorted(unplaced, key=lambda e: e.status.seq):
        later = (at for at, e in enumerate(ordered) if e.status.seq > entry.status.seq)
        ordered.insert(next(later, len(ordered)), entry)
    return ordered


@struct(frozen=True)
class Shown:
    """A row as its reader sees it. `command` is the last one of his own that it waits for."""

    row: Row
    state: State = State.SAVED
    command: CommandId | None = None
    own: bool = True
    """False if it is there only since another shares it while it is pending."""
    confirmed: bool = field(default=True, compare=False)
    """False while it is not known whether Kafka has all that it waits for."""

    @property
    def version(self) -> int:
        return int(self.row["version"])


@functools.lru_cache(maxsize=256)
def _as_declared(kind: Kind) -> Row:
    """Fields with their defaults, counters with nothing; to be copied."""
    row: Row = {name: f.from_json(f.default) for name, f in kind.fields.items()}
    return row | dict.fromkeys(kind.counters, 0)


def new_row(kind: Kind, command: Command, mutation: Mutation) -> Row:
    """A created row as it will look, with defaults filled in. Raises ValueError if malformed."""
    row = dict(_as_declared(kind))
    row |= kind.from_json(mutation.values, known_id)
    if kind.author_field is not None:
        row[kind.author_field] = command.author.id
    at = command.accepted_at
    row |= {"id": mutation.id, "version": 1, "created_at": at, "updated_at": at}
    return row


def initial_actor(kind: Kind, command: Command) -> Row:
    """The author's own row, which his first command makes."""
    row = dict(_as_declared(kind))
    if "name" in kind.fields:
        row["name"] = command.author.name
    at = command.accepted_at
    return row | {"id": command.author.id, "version": 1, "created_at": at, "updated_at": at}


def apply(kind: Kind, row: Row | None, command: Command, mutation: Mutation) -> Row | None:
    """The row after one mutation; None when it is gone. Same effects as the writer's."""
    if mutation.op == "delete":
        return None
    if mutation.op == "create":
        return row if row is not None else new_row(kind, command, mutation)
    if row is None and kind.model.is_actor and mutation.id == command.author.id:
        row = initial_actor(kind, command)
    if row is None:
        return None
    changed = row | kind.from_json(mutation.values)
    return changed | {"version": row["version"] + 1, "updated_at": command.accepted_at}


def merge_row(
    kind: Kind, row_id: uuid.UUID, base: Row | None, entries: Sequence[Entry]
) -> Shown | None:
    """A row with all its undecided commands applied, in their order.

    One that is saved, but not yet in the snapshot (a replica lags), is applied and not pending.
    """
    row, state, last, own, confirmed = base, _SHOWN_SAVED, None, True, True
    for entry in in_order(entries):
        command, of_entry = entry.command, entry.status.state
        for mutation in command.mutations:
            if mutation.type != kind.name or mutation.id != row_id:
                continue
            if row is None:
                own = entry.own
            row = apply(kind, row, command, mutation)
            if of_entry is not _SAVED:
                parked = of_entry is _PARKED or state is _SHOWN_PARKED
                state = _SHOWN_PARKED if parked else _SHOWN_PENDING
                confirmed = confirmed and of_entry is not _UNCONFIRMED
                last = command.command_id if entry.own else last
    return Shown(row, state, last, own, confirmed) if row is not None else None


@dataclass(frozen=True)
class Page:
    """One page. `next_after` is the row id to continue behind; None at the end of the list."""

    items: tuple[Shown, ...]
    next_after: uuid.UUID | None


def merge_page(
    kind: Kind,
    base: Sequence[Row],
    entries: Mapping[uuid.UUID, Sequence[Entry]],
    *,
    limit: int,
    newest_first: bool = False,
    base_to: uuid.UUID | None = None,
    overlay_to: uuid.UUID | None = None,
    belongs: Mapping[str, Any] | None = None,
) -> Page:
    """One page out of the database's rows and the author's entries by row id.

    `base_to` and `overlay_to` are the last row id up to which either side is complete (None: to the
    end of the list); the page ends at the nearer one, so that pages neither skip nor repeat.
    A row that is in `entries` but not in `base` belongs to this list only if it is created there
    with the values of `belongs`.
    """
    if not entries and overlay_to is None:
        following = base[limit - 1]["id"] if len(base) > limit else base_to
        return Page(tuple([Shown(row) for row in base[:limit]]), following)
    bounds = {bound.int: bound for bound in (base_to, overlay_to) if bound is not None}
    end = (max if newest_first else min)(bounds) if bounds else None
    # By numbers: ids of different types take long to compare.
    rows = {row["id"].int: row for row in base}
    pending = {row_id.int: (row_id, own) for row_id, own in entries.items()}
    items: list[Shown] = []
    for number in sorted({*rows, *pending}, reverse=newest_first):
        if end is not None and (number < end if newest_first else number > end):
            break
        row, waiting = rows.get(number), pending.get(number)
        shown = merge_row(kind, waiting[0], row, waiting[1]) if waiting else Shown(rows[number])
        if shown is not None and (row is not None or _matches(shown.row, belongs)):
            items.append(shown)
            if len(items) > limit:
                return Page(tuple(items[:limit]), items[limit - 1].row["id"])
    return Page(tuple(items), bounds[end] if end is not None else None)


def _matches(row: Row, belongs: Mapping[str, Any] | None) -> bool:
    if belongs is not None:
        for name, value in belongs.items():
            if row.get(name) != value:
                return False
    return True


@functools.lru_cache(maxsize=16_384)
def known_id(text: str) -> uuid.UUID:
    """The id of this text. Whoever reads a page reads it again, and the same ids with it."""
    return read_id(text)


def deletes_in(kind: Kind, entries: Mapping[uuid.UUID, Sequence[Entry]]) -> int:
    """How many of these rows may vanish: a page asks the database for that many more."""
    return len(
        {
            row_id
            for row_id, row_entries in entries.items()
            for entry in row_entries
            for m in entry.command.mutations
            if m.op == "delete" and m.type == kind.name and m.id == row_id
        }
    )
