"""What the database refuses: one command is rejected; a fault of the system rejects nobody."""

import asyncio

import asyncpg
import pytest

from tests.acceptance.helpers import Site, applied, outcomes, send
from tests.commands import author, command, topic_with_post
from tests.installation import Installation, eventually_async

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(120)]

ADA, BOB, EVE = author("ada"), author("bob"), author("eve")
CHECK = "ALTER TABLE post ADD CONSTRAINT no_shouting CHECK (body <> upper(body)) NOT VALID"


async def owner(installation: Installation, statement: str) -> None:
    connection = await asyncpg.connect(installation.owner_url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def test_a_command_that_the_database_refuses_does_not_harm_its_batch(
    installation: Installation,
) -> None:
    await owner(installation, CHECK)
    async with Site(installation) as site:
        await site.start_api()
        good = await site.many(3)
        refused = await site.send_topic("bob", "SHOUTING")
        site.sent.pop()  # it will not be saved
        good += await site.many(3, "eve")
        installation.start("writer")  # all of it is one batch
        told = await site.reaches("bob", refused.json()["command"], "rejected")
        assert told["problem"]["code"] == "check_violation"
        assert "no_shouting" not in told["problem"]["detail"]
        notice = (await installation.fetch("SELECT * FROM notice"))[0]
        assert (str(notice["command_id"]), notice["code"]) == (told["id"], "check_violation")
        assert "SHOUTING" in notice["returned"]
        letter = (await installation.fetch("SELECT * FROM afterwrite.dead_letter"))[0]
        assert (letter["sqlstate"], letter["constraint_name"]) == ("23514", "no_shouting")
        for path in (
            f"/v1/topics/{refused.json()['id']}",
            f"/v1/posts/{refused.json()['post']['id']}",
        ):
            assert (await site.ask("bob", "GET", path)).status_code == 404
        await site.prove()
        assert len(await outcomes(installation)) == len(good) + 1


@pytest.mark.parametrize(
    ("harm", "repair"),
    [
        (
            "REVOKE INSERT ON post FROM afterwrite_writer",
            "GRANT INSERT ON post TO afterwrite_writer",
        ),
        (
            "ALTER TABLE post RENAME COLUMN body TO lost",
            "ALTER TABLE post RENAME COLUMN lost TO body",
        ),
    ],
    ids=["grant", "column"],
)
async def test_a_broken_deployment_stops_the_lane_and_rejects_nobody(
    installation: Installation, harm: str, repair: str
) -> None:
    writer = await installation.start("writer").ready()
    await send(installation, command(ADA, *topic_with_post()))
    await applied(installation, 1)
    await owner(installation, harm)
    await send(installation, *(command(BOB, *topic_with_post()) for _ in range(3)))
    await _halted(installation)
    assert writer.popen.poll() is None
    status = await asyncio.to_thread(installation.run, "status", "--json")
    assert status.returncode == 1
    assert await outcomes(installation) == ["saved"]
    assert await installation.value("SELECT count(*) FROM notice") == 0
    await owner(installation, repair)
    resumed = await asyncio.to_thread(installation.run, "lane", "resume", "0")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    await applied(installation, 4)
    assert await outcomes(installation) == ["saved"] * 4
    assert installation.run("audit").returncode == 0


async def test_very_many_refusals_in_a_row_stop_the_lane_before_anyone_is_told(
    installation: Installation,
) -> None:
    """A wrong constraint looks like bad input from everybody."""
    await owner(installation, "ALTER TABLE topic ADD CONSTRAINT closed CHECK (false) NOT VALID")
    await send(
        installation,
        *(command(who, *topic_with_post()) for _ in range(4) for who in (ADA, BOB, EVE)),
    )
    installation.start("writer", mass_rejection_limit="5")
    await _halted(installation)
    assert await outcomes(installation) == []
    assert await installation.value("SELECT count(*) FROM notice") == 0
    assert await installation.value("SELECT count(*) FROM afterwrite.dead_letter") == 0
    await owner(installation, "ALTER TABLE topic DROP CONSTRAINT closed")
    assert (await asyncio.to_thread(installation.run, "lane", "resume", "0")).returncode == 0
    await applied(installation, 12)
    assert await outcomes(installation) == ["saved"] * 12


async def _halted(installation: Installation) -> None:
    async def there() -> bool:
        return await installation.value("SELECT halted FROM afterwrite.lane") is not None

    await eventually_async(there, 30, "the lane to halt")
