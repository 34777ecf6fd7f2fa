"""From what was read of the overlay to the rows it touches. Pure: no clock, no I/O."""

import functools
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from frontend_api.merge import Entry, Shown, in_order, known_id
from frontend_api.overlay import Count, Index, OverlayRead
from frontend_api.view import Decisions
from schema.catalog import ListOf
from schema.content import Kind, Row
from schema.redis_keys import SHARED, RedisKeys

RowRef = tuple[str, uuid.UUID]
Counts = dict[RowRef, Count]


def readable(kind: Kind, row: Row, reader: uuid.UUID) -> bool:
    """Whether this reader may read the row at all."""
    private_to = kind.model.private_to
    return private_to is None or bool(row[private_to] == reader)


def shared(kind: Kind) -> bool:
    """Whether others may see rows of this kind while they are pending."""
    return kind.model.visible_while_pending == "everyone"


def row_indexes(
    keys: RedisKeys, author: uuid.UUID, wanted: Sequence[tuple[Kind, uuid.UUID]]
) -> tuple[list[Index], list[Index]]:
    """The author's indexes of these rows, and those of what others share of them."""
    own = [Index(keys.row(author, kind.name, row_id), "row") for kind, row_id in wanted]
    others = [
        Index(keys.row(SHARED, kind.name, row_id), "row") for kind, row_id in wanted if shared(kind)
    ]
    return own, others


def parted(
    overlay: OverlayRead, own: int, own_rest: int, shared: int
) -> tuple[OverlayRead, OverlayRead]:
    """What was read of so many of the first own indexes and shared ones, and what of all others."""
    to = own + own_rest
    picked = [*range(own), *range(to, to + shared)]
    rest = [at for at in range(len(overlay.members)) if at not in picked]

    def of(indexes: Sequence[int]) -> OverlayRead:
        ends = [overlay.ends[at] for at in indexes] if overlay.ends else ()
        return replace(overlay, members=[overlay.members[at] for at in indexes], ends=ends)

    return of(picked), of(rest)


def row_entries(
    overlay: OverlayRead, wanted: Sequence[tuple[Kind, uuid.UUID]]
) -> list[list[Entry]]:
    """The entries of each of these rows, out of what `row_indexes` made to be read."""
    others = iter(overlay.members[len(wanted) :])
    found = []
    for at, (kind, _) in enumerate(wanted):
        members = [*overlay.members[at], *(next(others, ()) if shared(kind) else ())]
        found.append(entries_of(overlay, members))
    return found


def list_indexes(
    keys: RedisKeys,
    author: uuid.UUID,
    lst: ListOf,
    parent: uuid.UUID | None,
    after: uuid.UUID | None,
    members: int,
) -> tuple[list[Index], list[Index]]:
    """The author's index of the list, and that of changes whose list could not be told when
    accepted; and the same of what others share."""
    places = [parent] if lst.parent is None else [parent, None]
    kind: Literal["asc", "desc"] = "desc" if lst.listing.newest_first else "asc"
    if lst.listing.newest_first:
        from_ = "+" if after is None else f"({after}:"
    else:
        from_ = "-" if after is None else f"({after};"  # `;` follows `:`: behind all of that row

    def of(whose: uuid.UUID) -> list[Index]:
        return [Index(keys.list(whose, lst.name, p), kind, from_, members) for p in places]

    return of(author), of(SHARED) if shared(lst.kind) else []


def entries_of(overlay: OverlayRead, members: Iterable[str]) -> list[Entry]:
    found = (overlay.entries.get(known_id(member[-36:])) for member in members)
    return [entry for entry in found if entry is not None]


def by_row(overlay: OverlayRead, entries: Iterable[Entry]) -> dict[uuid.UUID, list[Entry]]:
    """Entries by the row id under which the list indexes have them."""
    return _by_row(overlay, {entry.command.command_id: entry for entry in entries})


def all_by_row(overlay: OverlayRead) -> dict[uuid.UUID, list[Entry]]:
    """The same of everything that was read."""
    return _by_row(overlay, overlay.entries)


def _by_row(
    overlay: OverlayRead, usable: Mapping[uuid.UUID, Entry]
) -> dict[uuid.UUID, list[Entry]]:
    rows: dict[uuid.UUID, list[Entry]] = {}
    for members in overlay.members:
        for member in members:
            row_id, command = _row_and_command(member)
            entry = usable.get(command)
            if entry is None:
                continue
            of_row = rows.get(row_id)
            if of_row is None:
                rows[row_id] = [entry]
            else:
                of_row.append(entry)
    return rows


@functools.lru_cache(maxsize=16_384)
def _row_and_command(member: str) -> tuple[uuid.UUID, uuid.UUID]:
    """The ids that a member of a list's index is made of."""
    return known_id(member[:36]), known_id(member[37:])


def complete_to(overlay: OverlayRead, *, newest_first: bool) -> uuid.UUID | None:
    """The last row id up to which what was read of the indexes is complete; None: to the end."""
    ends = [end for end in overlay.ends if end is not None]
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


def created_in(kind: Kind, row_id: uuid.UUID, entries: Sequence[Entry]) -> Entry | None:
    """The entry since which these entries say what the row is, without the database."""
    steps = [
        (m, entry)
        for entry in in_order(entries)
        for m in entry.command.mutations
        if m.type == kind.name and m.id == row_id
    ]
    if not steps:
        return None
    if steps[0][0].op == "create" and not kind.model.natural_key:
        return steps[0][1]
    # It may have been there already; but what says everything that can be said leaves nothing open.
    to_say = {f.name for f in kind.fields.values() if f.changeable}
    for mutation, entry in reversed(steps):
        if mutation.op != "update":
            return entry if not to_say or mutation is steps[-1][0] else None
        to_say -= mutation.values.keys()
    return None


def with_counts(
    kind: Kind, shown: Shown | None, counts: Counts, decisions: Decisions
) -> Shown | None:
    """The row with its counters as its reader's undecided commands will leave them."""
    if shown is None or not kind.counters:
        return shown
    count = counts.get((kind.name, shown.row["id"]))
    if count is None or not (count.certain or count.open):
        return shown
    row = dict(shown.row)
    for column, added in count.certain.items():
        row[column] = row.get(column, 0) + added
    for column, delta, command, _ in count.open:
        if command not in decisions.decided:
            row[column] = row.get(column, 0) + delta
    return replace(shown, row=row | {name: max(0, row[name]) for name in kind.counters})
