"""Reads of rows: the author's overlay first, then PostgreSQL and the ledger in one snapshot, merged.

With PostgreSQL away the snapshot is one that was cached; with Redis away there is no overlay. Either
is said in the answer.
"""

import uuid
from collections.abc import Mapping, Sequence
from typing import Final

from frontend_api.looking import Looking
from frontend_api.merge import Entry, Shown, merge_row
from frontend_api.overlay import OverlayRead, OverlayState
from frontend_api.overlay_rows import (
    Counts,
    RowRef,
    created_in,
    readable,
    row_entries,
    row_indexes,
    with_counts,
)
from frontend_api.reading_ports import Wanted
from frontend_api.seen import Freshness, OverlayIncomplete, View
from frontend_api.view import (
    CachedPage,
    CachedRow,
    DatabaseUnavailable,
    Decisions,
    SnapshotPort,
    decided_by_place,
)
from schema import clock
from schema.content import Kind, Row

_MAX_ANCESTORS: Final = 4
_NOTHING_DECIDED: Final = Decisions()


class RowReader(Looking):
    """Rows as one reader sees them. Overlay and database each may be away; not both."""

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
        refs: Sequence[Wanted] = [(k, i) for k, i in wanted if k.counters and counted]
        overlay = await self._read_overlay(author, own, shared, counters=bool(refs))
        refs = self._added_to(overlay, refs)
        try:
            unless(away)
            if refs and not self._nothing_pending(overlay):
                base, decisions, counts, counted_ = await self._rows_and_counts(
                    author, wanted, refs, overlay, timeout_s
                )
            else:
                base, decisions = await self._rows(
                    author, wanted, overlay, timeout_s, seldom=not cached
                )
                counts, counted_ = {}, OverlayState.COMPLETE
        except DatabaseUnavailable:
            known = await self._cache.rows(wanted, author) if cached else {}
            return await self._without_database(author, wanted, overlay, known, counted=counted)
        freshness = Freshness(overlay.state)
        if counted_ is not OverlayState.COMPLETE:
            freshness = freshness.plus(Freshness(counted_))
        if not overlay.entries and not counts:  # mostly so: there is nothing to lay over them
            found = [((kind.name, i), base.get((kind.name, i))) for kind, i in wanted]
            there = {ref: Shown(row) if row is not None else None for ref, row in found}
            return View(there, freshness, overlay.empty)
        rows = {}
        entries = row_entries(overlay, wanted)
        for (kind, row_id), own_entries in zip(wanted, entries, strict=True):
            row = base.get((kind.name, row_id))
            shown = merge_row(kind, row_id, row, decisions.undecided(own_entries))
            rows[kind.name, row_id] = with_counts(kind, shown, counts, decisions)
        return View(rows, freshness, overlay.empty)

    async def _rows(
        self,
        author: uuid.UUID,
        wanted: Sequence[Wanted],
        overlay: OverlayRead,
        timeout_s: float | None,
        *,
        seldom: bool,
    ) -> tuple[Mapping[RowRef, Row], Decisions]:
        """Rows without what is added to their counters: all of it is known beforehand, and asked for
        at once. They are kept in the cache, and `seldom` if they only serve to check something."""
        own = {c: e.status for c, e in overlay.entries.items() if e.own}
        seen = await self._database.glance(wanted, author, list(own), timeout_s)
        if self._cache.wants_rows(wanted, author, seldom=seldom):
            kept = {(k, row_id): seen.rows.get((k.name, row_id)) for k, row_id in wanted}
            self._cache.keep_rows(kept, seen.positions, author)
        if not overlay.entries:
            return seen.rows, _NOTHING_DECIDED
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


def _age_s(entry: Entry) -> float:
    """How old the reader's knowledge of a row is that he made himself."""
    return max(0.0, (clock.now() - entry.command.accepted_at).total_seconds())


def unless(away: bool) -> None:
    """To be called before the database is asked. Raises `DatabaseUnavailable`."""
    if away:
        raise DatabaseUnavailable("it has just not answered")
