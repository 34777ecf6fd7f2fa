"""What a reader may be shown of a row or a count, by a model of its own: no code of the product.

Of every change that touches a row it is known from the record whether a certain read must reflect
it, may reflect it, or must not. All combinations that this leaves are allowed, and nothing else.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from itertools import combinations

from tests.trials.model import Change, Mut, Read, Record

MOST_OPEN = 6
"""With more open changes of one author upon one row, nothing is excluded; of a count, its bounds are."""


class Stance(Enum):
    MUST = "must be reflected"
    MAY = "may be reflected"
    NOT = "must not be reflected"


Value = tuple[str, int] | None
"""Text and version of a row; None if it is not there."""
Touch = tuple[Change, Mut]


class Rows:
    """The rows of a record and everything that was done to them."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.touches: dict[str, list[Touch]] = defaultdict(list)
        self.children: dict[str, list[Touch]] = defaultdict(list)
        self.of_topic: dict[str, list[str]] = defaultdict(list)
        self.row_of_text: dict[str, str] = {}
        self.writer_of_text: dict[str, Change] = {}
        self.ids: dict[str, set[str]] = defaultdict(set)
        self.topics: list[str] = []
        for change in sorted(record.changes, key=lambda c: (c.author, c.number)):
            self._note(change)
        # With a topic go its posts, with a post its reactions.
        for topic in self.topics:
            for change in self._deleting(topic):
                for post in self.of_topic[topic]:
                    self.touches[post].append((change, Mut("delete", "post", post)))
        for post in [post for posts in self.of_topic.values() for post in posts]:
            for change in self._deleting(post):
                for row in {mut.row for _, mut in self.children[post]}:
                    self.touches[row].append((change, Mut("delete", "reaction", row)))

    def _deleting(self, row: str) -> list[Change]:
        return [change for change, mut in self.touches[row] if mut.op == "delete"]

    def _note(self, change: Change) -> None:
        for row, row_id in change.ids.items():
            self.ids[row].add(row_id)
        for mut in change.muts:
            self.touches[mut.row].append((change, mut))
            if mut.parent and mut.op != "update":
                self.children[mut.parent].append((change, mut))
            if mut.text:
                self.row_of_text[mut.text] = mut.row
                self.writer_of_text[mut.text] = change
            if mut.op == "create" and mut.type == "topic":
                self.topics.append(mut.row)
            elif mut.op == "create" and mut.type == "post":
                self.of_topic[mut.parent].append(mut.row)

    # -- one change and one read ------------------------------------------------------------

    def stance(self, change: Change, read: Read) -> Stance:
        """Whether the read had to, could or could not reflect the change."""
        if change.sent >= read.ended:
            return Stance.NOT
        if change.author != read.reader:
            return self._of_another(change, read)
        if change.told_rejected is not None and change.told_rejected <= read.began:
            return Stance.NOT
        if change.outcome == "rejected":
            return Stance.MAY
        if change.refused is not None and not change.ambiguous:
            return Stance.NOT if change.refused <= read.began else Stance.MAY
        if self._replayed(change, read):
            return Stance.MUST
        if change.accepted is None or change.accepted > read.began:
            return Stance.MAY
        if change.display_delayed or change.effective not in ("", change.command):
            return Stance.MAY
        return Stance.MAY if read.overlay != "complete" else Stance.MUST

    def _of_another(self, change: Change, read: Read) -> Stance:
        if change.outcome != "saved":
            return Stance.NOT
        if self._replayed(change, read):
            return Stance.MUST
        return Stance.MAY if change.decided <= read.ended else Stance.NOT

    def _replayed(self, change: Change, read: Read) -> bool:
        """Whether the database that was read had it for certain."""
        return (
            change.outcome == "saved"
            and read.stale_s is None
            and change.seq <= self.record.horizon.of(read.began, read.ended)
        )

    # -- rows -------------------------------------------------------------------------------

    def values(self, row: str, read: Read) -> "set[Value]":
        """Everything that the read may show of the row."""
        must, may = self._split(self.touches[row], read)
        if len(may) > MOST_OPEN:
            return _Anything()
        return {_value(chosen) for chosen in _choices(must, may, read)}

    def counts(self, row: str, read: Read) -> set[int]:
        """Everything that the read may show as the number of the row's children."""
        own = [t for t in self.children[row] if t[0].author == read.reader]
        others = [t for t in self.children[row] if t[0].author != read.reader]
        mine, theirs = self._counts(own, read), self._counts(others, read)
        return {a + b for a in mine for b in range(min(theirs), max(theirs) + 1)}

    def _counts(self, touches: Sequence[Touch], read: Read) -> set[int]:
        must, may = self._split(touches, read)
        if len(may) <= MOST_OPEN or not may or may[0][0].author != read.reader:
            return {_count(chosen) for chosen in _choices(must, may, read)}
        least = [t for t in may if t[1].op == "delete"]
        most = [t for t in may if t[1].op == "create"]
        ends = [_count(_ordered([*must, *some])) for some in (least, most)]
        return set(range(ends[0], ends[1] + 1))

    def _split(self, touches: Sequence[Touch], read: Read) -> tuple[list[Touch], list[Touch]]:
        """What must be reflected, and what may be."""
        stances = {id(change): self.stance(change, read) for change, _ in touches}
        return (
            [t for t in touches if stances[id(t[0])] is Stance.MUST],
            [t for t in touches if stances[id(t[0])] is Stance.MAY],
        )


class _Anything(set[Value]):
    """So much is open that nothing is excluded."""

    def __contains__(self, value: object) -> bool:
        return True


def _choices(must: list[Touch], may: list[Touch], read: Read) -> Iterator[list[Touch]]:
    """Every choice of the changes that may be reflected, with those that must be."""
    open_ = list({id(change): change for change, _ in may})
    choices: Iterable[Iterable[int]]
    if may and may[0][0].author == read.reader:
        choices = (some for n in range(len(open_) + 1) for some in combinations(open_, n))
    else:  # of others only what is saved is shown, and that in the order of saving
        open_.sort(key={id(change): change.seq for change, _ in may}.__getitem__)
        choices = (open_[:n] for n in range(len(open_) + 1))
    for choice in choices:
        chosen = set(choice)
        yield _ordered([*must, *(t for t in may if id(t[0]) in chosen)])


def _ordered(touches: list[Touch]) -> list[Touch]:
    """An author's in the order of sending; those of several authors in the order of saving."""
    if len({change.author for change, _ in touches}) > 1:
        return sorted(touches, key=lambda t: t[0].seq)
    return sorted(touches, key=lambda t: t[0].number)


def _value(touches: Iterable[Touch]) -> Value:
    value: Value = None
    for _, mut in touches:
        if mut.op == "delete":
            value = None
        elif mut.op == "create":
            value = value or (mut.text, 1)
        elif value is not None:
            value = (mut.text or value[0], value[1] + 1)
    return value


def _count(touches: Iterable[Touch]) -> int:
    alive: set[str] = set()
    for _, mut in touches:
        (alive.add if mut.op == "create" else alive.discard)(mut.row)
    return len(alive)
