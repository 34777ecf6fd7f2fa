"""Events on the real processes: through the writer, over restarts, without Kafka, at a shutdown."""

import asyncio
import time
from contextlib import AsyncExitStack

import httpx2
import pytest

from tests.acceptance.helpers import Site, down, figure
from tests.installation import Installation
from tests.streams import EventSource, end_of

pytestmark = pytest.mark.acceptance


async def test_an_author_is_told_what_becomes_of_his_commands_and_nobody_else_is(
    installation: Installation,
) -> None:
    async with Site(installation) as site:
        await site.start()
        async with EventSource(installation, "ada") as ada, EventSource(installation, "bob") as bob:
            sent = await site.accepted("ada", "Ada's topic")
            saved = await ada.until("command.saved", str(sent.command))
            assert {(row["type"], row["id"], row["op"]) for row in saved["rows"]} >= {
                ("topic", str(sent.topic), "create"),
                ("post", str(sent.post), "create"),
            }
            # What is told as saved is there for everybody who reads now.
            assert (await site.ask("bob", "GET", f"/v1/posts/{sent.post}")).status_code == 200

            installation.processes["writer"].terminate()
            async with installation.client("mod", "moderator") as mod:
                lock = await mod.patch(f"/v1/topics/{sent.topic}", json={"locked": True})
                assert lock.status_code == 202
            trace = "0af7651916cd43dd8448eb211c80319c"
            reply = await site.send_post(
                "bob", sent.topic, "Too late", traceparent=f"00-{trace}-b7ad6b7169203331-01"
            )
            writer = installation.start("writer", "next")
            command = reply.json()["command"]
            rejected = await bob.until("command.rejected", command)
            assert rejected["problem"]["code"] == "forbidden"
            name, notice = await bob.next()
            assert (name, notice["notice"], notice["command"]) == (
                "notice", rejected["notice"], command,
            )  # fmt: skip
            notices = (await site.ask("bob", "GET", "/v1/notices")).json()["items"]
            assert [n["id"] for n in notices] == [notice["notice"]]

            # The request and what became of it are found in both logs by the same trace.
            accepted = await installation.processes["api"].logged("accepted", command=command)
            refused = await writer.logged("command_rejected", command=command)
            assert accepted["trace_id"] == refused["trace_id"] == trace

            # Ada heard nothing of all that: the next thing she is told is her own.
            more = await site.accepted("ada", "Ada's next")
            name, data = await ada.next()
            assert (name, data["command"]) == ("command.saved", str(more.command))


async def test_a_broken_stream_goes_on_at_another_process_and_after_a_restart(
    installation: Installation,
) -> None:
    async with Site(installation) as site:
        await site.start()
        await installation.start("api", "other").ready()
        async with EventSource(installation, "ada") as stream:
            sent = await site.many(2)
            await stream.until("command.saved", str(sent[1].command))
        missed = [await site.accepted("ada", f"Missed {n}", sent[0].topic) for n in range(3)]
        await site.reaches("ada", missed[-1].command, "saved")
        async with EventSource(installation, "ada", "other", last=stream.last) as again:
            told = [(await again.next())[1]["command"] for _ in missed]
            assert told == [str(s.command) for s in missed]
            at = again.last

        assert installation.processes["api"].terminate() == 0
        await site.start_api()
        async with EventSource(installation, "ada", last=stream.last) as restarted:
            told = [(await restarted.next())[1]["command"] for _ in missed]
            assert told == [str(s.command) for s in missed]
            assert restarted.last == at
            later = await site.accepted("ada", "And live", sent[0].topic)
            assert (await restarted.next())[1]["command"] == str(later.command)

        for nonsense in ("nonsense", "7-1", "0-999999"):
            async with EventSource(installation, "ada", last=nonsense) as reset:
                assert (await reset.next())[0] == "reset"
                assert reset.last not in (nonsense, None)


async def test_a_stream_outlives_kafka(installation: Installation) -> None:
    async with Site(installation) as site:
        await site.start()
        async with EventSource(installation, "ada") as stream:
            before = await site.accepted("ada", "Before")
            await stream.until("command.saved", str(before.command))
            with down(installation.services, "kafka"), pytest.raises(TimeoutError):
                await stream.next(timeout=3)
            after = await site.accepted("ada", "After", before.topic)
            name, data = await stream.next(timeout=40)
            assert (name, data["command"]) == ("command.saved", str(after.command))


async def test_a_shutdown_ends_streams_and_waiting_requests_at_once(
    installation: Installation,
) -> None:
    async with Site(installation) as site, AsyncExitStack() as stack:
        api = await site.start_api(streams_per_author="50")
        open_ = [EventSource(installation, "ada") for _ in range(50)]
        for stream in open_:
            await stack.enter_async_context(stream)
        client = await stack.enter_async_context(installation.client("ada"))
        waits = {"Prefer": "wait=30"}  # there is no writer to wait for
        request = client.post("/v1/topics", json={"title": "T", "body": "B"}, headers=waits)
        waiting = asyncio.create_task(request)
        await api.logged("accepted")
        began = time.perf_counter()
        assert await asyncio.to_thread(api.terminate) == 0
        took = time.perf_counter() - began
        figure("shutdown with 50 streams open, s", round(took, 2))
        assert took < 5
        assert (await waiting).status_code == 202
        for stream in open_:
            await end_of(stream)
        with pytest.raises(httpx2.TransportError):
            await client.get("/livez")
