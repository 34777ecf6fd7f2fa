"""Incidents: one alert when one opens, fewer and fewer while it lasts, one when it is over."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schema.alerts import Alert, Phase
from schema.asyncapi import asyncapi_document
from schema.catalog import load_catalog
from schema.envelope import Record
from schema.settings import Settings
from schema.strict_json import encode
from schema.telemetry import Log
from schema.topics import topics
from tests.described_messages import Messages
from writer.notifier.alert_texts import CASES, about, rejections, shown_duration
from writer.notifier.incidents import Incident, Patience, Seen, Trouble, family, marks_passed, step
from writer.notifier.mail_watch import QUIET, MailWatch
from writer.notifier.observing import DatabaseSeen, LaneSeen
from writer.notifier.seeing import WRITERS_RETURN, Down, Look, seen

pytestmark = pytest.mark.unit

BEGIN = datetime(2026, 3, 6, 14, 0, tzinfo=UTC)
PATIENCE = Patience(timedelta(seconds=5), "https://docs.example/failures.md")
DOWN = Seen({"database_down": Trouble("refused", 7)})
FINE = Seen()


def later(seconds: float) -> datetime:
    return BEGIN + timedelta(seconds=seconds)


def run(looks: Sequence[tuple[float, Seen]]) -> tuple[dict[str, Incident], list[Alert]]:
    incidents: dict[str, Incident] = {}
    told: list[Alert] = []
    for at, found in looks:
        incidents, alerts = step(incidents, found, later(at), PATIENCE)
        told += alerts
    return incidents, told


def test_an_incident_opens_when_it_has_lasted_and_says_what_to_do() -> None:
    _, early = run([(0, DOWN), (4, DOWN)])
    _, told = run([(0, DOWN), (4, DOWN), (5, DOWN), (6, DOWN)])
    assert early == []
    (alert,) = told
    assert (alert.incident, alert.phase, alert.severity) == ("database_down", "opened", "critical")
    assert alert.since == BEGIN
    assert alert.waiting == 7
    assert alert.link == "https://docs.example/failures.md#f-10"
    assert "7 commands wait." in alert.text
    assert "refused" in alert.text
    assert "Bring PostgreSQL back." in alert.text


def test_what_passes_at_once_is_no_incident() -> None:
    incidents, told = run([(0, DOWN), (4, DOWN), (5, FINE), (6, DOWN), (10, DOWN)])
    assert told == []
    assert incidents["database_down"].since == later(6)


def test_it_closes_when_it_has_been_gone_as_long_and_says_how_long_it_lasted() -> None:
    flaps = [(0, DOWN), (5, DOWN), (60, FINE), (64, DOWN), (65, FINE), (69, FINE)]
    assert [a.phase for a in run(flaps)[1]] == ["opened"]
    incidents, told = run([*flaps, (70, FINE), (71, FINE)])
    assert [a.phase for a in told] == ["opened", "closed"]
    assert told[1].severity == "info"
    assert "1 min 5 s" in told[1].text
    assert incidents == {}


def test_what_cannot_be_looked_at_stays_as_it_is() -> None:
    halted = Seen({"lane_halted:3": Trouble("a grant is missing")})
    unknown = Seen(unknown=frozenset({"lane_halted"}))
    incidents, told = run([(0, halted), (5, halted), (6, unknown), (600, unknown)])
    assert [a.phase for a in told] == ["opened"]
    assert list(incidents) == ["lane_halted:3"]
    assert "afterwrite lane resume 3" in told[0].text


def test_reminders_thin_out() -> None:
    hours = [n / 12 for n in range(12 * 24 * 5)]
    _, told = run([(3600 * hour, DOWN) for hour in hours])
    opened, *reminders = told
    at = [round((a.at - opened.at).total_seconds() / 3600, 2) for a in reminders]
    assert at == [0.25, 1, 4, 24, 48, 72, 96]
    assert {a.phase for a in reminders} == {"reminder"}
    assert len({a.alert_id for a in told}) == len(told)


def test_a_jump_of_days_is_one_reminder() -> None:
    _, told = run([(0, DOWN), (5, DOWN), (5 * 86_400, DOWN), (5 * 86_400 + 1, DOWN)])
    assert [a.phase for a in told] == ["opened", "reminder"]


def test_who_comes_after_tells_nothing_again() -> None:
    incidents, _ = run([(0, DOWN), (5, DOWN), (1000, DOWN)])
    again = {k: Incident.from_json(i.to_json()) for k, i in incidents.items()}
    assert again == incidents
    assert step(again, DOWN, later(1001), PATIENCE)[1] == []


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([1, 3, 60, 600, 3600, 40_000]),
            st.sets(st.sampled_from(["database_down", "lane_halted:0", "redis_down"])),
            st.sets(st.sampled_from(["database_down", "lane_halted"])),
        ),
        max_size=60,
    )
)
def test_every_incident_that_opens_closes_once(
    looks: list[tuple[int, set[str], set[str]]],
) -> None:
    """Five days and more of any looks. At the end all is well for long enough."""
    incidents: dict[str, Incident] = {}
    told: list[Alert] = []
    now = BEGIN
    for seconds, wrong, blind in [
        *looks,
        (60, set(), set()),
        (60, set(), set()),
        (60, set(), set()),
    ]:
        now += timedelta(seconds=seconds)
        found = Seen({kind: Trouble() for kind in wrong}, frozenset(blind))
        incidents, alerts = step(incidents, found, now, PATIENCE)
        told += alerts
    assert incidents == {}
    assert len({a.alert_id for a in told}) == len(told)
    by_incident: dict[tuple[str, datetime], list[Alert]] = defaultdict(list)
    for alert in told:
        by_incident[alert.incident, alert.since].append(alert)
    for alerts in by_incident.values():
        phases = [a.phase for a in alerts]
        assert phases == ["opened", *["reminder"] * (len(phases) - 2), "closed"]
        lasted = alerts[-1].at - alerts[0].at
        assert len(phases) - 2 <= marks_passed(lasted)


def test_every_family_has_its_words() -> None:
    for name in CASES:
        for phase in get_args(Phase)[:3]:
            title, text = about(f"{name}:0", phase, BEGIN, later(90_061), "a\nb", 1)
            assert "{" not in title + text
            assert "\n" not in title
    assert shown_duration(timedelta(seconds=90_061)) == "1 d 1 h"


def test_rejections_are_summed_up() -> None:
    title, text = rejections({"forbidden": 3, "target_missing": 34}, 40)
    assert title == "37 commands were rejected"
    assert text.splitlines()[:3] == [
        "34 × target_missing",
        "3 × forbidden",
        "Dead letters that nobody has dealt with: 40.",
    ]


# -- what is wrong --------------------------------------------------------------------------------


def lane(**given: object) -> LaneSeen:
    values: dict[str, object] = {
        "lane": 0, "position": 5, "log_id": None, "owner": "w", "halted": None, "paused": None,
    }  # fmt: skip
    return LaneSeen(**(values | given))  # type: ignore[arg-type]


def look(**given: object) -> Look:
    values: dict[str, object] = {
        "now": later(1000),
        "delay_after": timedelta(seconds=300),
        "database": DatabaseSeen({0: lane()}),
        "redis_policy": "noeviction",
    }
    return Look(**(values | given))  # type: ignore[arg-type]


AWAY = Down(BEGIN, "refused")


@pytest.mark.parametrize(
    ("given_", "wrong"),
    [
        ({}, set()),
        ({"database_down": AWAY}, {"database_down"}),
        ({"redis_down": AWAY}, {"redis_down"}),
        ({"log_down": AWAY}, {"log_unavailable"}),
        ({"database": DatabaseSeen({0: lane(halted="why", owner=None)})}, {"lane_halted:0"}),
        ({"database": DatabaseSeen({0: lane(paused="why")})}, {"lane_paused:0"}),
        ({"database": DatabaseSeen({0: lane(owner=None)})}, {"no_writer:0"}),
        ({"redis_policy": "allkeys-lru"}, {"redis_evicts"}),
        ({"oldest": later(690)}, {"oldest_pending"}),
        ({"oldest": later(710)}, set()),
        ({"oldest": later(690), "explained_at": later(900)}, set()),
        ({"oldest": BEGIN, "database": DatabaseSeen({0: lane(owner=None)})}, {"no_writer:0"}),
        ({"full_disks": {"1": "71 %"}}, {"disk_full:1"}),
        ({"failing_channels": {"json": "503"}}, {"channel_failing:json"}),
        (
            {"database": DatabaseSeen({}, (), {"target_missing": 2}, later(600))},
            {"stream_parked"},
        ),
        ({"database": DatabaseSeen({}, (), {"target_missing": 2}, later(800))}, set()),
    ],
)
def test_what_is_wrong(given_: dict[str, object], wrong: set[str]) -> None:
    assert set(seen(look(**given_)).troubles) == wrong


def test_what_is_not_known() -> None:
    without = seen(look(database_down=AWAY, oldest=BEGIN))
    assert {"lane_halted", "lane_paused", "no_writer", "oldest_pending"} <= without.unknown
    back = look(database_back_at=later(950), database=DatabaseSeen({0: lane(owner=None)}))
    assert seen(back).troubles == {}  # its writer may still be on its way back
    assert timedelta(seconds=50) < WRITERS_RETURN
    fresh = seen(look(unasked=frozenset({"database", "redis", "log", "disks"})))
    assert {"database_down", "redis_down", "log_unavailable", "disk_full"} <= fresh.unknown
    assert family("lane_halted:0") == "lane_halted"


def test_alerts_are_as_described() -> None:
    described = Messages(asyncapi_document(load_catalog("schema.forum"), topics(Settings())))
    _, told = run([(0, DOWN), (5, DOWN), (1000, DOWN), (1001, FINE), (1100, FINE)])
    assert [alert.phase for alert in told] == ["opened", "reminder", "closed"]
    for alert in told:
        described.check("alerts", Record(alert.incident.encode(), encode(alert.to_json()), ()))


def test_mail_that_waits_while_none_is_sent_is_stuck() -> None:
    mail = MailWatch("nowhere:1", topics(Settings()), "group", Log("test"))
    mail.note(2, False, BEGIN)
    assert mail.stuck(BEGIN + QUIET - timedelta(seconds=1)) is None
    assert mail.stuck(BEGIN + QUIET) == "2 mails wait, and none was sent for 20 min"
    mail.note(1, True, BEGIN + QUIET)
    assert mail.stuck(BEGIN + QUIET) is None
    mail.note(0, False, BEGIN + QUIET)
    assert mail.stuck(BEGIN + 5 * QUIET) is None
    mail.note(1, False, BEGIN + 5 * QUIET)  # it has just come
    assert mail.stuck(BEGIN + 5 * QUIET) is None
    found = look(mail_stuck=mail.stuck(BEGIN + 6 * QUIET))
    assert set(seen(found).troubles) == {"mail_failing"}
