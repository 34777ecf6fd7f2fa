"""Waves against a model of the database: foreign keys, cascades, counters, unique titles.

Each step is one that the planner would let through, made on the state that the steps before it left.
"""

import random
import uuid
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schema.catalog import load_catalog
from schema.commands import Op
from schema.content import Row
from schema.outcomes import Outcome
from writer.decisions import Change, Decision
from writer.record import LaneRecord
from writer.waves import waves

pytestmark = pytest.mark.unit

CATALOG = load_catalog("schema.forum")
RECORD = LaneRecord(0, 0, 0, None, None, (), None)
PARENT = {
    "post": ("topic", "topic_id", "post_count"),
    "reaction": ("post", "post_id", "reaction_count"),
}
KINDS = ("topic", "post", "reaction")
ROWS = 4
Key = tuple[str, int]


@dataclass
class Database:
    """Rows by kind and number; of each what is written to it, and its counter."""

    unique: bool = True
    """Whether no two topics may have the same title."""
    counting: bool = True
    rows: dict[Key, Row] = field(default_factory=dict)
    counts: dict[Key, int] = field(default_factory=dict)

    def write(self, change: Change) -> None:
        key = (change.kind.name, change.row["id"].int)
        if change.op == "delete":
            assert key in self.rows, f"{key} is not there to be deleted"
            self._vanish(key)
        elif change.op == "create":
            assert key not in self.rows, f"{key} is there already"
            self._must_refer(change)
            self.rows[key], self.counts[key] = change.row, 0
        else:
            assert key in self.rows, f"{key} is not there to be changed"
            self.rows[key] = change.row
        titles = [row["title"] for (name, _), row in self.rows.items() if name == "topic"]
        assert len(set(titles)) == len(titles) or not self.unique, "a title twice"

    def count(self, change: Change) -> None:
        for kind, row_id, _, by in change.counted:
            if (kind.name, row_id.int) in self.rows:
                self.counts[kind.name, row_id.int] += by

    def below(self, key: Key) -> list[Key]:
        found = []
        for child, (parent, column, _) in PARENT.items():
            if parent == key[0]:
                hits = [
                    k for k, r in self.rows.items() if k[0] == child and r[column].int == key[1]
                ]
                found += [k for hit in hits for k in (hit, *self.below(hit))]
        return found

    def _vanish(self, key: Key) -> None:
        for gone in (key, *self.below(key)):
            self.rows.pop(gone, None)
            self.counts.pop(gone, None)

    def _must_refer(self, change: Change) -> None:
        if change.kind.name in PARENT:
            parent, column, _ = PARENT[change.kind.name]
            assert (parent, change.row[column].int) in self.rows, "a foreign key"


def _decisions(chooser: random.Random, many: int, database: Database) -> list[Decision]:
    """Valid commands, one after the other, and what they leave in the database."""
    decisions = []
    for version in range(many):
        changes: list[Change] = []
        gone: list[uuid.UUID] = []
        for _ in range(chooser.choice([1, 1, 2])):
            change = _change(chooser, version, database)
            if change is None:
                continue
            if change.op == "delete":
                key = (change.kind.name, change.row["id"].int)
                gone += [uuid.UUID(int=n) for _, n in (key, *database.below(key))]
            database.write(change)
            database.count(change)
            changes.append(change)
        decisions.append(Decision(RECORD, Outcome.SAVED, None, changes=changes, denied=tuple(gone)))
    return decisions


def _change(chooser: random.Random, version: int, database: Database) -> Change | None:
    name = chooser.choice(KINDS)
    number = 10 * KINDS.index(name) + chooser.randrange(ROWS)
    there = database.rows.get((name, number))
    row: Row = dict(there or {"id": uuid.UUID(int=number)}) | {"version": version}
    op: Op = "create" if there is None else chooser.choice(["update", "delete"])
    if name == "topic" and op != "delete":
        row["title"] = f"title {chooser.randrange(ROWS + 2)}"
        others = [
            r["title"] for k, r in database.rows.items() if k[0] == "topic" and k[1] != number
        ]
        if row["title"] in others and database.unique:
            return None
    if name not in PARENT:
        return Change(CATALOG[name], op, row)
    parent, column, counter = PARENT[name]
    if op == "create":
        parents = [n for kind, n in database.rows if kind == parent]
        if not parents:
            return None
        row[column] = uuid.UUID(int=chooser.choice(parents))
    by = {"create": 1, "update": 0, "delete": -1}[op] if database.counting else 0
    counted = ((CATALOG[parent], row[column], counter, by),) if by else ()
    return Change(CATALOG[name], op, row, counted)


@settings(max_examples=1000, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    before=st.integers(0, 12),
    many=st.integers(1, 30),
    unique=st.booleans(),
    counting=st.booleans(),
)
def test_waves_leave_what_the_commands_leave_one_by_one(
    seed: int, before: int, many: int, unique: bool, counting: bool
) -> None:
    chooser = random.Random(seed)
    database = Database(unique, counting)
    _decisions(chooser, before, database)
    written = Database(unique, counting, dict(database.rows), dict(database.counts))
    decisions = _decisions(chooser, many, database)
    for wave in waves(decisions, frozenset({"topic"} if unique else ())):
        for op, order in (("delete", KINDS[::-1]), ("create", KINDS), ("update", KINDS)):
            for name in order:
                for change in reversed([c for c in wave if (c.op, c.kind.name) == (op, name)]):
                    written.write(change)
        for change in wave:
            written.count(change)
    assert written == database


def test_a_mixed_batch_takes_few_waves() -> None:
    chooser = random.Random(7)
    topic, post, reaction = (CATALOG[name] for name in KINDS)
    decisions = []
    for n in range(0, 3000, 3):
        row = {"id": uuid.UUID(int=n), "version": 1, "topic_id": uuid.UUID(int=10**6 + n % 50)}
        changes = [Change(post, "create", row)]
        if chooser.random() < 0.3:
            changes.append(Change(post, "update", row | {"version": 2}))
        if chooser.random() < 0.2:
            put = {"id": uuid.UUID(int=n + 1), "version": 1, "post_id": row["id"]}
            changes.append(Change(reaction, "create", put))
        if chooser.random() < 0.1:
            changes.append(Change(post, "delete", row | {"version": 3}))
        decisions += [Decision(RECORD, Outcome.SAVED, None, changes=[c]) for c in changes]
    assert topic.children
    assert len(list(waves(decisions, frozenset()))) <= 4


def _row(number: int, **values: uuid.UUID) -> Row:
    return {"id": uuid.UUID(int=number), "version": 1, **values}


def _alone(*changes: Change) -> list[Decision]:
    return [Decision(RECORD, Outcome.SAVED, None, changes=[change]) for change in changes]


def _wave_of(change: Change, found: list[list[Change]]) -> int:
    return next(n for n, wave in enumerate(found) if any(c is change for c in wave))


def test_what_is_counted_in_a_row_is_counted_before_it_goes() -> None:
    """Also by rows that do not hang on it: a new row with its id must not be told of them."""
    topic, notice = CATALOG["topic"], CATALOG["notice"]
    first, again = (Change(notice, "update", _row(1)) for _ in range(2))
    counted = Change(notice, "update", _row(1), ((topic, uuid.UUID(int=2), "post_count", 1),))
    deleted = Change(topic, "delete", _row(2))
    found = list(waves(_alone(first, again, counted, deleted), frozenset()))
    assert _wave_of(deleted, found) > _wave_of(counted, found)


def test_what_vanishes_makes_room_before_it_is_taken() -> None:
    """A post that goes with its topic gives up what must be unique among posts."""
    deleted = Change(CATALOG["topic"], "delete", _row(1))
    created = Change(CATALOG["post"], "create", _row(2, topic_id=uuid.UUID(int=3)))
    found = list(waves(_alone(deleted, created), frozenset({"post"})))
    assert _wave_of(created, found) > _wave_of(deleted, found)


def test_one_command_that_passes_a_title_on_writes_row_by_row() -> None:
    """Updates of one statement are checked row by row, in an order that nobody knows."""
    updates = [Change(CATALOG["topic"], "update", _row(n)) for n in (1, 2)]
    together = [Decision(RECORD, Outcome.SAVED, None, changes=updates)]
    assert list(waves(together, frozenset({"topic"}))) == [[update] for update in updates]
    assert list(waves(together, frozenset())) == [updates]
