"""Reads: the author's overlay first, then PostgreSQL and the ledger in one snapshot, merged."""

import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, TypeVar

from frontend_api.merge import Entry, Page, Shown, deletes_in, merge_page, merge_row
from frontend_api.overlay import Count, Index, OverlayRead, OverlayState
from frontend_api.overlay_rows import (
    Counts,
    RowRef,
    belongs,
    by_row,
    complete_to,
    entries_of,
    list_indexes,
    readable,
    tells_all,
    with_counts,
)
from frontend_api.redis_access import RedisUnavailable
from frontend_api.view import DatabaseUnavailable, Decisions, SnapshotPort, decisions_of
from schema.catalog import Catalog, ListOf
from schema.content import Kind, Row
from schema.overlay import EntryState
from schema.redis_keys import RedisKeys

T = TypeVar("T")

_MAX_ANCESTORS: Final = 4
_SPARE_MEMBERS: Final = 10
"""How many members of a list index a page reads beyond its limit; with more, it ends early."""


class OverlayPort(Protocol):
    """Raises `RedisUnavailable`."""

    async def read(self, author: uuid.UUID, indexes: Sequence[Index]) -> OverlayRead: ...

    async def counts(
        self, author: uuid.UUID, keys: Sequence[str], positions: Mapping[int, int]
    ) -> list[Count]: ...


class DatabasePort(Protocol):
    """Raises `DatabaseUnavailable`."""

    async def read(
        self, work: Callable[[SnapshotPort], Awaitable[T]], timeout_s: float | None = None
    ) -> T: ...


@dataclass(frozen=True)
class Freshness:
    """How far an answer can be relied upon."""

    overlay: OverlayState = OverlayState.COMPLETE
    stale_s: float | None = None
    """Age of what PostgreSQL said, if it was read from the cache because PostgreSQL is away."""

    def plus(self, other: "Freshness") -> "Freshness":
        """Of an answer made of two: the worse of each."""
        ages = [age for age in (self.stale_s, other.stale_s) if age is not None]
        worse = max(self.overlay, other.overlay, key=list(OverlayState).index)
        return Freshness(worse, max(ages) if ages else None)


@dataclass(frozen=True)
class View:
    """Rows as their reader sees them. What is not in `rows` could not be read."""

    rows: Mapping[RowRef, Shown | None] = field(default_factory=dict)
    freshness: Freshness = Freshness()
    overlay_empty: bool = True
    database_read: bool = True

    def __contains__(self, ref: RowRef) -> bool:
        return ref in self.rows

    def get(self, type_: str, row_id: uuid.UUID) -> Shown | None:
        return self.rows.get((type_, row_id))

    def plus(self, other: "View") -> "View":
        return replace(
            other,
            rows={**self.rows, **other.rows},
            freshness=self.freshness.plus(other.freshness),
            database_read=self.database_read and other.database_read,
        )


@dataclass(frozen=True)
class ListPage:
    page: Page
    freshness: Freshness


class Reader:
    """What one reader sees. Overlay and database each may be away; not both."""

    def __init__(
        self,
        catalog: Catalog,
        keys: RedisKeys,
        overlay: OverlayPort,
        database: DatabasePort,
        on_unconfirmed: Callable[[Entry], None],
    ) -> None:
        self._catalog = catalog
        self._keys = keys
        self._overlay = overlay
        self._database = database
        self._on_unconfirmed = on_unconfirmed

    async def rows(
        self,
        author: uuid.UUID,
        wanted: Sequence[tuple[Kind, uuid.UUID]],
        timeout_s: float | None = None,
        *,
        counted: bool = True,
    ) -> View:
        """These rows, as far as they can be read: what is left out is unknown. Never raises.

        With `counted=False` counters are as the database has them.
        """
        indexes = [Index(self._keys.row(author, k.name, row_id), "row") for k, row_id in wanted]
        overlay = await self._read_overlay(author, indexes)

        async def work(snapshot: SnapshotPort) -> tuple[dict[RowRef, Row], Decisions, Counts]:
            base: dict[RowRef, Row] = {}
            for kind in {kind.name: kind for kind, _ in wanted}.values():
                ids = [row_id for k, row_id in wanted if k is kind]
                found = await snapshot.rows(kind, ids)
                base |= {(kind.name, row_id): row for row_id, row in found.items()}
            refs = [(kind, row_id) for kind, row_id in wanted if kind.counters and counted]
            decisions, counts = await self._decisions(snapshot, author, overlay, refs)
            return base, decisions, counts

        base: dict[RowRef, Row] | None
        try:
            base, decisions, counts = await self._database.read(work, timeout_s)
        except DatabaseUnavailable:
            refs = [(kind, row_id) for kind, row_id in wanted if kind.counters and counted]
            base, decisions = None, Decisions()
            counts = {} if overlay.empty else await self._counts(author, refs, {})
        rows: dict[RowRef, Shown | None] = {}
        for at, (kind, row_id) in enumerate(wanted):
            entries = decisions.undecided(entries_of(overlay, overlay.members[at]))
            row = base.get((kind.name, row_id)) if base is not None else None
            if base is None and not tells_all(kind, row_id, entries):
                continue
            shown = merge_row(kind, row_id, row, entries)
            rows[kind.name, row_id] = with_counts(kind, shown, counts, decisions)
        return View(rows, Freshness(overlay.state), overlay.empty, base is not None)

    async def row(
        self, author: uuid.UUID, kind: Kind, row_id: uuid.UUID, *, counted: bool = True
    ) -> tuple[Shown | None, View]:
        """One row, None if it is not there for this reader. Raises `DatabaseUnavailable`."""
        view = await self.rows(author, [(kind, row_id)], counted=counted)
        if (kind.name, row_id) not in view:
            raise DatabaseUnavailable
        shown = view.get(kind.name, row_id)
        if shown is None or not readable(kind, shown.row, author):
            return None, view
        if not view.overlay_empty and await self._ancestor_gone(author, kind, shown.row):
            return None, view
        return shown, view

    async def page(
        self,
        author: uuid.UUID,
        lst: ListOf,
        parent: uuid.UUID | None,
        after: uuid.UUID | None,
        limit: int,
    ) -> ListPage | None:
        """One page of a list; None if its parent is not there. Raises `DatabaseUnavailable`."""
        if lst.parent is not None and parent is not None:
            shown, _ = await self.row(author, lst.parent, parent, counted=False)
            if shown is None:
                return None
        members = limit + _SPARE_MEMBERS
        indexes = list_indexes(self._keys, author, lst, parent, after, members)
        overlay = await self._read_overlay(author, indexes)
        possible = by_row(overlay, overlay.entries.values())
        ask = limit + 1 + deletes_in(lst.kind, possible)

        async def work(snapshot: SnapshotPort) -> tuple[list[Row], Decisions, Counts]:
            base = await snapshot.page(lst, ask, after, parent, author)
            ids = dict.fromkeys([*(row["id"] for row in base), *possible])
            refs = [(lst.kind, row_id) for row_id in ids if lst.kind.counters]
            decisions, counts = await self._decisions(snapshot, author, overlay, refs)
            return base, decisions, counts

        base, decisions, counts = await self._database.read(work)
        page = merge_page(
            lst.kind,
            base,
            by_row(overlay, decisions.undecided(overlay.entries.values())),
            limit=limit,
            newest_first=lst.listing.newest_first,
            base_to=base[-1]["id"] if len(base) == ask else None,
            overlay_to=complete_to(overlay, members, newest_first=lst.listing.newest_first),
            belongs=belongs(lst, parent, author),
        )
        items = tuple(with_counts(lst.kind, s, counts, decisions) or s for s in page.items)
        return ListPage(replace(page, items=items), Freshness(overlay.state))

    async def _decisions(
        self,
        snapshot: SnapshotPort,
        author: uuid.UUID,
        overlay: OverlayRead,
        counted: Sequence[tuple[Kind, uuid.UUID]],
    ) -> tuple[Decisions, Counts]:
        """What the snapshot's ledger says of the entries, and what the author adds to counters.

        The counters' ids are known only after the page, so that part of the overlay is read after
        the snapshot was taken. It is exact all the same: a settled entry outlives the reading of a
        page by its grace period, and the ledger of the page's own snapshot decides.
        """
        if overlay.empty:
            return Decisions(), {}
        lanes = await snapshot.positions()
        positions = {lane: place.position for lane, place in lanes.items()}
        counts = await self._counts(author, counted, positions)
        statuses = {command: entry.status for command, entry in overlay.entries.items()}
        for count in counts.values():
            statuses |= {command: status for _, _, command, status in count.open}
        return await decisions_of(snapshot, author, statuses, lanes), counts

    async def _counts(
        self,
        author: uuid.UUID,
        refs: Sequence[tuple[Kind, uuid.UUID]],
        positions: Mapping[int, int],
    ) -> Counts:
        if not refs:
            return {}
        keys = [self._keys.count(author, kind.name, row_id) for kind, row_id in refs]
        try:
            found = await self._overlay.counts(author, keys, positions)
        except RedisUnavailable:
            return {}
        return {(k.name, row_id): c for (k, row_id), c in zip(refs, found, strict=True)}

    async def _ancestor_gone(self, author: uuid.UUID, kind: Kind, row: Row) -> bool:
        """Whether the author has deleted something that this row goes with."""
        level = [(kind, row)]
        for _ in range(_MAX_ANCESTORS):
            wanted = [
                (self._catalog[f.ref.type], r[f.name])
                for k, r in level
                for f in k.refs
                if f.ref is not None and not f.ref.weak and r.get(f.name) is not None
            ]
            if not wanted:
                return False
            view = await self.rows(author, wanted, counted=False)
            level = []
            for parent, parent_id in wanted:
                shown = view.get(parent.name, parent_id)
                if (parent.name, parent_id) in view and shown is None:
                    return True
                if shown is not None:
                    level.append((parent, shown.row))
        return False

    async def _read_overlay(self, author: uuid.UUID, indexes: Sequence[Index]) -> OverlayRead:
        try:
            found = await self._overlay.read(author, indexes)
        except RedisUnavailable:
            return OverlayRead(state=OverlayState.UNAVAILABLE, members=[() for _ in indexes])
        for entry in found.entries.values():
            if entry.status.state is EntryState.UNCONFIRMED:
                self._on_unconfirmed(entry)
        return found
