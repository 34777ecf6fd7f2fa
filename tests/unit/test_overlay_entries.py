"""What is kept of an entry that was read before never hides what became of it, nor whose it is."""

import json
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from frontend_api.overlay import Index, Overlay, OverlayRead
from frontend_api.redis_access import RedisAccess
from schema.commands import Author, Command, Mutation
from schema.identifiers import CommandId, RowId, UserId, new_command_id, new_row_id
from schema.overlay import EntryState, pack
from schema.redis_keys import RedisKeys, short_id

pytestmark = pytest.mark.unit

TOPIC = new_row_id()
INDEX = Index("list", "asc", "-", 10)


class Answering:
    """Redis, which answers the same entry under what is set."""

    def __init__(self, command: Command) -> None:
        self.id = short_id(command.command_id)
        self.payload = pack([], json.dumps(command.to_json()))
        self.row = short_id(command.mutations[0].id)
        self.status = "unconfirmed|1||"

    async def run(self, *_: Any) -> Sequence[Any]:
        members = [f"{self.row}:{self.id}"]
        return [3, [members], [self.id, self.status, self.payload]]


def post_of(author: uuid.UUID) -> Command:
    row = new_row_id()
    create = Mutation("create", "post", row, {"topic_id": str(TOPIC), "body": "hello"})
    return Command(
        CommandId(new_command_id()),
        RowId(row),
        Author(UserId(author), "Ada"),
        datetime.now(tz=UTC),
        (create,),
    )


def read_by(redis: Answering) -> Overlay:
    return Overlay(cast(RedisAccess, redis), RedisKeys("t"))


def states(read: OverlayRead) -> list[EntryState]:
    return [entry.status.state for entry in read.entries.values()]


async def test_an_entry_that_is_read_again_is_in_the_state_that_it_has_now() -> None:
    ada = uuid.uuid4()
    command = post_of(ada)
    redis = Answering(command)
    overlay = read_by(redis)
    first = await overlay.read(ada, [INDEX])
    again = await overlay.read(ada, [INDEX])
    assert states(first) == states(again) == [EntryState.UNCONFIRMED]
    assert list(again.entries.values()) == list(first.entries.values())
    redis.status = "pending|1|0|7"
    confirmed = await overlay.read(ada, [INDEX])
    (entry,) = confirmed.entries.values()
    assert (entry.status.state, entry.status.offset) == (EntryState.PENDING, 7)
    assert entry.command == command
    redis.status = "rejected|1|0|7"
    assert states(await overlay.read(ada, [INDEX])) == []


async def test_what_its_author_has_read_is_not_shown_to_another() -> None:
    ada, bob = uuid.uuid4(), uuid.uuid4()
    redis = Answering(post_of(ada))
    overlay = read_by(redis)
    assert states(await overlay.read(ada, [INDEX])) == [EntryState.UNCONFIRMED]
    assert states(await overlay.read(bob, [INDEX])) == []
    assert states(await overlay.read(ada, [INDEX])) == [EntryState.UNCONFIRMED]


async def test_a_payload_under_the_id_of_another_command_is_not_shown() -> None:
    ada = uuid.uuid4()
    redis = Answering(post_of(ada))
    overlay = read_by(redis)
    assert states(await overlay.read(ada, [INDEX])) == [EntryState.UNCONFIRMED]
    redis.id = short_id(new_command_id())
    assert states(await overlay.read(ada, [INDEX])) == []
