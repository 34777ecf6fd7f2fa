"""More than one lane: each has its own position and writer, and its faults are its own."""

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from schema.topics import lane_of
from tests.acceptance.helpers import Site
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
            while {lane_of(sent.topic, LANES) for sent in site.sent} != set(range(LANES)):
                await site.accepted("ada", f"Topic {len(site.sent)}")
        await site.prove()
        used = await wide.value("SELECT count(DISTINCT lane) FROM afterwrite.ledger")
        assert used == LANES
