"""What PostgreSQL says of commands that are being rebuilt: positions, outcomes, parked ones, rows."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

from frontend_api.overlay_rows import RowRef
from frontend_api.snapshots import Snapshot
from frontend_api.statements import EFFECTIVE, PARKED
from frontend_api.view import DatabaseUnavailable, LanePosition
from schema.catalog import Catalog
from schema.content import Row

T = TypeVar("T")

_TRIES: Final = 5
_PATIENCE_S: Final = 3.0
"""How long to wait for a server that did not answer in time, before each of the other tries: to begin
a rebuild again costs more, and a server is slow just when everything is being rebuilt."""


class SnapshotsPort(Protocol):
    """Raises `DatabaseUnavailable`."""

    async def read(self, work: Callable[[Snapshot], Awaitable[T]]) -> T: ...

    async def until_available(self) -> None: ...


@dataclass(frozen=True)
class Parked:
    """A record that is held back, as it was in the log."""

    lane: int
    offset: int
    key: bytes
    value: bytes
    headers: str


@dataclass(frozen=True)
class Told:
    """What one snapshot says. `outcomes` has the ledger row of each command that has one of its own:
    not of those that only repeat another."""

    lanes: Mapping[int, LanePosition]
    outcomes: Mapping[uuid.UUID, Mapping[str, Any]] = field(default_factory=dict)
    rows: Mapping[RowRef, Row | None] = field(default_factory=dict)

    def passed(self, lane: int | None, offset: int | None) -> bool:
        """Whether the writer is behind this place."""
        at = self.lanes.get(lane) if lane is not None else None
        return at is not None and offset is not None and offset < at.position


@dataclass(frozen=True)
class RebuildLedger:
    """Every method raises `DatabaseUnavailable`."""

    database: SnapshotsPort
    catalog: Catalog

    async def positions(self) -> dict[int, LanePosition]:
        return await self._read(Snapshot.positions)

    async def parked(self, lane: int, after: int, limit: int) -> list[Parked]:
        """Parked records of a lane behind an offset, in the order of the log."""

        async def work(snapshot: Snapshot) -> list[Any]:
            found: list[Any] = await snapshot.connection.fetch(PARKED, lane, after, limit)
            return found

        return [Parked(**dict(row)) for row in await self._read(work)]

    async def tell(self, commands: Iterable[uuid.UUID], rows: Iterable[RowRef] = ()) -> Told:
        """What became of these commands, and these rows, in one snapshot."""
        ids = list(commands)
        by_type: dict[str, list[uuid.UUID]] = {}
        for type_, row_id in rows:
            by_type.setdefault(type_, []).append(row_id)

        async def work(snapshot: Snapshot) -> Told:
            decided = await snapshot.connection.fetch(EFFECTIVE, ids)
            found: dict[RowRef, Row | None] = {}
            for type_, wanted in by_type.items():
                there = await snapshot.rows(self.catalog[type_], wanted)
                found |= {(type_, row_id): there.get(row_id) for row_id in wanted}
            outcomes = {row["command_id"]: dict(row) for row in decided}
            return Told(await snapshot.positions(), outcomes, found)

        return await self._read(work)

    async def _read(self, work: Callable[[Snapshot], Awaitable[T]]) -> T:
        for _ in range(_TRIES - 1):
            try:
                return await self.database.read(work)
            except DatabaseUnavailable:
                try:
                    async with asyncio.timeout(_PATIENCE_S):
                        await self.database.until_available()
                except TimeoutError:
                    break
        return await self.database.read(work)
