"""The writer as a process: commands in Kafka, rows in PostgreSQL."""

import signal

import pytest

from schema.identifiers import new_row_id
from tests.acceptance.helpers import applied, outcomes, send
from tests.commands import (
    author,
    command,
    create,
    delete,
    reaction,
    topic_with_post,
    update,
)
from tests.installation import Installation

pytestmark = pytest.mark.acceptance

ADA, BOB = author("ada"), author("bob")


async def test_commands_become_rows(installation: Installation) -> None:
    writer = await installation.start("writer").ready()
    topic, post = topic_with_post()
    reply = create("post", topic_id=str(topic.id), reply_to=str(post.id), body="A reply")
    await send(
        installation,
        command(ADA, topic, post),
        command(BOB, reply, stream=topic.id),
        command(BOB, reaction(post.id, BOB, "👍"), stream=topic.id),
        command(BOB, update("post", reply.id, 1, body="A better reply"), stream=topic.id),
        command(ADA, update("post", reply.id, body="Not mine"), stream=topic.id),
        command(BOB, update("post", reply.id, 1, body="Too late"), stream=topic.id),
        command(ADA, delete("post", new_row_id()), stream=topic.id),
    )
    await applied(installation, 7)
    assert await outcomes(installation) == [
        "saved", "saved", "saved", "saved", "rejected", "rejected", "parked",
    ]  # fmt: skip
    rows = await installation.fetch("SELECT id, body, version, author_id FROM post ORDER BY id")
    assert [(r["body"], r["version"]) for r in rows] == [
        ("Its first post", 1),
        ("A better reply", 2),
    ]
    assert await installation.value("SELECT post_count FROM topic") == 2
    assert await installation.value("SELECT reaction_count FROM post WHERE id = $1", post.id) == 1
    notices = await installation.fetch("SELECT code, user_id FROM notice ORDER BY id")
    assert [(n["code"], n["user_id"]) for n in notices] == [
        ("forbidden", ADA.id),
        ("version_conflict", BOB.id),
    ]
    assert writer.terminate() == 0
    lane = (await installation.fetch("SELECT * FROM afterwrite.lane"))[0]
    assert lane["owner"] is None
    assert lane["settled_seq"] == lane["outcome_seq"] == 7


async def test_a_killed_writer_is_followed_by_another(installation: Installation) -> None:
    first = await installation.start("writer").ready()
    await first.logged("lane_taken")
    second = await installation.start("writer", "standby").ready()
    topic, post = topic_with_post()
    await send(installation, command(ADA, topic, post))
    await applied(installation, 1)
    first.signal(signal.SIGKILL)
    await send(installation, command(ADA, *topic_with_post()))
    await applied(installation, 2)
    await second.logged("lane_taken", epoch=2)
    assert await outcomes(installation) == ["saved", "saved"]
