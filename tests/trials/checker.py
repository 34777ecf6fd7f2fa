"""Judges every recorded read: missing, doubled, leaked, stale, out of order."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal
from uuid import UUID

from tests.trials.model import Change, Read, Record, Seen
from tests.trials.rows import Rows, Stance

Wrong = Literal[
    "missing",  # a change acknowledged before the read began is not reflected
    "doubled",  # a row or a text is there twice
    "leaked",  # what somebody else has not saved
    "ghost",  # what is deleted, rejected or refused
    "wrong_version",  # a text or version that the row cannot have then
    "wrong_count",
    "wrong_state",
    "wrong_order",
    "wrong_page",  # a row outside of the page, or on two pages of one walk
    "lost",  # accepted, and never decided
]


_BY_REPEATS: Final = frozenset({"doubled", "ghost", "wrong_version", "wrong_count"})


@dataclass(frozen=True)
class Violation:
    wrong: Wrong
    what: str
    read: Read | None = None

    def __str__(self) -> str:
        if self.read is None:
            return f"{self.wrong}: {self.what}"
        read = self.read
        return (
            f"{self.wrong}: {self.what} [reader {read.reader}, {read.kind} {read.target} of {read.api} "
            f"{read.began:.3f}–{read.ended:.3f}, {read.declared or 'exact'}]"
        )


@dataclass(frozen=True)
class Verdict:
    """`reads` by what they declared of themselves (`exact` for those that claim to be)."""

    violations: list[Violation]
    reads: Counter[str]
    kinds: Counter[str]
    beside_repeats: int = 0
    """Reads that said that they are incomplete, and showed a repeat beside the first. A request that
    is repeated while Redis cannot tell that it is a repetition is answered with ids of its own."""

    def by_kind(self) -> dict[str, int]:
        return dict(Counter(v.wrong for v in self.violations))


def judge(record: Record) -> Verdict:
    """The whole record. Takes about a tenth of a millisecond a read."""
    checker = Checker(record)
    found = [v for read in record.reads for v in checker.check(read)]
    violations = [v for v in found if not checker.beside_repeat(v)]
    repeats = len({id(v.read) for v in found if checker.beside_repeat(v)})
    violations += checker.across_pages()
    violations += checker.leaks()
    violations += checker.lost()
    reads = Counter(read.declared or "exact" for read in record.reads)
    return Verdict(violations, reads, Counter(read.kind for read in record.reads), repeats)


class Checker:
    def __init__(self, record: Record) -> None:
        self.record = record
        self.rows = Rows(record)
        self.by_key = {change.key: change for change in record.changes}

    def check(self, read: Read) -> Iterator[Violation]:
        """What is wrong with one read in itself."""
        if read.status not in (200, 404):
            return
        match read.kind:
            case "topic" | "post":
                yield from self._single(read)
            case "posts" | "topics" | "reactions":
                yield from self._page(read)
            case "command":
                yield from self._command(read)
            case "notices":
                yield from self._notices(read)

    # -- single rows ------------------------------------------------------------------------

    def _single(self, read: Read) -> Iterator[Violation]:
        if read.status == 404:
            if None not in self.rows.values(read.target, read):
                yield Violation("missing", "404", read)
            return
        seen = read.rows[0]
        if read.etag != f'"v{seen.version}"':
            yield Violation("wrong_version", f"ETag {read.etag} of version {seen.version}", read)
        if self._name(seen) != read.target:
            yield Violation("wrong_version", f"another row: {seen}", read)
            return
        yield from self._shown(seen, read)

    def _name(self, seen: Seen) -> str:
        if seen.type == "reaction":
            return seen.text
        return self.rows.row_of_text.get(seen.marker, "")

    def _shown(self, seen: Seen, read: Read) -> Iterator[Violation]:
        """Whether this row may be shown, as it is shown."""
        row = self._name(seen)
        values = self.rows.values(row, read)
        value = ("" if seen.type == "reaction" else seen.marker, seen.version)
        if read.declared and any(v is not None and v[0] == value[0] for v in values):
            return  # how often a text was changed is not certain in an incomplete answer
        if value not in values:
            yield Violation(self._why_not(row, seen, read), f"{seen}, not {values}", read)
            return
        if seen.type != "reaction" and not read.declared:
            counts = self.rows.counts(row, read)
            if seen.count not in counts:
                yield Violation("wrong_count", f"{seen}, not {sorted(counts)}", read)
        yield from self._state(row, seen, read)

    def _why_not(self, row: str, seen: Seen, read: Read) -> Wrong:
        if not any(self.rows.values(row, read)):
            return "ghost"
        writer = self.rows.writer_of_text.get(seen.marker)
        foreign = writer is not None and writer.author != read.reader
        if writer is not None and foreign and self.rows.stance(writer, read) is Stance.NOT:
            return "leaked"
        return "wrong_version"

    def _state(self, row: str, seen: Seen, read: Read) -> Iterator[Violation]:
        touched = [change for change, _ in self.rows.touches[row]]
        mine = [c for c in touched if c.author == read.reader]
        if not mine and (seen.state != "saved" or seen.command):
            yield Violation("wrong_state", f"{seen} is of another, and not saved", read)
        unsaved = [
            c for c in mine if self.rows.stance(c, read) is Stance.MUST and c.decided > read.ended
        ]
        if unsaved and seen.state == "saved":
            yield Violation("wrong_state", f"{seen} is saved before {unsaved[0].key} is", read)
        horizon = self.record.horizon.of(read.began, read.ended)
        settled = all(c.outcome and c.seq <= horizon for c in touched)
        if settled and not read.declared and seen.state != "saved":
            yield Violation("wrong_state", f"{seen}, although all of it is saved", read)

    # -- lists ------------------------------------------------------------------------------

    def _page(self, read: Read) -> Iterator[Violation]:
        if read.status == 404:
            if None not in self.rows.values(read.target, read):
                yield Violation("missing", "404", read)
            return
        names = [self._name(seen) for seen in read.rows]
        for name in [name for name, times in Counter(names).items() if times > 1]:
            yield Violation("doubled", name, read)
        ids = [UUID(seen.id).int for seen in read.rows]
        sign = -1 if read.kind == "topics" else 1
        if any(sign * a >= sign * b for a, b in pairwise(ids)):
            yield Violation("wrong_order", str([s.id for s in read.rows]), read)
        for seen in read.rows:
            if not self._within(seen.id, read):
                yield Violation("wrong_page", f"{seen} is not of this page", read)
            yield from self._shown(seen, read)
        yield from self._left_out(set(names), read)

    def _left_out(self, names: set[str], read: Read) -> Iterator[Violation]:
        """Rows that belong on the page and are not there."""
        for row in self._candidates(read):
            if row in names or not any(self._within(i, read) for i in self.rows.ids[row]):
                continue
            if None not in self.rows.values(row, read):
                yield Violation("missing", row, read)

    def _candidates(self, read: Read) -> list[str]:
        """Every row that could stand in this list."""
        match read.kind:
            case "topics":
                return self.rows.topics
            case "posts":
                return self.rows.of_topic[read.target]
            case _:
                return list({mut.row: None for _, mut in self.rows.children[read.target]})

    @staticmethod
    def _within(row_id: str, read: Read) -> bool:
        at = UUID(row_id).int
        sign = -1 if read.kind == "topics" else 1
        if read.after and sign * at <= sign * UUID(read.after).int:
            return False
        return not read.until or sign * at <= sign * UUID(read.until).int

    def across_pages(self) -> list[Violation]:
        """Rows on two pages of one walk."""
        found = []
        where: dict[tuple[int, str], Read] = {}
        for read in self.record.reads:
            for seen in read.rows if read.walk else ():
                first = where.setdefault((read.walk, seen.id), read)
                if first is not read:
                    found.append(Violation("wrong_page", f"{seen} again", read))
        return found

    # -- commands and notices ---------------------------------------------------------------

    def _command(self, read: Read) -> Iterator[Violation]:
        change = self.by_key[read.target]
        if read.status == 404:
            if self.rows.stance(change, read) is Stance.MUST:
                yield Violation("missing", change.key, read)
            return
        if read.code == "saved" and (change.outcome != "saved" or change.decided > read.ended):
            yield Violation("wrong_state", f"{change.key} is not saved", read)
        if read.code == "rejected" and change.outcome != "rejected":
            yield Violation("wrong_state", f"{change.key} is not rejected", read)

    def _notices(self, read: Read) -> Iterator[Violation]:
        mine = {c.effective or c.command: c for c in self.record.of(read.reader)}
        for seen in read.rows:
            change = mine.get(seen.command)
            if change is None:
                yield Violation("leaked", f"a notice of {seen.command}", read)
            elif change.outcome != "rejected":
                yield Violation("wrong_state", f"a notice of {change.key}", read)
        for command, times in Counter(seen.command for seen in read.rows).items():
            if times > 1:
                yield Violation("doubled", f"notices of {command}", read)

    def beside_repeat(self, violation: Violation) -> bool:
        """Whether this is known: see `Verdict.beside_repeats`."""
        read = violation.read
        if read is None or not read.declared or violation.wrong not in _BY_REPEATS:
            return False
        forked = [c.forked for c in self.record.of(read.reader) if c.forked is not None]
        return any(at < read.ended for at in forked)

    # -- the whole --------------------------------------------------------------------------

    def leaks(self) -> list[Violation]:
        """Markers of somebody else's in any answer, before they were saved."""
        found = []
        for sighting in self.record.sightings:
            for text in sorted(sighting.markers):
                change = self.rows.writer_of_text.get(text)
                if change is None or not _shareable(change, sighting.ended):
                    what = f"{text} in {sighting.request} to {sighting.reader}"
                    found.append(Violation("leaked", what))
        return found

    def lost(self) -> list[Violation]:
        return [
            Violation("lost", f"{change.key} ({change.command})")
            for change in self.record.changes
            if change.accepted is not None and not change.outcome
        ]


def _shareable(change: Change, at: float) -> bool:
    return change.outcome == "saved" and change.decided <= at
