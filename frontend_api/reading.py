"""Reads: the author's overlay first, then PostgreSQL and the ledger in one snapshot, merged.

With PostgreSQL away the snapshot is one that was cached; with Redis away there is no overlay. Either
is said in the answer.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from frontend_api.looking import Base, Looking, open_counts, positions_of
from frontend_api.merge import Entry, Shown, deletes_in, merge_page, merge_row
from frontend_api.overlay import OverlayRead, OverlayState
from frontend_api.overlay_rows import (
    Counts,
    RowRef,
    belongs,
    by_row,
    complete_to,
    created_in,
    list_indexes,
    parted,
    readable,
    row_entries,
    row_indexes,
    with_counts,
)
from frontend_api.reading_ports import Wanted
from frontend_api.seen import Freshness, ListPage, OverlayIncomplete, View
from frontend_api.view import (
    CachedPage,
    CachedRow,
    DatabaseUnavailable,
    Decisions,
    SnapshotPort,
    decided_by_place,
    told_by_place,
)
from schema import clock
from schema.catalog import ListOf
from schema.content import Kind, Row

_MAX_ANCESTORS: Final = 4
_SPARE_MEMBERS: Final = 10
"""How many members of a list index a page reads beyond its limit; with more, it ends early."""


class _NotAtOnce(Exception):
    """Only a transaction can tell, in several steps."""


class Reader(Looking):
    """What one reader sees. Overlay and database each may be away; not both."""

    async def rows(
        self,
        author: uuid.UUID,
        wanted: Sequence[Wanted],
        timeout_s: float | None = None,
        *,
        counted: bool = True,
        cached: bool = True,
        away: bool = False,
    ) -> View:
        """These rows, as far as they can be read: what is left out is unknown. Never raises.

        With `counted=False` counters are as the database has them, with `cached=False` nothing is
        taken from the cache, with `away=True` the database is not asked: it has just not answered.
        """
        own, shared = row_indexes(self._keys, author, wanted)
        overlay = await self._read_overlay(author, own, shared)
        entries = row_entries(overlay, wanted)
        refs = [(kind, row_id) for kind, row_id in wanted if kind.counters and counted]
        try:
            _unless(away)
            if refs and not self._nothing_pending(overlay):
                base, decisions, counts, counted_ = await self._rows_and_counts(
                    author, wanted, refs, overlay, timeout_s
                )
            else:
                base, decisions = await self._rows(author, wanted, overlay, timeout_s)
                counts, counted_ = {}, OverlayState.COMPLETE
        except DatabaseUnavailable:
            known = await self._cache.rows(wanted, author) if cached else {}
            return await self._without_database(author, wanted, overlay, known, counted=counted)
        rows = {}
        for (kind, row_id), own_entries in zip(wanted, entries, strict=True):
            row = base.get((kind.name, row_id))
            shown = merge_row(kind, row_id, row, decisions.undecided(own_entries))
            rows[kind.name, row_id] = with_counts(kind, shown, counts, decisions)
        freshness = Freshness(overlay.state).plus(Freshness(counted_))
        return View(rows, freshness, overlay.empty)

    async def _rows(
        self,
        author: uuid.UUID,
        wanted: Sequence[Wanted],
        overlay: OverlayRead,
        timeout_s: float | None,
    ) -> tuple[Mapping[RowRef, Row], Decisions]:
        """Rows without what is added to their counters: all of it is known beforehand, and asked for
        at once."""
        own = {c: e.status for c, e in overlay.entries.items() if e.own}
        seen = await self._database.glance(wanted, author, list(own), timeout_s)
        if self._cache.wants_rows(wanted, author):
            kept = {(k, row_id): seen.rows.get((k.name, row_id)) for k, row_id in wanted}
            self._cache.keep_rows(kept, seen.positions, author)
        others = {c: e.status for c, e in overlay.entries.items() if not e.own}
        return seen.rows, seen.decisions(own).plus(decided_by_place(others, seen.positions))

    async def _rows_and_counts(
        self,
        author: uuid.UUID,
        wanted: Sequence[Wanted],
        refs: Sequence[Wanted],
        overlay: OverlayRead,
        timeout_s: float | None,
    ) -> tuple[Mapping[RowRef, Row], Decisions, Counts, OverlayState]:
        """Rows with what is added to their counters, which takes a question to Redis in between."""

        async def work(
            snapshot: SnapshotPort,
        ) -> tuple[dict[RowRef, Row], Decisions, Counts, OverlayState]:
            base: dict[RowRef, Row] = {}
            for kind in {kind.name: kind for kind, _ in wanted}.values():
                ids = [row_id for k, row_id in wanted if k is kind]
                found = await snapshot.rows(kind, ids)
                base |= {(kind.name, row_id): row for row_id, row in found.items()}
            wants = self._cache.wants_rows(wanted, author)
            asks = wants or not self._nothing_pending(overlay)
            lanes = await snapshot.positions() if asks else {}
            if wants:
                kept = {(k, row_id): base.get((k.name, row_id)) for k, row_id in wanted}
                self._cache.keep_rows(kept, lanes, author)
            return base, *await self._decisions(snapshot, author, overlay, refs, lanes)

        return await self._database.read(work, timeout_s)

    async def row(
        self,
        author: uuid.UUID,
        kind: Kind,
        row_id: uuid.UUID,
        *,
        counted: bool = True,
        away: bool = False,
    ) -> tuple[Shown | None, View]:
        """One row, None if it is not there for this reader.

        Raises `DatabaseUnavailable`, or `OverlayIncomplete` if it may be there all the same.
        """
        view = await self.rows(author, [(kind, row_id)], counted=counted, away=away)
        if (kind.name, row_id) not in view:
            raise DatabaseUnavailable
        shown = view.get(kind.name, row_id)
        there = await self._is_there(author, kind, shown, view)
        return (shown if there else None), view

    async def _is_there(
        self, author: uuid.UUID, kind: Kind, shown: Shown | None, view: View
    ) -> bool:
        """Whether it is there for this reader. Raises `OverlayIncomplete` if that cannot be told."""
        if shown is None and not view.freshness.whole:
            raise OverlayIncomplete
        if shown is None or not readable(kind, shown.row, author):
            return False
        return not await self._ancestor_gone(author, kind, shown, view)

    async def page(
        self,
        author: uuid.UUID,
        lst: ListOf,
        parent: uuid.UUID | None,
        after: uuid.UUID | None,
        limit: int,
    ) -> ListPage | None:
        """One page of a list; None if its parent is not there.

        Raises `DatabaseUnavailable`, or `OverlayIncomplete` if its parent may be there all the same.
        """
        try:
            return await self._page_at_once(author, lst, parent, after, limit)
        except DatabaseUnavailable:
            return await self._page_in_steps(author, lst, parent, after, limit, away=True)
        except _NotAtOnce:
            return await self._page_in_steps(author, lst, parent, after, limit, away=False)

    async def _page_at_once(
        self,
        author: uuid.UUID,
        lst: ListOf,
        parent: uuid.UUID | None,
        after: uuid.UUID | None,
        limit: int,
    ) -> ListPage | None:
        """A page by one question to each server. Raises `_NotAtOnce` where that would not be exact."""
        above = [(lst.parent, parent)] if lst.parent is not None and parent is not None else []
        members = limit + _SPARE_MEMBERS
        own, shared = list_indexes(self._keys, author, lst, parent, after, members)
        own_above, shared_above = row_indexes(self._keys, author, above)
        read = await self._read_overlay(author, [*own_above, *own], [*shared_above, *shared])
        overlay_above, overlay = parted(read, len(own_above), len(own), len(shared_above))
        possible = by_row(overlay, read.entries.values())
        ask = limit + 1 + deletes_in(lst.kind, possible)
        mine = {c: e.status for c, e in read.entries.items() if e.own}
        others = {c: e.status for c, e in read.entries.items() if not e.own}
        seen = await self._database.glance_page(lst, ask, after, parent, author, list(mine))
        lanes = seen.positions
        if self._cache.wants_page(lst, parent, after, author):
            self._cache.keep_page(lst, parent, after, author, ask, seen.page, lanes)
        if above and self._cache.wants_rows(above, author):
            kept = {(k, i): seen.rows.get((k.name, i)) for k, i in above}
            self._cache.keep_rows(kept, lanes, author)
        decisions = seen.decisions(mine).plus(decided_by_place(others, lanes))
        freshness = Freshness(read.state)
        for at, entries in zip(above, row_entries(overlay_above, above), strict=True):
            row = seen.rows.get((at[0].name, at[1]))
            shown = merge_row(*at, row, decisions.undecided(entries))
            if not await self._is_there(author, at[0], shown, View({}, freshness, read.empty)):
                return None
        counts: Counts = {}
        counted = OverlayState.COMPLETE
        if not self._nothing_pending(read):
            refs = self._counted(lst.kind, seen.page, possible)
            counts, counted = await self._counts(author, refs, positions_of(lanes))
            more = {c: s for c, s in open_counts(counts).items() if c not in mine}
            if not told_by_place(more, lanes):
                raise _NotAtOnce
            decisions = decisions.plus(decided_by_place(more, lanes))
        complete = len(seen.page) < ask
        pending = possible
        if decisions.decided or decisions.parked:
            pending = by_row(overlay, decisions.undecided(read.entries.values()))
        page = merge_page(
            lst.kind,
            seen.page,
            pending,
            limit=limit,
            newest_first=lst.listing.newest_first,
            base_to=None if complete or not seen.page else seen.page[-1]["id"],
            overlay_to=complete_to(overlay, newest_first=lst.listing.newest_first),
            belongs=belongs(lst, parent, author),
        )
        items = tuple(with_counts(lst.kind, s, counts, decisions) or s for s in page.items)
        return ListPage(replace(page, items=items), freshness.plus(Freshness(counted)))

    async def _page_in_steps(
        self,
        author: uuid.UUID,
        lst: ListOf,
        parent: uuid.UUID | None,
        after: uuid.UUID | None,
        limit: int,
        *,
        away: bool,
    ) -> ListPage | None:
        """The same page, whatever is away, and whatever only the ledger can tell."""
        of: View | None = None
        older_missing = False
        if lst.parent is not None and parent is not None:
            shown, of = await self.row(author, lst.parent, parent, counted=False, away=away)
            if shown is None:
                return None
        members = limit + _SPARE_MEMBERS
        own, shared = list_indexes(self._keys, author, lst, parent, after, members)
        overlay = await self._read_overlay(author, own, shared)
        possible = by_row(overlay, overlay.entries.values())
        ask = limit + 1 + deletes_in(lst.kind, possible)

        async def work(snapshot: SnapshotPort) -> Base:
            rows = await snapshot.page(lst, ask, after, parent, author)
            wants = self._cache.wants_page(lst, parent, after, author)
            asks = wants or not self._nothing_pending(overlay)
            lanes = await snapshot.positions() if asks else {}
            if wants:
                self._cache.keep_page(lst, parent, after, author, ask, rows, lanes)
            refs = self._counted(lst.kind, rows, possible)
            found = await self._decisions(snapshot, author, overlay, refs, lanes)
            return Base(rows, len(rows) < ask, *found)

        try:
            _unless(away)
            base = await self._database.read(work)
        except DatabaseUnavailable:
            cached = await self._cache.page(lst, parent, after, author, ask)
            cached = cached or self._page_of_new(lst, parent, of)
            if cached is None and not self._pending_is_worth_reading(lst, overlay):
                raise
            older_missing = cached is None
            known = cached or CachedPage([], True, {}, 0.0)
            refs = self._counted(lst.kind, known.rows, possible)
            entries = overlay.entries.values()
            base = await self._cached_base(author, known, overlay, entries, refs)
        page = merge_page(
            lst.kind,
            base.rows,
            by_row(overlay, base.decisions.undecided(overlay.entries.values())),
            limit=limit,
            newest_first=lst.listing.newest_first,
            base_to=None if base.complete or not base.rows else base.rows[-1]["id"],
            overlay_to=complete_to(overlay, newest_first=lst.listing.newest_first),
            belongs=belongs(lst, parent, author),
        )
        items = tuple(
            with_counts(lst.kind, s, base.counts, base.decisions) or s for s in page.items
        )
        age_s = None if older_missing else base.age_s
        freshness = Freshness(overlay.state, age_s, older_missing).plus(Freshness(base.counted))
        if of is not None:
            freshness = freshness.plus(of.freshness)
        return ListPage(replace(page, items=items), freshness)

    async def _without_database(
        self,
        author: uuid.UUID,
        wanted: Sequence[Wanted],
        overlay: OverlayRead,
        known: Mapping[RowRef, CachedRow],
        *,
        counted: bool,
    ) -> View:
        """The rows out of the cache and the overlay; one that the author made needs no cache."""
        rows: dict[RowRef, Shown | None] = {}
        new: set[RowRef] = set()
        freshness = Freshness(overlay.state)
        for (kind, row_id), entries in zip(wanted, row_entries(overlay, wanted), strict=True):
            ref = (kind.name, row_id)
            cached = known.get(ref)
            if cached is None:
                made = created_in(kind, row_id, entries)
                if made is None:
                    continue
                new.add(ref)
                cached = CachedRow(None, {}, _age_s(made))
            refs = [(kind, row_id)] if kind.counters and counted else []
            base = await self._cached_base(
                author, CachedPage([], True, cached.positions, cached.age_s), overlay, entries, refs
            )
            shown = merge_row(kind, row_id, cached.row, base.decisions.undecided(entries))
            if shown is None and cached.row is None:
                continue  # what was not there then may be there now
            rows[ref] = with_counts(kind, shown, base.counts, base.decisions)
            freshness = freshness.plus(Freshness(base.counted, cached.age_s))
        return View(rows, freshness, overlay.empty, False, frozenset(new))

    async def _ancestor_gone(self, author: uuid.UUID, kind: Kind, shown: Shown, view: View) -> bool:
        """Whether something that this row goes with is not there for its reader.

        The database keeps no row without those it goes with; only the overlay can tell otherwise:
        what the author has deleted, or what another shares within something that he does not.
        """
        if view.overlay_empty:
            return False
        level, freshness = [(kind, shown.row)], view.freshness
        for _ in range(_MAX_ANCESTORS):
            wanted = [
                (self._catalog[f.ref.type], r[f.name])
                for k, r in level
                for f in k.refs
                if f.ref is not None and not f.ref.weak and r.get(f.name) is not None
            ]
            if not wanted:
                return False
            above = await self.rows(author, wanted, counted=False)
            freshness = freshness.plus(above.freshness)
            level = []
            for parent, parent_id in wanted:
                found = above.get(parent.name, parent_id)
                if (parent.name, parent_id) in above and found is None:
                    return freshness.whole or not shown.own
                if found is not None:
                    level.append((parent, found.row))
        return False

    def _pending_is_worth_reading(self, lst: ListOf, overlay: OverlayRead) -> bool:
        """Whether what is pending may be shown without anything else: of notices, for they tell what
        is going on just now. They are their reader's own and the newest come first, so that what is
        missing is older, as the answer says."""
        kind = self._catalog.notice
        notices = lst.kind is kind and lst.parent is None and lst.listing.newest_first
        known = overlay.state is not OverlayState.UNAVAILABLE
        return notices and kind.model.private_to is not None and known

    @staticmethod
    def _page_of_new(lst: ListOf, parent: uuid.UUID | None, of: View | None) -> CachedPage | None:
        """Of a row that its reader has made lately, the database has nothing to list yet."""
        if lst.parent is None or of is None or (lst.parent.name, parent) not in of.new:
            return None
        return CachedPage([], True, {}, of.freshness.stale_s or 0.0)


def _age_s(entry: Entry) -> float:
    """How old the reader's knowledge of a row is that he made himself."""
    return max(0.0, (clock.now() - entry.command.accepted_at).total_seconds())


def _unless(away: bool) -> None:
    if away:
        raise DatabaseUnavailable("it has just not answered")
