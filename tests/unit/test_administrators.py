"""Administrators are told also when nothing can be remembered, and what is owed is owed until it arrived."""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from schema.alerts import Alert
from schema.fields import render_time
from schema.telemetry import Log
from tests.installation import eventually
from writer.notifier.administrators import Administrators
from writer.notifier.incidents import Patience, Seen, Trouble
from writer.notifier.memory import Memory, Role
from writer.notifier.metrics import Metrics

pytestmark = pytest.mark.unit

BEGIN = datetime(2026, 3, 6, 14, 0, tzinfo=UTC)
DOWN = Seen({"database_down": Trouble("refused")})


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of these tests is never written: nobody need wait for that."""
    monkeypatch.setattr("writer.notifier.administrators._REMEMBER_S", 0.01)


@dataclass
class State:
    name: str
    state: str = "working"
    last_error: str | None = None


@dataclass
class Recording:
    """Channels that only note what they were given."""

    names: Sequence[str] = ("mail", "sms")
    given: list[tuple[Alert, set[str]]] = field(default_factory=list)

    def send(self, alert: Alert, *, except_for: Collection[str] = ()) -> None:
        self.given.append((alert, set(self.names) - set(except_for)))

    def states(self) -> list[State]:
        return [State(name) for name in self.names]


def memory(values: dict[str, Any] | None = None) -> Memory:
    """One that leads, and cannot be written down: nobody has started it."""
    made = Memory("127.0.0.1:1", "notices", "notifier", Log("test"), role=Role.LEADING)
    made.values = values or {}
    return made


def administrators(of: Memory, channels: Recording, found: Seen = DOWN) -> Administrators:
    return Administrators(
        memory=of,
        channels=channels,
        look=lambda now: found,
        patience=Patience(timedelta(seconds=5), "failures.md"),
        rejections_every=timedelta(minutes=15),
        metrics=Metrics(),
        log=Log("test"),
    )


async def opened(of: Administrators) -> None:
    for seconds in (0, 5, 6):
        await of.tick(BEGIN + timedelta(seconds=seconds))


async def test_an_alert_goes_out_although_it_cannot_be_remembered() -> None:
    channels, kept = Recording(), memory()
    await opened(administrators(kept, channels))
    ((alert, to),) = channels.given
    assert (alert.incident, to) == ("database_down", {"mail", "sms"})
    assert kept.recall("incident:database_down")["told"] == 1


async def test_it_is_owed_until_every_channel_is_done_with_it() -> None:
    channels, kept = Recording(), memory()
    first = administrators(kept, channels)
    await opened(first)
    ((alert, _),) = channels.given
    first.settled("mail", alert, True)
    assert kept.below("alert:")
    # Another one takes over: what is owed goes out again, and is the same.
    later = Recording()
    second = administrators(memory(kept.values), later)
    await second.tick(BEGIN + timedelta(seconds=7))
    assert [given for given, _ in later.given] == [alert]
    for channel in later.names:
        second.settled(channel, alert, False)
    assert not second.memory.below("alert:")


async def test_who_takes_the_lead_again_sends_nothing_twice() -> None:
    channels, kept = Recording(), memory()
    of = administrators(kept, channels)
    await opened(of)
    kept.generation += 1  # Kafka was away for a moment
    await of.tick(BEGIN + timedelta(seconds=8))
    assert len(channels.given) == 1


async def test_that_a_channel_fails_is_told_on_the_others() -> None:
    channels = Recording()
    failing = Seen({"channel_failing:sms": Trouble("503")})
    await opened(administrators(memory(), channels, failing))
    assert [to for _, to in channels.given] == [{"mail"}]


async def test_without_channels_nothing_is_owed() -> None:
    kept = memory()
    await opened(administrators(kept, Recording(())))
    assert not kept.below("alert:")


async def test_who_stands_by_tells_nothing() -> None:
    channels, kept = Recording(), memory()
    kept.role = Role.STANDBY
    await opened(administrators(kept, channels))
    assert channels.given == []
    assert kept.values == {}


async def test_rejections_are_one_alert_when_it_is_time() -> None:
    rejected = {"since": render_time(BEGIN), "codes": {"forbidden": 37}, "open": 3}
    channels, kept = Recording(), memory({"rejections": rejected})
    of = administrators(kept, channels, Seen())
    await of.tick(BEGIN + timedelta(minutes=14))
    assert channels.given == []
    await of.tick(BEGIN + timedelta(minutes=15))
    await of.tick(BEGIN + timedelta(minutes=31))
    ((alert, _),) = channels.given
    assert (alert.phase, alert.title) == ("summary", "37 commands were rejected")


async def test_who_starts_without_kafka_leads_after_a_while() -> None:
    made = Memory("127.0.0.1:1", "notices", "notifier", Log("test"), silent_s=0.2)
    made.start()
    assert made.role is Role.LEARNING
    try:
        await eventually(lambda: made.leading, 10, "it to lead")
        assert not made.reachable
        assert await asyncio.wait_for(made.written(0.1), 1) is False
    finally:
        await made.close()
