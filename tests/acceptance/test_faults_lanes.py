"""More than one lane: each has its own position and writer, and its faults are its own."""

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from schema.topics import lane_of
from tests.acceptance.helpers import Sent, Site
from tests.installation import Installation, fresh_name
from tests.services import Services

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(120)]

LANES = 3


@pytest.fixture
async def wide(services: Services, tmp_path: Path) -> AsyncIterator[Installation]:
    """An installation with several lanes."""
    made = Installation(services, fresh_name(), tmp_path, lanes=LANES)
    await made.create()
    yield made
    await made.destroy()


async def test_lanes_of_a_killed_writer_go_to_another(wide: Installation) -> None:
    async with Site(wide) as site:
        await site.start()
        first = wide.processes["writer"]
        for lane in range(LANES):
            await first.logged("lane_taken", lane=lane)
        second = await wide.start("writer", "second").ready()
        async with site.load(authors=6) as load:
            first.signal(signal.SIGKILL)
            for lane in range(LANES):
                await second.logged("lane_taken", lane=lane)
            await load.more(20)
            await _use_all(site)
        await site.prove()
        used = await wide.value("SELECT count(DISTINCT lane) FROM afterwrite.ledger")
        assert used == LANES


async def test_lanes_are_spread_over_writers_by_name(wide: Installation) -> None:
    async with Site(wide) as site:
        await site.start(writer_lanes="0,2")
        first, second = wide.processes["writer"], wide.start("writer", "second", writer_lanes="1")
        await second.logged("lane_taken", lane=1)
        await _use_all(site)
        await site.prove()
        second.kill()
        waiting = await _in_lane(site, {1})
        after = await _in_lane(site, {0, 2})
        await site.reaches("ada", after.command, "saved")
        assert await site.state("ada", waiting.command) == "pending"
        assert {e["lane"] for e in first.events() if e["event"] == "lane_taken"} == {0, 2}
        wide.start("writer", "third", writer_lanes="1")
        await site.prove()


async def _use_all(site: Site) -> None:
    """Topics until there is one in each lane."""
    while {lane_of(sent.topic, LANES) for sent in site.sent} != set(range(LANES)):
        await site.accepted("ada", f"Topic {len(site.sent)}")


async def _in_lane(site: Site, lanes: set[int]) -> Sent:
    """A new topic in one of these lanes."""
    while True:
        sent = await site.accepted("ada", f"Topic {len(site.sent)}")
        if lane_of(sent.topic, LANES) in lanes:
            return sent
