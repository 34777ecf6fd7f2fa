"""How it is, in one sentence: the worst first, and never that all is well while something is not known."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from frontend_api.admin.facts import Counts, Disk, Lane, Ledger, Log, Picture, Told
from frontend_api.admin.incidents import MOST_ALERTS, Alerts
from frontend_api.admin.verdict import Verdict, length, verdict
from schema.alerts import Alert
from schema.identifiers import new_id
from tests.admin_fakes import LANE, NOW, well

pytestmark = pytest.mark.unit

MINUTES = timedelta(minutes=1)


def judged(picture: Picture, *alerts: Alert, reading: bool = True) -> Verdict:
    seen = Alerts()
    for alert in alerts:
        seen.take(alert)
    return verdict(picture, seen.open, 300, 80, reading)


def ledger(*lanes: Lane, **counts: Any) -> Told[Ledger]:
    return Told(True, NOW, Ledger(lanes or (LANE,), Counts(**counts)), NOW)


def alert(phase: Any = "opened", incident: str = "something", severity: Any = "warning") -> Alert:
    return Alert(new_id(), incident, phase, severity, f"About {incident}", "", NOW, NOW)


def test_all_is_well_only_when_everything_was_asked_and_nothing_is_wrong() -> None:
    assert judged(well()).sentence == "All is well: changes are saved within 90 ms; nothing waits."
    assert judged(well()).level == "well"
    for name in ("ledger", "log", "redis"):
        assert judged(well(**{name: Told()})).level == "attention", name
    assert judged(well(), reading=False).level == "attention"
    stale = Told(True, NOW, True, NOW - 2 * MINUTES)
    assert "Redis was asked 2 min ago for the last time." in judged(well(redis=stale)).sentence
    moving = well(log=Told(True, NOW, Log({0: 103}), NOW))
    assert judged(moving).sentence.endswith("3 changes are on the way.")
    assert judged(moving).level == "well"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"log": Told(False, NOW - 2 * MINUTES)}, "Kafka has been away for 2 min: new changes are refused."),
        ({"redis": Told(False, NOW - MINUTES)}, "Redis has been away for 1 min"),
        (
            {"ledger": ledger(replace(LANE, halted="foreign log"))},
            "Lane 0 is halted: foreign log; nothing waits.",
        ),
        ({"ledger": ledger(replace(LANE, paused="moving"))}, "Lane 0 is paused: moving; nothing waits."),
        ({"ledger": ledger(replace(LANE, owner=None))}, "No writer holds lane 0; nothing waits."),
        (
            {"log": Told(True, NOW, Log({0: 101}, {0: NOW - 6 * MINUTES}), NOW)},
            "The writer is behind: the oldest change has waited 6 min; 1 change waits and is safe.",
        ),
        ({"disk": Disk(1, 83.0)}, "Kafka's disk is 83 % full: new changes are refused."),
    ],
)  # fmt: skip
def test_what_is_in_trouble_is_said(changes: dict[str, Any], told: str) -> None:
    found = judged(well(**changes))
    assert found.level == "trouble"
    assert found.sentence.startswith(told)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"ledger": ledger(dead=1)}, "1 dead letter waits for somebody to look."),
        ({"ledger": ledger(dead=10_001)}, "more than 10,000 dead letters wait"),
        ({"ledger": ledger(streams=2, parked=5)}, "2 streams are parked."),
        ({"redis": Told(True, NOW, False, NOW)}, "The pending overlay is being rebuilt"),
        (
            {"disk": Disk(1, 78.0)},
            "Kafka's disk is 78 % full; beyond 80 % new changes are refused.",
        ),
    ],
)
def test_what_can_wait_is_said_after_that_changes_are_saved(
    changes: dict[str, Any], told: str
) -> None:
    found = judged(well(**changes))
    assert found.level == "attention"
    assert found.sentence.startswith(f"Changes are being saved. {told}")


def test_with_postgresql_away_what_waits_is_counted_from_what_is_known() -> None:
    old = NOW - 3 * MINUTES
    away = Told[Ledger](False, old, Ledger((replace(LANE, owner=None),), Counts(parked=4)), old)
    picture = well(ledger=away, log=Told(True, old, Log({0: 310}, {0: old}), NOW))
    found = judged(picture)
    assert found.sentence == "PostgreSQL has been away for 3 min; 214 changes wait; they are safe."
    assert found.more == ()  # what is known of lanes is old
    # The log knows more of the position than was told before; what nobody knows is not counted.
    further = well(ledger=away, log=Told(True, old, Log({0: 310}, positions={0: 300}), NOW))
    assert "14 changes wait" in judged(further).sentence
    never = well(ledger=Told(False, old, at_least=True), log=Told(True, old, Log({0: 310}), NOW))
    assert "at least 3 min; how many changes wait is not known" in judged(never).sentence


def test_the_worst_comes_first_and_the_rest_behind_it() -> None:
    picture = well(
        ledger=ledger(replace(LANE, paused="moving"), dead=3), redis=Told(False, NOW - MINUTES)
    )
    found = judged(picture, alert(incident="channel_failing:sms"), alert())
    assert found.sentence.startswith("Redis has been away")
    assert [text.split(";")[0] for text in found.more] == [
        "Lane 0 is paused: moving",
        "3 dead letters wait for somebody to look.",
        "The alert channel sms fails.",
        "1 incident is open: About something.",
    ]


def test_incidents_open_and_close_with_their_alerts() -> None:
    seen = Alerts()
    first = alert(incident="a", severity="warning")
    for one in (first, first, alert("reminder", "a"), alert(incident="b", severity="critical")):
        seen.take(one)
    assert [i.name for i in seen.open] == ["b", "a"]
    assert len(seen.latest) == 3
    seen.take(alert("summary", "rejections"))
    seen.take(alert("closed", "a"))
    assert [i.name for i in seen.open] == ["b"]
    for n in range(2 * MOST_ALERTS):
        seen.take(alert(incident=f"c{n}"))
        seen.take(alert("closed", f"c{n}"))
    assert len(seen.latest) == MOST_ALERTS
    assert [i.name for i in seen.open] == ["b"]  # an open one is not forgotten for closed ones


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.2, "less than 1 s"), (59, "59 s"), (60, "1 min"), (7199, "119 min"), (7200, "2 h"),
     (172_799, "47 h"), (172_800, "2 d")],
)  # fmt: skip
def test_lengths_of_time_have_the_digits_that_matter(seconds: float, shown: str) -> None:
    assert length(seconds) == shown
