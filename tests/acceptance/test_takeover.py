"""A standby takes the lane of a writer that was killed at once, and that of one that halts never."""

import signal
import time

import pytest

from tests.acceptance.helpers import Site, figure
from tests.installation import Installation, Running, eventually_async
from tests.proxy import PostgresProxy

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(120)]

PATIENT = {"lease_s": "60"}
"""Whoever waited for this lease would fail."""


async def test_a_killed_writers_lane_is_taken_long_before_its_lease_runs_out(
    installation: Installation,
) -> None:
    async with Site(installation) as site:
        await site.start(**PATIENT)
        holder = installation.processes["writer"]
        await holder.logged("lane_taken")
        standby = await installation.start("writer", "standby-0", **PATIENT).ready()
        first = await site.accepted("ada", "before")
        await site.reaches("ada", first.command, "saved")
        for round_, busy in enumerate((False, True), 1):
            if busy:
                async with site.load() as load:
                    await load.more(10)
                    took_s = await _killed_to_saved(site, holder)
            else:
                took_s = await _killed_to_saved(site, holder)
            figure("killed_to_saved_s", round(took_s, 2))
            assert took_s < 3
            assert (await standby.logged("lane_taken"))["epoch"] == round_ + 1
            holder, standby = standby, installation.start("writer", f"standby-{round_}", **PATIENT)
            await standby.ready()
        await site.prove()


async def _killed_to_saved(site: Site, holder: Running) -> float:
    holder.signal(signal.SIGKILL)
    killed = time.monotonic()
    sent = await site.accepted("ada", f"after {killed}")
    await site.reaches("ada", sent.command, "saved")
    return time.monotonic() - killed


async def test_nobody_takes_the_lane_of_a_writer_that_halts(installation: Installation) -> None:
    """Else the standby would go on where somebody has to look first: it writes the reason down slowly."""
    async with Site(installation) as site, PostgresProxy(installation.writer_url) as proxy:
        installation.through("127.0.0.1", proxy.port)
        holder = await installation.start("writer", "holder", **PATIENT).ready()
        installation.direct()
        await holder.logged("lane_taken", epoch=1)
        standby = await installation.start("writer", "standby", **PATIENT).ready()
        await site.start_api()
        await installation.fetch("ALTER TABLE post RENAME COLUMN body TO text")
        proxy.latency(0.1)
        await site.accepted("ada", "what nobody can save")

        async def halted() -> bool:
            return bool(await installation.value("SELECT halted FROM afterwrite.lane"))

        await eventually_async(halted, 20, "the lane to be halted")
        assert await installation.value("SELECT epoch FROM afterwrite.lane") == 1
        assert all(event["event"] != "lane_taken" for event in standby.events())
