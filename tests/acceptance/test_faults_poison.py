"""A command that kills the writer, again and again, stops nobody else, and is not lost."""

import signal
from pathlib import Path

import pytest

from tests.acceptance.helpers import applied, outcomes, send
from tests.commands import author, command, topic_with_post
from tests.installation import Installation, eventually_async

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(180)]

DEATHS = 5


async def test_what_keeps_killing_the_writer_is_parked_and_tried_again(
    installation: Installation, tmp_path: Path
) -> None:
    deadly = tmp_path / "deadly"
    settings = {"lease_s": "1", "park_backoff_min_s": "1", "park_backoff_max_s": "2"}
    await send(
        installation,
        command(author("ada"), *topic_with_post("Poison")),
        command(author("bob"), *topic_with_post("Harmless")),
    )
    for death in range(DEATHS):
        deadly.touch()
        writer = installation.start(
            "writer", f"victim-{death}", failpoints=f"writer_before_commit={deadly}", **settings
        )
        assert await writer.ended(30) == -signal.SIGKILL
        assert await installation.value("SELECT position FROM afterwrite.lane") == 0
    survivor = installation.start("writer", **settings)
    await applied(installation, 2)
    await survivor.logged("command_parked", offset=0)

    async def both_saved() -> bool:
        return await outcomes(installation) == ["saved", "saved"]

    await eventually_async(both_saved, 30, "the parked command to be tried again and saved")
    titles = await installation.fetch("SELECT title FROM topic ORDER BY title")
    assert [row["title"] for row in titles] == ["Harmless", "Poison"]
    assert await installation.value("SELECT count(*) FROM afterwrite.parked") == 0
    audit = installation.run("audit")
    assert audit.returncode == 0, audit.stdout
