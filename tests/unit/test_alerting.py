"""Channels to administrators: what waits, when it is tried again, what a URL may be. Time is injected."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from schema.alerts import Alert, Phase
from schema.telemetry import Log
from tests.alerting import alert, settings, until
from writer.alerting.addresses import ChannelRefused, addresses
from writer.alerting.channel import Channel
from writer.alerting.channels import Channels
from writer.alerting.pauses import Pauses, Timing
from writer.alerting.services import secrets_of
from writer.alerting.waiting import PATIENCE, WaitingAlerts
from writer.alerting.webhook import key_of, signature

pytestmark = pytest.mark.unit

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


# -- what waits -----------------------------------------------------------------------------


def told(waiting: WaitingAlerts) -> list[tuple[Phase, str]]:
    return [(waits.phase, waits.incident) for waits in waiting]


def test_the_oldest_reminder_goes_first_and_no_opening_or_closing() -> None:
    waiting = WaitingAlerts(limit=4)
    first, second = alert("reminder"), alert("reminder")
    for one in (alert("opened"), first, alert("closed"), second):
        assert waiting.put(one) == []
    assert waiting.put(alert("opened", "lane_halted:0")) == [first]
    assert waiting.put(alert("opened", "lane_halted:1")) == [second]
    assert waiting.dropped == 2
    assert ("reminder", "database_down") not in told(waiting)
    assert len(waiting) == 4


def test_an_incident_that_is_over_goes_whole_and_one_that_lasts_never() -> None:
    waiting = WaitingAlerts(limit=3)
    lasting = [alert("opened", f"lane_halted:{lane}") for lane in range(3)]
    for one in lasting:
        assert waiting.put(one) == []
    over = alert("opened", "redis_down")
    assert waiting.put(over) == []
    assert len(waiting) == 4
    end = alert("closed", "redis_down")
    assert waiting.put(end) == [over, end]
    assert list(waiting) == lasting


def test_a_closing_whose_opening_was_told_is_kept() -> None:
    waiting = WaitingAlerts(limit=2)
    end = alert("closed", "redis_down")
    for one in (end, alert("opened"), alert("opened", "kafka_down")):
        assert waiting.put(one) == []
    assert end in list(waiting)


def test_the_same_alert_waits_once() -> None:
    waiting = WaitingAlerts()
    one = alert()
    waiting.put(one)
    waiting.put(one)
    assert len(waiting) == 1


def test_after_some_failures_an_alert_of_another_incident_is_tried_once() -> None:
    waiting = WaitingAlerts()
    opened, closed, other = alert(), alert("closed"), alert("opened", "redis_down")
    for one in (opened, closed, other):
        waiting.put(one)
    tried = []
    for _ in range(2 * PATIENCE + 2):
        trying = waiting.next()
        assert trying is not None
        tried.append(trying.alert)
        waiting.failed(trying)
    assert tried == [*[opened] * PATIENCE, other] * 2


def test_what_is_refused_while_others_are_taken_goes_last() -> None:
    waiting = WaitingAlerts()
    refused, other, later = alert(), alert("opened", "redis_down"), alert("opened", "kafka_down")
    for one in (refused, other, later):
        waiting.put(one)
    trying = waiting.next()
    assert trying is not None
    for _ in range(PATIENCE):
        waiting.failed(trying)
    taken = waiting.next()
    assert taken is not None
    assert taken.alert == other
    waiting.sent(taken)
    assert waiting.next() is trying  # once more: the channel may have been mended just then
    waiting.failed(trying)
    after = waiting.next()
    assert after is not None
    assert after.alert == later


# -- when it is tried again -----------------------------------------------------------------


@pytest.mark.parametrize(("jitter", "wanted"), [(0.0, [0.5, 1, 2]), (1.0, [1, 2, 4])])
def test_pauses_double_and_then_a_probe_a_minute(jitter: float, wanted: list[float]) -> None:
    pauses = Pauses(Timing(), jitter=lambda: jitter)
    for pause in wanted:
        pauses.failed(NOON)
        assert pauses.state == "retrying"
        assert pauses.left_s(NOON) == pause
    for _ in range(20):
        pauses.failed(NOON)
        assert pauses.state == "failing"
        assert pauses.left_s(NOON) == pytest.approx(54 if jitter == 0 else 66)
    pauses.succeeded()
    assert (pauses.state, pauses.left_s(NOON), pauses.failing_since) == ("working", 0, None)


def test_it_fails_since_the_first_failure_in_a_row() -> None:
    pauses = Pauses(Timing())
    for minute in range(3):
        pauses.failed(NOON + timedelta(minutes=minute))
    assert pauses.failing_since == NOON


def test_a_clock_that_was_put_back_prolongs_no_pause() -> None:
    pauses = Pauses(Timing(), jitter=lambda: 1.0)
    for _ in range(10):
        pauses.failed(NOON)
    assert pauses.left_s(NOON - timedelta(days=5)) <= 66
    assert pauses.left_s(NOON - timedelta(days=5) + timedelta(seconds=67)) == 0


# -- one channel ----------------------------------------------------------------------------


class Far:
    """The other side: takes what it does not refuse, while it is up."""

    def __init__(self) -> None:
        self.up = True
        self.refuses: Alert | None = None
        self.tried: list[Alert] = []
        self.taken: list[Alert] = []

    async def send(self, given: Alert) -> str | None:
        self.tried.append(given)
        if not self.up or given == self.refuses:
            raise ValueError("no,\nnot this")
        self.taken.append(given)
        return None

    async def close(self) -> None:
        pass


class Time:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now

    def passes(self, s: float) -> None:
        self.now += timedelta(seconds=s)


Done = list[tuple[str, Alert, bool]]


@asynccontextmanager
async def channel(far: Far, time: Time) -> AsyncIterator[tuple[Channel, Done]]:
    done: Done = []
    made = Channel(
        "far-1", far, Timing(look_s=0.001), lambda *of: done.append(of), Log("test"), time
    )
    made.start()
    try:
        yield made, done
    finally:
        await made.close()


async def test_a_channel_that_fails_keeps_all_in_order_and_is_asked_once_a_minute() -> None:
    far, time = Far(), Time()
    far.up = False
    async with channel(far, time) as (made, done):
        first, second = alert(), alert("closed")
        made.send(first)
        made.send(second)
        for tries in range(1, 5):
            await until(lambda tries=tries: len(far.tried) == tries)  # type: ignore[misc]
            time.passes(8)
        state = made.state()
        assert (state.state, state.queued, state.sent) == ("failing", 2, 0)
        assert (state.failing_since, state.last_error) == (NOON, "no, not this")
        time.passes(40)  # 48 s since the last
        await asyncio.sleep(0.05)
        assert len(far.tried) == 4
        far.up = True
        time.passes(5 * 86_400)
        await until(lambda: made.idle)
        assert far.taken == [first, second]
        assert done == [("far-1", first, True), ("far-1", second, True)]
        state = made.state()
        assert (state.state, state.failing_since, state.last_error) == ("working", None, None)


async def test_an_alert_that_alone_is_refused_is_given_up_and_holds_up_no_other() -> None:
    far, time = Far(), Time()
    async with channel(far, time) as (made, done):
        refused, others = alert(), [alert("opened", f"lane_halted:{n}") for n in range(3)]
        far.refuses = refused
        for one in (refused, *others):
            made.send(one)

        def over() -> bool:
            time.passes(10)
            return made.idle

        await until(over)
        assert far.taken == others
        assert far.tried.count(refused) == 15
        assert done[-1] == ("far-1", refused, False)
        assert (made.state().state, made.state().dropped) == ("working", 1)


async def test_while_everything_fails_nothing_is_given_up() -> None:
    far, time = Far(), Time()
    far.up = False
    async with channel(far, time) as (made, done):
        made.send(alert())

        def tried_often() -> bool:
            time.passes(70)
            return len(far.tried) > 40

        await until(tried_often)
        assert made.state().queued == 1
        assert done == []


async def test_an_owner_that_breaks_does_not_end_the_channel() -> None:
    far = Far()

    def breaks(*_: object) -> None:
        raise KeyError("the owner's own fault")

    made = Channel("far-1", far, Timing(look_s=0.001), breaks, Log("test"), Time())
    made.start()
    try:
        made.send(alert())
        made.send(alert("closed"))
        await until(lambda: len(far.taken) == 2)
    finally:
        await made.close()


# -- URLs -----------------------------------------------------------------------------------


def test_a_comma_inside_a_url_separates_nothing() -> None:
    found = addresses("mailto://mail/?to=a@b.de,c@d.de , json://x/,\n jsons://y/?a=1,2,")
    assert [(one.name, one.url) for one in found] == [
        ("mailto-1", "mailto://mail/?to=a@b.de,c@d.de"),
        ("json-2", "json://x/"),
        ("jsons-3", "jsons://y/?a=1,2"),
    ]
    assert addresses(" ") == []


@pytest.mark.parametrize(
    "url",
    [
        "json://",
        "json://s3cret:s3cret:x/",
        "json://s3cret@host:99999/",
        "jsons://host,s3cret/",
        "mailto://s3cret@host/?to=s3cret",
        "mailto://s3cret-host",
        "mailto://host?to=a@b.de&mode=s3cret",
        "mailto://host?to=a@b.de&s3cret=1",
        "mailto://host/a@b.de%0d%0aBcc:s3cret@c.de",
        "slack://s3cret/x",
        "nosuch://s3cret/s3cret",
    ],
)
async def test_a_malformed_url_is_refused_by_number_and_scheme_alone(url: str) -> None:
    with pytest.raises(ChannelRefused) as refused:
        Channels.of(settings("json://127.0.0.1:9/", url))
    said = str(refused.value)
    assert said.startswith(f"AFTERWRITE_ALERT_URLS, number 2 ({url.partition(':')[0]}://): ")
    assert "s3cret" not in said


async def test_what_is_no_url_at_all_is_not_repeated() -> None:
    with pytest.raises(ChannelRefused, match="number 1") as refused:
        Channels.of(settings("s3cret"))
    assert "s3cret" not in str(refused.value)


async def test_without_the_package_it_is_said_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(ChannelRefused, match=r"pip install 'afterwrite\[alerts\]'"):
        Channels.of(settings("form://127.0.0.1:9/"))
    assert len(Channels.of(settings("json://127.0.0.1:9/", "mailto://h?to=a@b.de")).states()) == 2


async def test_a_key_that_is_not_base64_is_refused() -> None:
    with pytest.raises(ChannelRefused, match="not base64") as refused:
        Channels.of(settings("json://127.0.0.1:9/", secret="whsec_" + "~" * 32))
    assert "~~" not in str(refused.value)


def test_it_is_signed_as_the_libraries_for_standard_webhooks_do() -> None:
    key = key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_every_part_of_a_url_may_be_a_secret() -> None:
    found = secrets_of("tgram://tok%20en:pass@host:80/chat/id?key=val&x=ab")
    assert {"tok en", "tok%20en", "pass", "host", "host:80", "chat", "val"} <= set(found)
    assert "ab" not in found
