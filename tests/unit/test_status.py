"""`afterwrite status`: rates and the time to drain, in each of its forms, and the same on the overview."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from typer.testing import CliRunner

from deploy import cli
from deploy.commands import status
from deploy.embedded.home import Home
from frontend_api.admin.facts import Counts, Ledger, Log, Told
from frontend_api.admin.trend import Trend
from frontend_api.admin.watch import Watch
from schema.pace import Pace
from tests.admin_fakes import LANE
from writer.state import LaneState, SystemState

pytestmark = pytest.mark.unit

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SENTENCE = "20.0 accepted/s, 120 applied/s, 110 settled/s, drained in 80 s"


def _lane(position: int, end: int | None, settled: int) -> LaneState:
    return LaneState(0, position, 0, end, 1, "w", None, None, 10, None, settled)


def _state(seconds: float, position: int, end: int | None, settled: int) -> SystemState:
    pending = None if end is None else end - position
    return SystemState(
        NOW + timedelta(seconds=seconds), [_lane(position, end, settled)], pending, 0, 0
    )


FIRST = _state(0, 100, 8200, 100)
SECOND = _state(1, 220, 8220, 210)


class Looks:
    """What is seen, look by look, and how often and how far apart somebody looked."""

    def __init__(self, *states: SystemState) -> None:
        self._states = iter(states)
        self.taken = 0
        self.waited: list[float] = []

    def __call__(self, settings: object) -> SystemState:
        self.taken += 1
        return next(self._states)


@pytest.fixture
def looking(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Looks]:
    def at(*states: SystemState, processes: Any = ()) -> Looks:
        looks = Looks(*states)
        monkeypatch.setattr(status, "_look", looks)
        monkeypatch.setattr("time.sleep", looks.waited.append)
        monkeypatch.setattr(Home, "processes", lambda self: list(processes))
        return looks

    return at


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    """The command silences the drivers' logs for its process, which here is that of the tests."""
    import logging

    yield
    logging.disable(logging.NOTSET)


def _run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.build(["status"]), ["status", *arguments])
    return result.exit_code, result.stdout


def test_a_single_look_tells_the_pace(looking: Callable[..., Looks]) -> None:
    looks = looking(FIRST, SECOND)
    code, shown = _run()
    assert code == 0
    assert f"  {SENTENCE}" in shown.splitlines()
    assert (looks.taken, looks.waited) == (2, [1.0])


def test_as_json_it_tells_the_same(looking: Callable[..., Looks]) -> None:
    looking(FIRST, SECOND)
    rates = json.loads(_run("--json")[1])["rates"]
    assert rates == {
        "accepted": 20.0, "applied": 120.0, "settled": 110.0, "behind": 8000, "drained_in_s": 80.0,
    }  # fmt: skip
    assert Pace(**rates).sentence == SENTENCE


def test_watching_tells_it_from_the_second_look_on(looking: Callable[..., Looks]) -> None:
    looks = looking(FIRST, SECOND, replace(SECOND, at=NOW + timedelta(seconds=2)))
    lines = _run("--watch", "--looks", "3", "--every", "0.5")[1].splitlines()
    told = [line.strip() for line in lines if "accepted/s" in line]
    assert told == [SENTENCE, "0.0 accepted/s, 0.0 applied/s, 0.0 settled/s, not draining"]
    assert looks.waited == [0.5, 0.5]


def test_one_who_does_not_want_rates_does_not_wait(looking: Callable[..., Looks]) -> None:
    looks = looking(FIRST)
    code, shown = _run("--no-rates")
    assert (code, looks.taken, looks.waited) == (0, 1, [])
    assert "accepted/s" not in shown


def test_while_a_server_is_away_nobody_waits_for_it_twice(looking: Callable[..., Looks]) -> None:
    looks = looking(_state(0, 100, None, 100))
    assert json.loads(_run("--json")[1])["rates"] is None
    assert looks.taken == 1


def test_processes_stand_in_columns_however_long_their_names(
    looking: Callable[..., Looks],
) -> None:
    names = ("api", "mail-worker", "postgres")
    processes = [{"name": name, "state": "running", "pid": 1234} for name in names]
    looking(FIRST, processes=processes)
    lines = [line for line in _run("--no-rates")[1].splitlines() if "pid 1234" in line]
    assert len(lines) == len(names)
    assert len({line.index("running") for line in lines}) == 1
    assert len({line.index("pid") for line in lines}) == 1
    assert all(line.split() == [name, "running", "pid", "1234"] for line, name in zip(
        lines, names, strict=True))  # fmt: skip


def test_a_sentence_for_every_pace() -> None:
    assert Pace.of(2, 2, 2, 0).sentence == "2.0 accepted/s, 2.0 applied/s, 2.0 settled/s"
    assert Pace.of(10, 9, 9, 5).sentence.endswith(", not draining")
    assert Pace.of(0, 30_000, 0, 9_000_000).sentence == (
        "0.0 accepted/s, 30,000 applied/s, 0.0 settled/s, drained in 5 min"
    )


def _after(trend: Trend, *looks: tuple[float, int]) -> float | None:
    for seconds, total in looks:
        trend.note(NOW + timedelta(seconds=seconds), {"total": total})
    rates = trend.rates()
    return rates["total"] if rates is not None else None


def test_a_trend_is_of_the_last_seconds() -> None:
    trend = Trend()
    assert trend.rates() is None
    assert _after(trend, (0, 0)) is None
    assert _after(trend, (1, 100)) == 100
    assert _after(trend, *((n, 100) for n in range(2, 8))) == 0, "what was before is forgotten"
    assert _after(trend, (17, 200)) == pytest.approx(100 / 15, rel=0.6), "looks may be far apart"


def test_a_trend_begins_anew_when_it_is_of_something_else() -> None:
    trend = Trend()
    assert _after(trend, (0, 500), (1, 10)) is None, "the log was made anew"
    assert _after(trend, (2, 20)) == 10
    trend.note(NOW + timedelta(seconds=3), {"another": 7})
    assert trend.rates() is None


class _Store:
    def __init__(self) -> None:
        self.position = 100

    async def ledger(self) -> Ledger:
        return Ledger(
            (replace(LANE, position=self.position, settled=self.position - 10),), Counts()
        )


async def test_the_overview_has_the_same_pace_once_both_servers_were_asked_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, clock = _Store(), [NOW]
    watch = Watch(store, None, None, lambda: True)  # type: ignore[arg-type]
    monkeypatch.setattr("frontend_api.admin.watch.now", lambda: clock[0])
    await watch._look_at_ledger()
    watch._log = Told(True, NOW, Log({0: 8200}), NOW)
    watch._accepted.note(NOW, {"accepted": 8200})
    assert watch.picture.pace is None
    clock[0], store.position = NOW + timedelta(seconds=1), 220
    await watch._look_at_ledger()
    watch._accepted.note(clock[0], {"accepted": 8220})
    watch._log = Told(True, NOW, Log({0: 8220}), clock[0])
    found = watch.picture.pace
    assert found is not None
    assert found == Pace.of(20, 120, 120, 8000)
    watch._log = watch._log.silent(clock[0])
    assert watch.picture.pace is None, "nothing is known of now"
