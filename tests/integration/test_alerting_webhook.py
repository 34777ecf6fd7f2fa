"""Channels of our own kind against real HTTP servers, good and bad ones."""

import pytest

from tests.alerting import Answering, alert, answers, channels, drips, hangs, serving, until

pytestmark = [pytest.mark.integration, pytest.mark.once]


async def test_an_alert_is_posted_as_json_once() -> None:
    async with (
        serving(answers(204)) as server,
        channels(f"json://ada:s%20x@127.0.0.1:{server.port}/hooks/a%20b?to=ops") as made,
    ):
        sent = alert()
        made.send(sent)
        made.send(sent)
        await until(lambda: made.states()[0].sent == 1)
        assert server.bodies() == [sent.to_json()]
        [request] = server.requests
        assert request.line == "POST /hooks/a%20b?to=ops HTTP/1.1"
        assert request.header("webhook-id") == str(sent.alert_id)
        assert request.header("authorization") == "Basic YWRhOnMgeA=="
        assert request.header("webhook-signature").startswith("v1,")


@pytest.mark.parametrize("fault", [hangs, drips, answers(500), answers(302)])
async def test_a_bad_channel_holds_up_no_other(fault: Answering) -> None:
    async with (
        serving(fault) as bad,
        serving(answers(200)) as good,
        channels(f"json://127.0.0.1:{bad.port}/", f"json://127.0.0.1:{good.port}/") as made,
    ):
        first, second = alert(), alert("closed")
        made.send(first)
        await until(lambda: len(good.requests) == 1)
        await until(lambda: made.states()[0].state == "failing")
        made.send(second)
        await until(lambda: len(good.requests) == 2)
        failing, working = made.states()
        assert (failing.name, failing.sent, failing.queued) == ("json-1", 0, 2)
        assert failing.failing_since is not None
        assert failing.last_error
        assert (working.name, working.state, working.sent) == ("json-2", "working", 2)
        bad.answering = answers(200)
        bad.requests.clear()
        await until(lambda: made.states()[0].sent == 2)
        assert [body["alert_id"] for body in bad.bodies()][-2:] == [
            str(first.alert_id),
            str(second.alert_id),
        ]
        assert made.states()[0].state == "working"
        assert made.states()[0].failing_since is None
