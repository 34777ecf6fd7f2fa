"""The author's view of rows: his overlay first, then PostgreSQL and the ledger in one snapshot.

An entry whose ledger row in that same snapshot says that it is decided is left out: its effect is
in the rows of that snapshot, or never will be. This is exact on the primary and on any replica.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from frontend_api.merge import Entry
from frontend_api.statements import MOST_PARKED
from schema.catalog import ListOf
from schema.content import Kind, Row
from schema.outcomes import Outcome
from schema.overlay import EntryState, Status

_DECIDED: Final = frozenset({Outcome.SAVED, Outcome.REJECTED, Outcome.DUPLICATE, Outcome.DEAD})


class DatabaseUnavailable(Exception):
    """PostgreSQL is away, hangs, or its role is not proven yet."""


@dataclass(frozen=True)
class LanePosition:
    """Where a lane stands in a snapshot."""

    position: int
    ledger_from: int
    parked: frozenset[int] = frozenset()
    """Offsets before the position whose commands are held back, the first `MOST_PARKED` of them."""

    def decided(self, status: Status) -> bool:
        """Whether the command of this entry is saved or rejected there, told by its place alone."""
        if status.offset is None or status.offset >= self.position or status.offset in self.parked:
            return False
        return status.state is not EntryState.PARKED or len(self.parked) < MOST_PARKED


@dataclass(frozen=True)
class CachedRow:
    """What a snapshot said of one row a while ago; `row` is None if it was not there."""

    row: Row | None
    positions: Mapping[int, LanePosition]
    age_s: float


@dataclass(frozen=True)
class CachedPage:
    """What a snapshot said of a page a while ago. `complete`: the list ends with it."""

    rows: Sequence[Row]
    complete: bool
    positions: Mapping[int, LanePosition]
    age_s: float


class SnapshotPort(Protocol):
    """One consistent view of the database."""

    async def rows(self, kind: Kind, ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, Row]: ...

    async def page(
        self,
        lst: ListOf,
        limit: int,
        after: uuid.UUID | None,
        parent: uuid.UUID | None,
        reader: uuid.UUID,
    ) -> list[Row]: ...

    async def positions(self) -> dict[int, LanePosition]: ...

    async def decisions(
        self, author: uuid.UUID, commands: Sequence[uuid.UUID]
    ) -> list[Mapping[str, Any]]: ...

    async def commands(
        self, author: uuid.UUID, before: uuid.UUID | None, limit: int
    ) -> list[Mapping[str, Any]]: ...


@dataclass(frozen=True)
class Glance:
    """What one statement saw, and so one snapshot."""

    positions: Mapping[int, LanePosition]
    ledger: Sequence[Mapping[str, Any]] = ()
    """Of each command that was asked for: `command_id` and `outcome`; there may be several."""
    rows: Mapping[tuple[str, uuid.UUID], Row] = field(default_factory=dict)
    page: Sequence[Row] = ()

    def decisions(self, statuses: Mapping[uuid.UUID, Status]) -> "Decisions":
        """Which of these entries are decided; the ledger must have been asked for all of them."""
        asked = [command for command, s in statuses.items() if not _ahead(self.positions, s)]
        return _decided(asked, settle_rows(self.ledger), statuses, self.positions)


@dataclass(frozen=True)
class Decisions:
    """What a snapshot's ledger says of the entries that were asked for."""

    decided: frozenset[uuid.UUID] = frozenset()
    parked: frozenset[uuid.UUID] = frozenset()
    rows: Mapping[uuid.UUID, Mapping[str, Any]] = field(default_factory=dict)

    def undecided(self, entries: Iterable[Entry]) -> list[Entry]:
        """The entries that this snapshot does not hold yet, with their state as it says."""
        return [
            self._as_said(entry)
            for entry in entries
            if entry.command.command_id not in self.decided
        ]

    def plus(self, other: "Decisions") -> "Decisions":
        """What is said of disjoint entries, together."""
        return Decisions(
            self.decided | other.decided,
            self.parked | other.parked,
            {**self.rows, **other.rows},
        )

    def _as_said(self, entry: Entry) -> Entry:
        if entry.command.command_id in self.parked:
            return replace(entry, status=replace(entry.status, state=EntryState.PARKED))
        return entry


async def decisions_of(
    snapshot: SnapshotPort,
    author: uuid.UUID,
    statuses: Mapping[uuid.UUID, Status],
    lanes: Mapping[int, LanePosition],
) -> Decisions:
    """Which of these entries are decided in the snapshot.

    An entry at or behind a lane's position is certainly undecided, so that the ledger is asked
    only for the few that the writer may have passed, however many are pending.
    """
    asked = [command for command, status in statuses.items() if not _ahead(lanes, status)]
    if not asked:
        return Decisions()
    rows = settle_rows(await snapshot.decisions(author, asked))
    return _decided(asked, rows, statuses, lanes)


def _decided(
    asked: Sequence[uuid.UUID],
    ledger: Mapping[uuid.UUID, Mapping[str, Any]],
    statuses: Mapping[uuid.UUID, Status],
    lanes: Mapping[int, LanePosition],
) -> Decisions:
    """What the ledger says of the commands that it was asked for."""
    rows = {command: ledger[command] for command in asked if command in ledger}
    decided = {command for command, row in rows.items() if row["outcome"] in _DECIDED}
    decided |= {
        command
        for command in asked
        if command not in rows and _behind_ledger(lanes, statuses[command])
    }
    parked = {command for command, row in rows.items() if row["outcome"] == Outcome.PARKED}
    return Decisions(frozenset(decided), frozenset(parked), rows)


def decided_by_place(
    statuses: Mapping[uuid.UUID, Status], lanes: Mapping[int, LanePosition]
) -> Decisions:
    """Which entries are decided in a snapshot, told by nothing but their place in the log.

    A parked one is not, wherever it is; one whose place is not known is taken as undecided.
    """
    placed = {c: (lanes.get(s.lane), s) for c, s in statuses.items() if s.lane is not None}
    decided = {c for c, (lane, s) in placed.items() if lane is not None and lane.decided(s)}
    parked = {c for c, (lane, s) in placed.items() if lane is not None and s.offset in lane.parked}
    return Decisions(frozenset(decided), frozenset(parked))


def told_by_place(statuses: Mapping[uuid.UUID, Status], lanes: Mapping[int, LanePosition]) -> bool:
    """Whether the place of each entry tells for certain what a snapshot's ledger would tell."""
    return all(
        s.offset is not None and place is not None and len(place.parked) < MOST_PARKED
        for s in statuses.values()
        for place in [lanes.get(s.lane) if s.lane is not None else None]
    )


def settle_rows(found: Iterable[Mapping[str, Any]]) -> dict[uuid.UUID, Mapping[str, Any]]:
    """One ledger row a command: where a record was in the log twice, the one that took effect."""
    rows: dict[uuid.UUID, Mapping[str, Any]] = {}
    for row in found:
        known = rows.get(row["command_id"])
        if known is None or known["outcome"] == Outcome.DUPLICATE:
            rows[row["command_id"]] = row
    return rows


def _ahead(lanes: Mapping[int, LanePosition], status: Status) -> bool:
    if status.lane is None or status.offset is None:
        return False
    lane = lanes.get(status.lane)
    return lane is not None and status.offset >= lane.position


def _behind_ledger(lanes: Mapping[int, LanePosition], status: Status) -> bool:
    """Decided so long ago that retention has dropped its ledger row."""
    if status.lane is None or status.offset is None:
        return False
    lane = lanes.get(status.lane)
    return lane is not None and status.offset < lane.ledger_from
