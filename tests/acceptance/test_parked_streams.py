"""Real writers, parked streams and paused lanes; days pass when a file says so."""

import asyncio
from pathlib import Path

import asyncpg
import httpx2
import pytest

from schema.commands import Mutation
from tests.acceptance.helpers import applied, outcomes, send
from tests.commands import author, command, create, topic_with_post
from tests.installation import Installation, eventually_async, free_port

pytestmark = [pytest.mark.acceptance, pytest.mark.alone, pytest.mark.timeout(180)]

ADA, BOB, EVE = author("ada"), author("bob"), author("eve")
STUCK = """
    CREATE FUNCTION stick() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF new.body LIKE 'stuck%' THEN PERFORM pg_sleep(60); END IF; RETURN new; END $$;
    CREATE TRIGGER stick BEFORE INSERT ON post FOR EACH ROW EXECUTE FUNCTION stick();
"""


async def owner(installation: Installation, statement: str) -> None:
    connection = await asyncpg.connect(installation.owner_url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _reply(topic: Mutation, body: str) -> Mutation:
    return create("post", topic_id=str(topic.id), body=body)


async def _until(installation: Installation, query: str, wanted: object) -> None:
    async def so() -> bool:
        return bool(await installation.value(query) == wanted)

    await eventually_async(so, 30, f"{query} to be {wanted}")


async def test_a_stuck_command_is_found_parked_retried_and_at_last_released(
    installation: Installation, tmp_path: Path
) -> None:
    """In the middle of its batch; its neighbours are saved, its stream waits, days pass."""
    clock = tmp_path / "clock"
    await owner(installation, STUCK)
    topic, post = topic_with_post("Held", "stuck")
    lost, never = topic_with_post("Lost", "stuck for ever")
    others = [command(EVE, *topic_with_post()) for _ in range(20)]
    await send(
        installation,
        *others[:10],
        command(ADA, topic, post),
        command(BOB, _reply(topic, "first"), stream=topic.id),
        *others[10:],
        command(BOB, _reply(topic, "second"), stream=topic.id),
        command(ADA, lost, never),
    )
    writer = installation.start(
        "writer", clock=str(clock), statement_timeout_s="0.4", database_backoff_max_s="0.3"
    )
    await applied(installation, 24)
    kept = await installation.fetch('SELECT "offset", code FROM afterwrite.parked ORDER BY 1')
    assert [tuple(row) for row in kept] == [
        (10, "crashed_writer"), (11, "waits_behind"), (22, "waits_behind"), (23, "crashed_writer"),
    ]  # fmt: skip
    assert (await outcomes(installation)).count("saved") == 20
    parked = [e["offset"] for e in writer.events() if e["event"] == "command_parked"]
    assert parked == [10, 23], "no innocent one was set aside"

    clock.write_text("301")
    tries = "SELECT min(attempts) FROM afterwrite.parked WHERE code = 'crashed_writer'"
    await _until(installation, tries, 1)
    await owner(installation, "UPDATE post SET body = body; DROP TRIGGER stick ON post")
    await owner(installation, STUCK.replace("stick", "stay").replace("stuck%", "stuck for ever"))
    clock.write_text(str(301 + 4001))
    await _until(installation, "SELECT count(*) FROM afterwrite.parked", 1)
    rows = await installation.fetch(
        'SELECT l."offset" FROM afterwrite.ledger l JOIN post p ON l.effects @> '
        "jsonb_build_array(jsonb_build_object('id', p.id::text)) WHERE p.topic_id = $1 ORDER BY l.seq",
        topic.id,
    )
    assert [row["offset"] for row in rows] == [10, 11, 22]

    clock.write_text(str(5 * 86_400))
    await _until(installation, "SELECT count(*) FROM afterwrite.parked", 0)
    notice = (await installation.fetch("SELECT code, returned::text FROM notice"))[0]
    assert notice["code"] == "expired"
    assert "stuck for ever" in notice["returned"]
    late = command(EVE, *topic_with_post())  # accepted by a clock that is five days behind
    await send(installation, late)
    await applied(installation, 25)
    assert (await outcomes(installation))[-1] == "rejected"
    assert installation.run("audit").returncode == 0


async def test_a_paused_lane_keeps_its_writer_and_applies_nothing(
    installation: Installation,
) -> None:
    port = free_port()
    writer = await installation.start("writer", metrics_port=str(port)).ready()
    await send(installation, command(ADA, *topic_with_post()))
    await applied(installation, 1)
    await owner(installation, "UPDATE afterwrite.lane SET paused = 'a migration'")
    await writer.logged("lane_paused", 2, reason="a migration")
    await send(installation, *(command(ADA, *topic_with_post()) for _ in range(3)))
    lease = "SELECT leased_until FROM afterwrite.lane"
    for _ in range(3):  # it is alive, and has had time to see the commands
        before = await installation.value(lease)

        async def renewed(before: object = before) -> bool:
            return bool(await installation.value(lease) > before)

        await eventually_async(renewed, 10, "the lease to be renewed")
    assert await _metric(port, "afterwrite_lane_paused") == "1.0"
    assert await outcomes(installation) == ["saved"]

    writer.kill()
    heir = installation.start("writer", "heir", lease_s="60")
    await heir.logged("lane_taken", 20, position=1)
    await heir.logged("lane_paused", 10)
    assert await outcomes(installation) == ["saved"]
    await owner(installation, "UPDATE afterwrite.lane SET paused = NULL")
    await heir.logged("lane_continued", 2)
    await applied(installation, 4)
    assert [e["event"] for e in heir.events()].count("lane_paused") == 1
    await owner(installation, "UPDATE afterwrite.lane SET paused = 'idle'")
    await heir.logged("lane_paused", 2, reason="idle")
    assert heir.terminate() == 0, "a paused writer can be stopped, and gives the lane back"
    assert await installation.value("SELECT owner FROM afterwrite.lane") is None
    assert (await asyncio.to_thread(installation.run, "audit")).returncode == 0


async def test_a_pause_holds_at_once_in_the_midst_of_a_busy_batch(
    installation: Installation,
) -> None:
    """A batch that is taken apart has many transactions; the pause comes between two of them."""
    await owner(
        installation,
        "ALTER TABLE post ADD CONSTRAINT fair CHECK (body <> 'bad');"
        + STUCK.replace("pg_sleep(60)", "pg_sleep(0.01)"),
    )
    log = [
        command(ADA, *topic_with_post(body="bad" if n % 3 == 0 else f"stuck {n}"))
        for n in range(300)
    ]
    await send(installation, *log)
    writer = installation.start("writer")
    position = "SELECT position FROM afterwrite.lane"

    async def begun() -> bool:
        return bool(await installation.value(position) > 0)

    await eventually_async(begun, 30, "the first part to be applied")
    await owner(installation, "UPDATE afterwrite.lane SET paused = 'now'")
    at = await installation.value(position)
    assert at < len(log)
    await writer.logged("lane_paused", 2, reason="now")
    await send(installation, command(ADA, *topic_with_post()))
    lease = "SELECT leased_until FROM afterwrite.lane"
    before = await installation.value(lease)

    async def renewed() -> bool:
        return bool(await installation.value(lease) > before)

    await eventually_async(renewed, 10, "the lease to be renewed")
    assert (await installation.value(position), len(await outcomes(installation))) == (at, at)
    assert not [e for e in writer.events() if e["event"] in ("lane_lost", "recovering")]

    await owner(installation, "UPDATE afterwrite.lane SET paused = NULL")
    await applied(installation, len(log) + 1)
    told = [e["event"] for e in writer.events()]
    assert (told.count("command_rejected"), told.count("lane_taken")) == (100, 1)
    assert (await outcomes(installation)).count("rejected") == 100
    assert (await asyncio.to_thread(installation.run, "audit")).returncode == 0


async def _metric(port: int, name: str) -> str:
    async with httpx2.AsyncClient() as client:
        text = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
    return next(line.split()[-1] for line in text.splitlines() if line.startswith(name + "{"))
