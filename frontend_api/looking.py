"""What every read begins with: the reader's overlay, what it adds to counters, what is decided."""

import functools
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from frontend_api.merge import Entry
from frontend_api.overlay import Index, OverlayRead, OverlayState
from frontend_api.overlay_rows import Counts
from frontend_api.reading_ports import CachePort, DatabasePort, OverlayPort, Positions, Wanted
from frontend_api.redis_access import RedisUnavailable
from frontend_api.view import CachedPage, Decisions, SnapshotPort, decided_by_place, decisions_of
from schema.catalog import Catalog
from schema.content import Kind, Row
from schema.overlay import EntryState, Status, index_prefix
from schema.redis_keys import SHARED, RedisKeys, short_id


@dataclass(frozen=True)
class Base:
    """What one snapshot says, present or cached, and what its ledger says of the overlay."""

    rows: Sequence[Row]
    complete: bool
    decisions: Decisions
    counts: Counts = field(default_factory=dict)
    counted: OverlayState = OverlayState.COMPLETE
    """Whether the counts hold everything that is undecided."""
    age_s: float | None = None


class Looking:
    """Overlay and database, each of which may be away."""

    def __init__(
        self,
        catalog: Catalog,
        keys: RedisKeys,
        overlay: OverlayPort,
        database: DatabasePort,
        cache: CachePort,
        on_unconfirmed: Callable[[Entry], None],
    ) -> None:
        self._catalog = catalog
        self._keys = keys
        self._overlay = overlay
        self._database = database
        self._cache = cache
        self._on_unconfirmed = on_unconfirmed

    async def _read_overlay(
        self,
        author: uuid.UUID,
        own: Sequence[Index],
        shared: Sequence[Index],
        *,
        counters: bool = False,
    ) -> OverlayRead:
        try:
            found = await self._overlay.read(author, own, shared, counters=counters)
        except RedisUnavailable:
            nothing: list[Sequence[str]] = [() for _ in (*own, *shared)]
            return OverlayRead(state=OverlayState.UNAVAILABLE, members=nothing)
        for entry in found.entries.values():
            if entry.own and entry.status.state is EntryState.UNCONFIRMED:
                self._on_unconfirmed(entry)
        return found

    def _nothing_pending(self, overlay: OverlayRead) -> bool:
        """Whether PostgreSQL alone has the answer. Others may add to counters of any row."""
        return overlay.empty and not self._catalog.shares

    async def _decisions(
        self,
        snapshot: SnapshotPort,
        author: uuid.UUID,
        overlay: OverlayRead,
        counted: Sequence[Wanted],
        lanes: Positions,
    ) -> tuple[Decisions, Counts, OverlayState]:
        """What the snapshot's ledger says of the entries, and what is added to counters.

        The counters' ids are known only after the page, so that part of the overlay is read after
        the snapshot was taken. It is exact all the same: a settled entry outlives the reading of a
        page by its grace period, and the ledger of the page's own snapshot decides. Of what others
        share, the ledger is not asked: it is theirs, and its place in the log tells enough.
        """
        if self._nothing_pending(overlay):
            return Decisions(), {}, OverlayState.COMPLETE
        counts, state = await self._counts(author, overlay, counted, positions_of(lanes))
        own = {c: e.status for c, e in overlay.entries.items() if e.own} | open_counts(counts)
        others = {c: e.status for c, e in overlay.entries.items() if not e.own}
        decisions = await decisions_of(snapshot, author, own, lanes)
        return decisions.plus(decided_by_place(others, lanes)), counts, state

    async def _counts(
        self,
        author: uuid.UUID,
        overlay: OverlayRead,
        refs: Sequence[Wanted],
        positions: Mapping[int, int],
    ) -> tuple[Counts, OverlayState]:
        """And whether they are whole: Redis may have lost its memory since the rows were read."""
        refs = self._added_to(overlay, refs)
        if not refs:
            return {}, OverlayState.COMPLETE
        keys = [self._keys.count(author, kind.name, row_id) for kind, row_id in refs]
        shared = [
            self._keys.count(SHARED, kind.name, row_id)
            for kind, row_id in refs
            if self._catalog.shares
        ]
        try:
            found, state = await self._overlay.counts(author, keys, positions, shared)
        except RedisUnavailable:
            return {}, OverlayState.UNAVAILABLE
        return {(k.name, row_id): c for (k, row_id), c in zip(refs, found, strict=True)}, state

    @staticmethod
    def _added_to(overlay: OverlayRead, refs: Sequence[Wanted]) -> Sequence[Wanted]:
        """Those of these rows to whose counters something that is pending may add."""
        counters = overlay.counters
        if counters is None or not refs:
            return refs
        return [(kind, i) for kind, i in refs if counters and _counter(kind.name, i) in counters]

    async def _cached_base(
        self,
        author: uuid.UUID,
        cached: CachedPage,
        overlay: OverlayRead,
        entries: Iterable[Entry],
        refs: Sequence[Wanted],
    ) -> Base:
        """A cached snapshot has no ledger, but says how far it got: that decides as well."""
        counts: Counts = {}
        counted = OverlayState.COMPLETE
        if not self._nothing_pending(overlay):
            counts, counted = await self._counts(
                author, overlay, refs, positions_of(cached.positions)
            )
        statuses = {e.command.command_id: e.status for e in entries} | open_counts(counts)
        decisions = decided_by_place(statuses, cached.positions)
        return Base(cached.rows, cached.complete, decisions, counts, counted, cached.age_s)

    @staticmethod
    def _counted(kind: Kind, rows: Sequence[Row], ids: Iterable[uuid.UUID]) -> list[Wanted]:
        if not kind.counters:
            return []
        return [(kind, row_id) for row_id in dict.fromkeys([*(r["id"] for r in rows), *ids])]


@functools.lru_cache(maxsize=16_384)
def _counter(type_: str, row_id: uuid.UUID) -> str:
    """What a counter of this row is called in `OverlayRead.counters`."""
    return index_prefix(f"count:{type_}:{short_id(row_id)}")


def positions_of(lanes: Positions) -> dict[int, int]:
    return {lane: place.position for lane, place in lanes.items()}


def open_counts(counts: Counts) -> dict[uuid.UUID, Status]:
    """The commands whose part in a counter depends on the snapshot."""
    return {command: status for c in counts.values() for _, _, command, status in c.open}
