"""What the pages show, as plain data: lanes, counts, commands, dead letters, and what is known of servers."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar

from schema.pace import Pace

T = TypeVar("T")


@dataclass(frozen=True)
class Lane:
    """One lane as PostgreSQL has it. `owner` is None if nobody holds it any more."""

    lane: int
    position: int
    epoch: int
    owner: str | None
    halted: str | None
    paused: str | None
    deaths: int
    unsettled: int
    settled: int = 0
    """The last outcome sequence that is settled."""


@dataclass(frozen=True)
class Counts:
    """What waits for an operator. A number above `MOST_COUNTED` means: more than that."""

    dead: int = 0
    parked: int = 0
    streams: int = 0
    parked_since: datetime | None = None
    next_retry: datetime | None = None
    p50_s: float | None = None
    p95_s: float | None = None
    """From accepted to saved, of the latest commands; None if there were none lately."""


@dataclass(frozen=True)
class Ledger:
    """One look at the machinery's tables."""

    lanes: tuple[Lane, ...]
    counts: Counts


@dataclass(frozen=True)
class Log:
    """One look at the command log: the end of each lane, and when the first undecided command came."""

    ends: Mapping[int, int]
    oldest: Mapping[int, datetime] = field(default_factory=dict)
    positions: Mapping[int, int] = field(default_factory=dict)
    """What the log itself knows of the writer's positions: never ahead of them, maybe behind."""


@dataclass(frozen=True)
class Told(Generic[T]):
    """The last answer of a server, and whether it still answers. `since`: since when it is as it is;
    `at_least`: it was so already when we first looked."""

    ok: bool | None = None
    since: datetime | None = None
    value: T | None = None
    at: datetime | None = None
    at_least: bool = False

    def answered(self, value: T, now: datetime) -> "Told[T]":
        since = self.since if self.ok else now
        return Told(True, since, value, now, self.at_least if self.ok else self.ok is None)

    def silent(self, now: datetime) -> "Told[T]":
        if self.ok is False:
            return self
        return Told(False, now, self.value, self.at, self.ok is None)


@dataclass(frozen=True)
class Disk:
    """The fullest disk of a broker."""

    broker: int
    used_percent: float


@dataclass(frozen=True)
class Picture:
    """All that is known at one moment. Whatever cannot be asked keeps its last answer, with its time."""

    now: datetime
    ledger: Told[Ledger]
    log: Told[Log]
    redis: Told[bool]
    """Its value: whether the overlay is whole."""
    disk: Disk | None = None
    pace: Pace | None = None
    """None while PostgreSQL or Kafka is away, and before both were asked twice."""

    @property
    def lanes(self) -> tuple[Lane, ...]:
        return self.ledger.value.lanes if self.ledger.value is not None else ()

    @property
    def counts(self) -> Counts:
        return self.ledger.value.counts if self.ledger.value is not None else Counts()

    @property
    def paused(self) -> tuple[Lane, ...]:
        return tuple(lane for lane in self.lanes if lane.paused is not None)

    def lag(self, lane: int) -> int | None:
        """How many commands of a lane are undecided; None if that cannot be known."""
        log = self.log.value
        if log is None or lane not in log.ends:
            return None
        known = [one.position for one in self.lanes if one.lane == lane]
        known += [log.positions[lane]] if lane in log.positions else []
        return max(log.ends[lane] - max(known), 0) if known else None

    @property
    def numbers(self) -> tuple[int, ...]:
        """The lanes that anybody has told of."""
        ends = self.log.value.ends if self.log.value is not None else {}
        return tuple(sorted({lane.lane for lane in self.lanes} | set(ends)))

    @property
    def behind(self) -> int | None:
        """Undecided commands of all lanes; None if it is not known of one."""
        lags = [self.lag(lane) for lane in self.numbers]
        return sum(lag or 0 for lag in lags) if lags and None not in lags else None

    @property
    def waiting(self) -> int | None:
        """Undecided and parked commands."""
        behind = self.behind
        return None if behind is None else behind + self.counts.parked

    @property
    def oldest(self) -> datetime | None:
        """When the first of those came that are undecided."""
        return min(self.log.value.oldest.values(), default=None) if self.log.value else None


Row = Mapping[str, Any]


@dataclass(frozen=True)
class CommandsFound:
    """One page. `partial`: the filter would want more than was looked at; it can be gone on with."""

    rows: Sequence[Row]
    next_before: uuid.UUID | None = None
    partial: bool = False


@dataclass(frozen=True)
class LettersFound:
    rows: Sequence[Row]
    more: bool = False
