"""Waves: how the changes of a batch are cut into sets that may be written together.

A wave holds creations and updates, or deletions; no row twice; and of a table with unique constraints
beyond its primary key one command's rows at most, and these only if all are created or all are deleted:
what one row gives up another may take. Written wave by wave they leave what the changes leave one by
one. They need not be written in their order for that: each goes into the first wave that comes behind
all that it depends on, so that a batch takes as many waves as its longest chain.

What a change depends on:

- what was done to its row before, and, if its row vanished with another, the deletion of that one;
- the creation of the rows that it refers to or is counted in (of one wave these are written first);
- for a deletion: every change of a kind of rows that would vanish along, and what is counted in it;
- in a table with unique constraints: what was done there before, and what took its rows along.

Fields that refer to rows are fixed at creation, and counters are only added to: nothing else matters.
"""

import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from schema.content import Kind
from writer.decisions import Change, Decision
from writer.rows import MOST_GONE, Key


def waves(decisions: Sequence[Decision], guarded: frozenset[str]) -> Iterator[list[Change]]:
    """Cut the changes into waves. `guarded` are tables with unique constraints of their own."""
    created = _only_created(decisions, guarded)
    if created is not None:
        if created:
            yield created
        return
    plan = _Plan(guarded)
    for command, decision in enumerate(decisions):
        if decision.changes:
            plan.add(command, decision)
    for _, changes in sorted(plan.levels.items()):
        yield changes


def _only_created(decisions: Sequence[Decision], guarded: frozenset[str]) -> list[Change] | None:
    """The changes of a batch that only creates, each row once: one wave. None of any other."""
    changes = [change for decision in decisions for change in decision.changes]
    for change in changes:
        if change.op != "create" or change.kind.name in guarded:
            return None
    return changes if len({c.row["id"] for c in changes}) == len(changes) else None


@dataclass
class _Plan:
    """Changes by level: deletions on odd ones, the rest on even ones. -1 is before all of them."""

    guarded: frozenset[str]
    levels: dict[int, list[Change]] = field(default_factory=dict)
    _floor: int = 0
    _touched: dict[Key, int] = field(default_factory=dict)
    _created: dict[uuid.UUID, int] = field(default_factory=dict)
    _counted: dict[uuid.UUID, int] = field(default_factory=dict)
    _vanished: dict[uuid.UUID, int] = field(default_factory=dict)
    _of_kind: dict[str, int] = field(default_factory=lambda: defaultdict(lambda: -1))
    """The last level at which a kind was changed."""
    _deleted: dict[str, tuple[Kind, int]] = field(default_factory=dict)
    """The last level at which rows of a kind were deleted."""
    _owner: dict[str, tuple[int, str]] = field(default_factory=dict)
    """The last command that changed a guarded kind, and what it did to it."""
    _columns: dict[str, list[str]] = field(default_factory=dict)
    _below: dict[str, set[str]] = field(default_factory=dict)

    def add(self, command: int, decision: Decision) -> None:
        for change in decision.changes:
            level = self._level(command, change)
            self.levels.setdefault(level, []).append(change)
            self._note(command, change, level)
            if change.op == "delete":
                # Which of its deletions takes which of them along is not said: it may be the last one.
                for row_id in decision.denied:
                    self._vanished[row_id] = max(level, self._vanished.get(row_id, -1))
                if len(decision.denied) > MOST_GONE:
                    self._floor = max(self.levels) + 1  # more has vanished than is known

    def _level(self, command: int, change: Change) -> int:
        """The first level behind all that the change depends on."""
        kind, row = change.kind, change.row
        least = max(self._floor, self._touched.get((kind.name, row["id"]), -1) + 1)
        for column in self._id_columns(kind):
            if (referred := row.get(column)) is not None:
                least = max(least, self._created.get(referred, -1))
        for _, counted_in, _, _ in change.counted:
            least = max(least, self._created.get(counted_in, -1))
        if change.op == "create":
            least = max(least, self._vanished.get(row["id"], -1) + 1)
        elif change.op == "delete":
            least = max(least, self._before_deletion(change))
        if kind.name in self.guarded:
            least = max(least, self._before_guarded(command, change.op, kind))
        return least + (least % 2 != (change.op == "delete"))

    def _before_deletion(self, change: Change) -> int:
        if change.kind.model.is_actor:  # whatever has an author may vanish along
            return max(self.levels, default=-1)
        below = max((self._of_kind[name] for name in self._descendants(change.kind)), default=-1)
        return max(below, self._counted.get(change.row["id"], -1))

    def _before_guarded(self, command: int, op: str, kind: Kind) -> int:
        last = self._of_kind[kind.name]
        together = op != "update" and self._owner.get(kind.name) == (command, op)
        least = last if together else last + 1
        for above, level in self._deleted.values():
            if kind.name in self._descendants(above):
                least = max(least, level + 1)
        return least

    def _note(self, command: int, change: Change, level: int) -> None:
        kind, row_id = change.kind, change.row["id"]
        self._touched[kind.name, row_id] = level
        self._of_kind[kind.name] = max(self._of_kind[kind.name], level)
        for _, counted_in, _, _ in change.counted:
            self._counted[counted_in] = max(self._counted.get(counted_in, -1), level)
        if kind.name in self.guarded:
            self._owner[kind.name] = (command, change.op)
        if change.op == "create":
            self._created[row_id] = level
        elif change.op == "delete":
            self._deleted[kind.name] = (
                kind,
                max(level, self._deleted.get(kind.name, (kind, -1))[1]),
            )
            if kind.model.is_actor:
                self._floor = level + 1

    def _id_columns(self, kind: Kind) -> list[str]:
        """The columns that may refer to rows, declared so or not."""
        if kind.name not in self._columns:
            self._columns[kind.name] = [f.name for f in kind.fields.values() if f.kind == "uuid"]
        return self._columns[kind.name]

    def _descendants(self, kind: Kind) -> set[str]:
        """The kinds whose rows vanish with rows of this kind, however far away."""
        if kind.name not in self._below:
            found: set[str] = set()
            level = [kind]
            while level:
                level = [c for k in level for c, _ in k.children if c.name not in found]
                found |= {child.name for child in level}
            self._below[kind.name] = found
        return self._below[kind.name]
