"""What a trial records: changes with what became of them, and reads with what they returned.

Every text that an author writes begins with a marker, `m-AUTHOR-CHANGE-PART`, so that wherever a
text turns up it tells who wrote it, with which change. The row that a marker was created with is
called by that marker for ever, whatever id the API gives it.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

Op = Literal["create", "update", "delete"]
Type = Literal["topic", "post", "reaction"]
Kind = Literal["topic", "post", "posts", "topics", "reactions", "command", "notices", "other"]

MARKER = re.compile(r"m-(\d{3})-(\d{4})-(\d)")


def marker(author: int, change: int, part: int) -> str:
    return f"m-{author:03}-{change:04}-{part}"


def reaction_row(post: str, author: int, emoji: str) -> str:
    """What a reaction is called; it carries no text."""
    return f"{post}/{author:03}/{emoji}"


@dataclass(frozen=True)
class Mut:
    """One mutation. `row` is the marker its row was created with, `text` the marker it writes."""

    op: Op
    type: Type
    row: str
    text: str = ""
    parent: str = ""
    """Of a post its topic, of a reaction its post."""


@dataclass
class Change:
    """One command, from the first request to what the ledger says at the end. Times are `time()`."""

    author: int
    number: int
    topic: str
    """The stream: the row of the topic that it happens in."""
    muts: tuple[Mut, ...]
    sent: float = 0.0
    accepted: float | None = None
    """When its 202 had arrived."""
    refused: float | None = None
    """When its final 4xx had arrived."""
    refusal: str = ""
    ambiguous: bool = False
    """A request ended without a definite answer before: it may be in the log."""
    display_delayed: bool = False
    """The API said that it shows only when it is saved."""
    told_rejected: float | None = None
    forked: float | None = None
    """When a repeat of it was first answered with other ids: Redis did not know that it was one."""
    command: str = ""
    ids: dict[str, str] = field(default_factory=dict)
    # What the ledger says at the end.
    outcome: Literal["saved", "rejected", ""] = ""
    seq: int = 0
    decided: float = 0.0
    effective: str = ""

    @property
    def key(self) -> str:
        """Its Idempotency-Key."""
        return f"trial-{self.author:03}-{self.number:04}"


@dataclass(frozen=True)
class Seen:
    """A row in an answer. `count`: posts of a topic, reactions of a post."""

    id: str
    type: Type
    text: str
    version: int
    state: str
    command: str = ""
    count: int = 0

    @property
    def marker(self) -> str:
        found = MARKER.match(self.text)
        return found[0] if found else ""


@dataclass
class Read:
    """One answered request for rows."""

    reader: int
    kind: Kind
    target: str
    """What was asked for: a row, or the parent of a list."""
    began: float
    ended: float = 0.0
    status: int = 0
    rows: tuple[Seen, ...] = ()
    after: str = ""
    """A page: the id it starts behind."""
    until: str = ""
    """A page: the last id it covers; empty: the end of the list."""
    overlay: str = "complete"
    stale_s: float | None = None
    etag: str = ""
    code: str = ""
    walk: int = 0
    """Pages of one walk through a list have the same number."""
    api: str = ""

    @property
    def declared(self) -> str:
        """How the answer limits itself; empty: it claims to be exact."""
        if self.status == 503:
            return "unavailable"
        if self.overlay != "complete":
            return f"overlay {self.overlay}"
        return "stale" if self.stale_s is not None else ""


@dataclass(frozen=True)
class Sighting:
    """Markers of other people in an answer to somebody, wherever they stood."""

    reader: int
    request: str
    began: float
    ended: float
    markers: frozenset[str]


@dataclass
class Horizon:
    """What the replica certainly showed: at a time, all ledger rows up to a number.

    A replica that was killed may show the past again for a moment: it is readable as soon as its
    files agree with each other, and then replays what it had replayed before.
    """

    times: list[float] = field(default_factory=list)
    seqs: list[int] = field(default_factory=list)
    resets: list[float] = field(default_factory=list)

    def note(self, at: float, seq: int) -> None:
        self.times.append(at)
        self.seqs.append(seq)

    def reset(self, at: float) -> None:
        """From now on nothing is certain, until something is noted again."""
        self.note(at, 0)
        self.resets.append(at)

    def of(self, began: float, ended: float) -> int:
        """A read between these times has the ledger rows up to this number."""
        if bisect_right(self.resets, began) != bisect_right(self.resets, ended):
            return 0
        found = bisect_right(self.times, began)
        return self.seqs[found - 1] if found else 0


@dataclass
class Record:
    """Everything that a trial has seen."""

    changes: list[Change] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    sightings: list[Sighting] = field(default_factory=list)
    horizon: Horizon = field(default_factory=Horizon)
    shared: set[str] = field(default_factory=set)
    """Topics in which many write."""
    faults: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def of(self, author: int) -> Iterator[Change]:
        return (change for change in self.changes if change.author == author)


def foreign_markers(text: str, reader: int) -> frozenset[str]:
    """Markers in this text that somebody else has written."""
    mine = f"{reader:03}"
    return frozenset(m[0] for m in MARKER.finditer(text) if m[1] != mine)


def markers_of(changes: Iterable[Change]) -> dict[str, Change]:
    """Which change wrote a text."""
    return {mut.text: change for change in changes for mut in change.muts if mut.text}
