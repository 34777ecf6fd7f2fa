"""Writers that are killed at every step, doubled, frozen and told to stop."""

import signal
import time
from pathlib import Path
from typing import get_args

import pytest

from schema.failpoints import Point
from tests.acceptance.helpers import Site, figure
from tests.installation import Installation, Running, eventually_async
from tests.proxy import PostgresProxy

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(180)]

POINTS = [point for point in get_args(Point) if point.startswith("writer_")]


async def test_a_writer_killed_at_any_step_loses_and_doubles_nothing(
    installation: Installation, tmp_path: Path
) -> None:
    files = {point: tmp_path / point for point in POINTS}
    failpoints = ",".join(f"{point}={file}" for point, file in files.items())
    async with Site(installation) as site:
        await site.start(failpoints=failpoints)
        writer = installation.processes["writer"]
        await site.many(2)
        for point, file in files.items():
            await site.drained()
            writer.signal(signal.SIGSTOP)  # so that what follows comes as one batch
            sent = await site.many(4) + await site.many(3, "bob")
            edit = {"body": f"{sent[0].body}, edited"}
            edited = await site.ask("ada", "PATCH", f"/v1/posts/{sent[0].post}", edit)
            assert edited.status_code == 202
            undo = await site.ask(
                "ada", "PATCH", f"/v1/posts/{sent[0].post}", {"body": sent[0].body}
            )
            assert undo.status_code == 202
            file.touch()
            writer.signal(signal.SIGCONT)
            assert await writer.ended() == -signal.SIGKILL, point
            for post in (sent[0], sent[4]):
                shown = [p["body"] for p in await site.posts(post.user, post.topic)]
                assert shown == [s.body for s in sent if s.topic == post.topic], point
            writer = installation.start("writer", f"after-{point}", failpoints=failpoints)
            await site.reaches("ada", undo.json()["command"], "saved")
            version = await installation.value(
                "SELECT version FROM post WHERE id = $1", sent[0].post
            )
            assert version == 3, point
        await site.prove()
        assert await installation.value(
            "SELECT count(*) = count(DISTINCT command_id) FROM afterwrite.ledger"
        )


async def test_a_standby_takes_over_and_a_zombie_cannot_commit(installation: Installation) -> None:
    async with Site(installation) as site:
        await site.start()
        first = installation.processes["writer"]
        await first.logged("lane_taken", epoch=1)
        second = await installation.start("writer", "second").ready()
        async with site.load() as load:
            first.signal(signal.SIGKILL)
            killed = time.monotonic()
            taken = await second.logged("lane_taken", 10)
            took_over_s = time.monotonic() - killed
            figure("take_over_s", round(took_over_s, 2))
            assert took_over_s < 5
            await load.more(10)

            third = await installation.start("writer", "third").ready()
            second.signal(signal.SIGSTOP)
            fenced_by = await third.logged("lane_taken", 40)
            assert fenced_by["epoch"] > taken["epoch"]
            await load.more(10)
            second.signal(signal.SIGCONT)
            await _has_lost(second)
            await load.more(60)  # both live on
        assert (await third.logged("lane_taken"))["epoch"] == fenced_by["epoch"]
        await site.prove()
        rows = await installation.fetch('SELECT epoch FROM afterwrite.ledger ORDER BY "offset"')
        epochs = [row["epoch"] for row in rows]
        assert epochs == sorted(epochs)
        assert set(epochs) >= {1, taken["epoch"], fenced_by["epoch"]}


async def test_a_batch_that_is_under_way_when_its_lane_is_lost_is_not_saved(
    installation: Installation,
) -> None:
    """Its network is so slow that its lease runs out between its statements.

    While only its batches take longer than the lease, it is slow, but lives, and keeps the lane.
    """
    async with Site(installation) as site, PostgresProxy(installation.writer_url) as proxy:
        installation.through("127.0.0.1", proxy.port)
        slow = await installation.start("writer", "slow").ready()
        installation.direct()
        await slow.logged("lane_taken", epoch=1)
        await site.start_api()
        second = await installation.start("writer", "second").ready()
        async with site.load() as load:
            proxy.latency(0.1)
            sent = await site.accepted("ada", "saved by the slow one")

            async def saved() -> bool:
                query = "SELECT count(*) FROM post WHERE id = $1"
                return bool(await installation.value(query, sent.post))

            await eventually_async(saved, 60, "the slow one to save")
            assert all(event["event"] != "lane_taken" for event in second.events())
            proxy.latency(1.2)
            taken = await second.logged("lane_taken", 60)
            await slow.logged("lane_lost", 20)
            proxy.latency(0)
            await load.more(20)
        await site.prove()
        rows = await installation.fetch(
            'SELECT epoch, outcome FROM afterwrite.ledger ORDER BY "offset"'
        )
        assert {row["outcome"] for row in rows} == {"saved"}
        assert [row["epoch"] for row in rows] == sorted(row["epoch"] for row in rows)
        assert rows[-1]["epoch"] == taken["epoch"]


async def _has_lost(zombie: Running) -> None:
    async def noticed() -> bool:
        assert zombie.popen.poll() is None, zombie.log.read_text()[-3000:]
        events = {e["event"] for e in zombie.events()}
        return bool(events & {"lane_lost", "recovering"})

    try:
        await eventually_async(noticed, 20, "the zombie to notice")
    except AssertionError as error:
        raise AssertionError(zombie.log.read_text()[-3000:]) from error


async def test_a_writer_told_to_stop_leaves_a_clean_table(installation: Installation) -> None:
    async with Site(installation) as site:
        await site.start()
        writer = installation.processes["writer"]
        async with site.load() as load:
            await load.more(10)
            started = time.monotonic()
            writer.signal(signal.SIGTERM)
            assert await writer.ended(10) == 0
            assert time.monotonic() - started < 8
            lane = (await installation.fetch("SELECT * FROM afterwrite.lane"))[0]
            assert (lane["owner"], lane["settled_seq"]) == (None, lane["outcome_seq"])
            await load.more(10)  # accepting does not need a writer
            next_one = installation.start("writer", "next")
            started = time.monotonic()
            await next_one.logged("lane_taken", position=lane["position"])
        await site.prove()
