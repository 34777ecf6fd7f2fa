"""Reads of pages: the overlay first, then PostgreSQL and the ledger in one snapshot, merged.

A page takes one question to each server, and a second one to Redis where something that is pending
adds to its counters. What cannot be told that way takes more steps, in one transaction.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from frontend_api.looking import Base, open_counts, positions_of
from frontend_api.merge import Entry, Page, deletes_in, merge_page, merge_row
from frontend_api.overlay import Index, OverlayRead, OverlayState
from frontend_api.overlay_rows import (
    Counts,
    all_by_row,
    belongs,
    by_row,
    complete_to,
    list_indexes,
    parted,
    row_entries,
    row_indexes,
    with_counts,
)
from frontend_api.reading_ports import Wanted
from frontend_api.row_reading import RowReader, unless
from frontend_api.seen import Freshness, ListPage, View
from frontend_api.view import (
    CachedPage,
    DatabaseUnavailable,
    Glance,
    SnapshotPort,
    decided_by_place,
    told_by_place,
)
from schema.catalog import ListOf

_SPARE_MEMBERS: Final = 10
"""How many members of a list index a page reads beyond its limit; with more, it ends early."""

_Pending = Mapping[uuid.UUID, Sequence[Entry]]


class _NotAtOnce(Exception):
    """Only a transaction can tell, in several steps."""


@dataclass(frozen=True)
class _Asked:
    """The page that is asked for, and by whom."""

    author: uuid.UUID
    lst: ListOf
    parent: uuid.UUID | None
    after: uuid.UUID | None
    limit: int

    @property
    def above(self) -> list[Wanted]:
        """The row that the list belongs to, if to any."""
        if self.lst.parent is None or self.parent is None:
            return []
        return [(self.lst.parent, self.parent)]

    def most(self, pending: _Pending) -> int:
        """How many rows to ask the database for: those that are deleted make room for more."""
        return self.limit + 1 + deletes_in(self.lst.kind, pending)


class Reader(RowReader):
    """What one reader sees. Overlay and database each may be away; not both."""

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
        asked = _Asked(author, lst, parent, after, limit)
        try:
            return await self._page_at_once(asked)
        except DatabaseUnavailable:
            return await self._page_in_steps(asked, away=True)
        except _NotAtOnce:
            return await self._page_in_steps(asked, away=False)

    async def _page_at_once(self, asked: _Asked) -> ListPage | None:
        """A page by one question to each server. Raises `_NotAtOnce` where that would not be exact."""
        author, lst, above = asked.author, asked.lst, asked.above
        own, shared = self._list_indexes(asked)
        own_above, shared_above = row_indexes(self._keys, author, above)
        read = await self._read_overlay(
            author, [*own_above, *own], [*shared_above, *shared], counters=bool(lst.kind.counters)
        )
        overlay_above, overlay = parted(read, len(own_above), len(own), len(shared_above))
        possible = all_by_row(overlay)
        ask = asked.most(possible)
        mine = {c: e.status for c, e in read.entries.items() if e.own}
        others = {c: e.status for c, e in read.entries.items() if not e.own}
        keeps = self._wants(asked)
        silent = self._nothing_pending(read) and not keeps
        seen = await self._database.glance_page(
            lst, ask, asked.after, asked.parent, author, None if silent else list(mine)
        )
        lanes = seen.positions
        if keeps:
            self._keep(asked, ask, seen)
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
            counts, counted = await self._counts(author, read, refs, positions_of(lanes))
            more = {c: s for c, s in open_counts(counts).items() if c not in mine}
            if not told_by_place(more, lanes):
                raise _NotAtOnce
            decisions = decisions.plus(decided_by_place(more, lanes))
        base = Base(seen.page, len(seen.page) < ask, decisions, counts)
        page = _merged(asked, overlay, possible, base)
        return ListPage(page, freshness.plus(Freshness(counted)))

    def _wants(self, asked: _Asked) -> bool:
        """Whether anything that the page is made of is to be kept, with the lanes of its snapshot."""
        page = self._cache.wants_page(asked.lst, asked.parent, asked.after, asked.author)
        return page or (bool(asked.above) and self._cache.wants_rows(asked.above, asked.author))

    def _keep(self, asked: _Asked, ask: int, seen: Glance) -> None:
        """What was seen is for those who ask while the database is away."""
        author, lst, above, lanes = asked.author, asked.lst, asked.above, seen.positions
        self._cache.keep_page(lst, asked.parent, asked.after, author, ask, seen.page, lanes)
        if above:
            kept = {(k, i): seen.rows.get((k.name, i)) for k, i in above}
            self._cache.keep_rows(kept, lanes, author)

    async def _page_in_steps(self, asked: _Asked, *, away: bool) -> ListPage | None:
        """The same page, whatever is away, and whatever only the ledger can tell."""
        author, lst, parent, after = asked.author, asked.lst, asked.parent, asked.after
        of: View | None = None
        for kind, row_id in asked.above:
            shown, of = await self.row(author, kind, row_id, counted=False, away=away)
            if shown is None:
                return None
        own, shared = self._list_indexes(asked)
        overlay = await self._read_overlay(author, own, shared, counters=bool(lst.kind.counters))
        possible = all_by_row(overlay)
        ask = asked.most(possible)

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

        older_missing = False
        try:
            unless(away)
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
        page = _merged(asked, overlay, possible, base)
        age_s = None if older_missing else base.age_s
        freshness = Freshness(overlay.state, age_s, older_missing).plus(Freshness(base.counted))
        if of is not None:
            freshness = freshness.plus(of.freshness)
        return ListPage(page, freshness)

    def _list_indexes(self, asked: _Asked) -> tuple[list[Index], list[Index]]:
        members = asked.limit + _SPARE_MEMBERS
        return list_indexes(self._keys, asked.author, asked.lst, asked.parent, asked.after, members)

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


def _merged(asked: _Asked, overlay: OverlayRead, possible: _Pending, base: Base) -> Page:
    """The page, of what the database said and of what is undecided of `possible`."""
    kind, newest_first, decisions = asked.lst.kind, asked.lst.listing.newest_first, base.decisions
    pending = possible
    if decisions.decided or decisions.parked:
        pending = by_row(overlay, decisions.undecided(overlay.entries.values()))
    page = merge_page(
        kind,
        base.rows,
        pending,
        limit=asked.limit,
        newest_first=newest_first,
        base_to=None if base.complete or not base.rows else base.rows[-1]["id"],
        overlay_to=complete_to(overlay, newest_first=newest_first),
        belongs=belongs(asked.lst, asked.parent, asked.author),
    )
    if not base.counts:
        return page
    items = [with_counts(kind, shown, base.counts, decisions) or shown for shown in page.items]
    return replace(page, items=tuple(items))
