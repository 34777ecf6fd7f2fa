"""Waves: changes written as sets leave what writing them one by one would leave."""

import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.catalog import load_catalog
from schema.outcomes import Outcome
from writer.decisions import Change, Decision
from writer.record import LaneRecord
from writer.waves import waves

pytestmark = pytest.mark.unit

CATALOG = load_catalog("schema.forum")
RECORD = LaneRecord(0, 0, 0, None, None, (), None)
NAMES = ["topic", "post", "reaction"]
NOTHING: frozenset[str] = frozenset()

Step = tuple[str, str, int]  # op, type, number of the row
Table = dict[tuple[str, uuid.UUID], int]


def _decisions(commands: list[list[Step]]) -> list[Decision]:
    serial = iter(range(10_000))
    return [
        Decision(
            RECORD,
            Outcome.SAVED,
            None,
            changes=[
                Change(
                    CATALOG[type_],
                    op,  # type: ignore[arg-type]
                    {"id": uuid.UUID(int=number), "version": next(serial)},
                )
                for op, type_, number in steps
            ],
        )
        for steps in commands
    ]


def _told(found: list[list[Change]]) -> list[list[Step]]:
    return [[(c.op, c.kind.name, c.row["id"].int) for c in wave] for wave in found]


steps = st.tuples(
    st.sampled_from(["create", "update", "delete"]), st.sampled_from(NAMES), st.integers(0, 3)
)
batches = st.lists(st.lists(steps, max_size=4), max_size=10)
guards = st.frozensets(st.sampled_from(NAMES))


def _one_by_one(changes: list[Change]) -> Table:
    table: Table = {}
    for change in changes:
        _put(table, change)
    return table


def _put(table: Table, change: Change) -> None:
    key = (change.kind.name, change.row["id"])
    if change.op == "delete":
        table.pop(key, None)
    else:
        table[key] = change.row["version"]


def _as_sets(found: list[list[Change]]) -> Table:
    """As the flusher writes a wave: deletions, then creations, then updates; within, in any order."""
    table: Table = {}
    for wave in found:
        for op in ("delete", "create", "update"):
            for change in reversed([c for c in wave if c.op == op]):
                _put(table, change)
    return table


@given(batches, guards)
def test_writing_wave_by_wave_leaves_the_same_rows(
    commands: list[list[Step]], guarded: frozenset[str]
) -> None:
    decisions = _decisions(commands)
    found = list(waves(decisions, guarded))
    assert _as_sets(found) == _one_by_one([c for d in decisions for c in d.changes])


@given(batches, guards)
def test_nothing_is_lost_or_doubled_and_no_row_reordered(
    commands: list[list[Step]], guarded: frozenset[str]
) -> None:
    decisions = _decisions(commands)
    made = [c for d in decisions for c in d.changes]
    written = [c for wave in waves(decisions, guarded) for c in wave]
    assert sorted(map(id, written)) == sorted(map(id, made))
    for key in {(c.kind.name, c.row["id"]) for c in made}:
        assert _of(key, written) == _of(key, made)


@given(batches, guards)
def test_a_guarded_table_is_changed_in_the_order_of_commands(
    commands: list[list[Step]], guarded: frozenset[str]
) -> None:
    decisions = _decisions(commands)
    owner = {id(c): n for n, d in enumerate(decisions) for c in d.changes}
    written = [c for wave in waves(decisions, guarded) for c in wave]
    for name in guarded:
        owners = [owner[id(c)] for c in written if c.kind.name == name]
        assert owners == sorted(owners)


def _of(key: tuple[str, uuid.UUID], changes: list[Change]) -> list[int]:
    return [id(c) for c in changes if (c.kind.name, c.row["id"]) == key]


@given(batches, guards)
def test_no_wave_breaks_its_rules(commands: list[list[Step]], guarded: frozenset[str]) -> None:
    decisions = _decisions(commands)
    owner = {id(c): n for n, d in enumerate(decisions) for c in d.changes}
    for wave in waves(decisions, guarded):
        assert wave
        rows = [(c.kind.name, c.row["id"]) for c in wave]
        assert len(set(rows)) == len(rows), "no row twice"
        assert len({c.op == "delete" for c in wave}) == 1, "deletions apart"
        for name in guarded:
            owners = {owner[id(c)] for c in wave if c.kind.name == name}
            assert len(owners) <= 1, "of a guarded table one command's rows at most"


def test_what_can_be_together_is_in_one_wave() -> None:
    commands: list[list[Step]] = [
        [("create", "topic", n), ("create", "post", n)] for n in range(50)
    ]
    assert len(list(waves(_decisions(commands), NOTHING))) == 1


def test_a_row_that_is_touched_again_opens_a_wave() -> None:
    commands: list[list[Step]] = [
        [("create", "post", 1)], [("create", "post", 2)], [("update", "post", 1)],
    ]  # fmt: skip
    assert _told(list(waves(_decisions(commands), NOTHING))) == [
        [("create", "post", 1), ("create", "post", 2)],
        [("update", "post", 1)],
    ]


def test_a_deletion_is_written_before_what_follows_it() -> None:
    commands: list[list[Step]] = [
        [("create", "post", 1)], [("delete", "post", 1)], [("create", "post", 1)],
    ]  # fmt: skip
    assert [len(wave) for wave in waves(_decisions(commands), NOTHING)] == [1, 1, 1]


def test_a_guarded_table_takes_one_command_at_a_time() -> None:
    """A title that one command gives up and the next takes must not meet in one statement."""
    commands: list[list[Step]] = [
        [("create", "topic", 1), ("create", "topic", 2)],
        [("create", "post", 3)],
        [("create", "topic", 4)],
    ]
    found: Any = [len(w) for w in waves(_decisions(commands), frozenset({"topic"}))]
    assert found == [3, 1]


def test_decisions_without_changes_make_no_wave() -> None:
    assert list(waves(_decisions([[], []]), NOTHING)) == []
