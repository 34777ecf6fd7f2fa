"""From what was read of the overlay to the rows it touches. Pure: no clock, no I/O."""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from frontend_api.merge import Entry, Shown
from frontend_api.overlay import Count, Index, OverlayRead
from frontend_api.view import Decisions
from schema.catalog import ListOf
from schema.content import Kind, Row
from schema.redis_keys import RedisKeys

RowRef = tuple[str, uuid.UUID]
Counts = dict[RowRef, Count]


def readable(kind: Kind, row: Row, reader: uuid.UUID) -> bool:
    """Whether this reader may read the row at all."""
    private_to = kind.model.private_to
    return private_to is None or bool(row[private_to] == reader)


def list_indexes(
    keys: RedisKeys,
    author: uuid.UUID,
    lst: ListOf,
    parent: uuid.UUID | None,
    after: uuid.UUID | None,
    members: int,
) -> list[Index]:
    """The list's own index, and that of changes whose list could not be told when accepted."""
    places = [parent] if lst.parent is None else [parent, None]
    if lst.listing.newest_first:
        from_ = "+" if after is None else f"({after}:"
        return [Index(keys.list(author, lst.name, p), "desc", from_, members) for p in places]
    from_ = "-" if after is None else f"({after};"  # `;` follows `:`: behind all of that row
    return [Index(keys.list(author, lst.name, p), "asc", from_, members) for p in places]


def entries_of(overlay: OverlayRead, members: Iterable[str]) -> list[Entry]:
    found = (overlay.entries.get(uuid.UUID(member[-36:])) for member in members)
    return [entry for entry in found if entry is not None]


def by_row(overlay: OverlayRead, entries: Iterable[Entry]) -> dict[uuid.UUID, list[Entry]]:
    """Entries by the row id under which the list indexes have them."""
    usable = {entry.command.command_id: entry for entry in entries}
    rows: dict[uuid.UUID, list[Entry]] = {}
    for member in (m for members in overlay.members for m in members):
        entry = usable.get(uuid.UUID(member[37:]))  # type: ignore[call-overload]
        if entry is not None:
            rows.setdefault(uuid.UUID(member[:36]), []).append(entry)
    return rows


def complete_to(overlay: OverlayRead, limit: int, *, newest_first: bool) -> uuid.UUID | None:
    """The last row id up to which what was read of the indexes is complete; None: to the end."""
    ends = [uuid.UUID(members[-1][:36]) for members in overlay.members if len(members) >= limit]
    if not ends:
        return None
    return max(ends, key=lambda i: i.int) if newest_first else min(ends, key=lambda i: i.int)


def belongs(lst: ListOf, parent: uuid.UUID | None, reader: uuid.UUID) -> dict[str, Any]:
    belongs: dict[str, Any] = {}
    if lst.listing.by is not None:
        belongs[lst.listing.by] = parent
    if lst.kind.model.private_to is not None:
        belongs[lst.kind.model.private_to] = reader
    return belongs


def tells_all(kind: Kind, row_id: uuid.UUID, entries: Sequence[Entry]) -> bool:
    """Whether the author's own entries say what the row is, without the database."""
    ops = [
        m.op
        for entry in sorted(entries, key=lambda e: e.order)
        for m in entry.command.mutations
        if m.type == kind.name and m.id == row_id
    ]
    if not ops:
        return False
    created_here = ops[0] == "create" and not kind.model.natural_key
    return created_here or ops[-1] in ("create", "delete")


def with_counts(
    kind: Kind, shown: Shown | None, counts: Counts, decisions: Decisions
) -> Shown | None:
    """The row with its counters as its reader's undecided commands will leave them."""
    if shown is None or not kind.counters:
        return shown
    count = counts.get((kind.name, shown.row["id"]))
    if count is None:
        return shown
    row = dict(shown.row)
    for column, added in count.certain.items():
        row[column] = row.get(column, 0) + added
    for column, delta, command, _ in count.open:
        if command not in decisions.decided:
            row[column] = row.get(column, 0) + delta
    return replace(shown, row=row | {name: max(0, row[name]) for name in kind.counters})
