"""What reading is built upon: the overlay, the database, and the cache of what it said."""

import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from frontend_api.overlay import Count, Index, OverlayRead, OverlayState
from frontend_api.overlay_rows import RowRef
from frontend_api.view import CachedPage, CachedRow, Glance, LanePosition, SnapshotPort
from schema.catalog import ListOf
from schema.content import Kind, Row

T = TypeVar("T")
Wanted = tuple[Kind, uuid.UUID]
Positions = Mapping[int, LanePosition]


class OverlayPort(Protocol):
    """Raises `RedisUnavailable`."""

    async def read(
        self,
        author: uuid.UUID,
        indexes: Sequence[Index],
        shared: Sequence[Index] = (),
        *,
        counters: bool = False,
    ) -> OverlayRead: ...

    async def counts(
        self,
        author: uuid.UUID,
        keys: Sequence[str],
        positions: Mapping[int, int],
        shared: Sequence[str] = (),
    ) -> tuple[list[Count], OverlayState]: ...


class DatabasePort(Protocol):
    """Raises `DatabaseUnavailable`."""

    async def read(
        self, work: Callable[[SnapshotPort], Awaitable[T]], timeout_s: float | None = None
    ) -> T: ...

    async def glance(
        self,
        wanted: Sequence[Wanted],
        author: uuid.UUID,
        commands: Sequence[uuid.UUID],
        timeout_s: float | None = None,
    ) -> Glance:
        """These rows, and what the ledger has of these commands, seen by one statement."""
        ...

    async def glance_page(
        self,
        lst: ListOf,
        limit: int,
        after: uuid.UUID | None,
        parent: uuid.UUID | None,
        reader: uuid.UUID,
        commands: Sequence[uuid.UUID] | None,
    ) -> Glance:
        """A page with its parent, lanes, and what the ledger has of these commands, the same way.

        With None for the commands neither lanes nor ledger are looked at."""
        ...


class CachePort(Protocol):
    """What PostgreSQL said lately. Best effort: never raises, never waits to keep something."""

    def wants_rows(
        self, refs: Sequence[Wanted], reader: uuid.UUID, *, seldom: bool = False
    ) -> bool: ...

    def keep_rows(
        self, rows: Mapping[Wanted, Row | None], positions: Positions, reader: uuid.UUID
    ) -> None: ...

    def wants_page(
        self, lst: ListOf, parent: uuid.UUID | None, after: uuid.UUID | None, reader: uuid.UUID
    ) -> bool: ...

    def keep_page(
        self,
        lst: ListOf,
        parent: uuid.UUID | None,
        after: uuid.UUID | None,
        reader: uuid.UUID,
        asked: int,
        rows: Sequence[Row],
        positions: Positions,
    ) -> None: ...

    async def rows(
        self, refs: Sequence[Wanted], reader: uuid.UUID
    ) -> Mapping[RowRef, CachedRow]: ...

    async def page(
        self,
        lst: ListOf,
        parent: uuid.UUID | None,
        after: uuid.UUID | None,
        reader: uuid.UUID,
        limit: int,
    ) -> CachedPage | None: ...


class NoCache:
    """Nothing is kept: with PostgreSQL away, only what the overlay tells can be read."""

    def wants_rows(self, *_: Any, seldom: bool = False) -> bool:
        return False

    def keep_rows(self, *_: Any) -> None:
        return

    def wants_page(self, *_: Any) -> bool:
        return False

    def keep_page(self, *_: Any) -> None:
        return

    async def rows(self, *_: Any) -> Mapping[RowRef, CachedRow]:
        return {}

    async def page(self, *_: Any) -> CachedPage | None:
        return None
