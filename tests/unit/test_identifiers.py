"""Identifiers rise, are never ahead of the clock, and derived ones are the same everywhere."""

import itertools
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.identifiers import (
    IdFactory,
    derived_id,
    is_uuid7,
    new_command_id,
    new_id,
    new_row_id,
    time_of,
    user_id_for,
)

pytestmark = pytest.mark.unit

MS = st.integers(0, (1 << 48) - 1)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _ms_of(value: uuid.UUID) -> int:
    return value.int >> 80


def test_100_000_ids_in_one_go_rise_and_are_never_ahead_of_the_clock() -> None:
    last = -1
    for _ in range(100_000):
        made = new_id()
        now_ms = _now_ms()
        assert made.int > last
        assert _ms_of(made) <= now_ms
        assert made.int >> 76 & 0xF == 7
        assert made.int >> 62 & 0b11 == 0b10
        last = made.int


def test_ids_tell_the_time_at_which_they_were_made() -> None:
    before = _now_ms()
    made = new_id()
    assert before <= _ms_of(made) <= _now_ms()
    assert abs((datetime.now(UTC) - time_of(made)).total_seconds()) < 60


def test_100_000_ids_within_one_millisecond_keep_its_time_and_rise() -> None:
    factory = IdFactory(lambda: 1_700_000_000_000)
    made = [factory() for _ in range(100_000)]
    assert {_ms_of(i) for i in made} == {1_700_000_000_000}
    assert all(a.int < b.int for a, b in itertools.pairwise(made))
    assert all(is_uuid7(i) for i in made)


@given(st.lists(MS, min_size=1, max_size=60))
def test_ids_rise_whatever_the_clock_does(clock: list[int]) -> None:
    ticks: Iterator[int] = iter(clock)
    factory = IdFactory(lambda: next(ticks))
    made = [factory() for _ in clock]
    assert all(a.int < b.int for a, b in itertools.pairwise(made))
    assert all(is_uuid7(i) for i in made)
    highest = 0
    for told, given_ in zip(made, clock, strict=True):
        highest = max(highest, given_)
        assert _ms_of(told) == highest


def test_a_clock_set_back_keeps_the_last_time_until_it_has_caught_up() -> None:
    ticks = iter([1000, 400, 999, 1000, 1001])
    factory = IdFactory(lambda: next(ticks))
    assert [_ms_of(factory()) for _ in range(5)] == [1000, 1000, 1000, 1000, 1001]


def test_ids_made_by_many_threads_are_all_different_and_rise_in_each() -> None:
    factory, made = IdFactory(), [list[int]() for _ in range(8)]
    start = threading.Barrier(8)

    def work(mine: list[int]) -> None:
        start.wait()
        mine.extend(factory().int for _ in range(2000))

    threads = [threading.Thread(target=work, args=(mine,)) for mine in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(mine == sorted(mine) for mine in made)
    assert len({i for mine in made for i in mine}) == 16_000


def test_two_processes_at_the_same_time_do_not_make_the_same_ids() -> None:
    one, other = IdFactory(lambda: 5), IdFactory(lambda: 5)
    assert not {one() for _ in range(1000)} & {other() for _ in range(1000)}


def test_command_and_row_ids_come_from_the_same_sequence() -> None:
    ids = [new_command_id().int, new_row_id().int, new_command_id().int]
    assert ids == sorted(set(ids))


@given(MS)
def test_the_time_of_an_id_is_its_millisecond(ms: int) -> None:
    made = IdFactory(lambda: ms)()
    told = time_of(made)
    assert told.tzinfo is UTC
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    if ms < 253_402_300_800_000:
        since = told - epoch
        assert (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000 == ms
    else:
        assert told.year == 9999  # a made-up id; it must not be an error


@pytest.mark.parametrize("value", [uuid.uuid4(), uuid.UUID(int=0), derived_id("a"), uuid.uuid1()])
def test_only_a_uuid7_carries_a_time(value: uuid.UUID) -> None:
    assert not is_uuid7(value)
    with pytest.raises(ValueError, match="UUIDv7"):
        time_of(value)


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_derived_ids_are_uuid8_and_always_the_same(parts: list[str]) -> None:
    made = derived_id(*parts)
    assert made == derived_id(*parts)
    assert made.version == 8
    assert made.variant == uuid.RFC_4122


def test_derived_ids_do_not_change_between_versions_of_this_code() -> None:
    """They are primary keys of rows that are stored: these bytes must stay."""
    assert derived_id("reaction", "p", "a", "+1") == uuid.UUID(
        "fe3e2909-2cdb-8191-a15b-ae7babe6100f"
    )
    assert user_id_for("ada") == uuid.UUID("cfc84da9-565e-5377-8b00-f97a0e169b48")


@given(st.text(), st.text())
def test_different_keys_have_different_ids(one: str, other: str) -> None:
    assert (derived_id("t", one) == derived_id("t", other)) is (one == other)
    assert derived_id("t", one, other) != derived_id("t", one)
    assert (user_id_for(one) == user_id_for(other)) is (one == other)
