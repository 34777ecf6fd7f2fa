"""The checker of the trial: it passes what may be, and names what may not, each kind by its name."""

from dataclasses import replace

import pytest

from schema.identifiers import new_row_id
from tests.trials.checker import Wrong, judge
from tests.trials.model import Change, Mut, Read, Record, Seen, Sighting, marker, reaction_row

pytestmark = pytest.mark.unit

ADA, BOB = 1, 2
TOPIC, FIRST = marker(ADA, 1, 0), marker(ADA, 1, 1)
EDIT, SECOND = marker(ADA, 2, 0), marker(ADA, 3, 0)
IDS = {row: str(new_row_id()) for row in (TOPIC, FIRST, SECOND)}


def change(number: int, *muts: Mut, at: float, saved: float | None = None, seq: int = 0) -> Change:
    """Sent and accepted at `at`; with `saved` it is decided then."""
    made = Change(ADA, number, TOPIC, muts, sent=at, accepted=at + 0.1, command=f"c{number}")
    made.ids = {m.row: IDS[m.row] for m in muts if m.op == "create" and m.row in IDS}
    made.outcome, made.decided, made.seq = (
        "saved",
        saved if saved is not None else 900.0,
        seq or number,
    )
    made.effective = made.command
    return made


def record(*reads: Read) -> Record:
    """Ada opens a topic (saved at 20), edits its post at 30 (saved at 40), posts again at 50 (at 60)."""
    opened = (
        Mut("create", "topic", TOPIC, TOPIC),
        Mut("create", "post", FIRST, FIRST, parent=TOPIC),
    )
    made = Record(
        changes=[
            change(1, *opened, at=10, saved=20),
            change(2, Mut("update", "post", FIRST, EDIT, parent=TOPIC), at=30, saved=40),
            change(3, Mut("create", "post", SECOND, SECOND, parent=TOPIC), at=50, saved=60),
        ],
        reads=list(reads),
    )
    made.horizon.note(25, 1)
    made.horizon.note(45, 2)
    made.horizon.note(65, 3)
    return made


def topic(version: int = 1, state: str = "pending", count: int = 1) -> Seen:
    return Seen(IDS[TOPIC], "topic", f"{TOPIC} a title", version, state, "", count)


def post(row: str, text: str = "", version: int = 1, state: str = "pending") -> Seen:
    return Seen(IDS[row], "post", f"{text or row} a text", version, state)


def single(at: float, seen: Seen | None, reader: int = ADA, **more: object) -> Read:
    """A read of one row at a moment; without a row it answers 404."""
    target = {IDS[row]: row for row in IDS}[seen.id] if seen else FIRST
    made = Read(
        reader, "post" if not seen or seen.type == "post" else "topic", target, at, at + 0.1
    )
    made.status, made.rows = (200, (seen,)) if seen else (404, ())
    made.etag = f'"v{seen.version}"' if seen else ""
    return replace(made, **more)  # type: ignore[arg-type]


def page(at: float, *seen: Seen, reader: int = ADA, **more: object) -> Read:
    made = Read(reader, "posts", TOPIC, at, at + 0.1, 200, seen)
    return replace(made, **more)  # type: ignore[arg-type]


def wrong(*reads: Read) -> list[Wrong]:
    return [v.wrong for v in judge(record(*reads)).violations]


@pytest.mark.parametrize(
    "right",
    [
        single(11, post(FIRST)),  # pending
        single(11, topic()),
        single(21, post(FIRST, state="saved")),  # saved, not yet replayed for certain
        single(26, post(FIRST, state="saved")),
        single(31, post(FIRST, EDIT, 2)),
        single(30, post(FIRST)),  # the edit was under way
        single(30, post(FIRST, EDIT, 2)),
        single(51, topic(count=2, state="saved")),
        page(51, post(FIRST, EDIT, 2, "saved"), post(SECOND)),
        page(51, post(SECOND), after=IDS[FIRST]),
        page(51, post(FIRST, EDIT, 2, "saved"), until=IDS[FIRST]),
        single(15, None, BOB),  # of another: nothing before it is saved
        single(21, None, BOB),  # saved, but perhaps not replayed
        single(21, post(FIRST, state="saved"), BOB),
        single(26, post(FIRST, state="saved"), BOB),
        single(66, topic(count=2, state="saved"), BOB),
        single(31, post(FIRST), overlay="unavailable"),  # says that something may be missing
        single(31, None, status=503),
        single(51, topic(count=1), stale_s=3.0),  # says that it is old
    ],
)
def test_what_may_be_is_right(right: Read) -> None:
    assert wrong(right) == []


@pytest.mark.parametrize(
    ("read", "what"),
    [
        (single(11, None), "missing"),
        (single(31, post(FIRST)), "wrong_version"),
        (single(31, post(FIRST, EDIT, 3)), "wrong_version"),
        (single(31, post(FIRST, EDIT, 2), etag='"v1"'), "wrong_version"),
        (single(31, post(FIRST, EDIT, 2, "saved")), "wrong_state"),
        (single(66, post(FIRST, EDIT, 2)), "wrong_state"),
        (single(51, topic(count=1)), "wrong_count"),
        (single(51, topic(count=3)), "wrong_count"),
        (page(51, post(FIRST, EDIT, 2)), "missing"),
        (page(51, post(SECOND), after=IDS[FIRST], until=""), ""),
        (page(51, post(FIRST, EDIT, 2), post(FIRST, EDIT, 2), post(SECOND)), "doubled"),
        (page(51, post(SECOND), post(FIRST, EDIT, 2)), "wrong_order"),
        (page(51, post(FIRST, EDIT, 2), after=IDS[FIRST], until=IDS[FIRST]), "wrong_page"),
        (single(15, post(FIRST, state="saved"), BOB), "ghost"),
        (single(35, post(FIRST, EDIT, 2, "saved"), BOB), "leaked"),
        (single(26, None, BOB), "missing"),
        (single(26, post(FIRST), BOB), "wrong_state"),
        (single(66, topic(count=1, state="saved"), BOB), "wrong_count"),
        (single(51, None, stale_s=3.0), "missing"),  # old, but his own is in it all the same
    ],
)
def test_what_may_not_be_has_a_name(read: Read, what: str) -> None:
    found = wrong(read)
    assert (what in found) if what else not found


def test_a_row_on_two_pages_of_a_walk() -> None:
    first = page(66, post(FIRST, EDIT, 2, "saved"), until=IDS[FIRST], walk=7)
    again = page(66, post(FIRST, EDIT, 2, "saved"), post(SECOND, state="saved"), walk=7)
    assert wrong(first, again) == ["wrong_page"]
    assert wrong(first, replace(again, walk=8)) == []


def test_a_marker_anywhere_before_it_is_saved_is_a_leak() -> None:
    made = record()
    made.sightings = [
        Sighting(BOB, "GET /", 30, 31, frozenset({FIRST})),
        Sighting(BOB, "GET /", 30, 31, frozenset({EDIT})),
        Sighting(BOB, "GET /", 30, 31, frozenset({"m-009-0001-0"})),
    ]
    assert [v.wrong for v in judge(made).violations] == ["leaked", "leaked"]


def test_what_was_rejected_is_gone_once_its_author_was_told() -> None:
    made = record(single(41, post(FIRST, EDIT, 2)), single(71, post(FIRST, EDIT, 2, "saved")))
    edit = made.changes[1]
    edit.outcome, edit.told_rejected = "rejected", 70.0
    assert [v.wrong for v in judge(made).violations] == ["wrong_version"]
    made.reads = [single(71, post(FIRST, state="saved"))]
    assert judge(made).violations == []
    made.changes[0].outcome, made.changes[0].told_rejected = "rejected", 70.0
    assert [v.wrong for v in judge(made).violations] == ["ghost"]


def test_what_was_accepted_and_never_decided_is_lost() -> None:
    made = record()
    made.changes[2].outcome = ""
    assert [v.wrong for v in judge(made).violations] == ["lost"]


def test_commands_say_what_the_ledger_says() -> None:
    def asked(at: float, state: str, status: int = 200) -> Read:
        return Read(ADA, "command", "trial-001-0003", at, at + 0.1, status, code=state)

    assert wrong(asked(55, "pending"), asked(61, "saved"), asked(61, "pending")) == []
    assert wrong(asked(55, "saved")) == ["wrong_state"]
    assert wrong(asked(61, "rejected")) == ["wrong_state"]
    assert wrong(asked(55, "", 404)) == ["missing"]


def test_counts_of_many_authors_have_bounds_and_the_readers_own_part_is_exact() -> None:
    """Bob reacts at 30 (saved at 40, replayed at 45); Ada at 50, pending."""
    made = record()
    for author, at, saved in ((BOB, 30, 40), (ADA, 50, 900)):
        row = reaction_row(FIRST, author, "x")
        reacted = change(9, Mut("create", "reaction", row, parent=FIRST), at=at, saved=saved, seq=2)
        made.changes.append(replace(reacted, author=author))

    def count(at: float, shown: int, reader: int = ADA) -> list[Wrong]:
        state = "saved" if at > 45 else "pending"
        seen = replace(post(FIRST, EDIT, 2, state), count=shown)
        made.reads = [single(at, seen, reader)]
        return [v.wrong for v in judge(made).violations]

    assert [count(41, n) for n in (0, 1)] == [[], []]  # saved, perhaps not replayed
    assert [count(46, n) for n in (0, 1)] == [["wrong_count"], []]
    assert [count(51, n) for n in (1, 2, 3)] == [["wrong_count"], [], ["wrong_count"]]
    assert [count(46, n, BOB) for n in (0, 1)] == [["wrong_count"], []]


def test_a_replica_that_was_killed_may_show_the_past_again() -> None:
    made = record(single(70, None, BOB), single(30, None, BOB, ended=70.0))
    assert [v.wrong for v in judge(made).violations] == ["missing", "missing"]
    made.horizon.reset(69)
    assert judge(made).violations == []
    made.horizon.note(69.5, 3)
    assert [v.wrong for v in judge(made).violations] == ["missing"]


def test_a_repeat_beside_the_first_is_counted_apart_where_the_answer_is_declared() -> None:
    twice = (post(FIRST, EDIT, 2, "saved"), post(FIRST, EDIT, 2, "saved"), post(SECOND))
    made = record(page(51, *twice), page(51, *twice, overlay="rebuilding"))
    made.changes[0].forked = 50.0
    verdict = judge(made)
    assert [v.wrong for v in verdict.violations].count("doubled") == 1
    assert verdict.beside_repeats == 1
