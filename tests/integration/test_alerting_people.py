"""Alerts by mail, by an SMS gateway and by chat, against real servers of each kind."""

import dataclasses
import logging
import time
from datetime import timedelta
from urllib.parse import parse_qs

import pytest

from tests.alerting import (
    Answering,
    alert,
    answers,
    channels,
    drips,
    hangs,
    mail_server,
    serving,
    until,
)
from tests.installation import free_port
from writer.alerting.pauses import Timing

pytestmark = [pytest.mark.integration, pytest.mark.once]


async def test_an_alert_comes_as_a_mail() -> None:
    async with (
        mail_server() as mails,
        channels(
            f"mailto://127.0.0.1:{mails.port}/?to=ann@example.org,bob@example.org"
            "&from=Alerts <alerts@example.org>"
        ) as made,
    ):
        opened = dataclasses.replace(
            alert(),
            title="Down:\r\n\0Bcc: eve@example.org",
            text="Größe",
            link="https://help/#F-01",
        )
        closed = dataclasses.replace(alert("closed"), at=opened.at + timedelta(hours=1))
        made.send(opened)
        made.send(closed)
        await until(lambda: len(mails.received) == 2)
        first, second = mails.received
        assert mails.recipients == [["ann@example.org", "bob@example.org"]] * 2
        assert first["from"] == "Alerts <alerts@example.org>"
        assert first["to"] == "ann@example.org, bob@example.org"
        assert first["subject"] == "[afterwrite] Down: Bcc: eve@example.org"
        assert first["bcc"] is None
        assert first["auto-submitted"] == "auto-generated"
        assert first["message-id"] == f"<{opened.alert_id}@example.org>"
        assert first.get_content().splitlines() == ["Größe", "", "https://help/#F-01"]
        assert first["references"] == second["references"]  # of one incident, so one thread
        assert second["date"].datetime == closed.at


async def test_a_recipient_that_is_refused_keeps_nobody_else_from_it() -> None:
    async with (
        mail_server() as mails,
        channels(f"mailto://127.0.0.1:{mails.port}/?to=gone@example.org,bob@example.org") as made,
    ):
        mails.refuses = {"gone@example.org"}
        made.send(alert())
        await until(lambda: made.states()[0].sent == 1)
        [state] = made.states()
        assert (state.state, state.last_error) == ("working", "refused for 1 of 2 recipients: 550")
        assert mails.recipients == [["bob@example.org"]]
        mails.refuses.add("bob@example.org")
        made.send(alert())
        await until(lambda: made.states()[0].state == "failing")
        assert made.states()[0].last_error == "SMTP 550 5.1.1 no such user"


async def test_a_mail_that_is_not_taken_comes_again_under_the_same_id() -> None:
    async with (
        mail_server() as mails,
        channels(f"mailto://127.0.0.1:{mails.port}/?to=ann@example.org") as made,
    ):
        mails.reply = "451 4.3.0 later"
        sent = alert()
        made.send(sent)
        await until(lambda: made.states()[0].state == "failing")
        assert made.states()[0].last_error == "SMTP 451 4.3.0 later"
        mails.reply = "250 OK"
        await until(lambda: made.states()[0].state == "working")
        [mail] = mails.received
        assert str(sent.alert_id) in mail["message-id"]


async def test_a_password_is_not_sent_where_tls_is_asked_for_and_not_there() -> None:
    async with (
        mail_server() as mails,
        channels(f"mailtos://ann:secret@127.0.0.1:{mails.port}/?to=ann@example.org") as made,
    ):
        made.send(alert())
        await until(lambda: made.states()[0].state == "failing")
        error = made.states()[0].last_error or ""
        assert "STARTTLS" in error
        assert "secret" not in error
        assert mails.received == []


async def test_an_sms_gateway_gets_a_form_as_it_wants_it() -> None:
    async with (
        serving(answers(200)) as gateway,
        channels(
            f"form://127.0.0.1:{gateway.port}/send?+x-key=k3y"
            "&:to=%2B491701234567&:message=text&:title=subject&:type="
        ) as made,
    ):
        made.send(alert())
        await until(lambda: made.states()[0].sent == 1)
        [request] = gateway.requests
        assert request.line == "POST /send HTTP/1.1"
        assert request.header("x-key") == "k3y"
        fields = parse_qs(request.body.decode())
        assert fields["to"] == ["+491701234567"]
        assert fields["text"] == ["Since 12:00 …"]
        assert fields["subject"] == ["[afterwrite] PostgreSQL is away"]
        assert "type" not in fields


async def test_what_a_service_says_of_itself_shows_no_secret() -> None:
    async with channels("form://t0ken.invalid:9/s3cret?:key=s3cret") as made:
        made.send(alert())
        await until(lambda: made.states()[0].last_error is not None)
        assert made.states()[0].last_error == (
            "A Connection error occurred sending Form notification to ***."
        )
    assert not logging.getLogger("apprise").propagate  # nor does it come into our log


async def test_an_alert_comes_into_a_chat_and_leads_to_nobody_elses_site() -> None:
    async with (
        serving(answers(200)) as chat,
        channels(f"ntfy://127.0.0.1:{chat.port}/on-call") as made,
    ):
        made.send(alert())
        await until(lambda: made.states()[0].sent == 1)
        [request] = chat.requests
        assert b'"topic": "on-call"' in request.body
        assert "http" not in request.head.replace("HTTP", "").lower()


@pytest.mark.parametrize("fault", [hangs, drips])
async def test_a_service_that_does_not_end_holds_up_no_other_and_no_end(fault: Answering) -> None:
    """What hangs cannot be ended, but it is not waited for either; and there are never many."""
    timing = Timing(timeout_s=0.2, first_s=0.01, limit_s=0.02, probe_s=0.02)
    async with serving(fault) as bad, serving(answers(200)) as good:
        urls = f"form://127.0.0.1:{bad.port}/s3cret?rto=30", f"form://127.0.0.1:{good.port}/"
        async with channels(*urls, timing=timing) as made:
            made.send(alert())
            await until(lambda: made.states()[1].sent == 1)
            await until(lambda: "have not ended" in (made.states()[0].last_error or ""))
            assert len(bad.requests) == 3
            began = time.monotonic()
        assert time.monotonic() - began < 1


async def test_whatever_the_others_do_an_alert_arrives_at_once() -> None:
    """With the timeout and the pauses of the product."""
    async with (
        serving(hangs) as hanging,
        serving(drips) as dripping,
        serving(answers(500)) as failing,
        mail_server() as mails,
        serving(answers(200)) as good,
        channels(
            f"mailto://127.0.0.1:{hanging.port}/?to=ops@example.org",  # it never greets
            f"json://127.0.0.1:{hanging.port}/",
            f"form://127.0.0.1:{dripping.port}/?rto=30",
            f"json://127.0.0.1:{failing.port}/",
            f"form://127.0.0.1:{free_port()}/",
            f"mailto://127.0.0.1:{free_port()}/?to=ops@example.org",
            f"mailto://127.0.0.1:{mails.port}/?to=ops@example.org",
            f"json://127.0.0.1:{good.port}/",
            f"form://127.0.0.1:{good.port}/sms",
            timing=Timing(),
        ) as made,
    ):
        began = time.monotonic()
        made.send(alert())
        await until(lambda: len(mails.received) == 1 and len(good.requests) == 2)
        assert time.monotonic() - began < 3
        # A server has it a moment before the one who sent it knows.
        await until(lambda: [state.sent for state in made.states()] == [0] * 6 + [1] * 3)


async def test_an_smtp_server_that_never_greets_is_left_after_the_timeout() -> None:
    async with (
        serving(hangs) as hanging,
        channels(f"mailto://127.0.0.1:{hanging.port}/?to=ops@example.org") as made,
    ):
        made.send(alert())
        await until(lambda: made.states()[0].state == "failing")
        assert made.states()[0].last_error == "no end after 0.3 s"


async def test_what_came_after_the_timeout_is_not_sent_again() -> None:
    timing = Timing(timeout_s=0.2, first_s=0.6, limit_s=0.6)
    async with (
        serving(hangs) as slow,
        channels(f"form://127.0.0.1:{slow.port}/?rto=30", timing=timing) as made,
    ):
        made.send(alert())
        await until(lambda: made.states()[0].state == "retrying")
        slow.go_on.set()
        await until(lambda: made.states()[0].sent == 1)
        assert len(slow.requests) == 1
