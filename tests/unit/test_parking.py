"""How long a parked command waits: within its limits, spread, and never for ever."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.settings import WriterSettings
from writer.parking import ParkPolicy

pytestmark = pytest.mark.unit

NOW = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = ParkPolicy(
    timedelta(minutes=15), timedelta(seconds=300), timedelta(seconds=4000), timedelta(days=5)
)


@given(st.integers(0, 10_000))
def test_a_retry_comes_between_the_limits_whatever_the_number_of_attempts(attempts: int) -> None:
    wait = POLICY.retry_at(attempts, NOW) - NOW
    assert POLICY.backoff_min <= wait <= POLICY.backoff_max


@given(st.integers(0, 3))
def test_the_longest_wait_doubles_with_each_attempt(attempts: int) -> None:
    longest = max(POLICY.retry_at(attempts, NOW) - NOW for _ in range(300))
    assert longest <= POLICY.backoff_min * 2**attempts
    assert longest >= POLICY.backoff_min * 2**attempts * 0.8


def test_retries_are_spread_so_that_they_do_not_come_all_at_once() -> None:
    waits = {POLICY.retry_at(10, NOW) for _ in range(200)}
    assert len(waits) > 190
    assert max(waits) - min(waits) > (POLICY.backoff_max - POLICY.backoff_min) / 2


def test_a_dependency_is_waited_for_to_the_very_end_of_its_wait() -> None:
    since = NOW
    end = NOW + POLICY.dependency_wait
    assert not POLICY.waited_too_long(since, end - timedelta(microseconds=1))
    assert POLICY.waited_too_long(since, end)
    assert POLICY.retry_dependency_at(since) == end, "the last try is the one that gives up"


def test_no_wait_at_all_gives_up_at_once() -> None:
    assert ParkPolicy(timedelta(0), timedelta(1), timedelta(1), timedelta(5)).waited_too_long(
        NOW, NOW
    )


def test_the_policy_is_that_of_the_settings() -> None:
    settings = WriterSettings.model_validate(
        {
            "writer_database_url": "postgresql://w@127.0.0.1/x",
            "signing_keys": f"k1:{'s' * 32}",
            "dependency_wait_s": 60,
            "park_backoff_min_s": 1.5,
            "park_backoff_max_s": 20,
            "horizon_s": 90,
        }
    )
    assert ParkPolicy.of(settings) == ParkPolicy(
        timedelta(seconds=60), timedelta(seconds=1.5), timedelta(seconds=20), timedelta(seconds=90)
    )
