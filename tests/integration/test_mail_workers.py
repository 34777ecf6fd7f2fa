"""Mail workers as processes, on a real Kafka, with a real SMTP server: each mail once, whatever happens."""

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from schema.mail import Mail
from tests.installation import Installation, eventually, eventually_async
from tests.mailing import Mailing, mail_to
from tests.smtp_sink import DROP, smtp_sink
from writer.mail.membership import is_member
from writer.mail.operation import clear_address, dead_mail, marked_addresses, send_again

pytestmark = [pytest.mark.integration, pytest.mark.once]


@pytest.fixture
async def mailing(installation: Installation) -> AsyncIterator[Mailing]:
    async with smtp_sink() as sink:
        yield Mailing(installation, sink)


async def test_each_mail_once_while_workers_come_and_go(mailing: Mailing) -> None:
    mails = [mail_to(f"u{number}@example.com") for number in range(200)]
    await mailing.queue(mails)
    first = mailing.worker("first")
    await mailing.received(20)
    second, third = mailing.worker("second"), mailing.worker("third")
    await asyncio.gather(second.running.ready(), third.running.ready())
    await mailing.queue(mails[:50])  # the same mails again: whoever queued them had crashed
    await mailing.received(90)
    assert await first.terminated() == 0, "the one in work is finished, and it leaves"
    await mailing.received(200)
    await second.ready(4)
    group = f"{mailing.installation.name}.mail"
    assert await is_member(mailing.bootstrap, group, "nobody") is False
    member = (await second.running.logged("started"))["member"]
    assert await is_member(mailing.bootstrap, group, member) is True
    assert await is_member("127.0.0.1:1", group, member) is None
    # What was committed and remembered holds for whoever comes later.
    assert list(await asyncio.gather(second.terminated(), third.terminated())) == [0, 0]
    last = await mailing.worker("last").ready()
    await mailing.queue([mail_to("last@example.com")])
    await mailing.received(201)
    assert sorted(mailing.sink.recipients) == sorted([m.to for m in mails] + ["last@example.com"])
    ids = Counter(one.message["Message-ID"] for one in mailing.sink.received)
    assert max(ids.values()) == 1
    assert {f"<{mail.mail_id}@example.org>" for mail in mails} < set(ids)
    assert last.metric("afterwrite_mail_possible_duplicates_total") == 0


async def test_one_killed_while_handing_over_and_one_frozen(
    mailing: Mailing, tmp_path: Path
) -> None:
    """The killed one had not remembered what the server took; the frozen one wakes up too late."""
    mailing.sink.slow_s = 0.02
    after = tmp_path / "after"
    frozen = mailing.worker("frozen")
    killed = mailing.worker("killed", failpoints=f"mail_after_data={after}")
    await asyncio.gather(frozen.ready(4), killed.ready(4))
    await mailing.queue([mail_to(f"u{number}@example.com") for number in range(80)])
    await mailing.received(10)
    frozen.running.signal(signal.SIGSTOP)
    after.touch()
    assert await killed.running.ended() == -signal.SIGKILL
    last = await mailing.worker("last").ready()
    await eventually(lambda: len(set(mailing.sink.recipients)) == 80, 30, "80 mails to arrive")
    # It believes for a moment that its partitions are still its own, and takes new mails from them.
    frozen.running.signal(signal.SIGCONT)
    await mailing.queue([mail_to(f"v{number}@example.com") for number in range(10)])
    await eventually(lambda: len(set(mailing.sink.recipients)) == 90, 30, "90 mails to arrive")
    # Of each of the two, one mail may have come twice; none without being counted.
    counted = last.metric("afterwrite_mail_possible_duplicates_total")
    assert 1 <= len(mailing.twice()) <= counted <= 2
    assert set(mailing.twice().values()) == {2}


async def test_what_is_put_off_stops_nobody_and_is_remembered(mailing: Mailing) -> None:
    late, lost = mail_to("late@example.com"), mail_to("lost@example.com")
    mailing.sink.at_rcpt[late.to] = ["450 4.2.2 mailbox full"] * 3
    mailing.sink.at_data[lost.to] = [DROP]
    others = [mail_to(f"u{number}@example.com") for number in range(20)]
    await mailing.queue([late, lost, *others], partition=3)
    first = mailing.worker("first", mail_backoff_min_s="3", mail_backoff_max_s="3")
    await mailing.received(21)
    assert set(mailing.sink.recipients) == {lost.to, *(m.to for m in others)}
    await first.running.logged("mail_put_off", mail_id=str(late.mail_id))
    assert await first.terminated() == 0
    second = mailing.worker("second")
    await mailing.received(23)
    await second.running.logged("mail_sent", mail_id=str(late.mail_id))
    events = [*first.running.events(), *second.running.events()]
    tried = [e["attempts"] for e in _of(events, "mail_put_off", late)]
    assert tried == [1, 2, 3], "what the first worker tried is remembered"
    assert mailing.twice() == {lost.to: 2}, "the server had taken it before it broke off"
    assert len(_of(events, "mail_possible_duplicate", lost)) == 1
    assert mailing.sink.recipients.count(late.to) == 1


async def test_a_dead_server_costs_one_probe_at_a_time(mailing: Mailing, tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    await mailing.sink.stop()
    old = mail_to("old@example.com", created_at=datetime.now(UTC) - timedelta(days=6))
    mails = [mail_to(f"u{number}@example.com") for number in range(50)]
    await mailing.queue([*mails, old])
    worker = await mailing.worker("worker", clock=str(clock)).ready()
    await worker.running.logged("mail_dead", code="expired")
    probes = [e for e in worker.running.events() if e.get("event") == "smtp_unavailable"]
    assert 1 <= len(probes) <= 15, "not one for each mail"
    assert worker.metric("afterwrite_smtp_available") == 0
    assert worker.metric('afterwrite_mail_total{outcome="put_off"}') == 0, "no attempt is burned"
    await mailing.sink.start()
    await mailing.received(50)
    assert sorted(mailing.sink.recipients) == sorted(mail.to for mail in mails)
    await worker.running.logged("smtp_available")
    assert mailing.sink.connections == 1
    assert [(dead.code, dead.mail) for dead in await mailing.dead()] == [("expired", old)]
    # A week later nobody can ask about these any more, and the state topic forgets them.
    assert await mailing.remembered(mails) == {"sent"}
    clock.write_text("700000")

    async def forgotten() -> bool:
        return await mailing.remembered(mails) == {None}

    await eventually_async(forgotten, 20, "the mails to be forgotten")


async def test_kafka_away_and_back(mailing: Mailing) -> None:
    mailing.sink.slow_s = 0.02
    mails = [mail_to(f"u{number}@example.com") for number in range(40)]
    worker = await mailing.worker("worker").ready()
    await mailing.queue(mails)
    await mailing.received(5)
    services = mailing.installation.services
    services.pause("kafka")
    try:
        still = len(mailing.sink.received)
        # It has named a recipient, and waits for Kafka's answer before it hands the mail over.
        await mailing.stalled()
        assert len(mailing.sink.received) <= still + 1
    finally:
        services.resume("kafka")
    await mailing.received(40)
    await mailing.queue([mail_to("last@example.com")])
    await eventually(lambda: "last@example.com" in mailing.sink.recipients, 30, "the last")
    assert {mail.to for mail in mails} < set(mailing.sink.recipients)
    assert len(mailing.twice()) <= worker.metric("afterwrite_mail_possible_duplicates_total") <= 1


async def test_dead_letters_and_addresses_that_refused(mailing: Mailing) -> None:
    gone, odd = mail_to("gone@example.com"), mail_to("a@b, c@d")
    mailing.sink.at_rcpt[gone.to] = ["550 5.1.1 no such user"]
    nosuch = replace(mail_to("u@example.com"), template="nosuch")
    empty = replace(mail_to("v@example.com"), parameters={})
    await mailing.queue([gone, odd, nosuch, empty], partition=0)
    junk = (b"\xff\0key", b"\xff not json", (("x", b"\xfe"), ("x", b"2")))
    await mailing.put([junk], partition=0)
    later = mail_to("gone@example.com", locale="de")
    await mailing.queue([later], partition=1)
    worker = mailing.worker("worker")
    # Only when the address is marked can a later mail be dead for that.
    await eventually(lambda: len(_dead(worker.running.events())) == 6, 30, "six to be dead")
    dead = await mailing.dead()
    codes = Counter(letter.code for letter in dead)
    assert codes == Counter(
        [
            "refused",
            "bad_address",
            "unknown_template",
            "bad_parameters",
            "unreadable",
            "address_bounced",
        ]
    )
    raw = next(letter for letter in dead if letter.code == "unreadable")
    assert (raw.key, raw.value, raw.headers[:2]) == junk
    number = next(letter.number for letter in dead if letter.code == "refused")

    shown = json.loads(mailing.installation.run("mail", "show", str(number), "--json").stdout)
    assert shown["detail"] == "550 5.1.1 no such user"
    assert shown["mail"] == gone.to_json()
    assert list(await marked_addresses(mailing.bootstrap, mailing.topics)) == [gone.to]
    assert mailing.installation.run("mail", "clear-address", gone.to).returncode == 0
    assert not await clear_address(mailing.bootstrap, mailing.topics, gone.to)
    queued = json.loads(mailing.installation.run("mail", "retry", str(number), "--json").stdout)
    letter = await dead_mail(mailing.bootstrap, mailing.topics, str(gone.mail_id))
    assert letter is not None
    twice = await send_again(mailing.bootstrap, mailing.topics, letter, datetime.now(UTC))
    assert queued == {"queued": str(twice.mail_id)}
    await mailing.received(1)
    await mailing.queue([mail_to("last@example.com")])
    await mailing.received(2)
    assert sorted(mailing.sink.recipients) == ["gone@example.com", "last@example.com"]
    listed = mailing.installation.run("mail", "list", "--code", "refused").stdout
    assert "(again: sent)" in listed
    assert len(listed.splitlines()) == 1


def _of(events: list[dict[str, Any]], name: str, mail: Mail) -> list[dict[str, Any]]:
    return [e for e in events if (e.get("event"), e.get("mail_id")) == (name, str(mail.mail_id))]


def _dead(events: list[dict[str, Any]]) -> list[str]:
    return [event["code"] for event in events if event.get("event") == "mail_dead"]
