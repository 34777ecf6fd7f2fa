"""What becomes of one mail, step by step, with a server and a state topic in memory."""

import subprocess
import sys
import threading
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from schema.mail import Mail
from schema.settings import Settings
from schema.telemetry import Log
from schema.topics import topics
from tests.mailing import mail_to
from writer.failures import LogUnavailable
from writer.mail.breaker import Backoff, Breaker
from writer.mail.message import Sender
from writer.mail.metrics import Metrics
from writer.mail.rendering import Rendering
from writer.mail.sending import Finished, Later, NotOwner, Sending, horizon_of
from writer.mail.smtp import Ambiguous, Claim, PutOff, Refused, ServerAway, SmtpError
from writer.mail.state import AddressMark, MailState, Memory, encoded, mail_key, owner_key
from writer.mail.state_log import StateLog
from writer.mail.watch import Doubt, Pulse, Stuck
from writer.mail.window import MailRecord, Waiting, Window
from writer.publisher import Message

pytestmark = pytest.mark.unit

AT = datetime(2026, 11, 21, 14, 0, tzinfo=UTC)
HORIZON_S = 432_000.0


@dataclass
class FakeStates:
    """The state topic: what is written is in the memory at once."""

    memory: Memory = field(default_factory=Memory)
    written: list[str] = field(default_factory=list)
    failing: list[Exception] = field(default_factory=list)

    async def note(self, partition: int, mail_id: uuid.UUID, state: MailState) -> int:
        if self.failing:
            raise self.failing.pop(0)
        self.written.append(state.state)
        self.memory.fold(partition, mail_key(mail_id), encoded(state.to_json()))
        return len(self.written)

    async def mark(self, address: str, mark: AddressMark) -> None:
        self.memory.addresses[address] = mark

    async def reached(self, partition: int, offset: int) -> None:
        return


@dataclass
class FakeServer:
    """Takes everything, unless it is told otherwise; `steps` is what happened, in order."""

    states: FakeStates
    before: list[SmtpError] = field(default_factory=list)
    after: list[SmtpError] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    asked: int = 0

    async def send(self, sender: str, to: str, message: bytes, claim: Claim) -> None:
        self.asked += 1
        if self.before:
            raise self.before.pop(0)
        await claim()
        assert self.states.written[-1] == "sending", "before the message is handed over"
        if self.after:
            raise self.after.pop(0)
        self.taken.append(to)


@dataclass
class FakeLetters:
    messages: list[Message] = field(default_factory=list)

    async def publish(self, messages: Iterable[Message]) -> list[int | None]:
        self.messages += messages
        return [0]

    @property
    def codes(self) -> list[str]:
        return [dict(m.headers)["afterwrite-dlq-code"].decode() for m in self.messages]


class Post:
    """One worker's sending, and a clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = AT
        self.states = FakeStates()
        self.states.memory.fold(0, owner_key(0), encoded({"worker": "me"}))
        self.server = FakeServer(self.states)
        self.letters = FakeLetters()
        self.metrics = Metrics()
        self.breaker = Breaker(Backoff(1, 60))
        self.sending = Sending(
            worker="me",
            topics=topics(Settings.model_validate({"prefix": "site"})),
            sender=Sender.parse("forum@example.org"),
            public_url="https://forum.example",
            horizon_s=HORIZON_S,
            backoff=Backoff(300, 4000),
            rendering=Rendering(),
            server=self.server,
            breaker=self.breaker,
            states=self.states,
            letters=self.letters,
            metrics=self.metrics,
            clock=lambda: self.now,
            log=Log("test"),
        )

    def waiting(self, mail: Mail, **known: Any) -> Waiting:
        value = encoded(mail.to_json())
        record = MailRecord(0, 7, mail_key(mail.mail_id), value, (("x", b"\xff"),))
        return Waiting(record, self.now, horizon=horizon_of(value, HORIZON_S), **known)

    async def handle(self, mail: Mail, **known: Any) -> Finished | Later:
        return await self.sending.handle(self.waiting(mail, **known))

    def count(self, outcome: str) -> float:
        return float(self.metrics.mail.labels(outcome)._value.get())

    @property
    def possible_duplicates(self) -> float:
        return float(self.metrics.possible_duplicates._value.get())


@pytest.fixture
def post() -> Post:
    return Post()


@pytest.fixture
def mail() -> Mail:
    return mail_to("ada@example.com", created_at=AT)


async def test_sent_once_and_remembered(post: Post, mail: Mail) -> None:
    assert isinstance(await post.handle(mail), Finished)
    assert post.states.written == ["sending", "sent"]
    assert isinstance(await post.handle(mail), Finished)
    assert post.server.taken == [mail.to]
    assert (post.count("sent"), post.count("duplicate")) == (1, 1)
    assert post.possible_duplicates == 0


async def test_put_off_with_growing_waits_up_to_the_horizon(post: Post, mail: Mail) -> None:
    waiting, waits = post.waiting(mail), []
    while True:
        post.server.before = [PutOff(450, "busy")]
        result = await post.sending.handle(waiting)
        if isinstance(result, Finished):
            break
        assert not result.waiting.maybe_sent
        waits.append((result.waiting.due - post.now).total_seconds())
        assert 0 <= waits[-1] <= min(4000, 300 * 2 ** (len(waits) - 1))
        assert result.waiting.attempts == len(waits)
        post.now = result.waiting.due + timedelta(seconds=1)
        waiting = result.waiting
    assert max(waits) > 2000
    assert len(waits) > 108, "it was tried until the horizon"
    assert post.now - AT >= timedelta(seconds=HORIZON_S)
    assert post.letters.codes == ["expired"]
    assert post.states.memory.finished(mail.mail_id)
    assert post.possible_duplicates == 0
    assert post.breaker.closed(post.now), "the server is well"


async def test_ambiguous_is_sent_again_and_counted(post: Post, mail: Mail) -> None:
    post.server.after = [Ambiguous(None, "gone")]
    result = await post.handle(mail)
    assert isinstance(result, Later)
    assert result.waiting.maybe_sent
    # Another worker, which has only the topic's word for it, must know it, too.
    post.now = result.waiting.due + timedelta(minutes=5)
    assert isinstance(await post.handle(mail), Finished)
    assert post.states.written == ["sending", "deferred", "sending", "sent"]
    assert post.possible_duplicates == 1


async def test_found_sending_after_a_crash(post: Post, mail: Mail) -> None:
    await post.states.note(0, mail.mail_id, MailState("sending", AT, 2))
    assert isinstance(await post.handle(mail), Finished)
    assert (post.server.taken, post.possible_duplicates) == ([mail.to], 1)


async def test_what_was_put_off_waits_after_a_restart(post: Post, mail: Mail) -> None:
    due = AT + timedelta(hours=1)
    await post.states.note(0, mail.mail_id, MailState("deferred", AT, 3, due))
    result = await post.handle(mail)
    assert isinstance(result, Later)
    assert (result.waiting.due, result.waiting.attempts, post.server.asked) == (due, 3, 0)
    post.now = due
    assert isinstance(await post.sending.handle(result.waiting), Finished)
    assert post.possible_duplicates == 0


async def test_another_has_the_partition(post: Post, mail: Mail) -> None:
    post.states.memory.fold(0, owner_key(0), encoded({"worker": "another"}))
    with pytest.raises(NotOwner):
        await post.handle(mail)
    assert post.server.taken == []


async def test_what_its_owner_sent_stays_sent_for_one_who_was_frozen(
    post: Post, mail: Mail
) -> None:
    """He writes that he sends it before he can know; the topic may keep only the last that was written."""
    states, written = post.states, list[bytes]()

    async def note(partition: int, mail_id: uuid.UUID, state: MailState) -> int:
        value = encoded(state.to_json())
        if not written:  # what comes to light while he reads up to his own record
            states.memory.fold(0, mail_key(mail_id), encoded(MailState("sent", AT).to_json()))
            states.memory.fold(0, owner_key(0), encoded({"worker": "another"}))
        written.append(value)
        states.memory.fold(partition, mail_key(mail_id), value)
        return len(written)

    states.note = note  # type: ignore[method-assign]
    with pytest.raises(NotOwner):
        await post.handle(mail)
    assert states.memory.finished(mail.mail_id)
    compacted = Memory()
    compacted.fold(0, mail_key(mail.mail_id), written[-1])
    assert compacted.state_of(mail.mail_id) == "sent"
    assert (post.server.taken, post.possible_duplicates) == ([], 0)


async def test_a_claim_that_could_not_be_written_is_no_possible_duplicate(
    post: Post, mail: Mail
) -> None:
    await post.states.note(0, mail.mail_id, MailState("sending", AT, 2))
    post.states.failing = [LogUnavailable("away")]
    with pytest.raises(LogUnavailable):
        await post.handle(mail)
    assert post.possible_duplicates == 0
    assert isinstance(await post.handle(mail), Finished)
    assert post.possible_duplicates == 1


async def test_refused_marks_the_address(post: Post, mail: Mail) -> None:
    post.server.before = [Refused(550, "no such user")]
    assert isinstance(await post.handle(mail), Finished)
    other = mail_to("ada@EXAMPLE.com", created_at=AT)
    assert isinstance(await post.handle(other), Finished)
    assert post.letters.codes == ["refused", "address_bounced"]
    assert post.server.asked == 1, "the server is not asked again"
    letter = post.letters.messages[0]
    record = post.waiting(mail).record
    assert (letter.key, letter.value, letter.headers[0]) == (
        record.key,
        record.value,
        ("x", b"\xff"),
    )
    assert dict(letter.headers)["__connect.errors.exception.message"] == b"550 no such user"
    post.states.memory.addresses.clear()
    again = mail_to("ada@example.com", created_at=AT)
    assert isinstance(await post.handle(again), Finished)
    assert post.server.taken == ["ada@example.com"]


async def test_a_server_that_is_away_burns_no_attempt(post: Post, mail: Mail) -> None:
    waiting = post.waiting(mail)
    for failures in range(1, 12):
        post.server.before = [ServerAway(None, "refused")]
        result = await post.sending.handle(waiting)
        assert isinstance(result, Later)
        assert result.waiting.attempts == 0
        assert post.breaker.failures == failures
        assert post.breaker.probe_at is not None
        assert post.breaker.probe_at - post.now <= timedelta(seconds=min(60, 2 ** (failures - 1)))
        asked = post.server.asked
        if post.breaker.probe_at > post.now:
            held = await post.handle(mail_to("b@example.com", created_at=AT))
            assert isinstance(held, Later)
            assert post.server.asked == asked, "one probe at a time"
        post.now = result.waiting.due
        waiting = result.waiting
    assert isinstance(await post.sending.handle(waiting), Finished)
    assert post.breaker.closed(post.now)
    assert post.states.written == ["sending", "sent"]


async def test_sent_is_remembered_however_long_it_takes(
    post: Post, mail: Mail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("writer.mail.sending._AGAIN_S", 0.0)
    real = post.states.note

    async def note(partition: int, mail_id: uuid.UUID, state: MailState) -> int:
        if state.state == "sent" and len(failures) < 3:
            failures.append(1)
            raise LogUnavailable("away")
        return await real(partition, mail_id, state)

    failures: list[int] = []
    monkeypatch.setattr(post.states, "note", note)
    assert isinstance(await post.handle(mail), Finished)
    assert post.states.memory.finished(mail.mail_id)
    assert post.server.taken == [mail.to]


async def test_without_the_state_topic_nothing_is_sent(post: Post, mail: Mail) -> None:
    post.states.failing = [LogUnavailable("away")]
    with pytest.raises(LogUnavailable):
        await post.handle(mail)
    assert post.server.taken == []


async def test_mail_that_cannot_be_sent_is_dead(post: Post, mail: Mail) -> None:
    for wrong in (
        replace(mail, to="a@b, c@d"),
        replace(mail, template="nosuch"),
        replace(mail, parameters={"name": "x"}),
        replace(mail, created_at=AT - timedelta(days=5)),
    ):
        await post.handle(replace(wrong, mail_id=uuid.uuid4()))
    for value in (b"", None, b"{", b"[]", b"{}", b'{"mail_id": 1}', b"\xff", b"[" * 10_000):
        record = MailRecord(0, 7, None, value)
        await post.sending.handle(Waiting(record, AT, horizon=horizon_of(value, HORIZON_S)))
    assert post.letters.codes == [
        "bad_address", "unknown_template", "bad_parameters", "expired", *["unreadable"] * 8
    ]  # fmt: skip
    assert post.server.asked == 0
    assert post.count("dead") == 12


# -- the window ---------------------------------------------------------------------------------


def _record(offset: int, size: int = 10) -> MailRecord:
    return MailRecord(0, offset, None, b"x" * size)


def test_the_offset_never_passes_what_is_not_finished() -> None:
    window = Window(5)
    for offset in (5, 6, 9, 10):
        window.take(_record(offset), AT, None)
    window.take(_record(6), AT, None)
    assert len(window) == 4
    for offset, committable in ((6, 5), (10, 5), (5, 9), (9, 11)):
        window.finish(offset)
        assert window.committable == committable
    window.put(Waiting(_record(6), AT))
    assert len(window) == 0, "what is finished does not come back"


def test_the_window_is_bounded_by_number_and_by_bytes() -> None:
    window = Window(0, max_mails=3, max_bytes=10_000)
    for offset in range(3):
        assert not window.full
        window.take(_record(offset), AT, None)
    assert window.full
    window.finish(1)
    assert not window.full
    window.take(_record(3, 10_000), AT, None)
    assert window.full
    window.finish(3)
    assert not window.full


def test_the_longest_due_comes_first_and_what_is_given_up_even_before() -> None:
    window = Window(0)
    for offset in range(3):
        window.take(_record(offset), AT, AT + timedelta(days=5))
    window.put(Waiting(_record(0), AT + timedelta(hours=1), horizon=AT + timedelta(minutes=30)))
    first = window.next_due(AT)
    assert first is not None
    assert first.record.offset == 1, "one that waits stops nobody"
    later = window.next_due(AT + timedelta(hours=2))
    assert later is not None
    assert later.record.offset == 1
    assert window.given_up(AT) is None
    given_up = window.given_up(AT + timedelta(minutes=30))
    assert given_up is not None
    assert given_up.record.offset == 0


# -- the memory ---------------------------------------------------------------------------------


def test_what_is_in_the_state_topic_and_is_not_ours_stops_nobody() -> None:
    memory = Memory()
    good = uuid.uuid4()
    for key, value in (
        (None, None), (b"\xff", b"{}"), (b"nonsense", b"{}"), (b"owner:x", b"{}"), (b"owner:1", b"{}"),
        (b"address:a@b", b"[]"), (mail_key(good), b"{}"), (mail_key(good), b'{"state": "odd"}'),
    ):  # fmt: skip
        memory.fold(0, key, value)
    assert memory == Memory(_finished=memory._finished)
    assert not memory.finished(good)


def test_only_who_has_the_partition_can_be_sending() -> None:
    """Whoever has lost it finds that out before he sends; it must not count as sent perhaps."""
    memory, mail_id = Memory(), uuid.uuid4()

    def says(state: MailState) -> MailState | None:
        memory.fold(2, mail_key(mail_id), encoded(state.to_json()))
        return memory.open(mail_id)

    put_off = MailState("deferred", AT, 1, AT, maybe_sent=True)
    assert says(put_off) == put_off
    memory.fold(2, owner_key(2), encoded({"worker": "new"}))
    assert says(MailState("sending", AT, 1, worker="frozen")) == put_off
    mine = MailState("sending", AT, 1, maybe_sent=True, worker="new")
    assert says(mine) == mine
    memory.fold(2, owner_key(2), encoded({"worker": "next"}))
    assert memory.open(mail_id) == mine, "it was the owner's when it was written"
    assert says(MailState("sent", AT)) is None
    assert says(MailState("sending", AT, worker="next")) is None
    assert memory.finished(mail_id)


def test_old_mails_are_forgotten_and_marks_of_addresses_are_not() -> None:
    memory = Memory()
    ids = [uuid.uuid4() for _ in range(4)]
    for days, mail_id in enumerate(ids):
        state = MailState("failed" if days == 1 else "sent", AT + timedelta(days=days))
        memory.fold(3, mail_key(mail_id), encoded(state.to_json()))
    assert [memory.state_of(mail_id) for mail_id in ids] == ["sent", "failed", "sent", "sent"]
    assert memory.old(3, AT + timedelta(days=2), 10) == ids[:2]
    assert memory.old(3, AT + timedelta(days=2), 1) == ids[:1]
    assert memory.old(2, AT + timedelta(days=9), 10) == []
    memory.fold(3, mail_key(ids[0]), None)
    assert not memory.finished(ids[0])


async def test_what_this_worker_wrote_it_knows_at_once() -> None:
    """The next mail may be the same one: the memory must not wait for the topic to be read."""
    states = StateLog("nowhere", "site.mail.state", 8, FakeLetters(), Log("test"))
    mail_id = uuid.uuid4()
    await states.note(0, mail_id, MailState("sent", AT))
    assert states.memory.finished(mail_id)


# -- the watch ----------------------------------------------------------------------------------


def test_a_doubt_that_lasts_ends_the_worker() -> None:
    doubt = Doubt("it is not well", 60)
    for at, well in ((0, False), (59, None), (59, False), (60, True), (70, False), (129, False)):
        doubt.note(well, at)
    with pytest.raises(Stuck, match="not well"):
        doubt.note(False, 130)


def test_a_loop_that_stands_still_ends_the_process() -> None:
    ended = threading.Event()
    pulse = Pulse(Log("test"), limit_s=0.05, every_s=0.02, end=ended.set)
    pulse.start()
    assert ended.wait(5)
    blocked = """
import time
from schema.telemetry import Log
from writer.mail.watch import Pulse
Pulse(Log("test"), limit_s=0.1, every_s=0.05).start()
time.sleep(60)
"""
    assert subprocess.run([sys.executable, "-c", blocked], check=False, timeout=30).returncode == 1
    beating = Pulse(Log("test"), limit_s=30, every_s=0.01, end=ended.set)
    ended.clear()
    beating.start()
    assert not ended.wait(0.1)
    beating.stop()
