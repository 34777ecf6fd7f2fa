"""PostgreSQL killed, frozen, cut off at COMMIT, under load: accepting goes on, nothing is lost."""

import asyncio
import statistics
import time

import asyncpg
import pytest

from tests.acceptance.helpers import Site, down, figure, hung
from tests.installation import Installation, eventually_async
from tests.proxy import Action, PostgresProxy
from writer.suspicion import PARK_AFTER

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(180)]

READ_S = 2.5
"""A read gives PostgreSQL two seconds, on a machine that has other things to do."""


async def test_without_postgresql_everything_is_accepted_and_saved_later(
    installation: Installation,
) -> None:
    async with Site(installation) as site:
        await site.start()
        async with site.load() as load:
            usual = await load.median(60)
            with down(installation.services, "postgres"):
                await load.more(10)  # the first ones find out
                without = await load.median(60)
                await _readable(site)
                lanes = await asyncio.to_thread(installation.run, "status", "--json")
                assert lanes.returncode == 1
                assert "PostgreSQL" in lanes.stdout
            back = time.monotonic()
            await load.more(10)
        figure("accept_ms", f"{usual * 1e3:.1f} → {without * 1e3:.1f}")
        assert without < 5 * usual
        assert load.unseen == []
        await site.prove()
        figure("drained_s", round(time.monotonic() - back, 1))
        assert "lane_halted" not in _events(installation)


async def _readable(site: Site) -> None:
    """Every read is answered in time: with the pending change, or with a problem."""
    last = site.sent[-1]
    for sent in (site.sent[0], last):
        for path in (f"/v1/posts/{sent.post}", f"/v1/topics/{sent.topic}/posts"):
            started = time.monotonic()
            answer = await site.ask(sent.user, "GET", path)
            assert time.monotonic() - started < READ_S, path
            assert answer.status_code == 200 or answer.json()["code"] == "database_unavailable"
    shown = await site.ask(last.user, "GET", f"/v1/posts/{last.post}")
    assert (shown.status_code, shown.json().get("state")) == (200, "pending")


def _events(installation: Installation) -> set[str]:
    return {str(e["event"]) for e in installation.processes["writer"].events()}


async def test_a_hanging_postgresql_and_killed_connections(installation: Installation) -> None:
    async with Site(installation) as site:
        await site.start()
        async with site.load() as load:
            usual = await load.median()
            with hung(installation.services, "postgres"):
                started = time.perf_counter()
                await site.accepted("ada", "Before anybody knows that it hangs")
                first = time.perf_counter() - started
                times = [first, *await load.more(40)]
                without = statistics.median(times)
                figure("accept_hung_ms", f"{usual * 1e3:.1f} → {without * 1e3:.1f}")
                figure("accept_hung_most_ms", round(max(times) * 1e3, 1))
                # Less than a read may take: accepting asks PostgreSQL, but not for long.
                assert max(times) < 1.5
                # Once that is known, nobody asks: each would wait for as long as the first.
                assert without < 5 * usual
                await _readable(site)
            await load.more(10)
            for _ in range(3):
                await _terminate_writers(installation)
                await load.more(10)
        assert load.unseen == []
        await site.prove()
        assert "lane_halted" not in _events(installation)


async def test_processes_that_start_without_postgresql_accept_and_save_later(
    installation: Installation,
) -> None:
    async with Site(installation) as site:
        api = await site.start_api()
        pending = await site.accepted("ada", "Before it went")
        assert api.terminate() == 0
        with down(installation.services, "postgres"):
            await site.start_api()
            writer = await installation.start("writer").ready()
            late = await site.accepted("ada", "While it is away", pending.topic)
            for sent in (pending, late):
                shown = await site.ask("ada", "GET", f"/v1/posts/{sent.post}")
                assert (shown.status_code, shown.json()["state"]) == (200, "pending")
            await writer.logged("database_unavailable")
        await site.prove()


async def _terminate_writers(installation: Installation) -> None:
    connection = await asyncpg.connect(installation.admin_url)

    async def ended() -> bool:
        """False while the writer is between two connections."""
        count = await connection.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            "WHERE usename = 'afterwrite_writer' AND datname = current_database()"
        )
        return bool(count)

    try:
        await eventually_async(ended, 20, "the writer's connections to be ended")
    finally:
        await connection.close()


async def test_a_commit_whose_answer_is_lost_takes_effect_once(installation: Installation) -> None:
    """The connection breaks at COMMIT, before or behind the server, or falls silent there."""
    async with Site(installation) as site, PostgresProxy(installation.writer_url) as proxy:
        installation.through("127.0.0.1", proxy.port)
        writer = installation.start("writer")
        installation.direct()
        await site.start_api()
        await writer.ready()
        async with site.load() as load:
            actions: tuple[Action, ...] = ("cut_reply", "cut_request") * 2
            for action in actions:
                await _cut(proxy, action)
                await load.more(6)
            await _cut(proxy, "blackhole")
            await load.more(20)  # accepting does not notice
            proxy.heal()
        await site.prove()
        outcomes = await installation.fetch("SELECT DISTINCT outcome FROM afterwrite.ledger")
        assert [row["outcome"] for row in outcomes] == ["saved"]


async def test_a_database_that_is_lost_again_and_again_counts_against_no_command(
    installation: Installation,
) -> None:
    """Its connection breaks in every transaction, more often than one command alone may fail."""
    async with Site(installation) as site, PostgresProxy(installation.writer_url) as proxy:
        installation.through("127.0.0.1", proxy.port)
        writer = installation.start("writer")
        installation.direct()
        await site.start_api()
        await writer.logged("lane_taken")
        proxy.arm("cut_request")
        await site.many(2)
        async with asyncio.timeout(30):
            await proxy.fired.wait()
        for _ in range(PARK_AFTER + 1):
            await _cut(proxy, "cut_request")
        await site.prove()
        rows = await installation.fetch("SELECT DISTINCT outcome FROM afterwrite.ledger")
        assert [row["outcome"] for row in rows] == ["saved"]
        assert "command_parked" not in {event["event"] for event in writer.events()}


async def _cut(proxy: PostgresProxy, action: Action) -> None:
    proxy.arm(action)
    async with asyncio.timeout(30):
        await proxy.fired.wait()
