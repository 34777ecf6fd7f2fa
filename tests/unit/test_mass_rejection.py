"""The breaker that stops the lane when everybody is refused, and the search for the one at fault."""

import uuid
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.commands import Author
from schema.envelope import Envelope
from schema.outcomes import Outcome
from tests.commands import author, command, create
from writer.decisions import Decision
from writer.failures import Halt
from writer.mass_rejection import MassRejection
from writer.record import LaneRecord
from writer.suspicion import ALONE_AFTER, PARK_AFTER, PARK_AT_LAST_AFTER, Suspicion

pytestmark = pytest.mark.unit

ADA, BOB, EVE, DAN = (author(name) for name in ("ada", "bob", "eve", "dan"))


def _decision(who: Author, outcome: Outcome, sqlstate: str | None = None) -> Decision:
    envelope = Envelope(command(who, create("topic", title="t")), uuid.UUID(int=7))
    record = LaneRecord(0, 0, 0, b"", b"", (), envelope)
    return Decision(record, outcome, None, sqlstate=sqlstate)


def refused(who: Author) -> Decision:
    return _decision(who, Outcome.REJECTED, "23514")


def saved() -> Decision:
    return _decision(ADA, Outcome.SAVED)


def by_rule(who: Author = ADA) -> Decision:
    return _decision(who, Outcome.REJECTED)


def _halts(decisions: Iterable[Decision], limit: int = 20) -> int | None:
    """After how many decisions the lane is halted. Each is a transaction of its own."""
    breaker = MassRejection(limit)
    for count, decision in enumerate(decisions, 1):
        try:
            breaker.note([decision])
        except Halt:
            return count
    return None


def test_refusals_of_several_authors_in_a_row_halt_the_lane() -> None:
    row = [refused(who) for _ in range(10) for who in (ADA, BOB, EVE)]
    assert _halts(row) == 20
    assert _halts(row, 5) == 5


def test_the_reason_says_how_many_and_with_what() -> None:
    breaker = MassRejection(3)
    with pytest.raises(Halt, match="refused 3 commands in a row, the last with SQLSTATE 23514"):
        breaker.note([refused(ADA), refused(BOB), refused(EVE)])


def test_one_author_alone_never_halts_it() -> None:
    assert _halts([refused(ADA)] * 1000) is None
    assert _halts([refused(ADA), refused(BOB)] * 500) is None
    assert _halts([refused(ADA), refused(BOB)] * 500, 2) is None


def test_one_author_counts_for_a_third_of_it_at_most() -> None:
    loud = [refused(ADA)] * 500
    assert _halts([*loud, refused(BOB), refused(EVE)]) is None
    assert _halts([*loud, *[refused(BOB)] * 7, *[refused(EVE)] * 5]) is None
    assert _halts([*loud, *[refused(BOB)] * 7, *[refused(EVE)] * 6]) == 513


def test_what_is_saved_between_ends_the_row() -> None:
    row = [refused(who) for _ in range(6) for who in (ADA, BOB, EVE)]
    assert _halts([*row, saved(), refused(DAN), saved()] * 2, 30) is None


def test_what_the_writer_rejects_itself_neither_counts_nor_ends_the_row() -> None:
    assert _halts([by_rule(who) for _ in range(50) for who in (ADA, BOB, EVE)]) is None
    row = [x for _ in range(10) for who in (ADA, BOB, EVE) for x in (refused(who), by_rule())]
    assert _halts(row) == 39


def test_most_of_the_last_ones_halt_it_although_some_are_saved() -> None:
    mixed = [x for _ in range(20) for x in (refused(ADA), refused(BOB), saved(), refused(EVE))]
    found = _halts(mixed)
    assert found is not None
    assert 40 <= found <= 44
    half = [x for _ in range(60) for who in (ADA, BOB, EVE) for x in (refused(who), saved())]
    assert _halts(half) is None, "half of them is not more than half"


def test_what_afterwrite_itself_orders_does_not_count() -> None:
    notices = []
    for decision in (refused(who) for _ in range(20) for who in (ADA, BOB, EVE)):
        envelope = decision.record.envelope
        assert envelope is not None
        what = replace(envelope, command=replace(envelope.command, system=True))
        notices.append(replace(decision, record=replace(decision.record, envelope=what)))
    assert _halts(notices) is None


# -- which one it is --------------------------------------------------------------------------------


def _guilty_at(guilty: int, size: int) -> tuple[Suspicion, int]:
    """A batch in which one command fails each time; returns how many attempts it took to park it."""
    suspicion, position = Suspicion(), 0
    for attempt in range(1, 100):
        trouble, began = suspicion.at(position, 0), position
        if trouble < ALONE_AFTER:
            suspicion.failed(began, position, 0)
            continue
        while position < size:
            if position == guilty and not suspicion.must_park(trouble, ADA.id):
                suspicion.failed(began, position, 0)
                break
            if suspicion.must_park(trouble, ADA.id):
                assert position == guilty, "an innocent one is parked"
                return suspicion, attempt
            position, trouble = position + 1, 0
    raise AssertionError("it was never parked")


@given(st.integers(0, 199))
def test_the_one_that_fails_is_parked_and_no_other(guilty: int) -> None:
    _, attempts = _guilty_at(guilty, 200)
    assert PARK_AFTER < attempts <= PARK_AFTER + 2


def test_deaths_count_like_failures() -> None:
    suspicion = Suspicion()
    assert suspicion.at(7, deaths=4) == 4
    suspicion.failed(7, 7, deaths=4)
    assert suspicion.at(7, 0) == 5
    assert suspicion.must_park(5, ADA.id)
    assert not suspicion.must_park(4, ADA.id)
    assert suspicion.at(8, 0) == 0


def test_each_of_several_has_its_own_failures() -> None:
    suspicion = Suspicion()
    suspicion.failed(0, 4, 0)  # it was parked at 0; the one at 4 has failed once, alone
    assert suspicion.at(4, 0) == ALONE_AFTER
    suspicion.failed(4, 9, 0)
    assert suspicion.at(9, 0) == ALONE_AFTER


def test_when_nothing_can_be_saved_it_is_not_the_commands() -> None:
    suspicion = Suspicion(parked={ADA.id, BOB.id, EVE.id})
    assert not suspicion.must_park(PARK_AFTER, DAN.id)
    assert suspicion.must_park(PARK_AT_LAST_AFTER, DAN.id), "but the lane never waits for ever"
    suspicion.note([by_rule()])
    assert not suspicion.must_park(PARK_AFTER, DAN.id)
    suspicion.note([by_rule(), saved()])
    assert suspicion.must_park(PARK_AFTER, DAN.id)


def test_one_author_alone_does_not_make_the_lane_wait() -> None:
    suspicion = Suspicion()
    for _ in range(50):
        assert suspicion.must_park(PARK_AFTER, ADA.id)
        suspicion.parked.add(ADA.id)
