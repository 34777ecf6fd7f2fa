"""What a pending command costs in Redis, measured on the real server: at most 2.5 times its payload.

The payload is the command's JSON, as it travels. `--log-cli-level=info` shows the figures.
"""

import asyncio
import json
import logging
import random
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Final

import pytest
from prometheus_client import CollectorRegistry, Counter
from redis.asyncio import Redis

from frontend_api.overlay import Laid, Overlay
from frontend_api.planning import Effect, Planned, scopes_of
from frontend_api.redis_access import RedisAccess
from schema.catalog import load_catalog
from schema.commands import Author, Command, Mutation
from schema.content import Row
from schema.identifiers import RowId, new_command_id, new_row_id, user_id_for
from schema.redis_keys import RedisKeys
from tests.commands import create, delete, reaction, update
from tests.installation import eventually_async
from tests.services import Services

pytestmark = [pytest.mark.integration, pytest.mark.once, pytest.mark.timeout(120)]

_log = logging.getLogger(__name__)
CATALOG = load_catalog("schema.forum")
PENDING: Final = 5_000
MOST: Final = 2.5
"""Times the payload."""
ENGLISH: Final = Path("docs/design.md").read_text("utf-8")

Pending = Iterator[tuple[Command, list[Effect]]]


class Forum:
    """Makes commands of so many authors in so many topics, as the front end would accept them."""

    def __init__(self, authors: int, topics: int) -> None:
        self.random = random.Random(7)
        self.authors = [Author(user_id_for(f"user {n}"), f"user {n}") for n in range(authors)]
        self.topics = [new_row_id() for _ in range(topics)]
        self.number = 0

    def author(self) -> Author:
        self.number += 1
        return self.authors[self.number % len(self.authors)]

    def body(self) -> str:
        """240 characters of English."""
        at = self.random.randrange(len(ENGLISH) - 240)
        return ENGLISH[at : at + 240]

    def accepted(
        self, author: Author, stream: uuid.UUID, *changes: tuple[Mutation, Row]
    ) -> tuple[Command, list[Effect]]:
        """`changes` are mutations, each with what the front end knows of the row."""
        effects = []
        for mutation, row in changes:
            planned = Planned(CATALOG[mutation.type], mutation)
            gone, made = mutation.op == "delete", mutation.op == "create"
            before, after = None if made else row, None if gone else row
            effects.append(Effect(planned, before, after, before_known=True))
        mutations = tuple(mutation for mutation, _ in changes)
        now = datetime.now(UTC)
        command = Command(new_command_id(), RowId(stream), author, now, mutations)
        return command, effects

    def posts(self) -> Pending:
        while True:
            topic = self.random.choice(self.topics)
            post = create("post", topic_id=str(topic), body=self.body())
            yield self.accepted(self.author(), topic, (post, {"topic_id": topic}))

    def topics_with_posts(self) -> Pending:
        while True:
            topic = create("topic", title="What this one is about")
            post = create("post", topic_id=str(topic.id), body=self.body())
            yield self.accepted(
                self.author(), topic.id, (topic, {}), (post, {"topic_id": topic.id})
            )

    def edits(self) -> Pending:
        while True:
            topic, row = self.random.choice(self.topics), new_row_id()
            change = update("post", row, 3, body=self.body())
            yield self.accepted(self.author(), topic, (change, {"topic_id": topic}))

    def deletes(self) -> Pending:
        while True:
            topic = self.random.choice(self.topics)
            yield self.accepted(
                self.author(), topic, (delete("post", new_row_id(), 1), {"topic_id": topic})
            )

    def reactions(self) -> Pending:
        while True:
            author, post = self.author(), new_row_id()
            yield self.accepted(
                author,
                self.random.choice(self.topics),
                (reaction(post, author, "👍"), {"post_id": post}),
            )

    def mixed(self) -> Pending:
        """Mostly posts, some edits, a few of everything else."""
        kinds = [self.posts()] * 6 + [self.edits()] * 2
        kinds += [self.topics_with_posts(), self.deletes(), self.reactions()]
        while True:
            yield next(self.random.choice(kinds))


SHAPES: dict[str, Callable[[], Pending]] = {
    "posts of one author in one topic": lambda: Forum(1, 1).posts(),
    "posts of one author in many topics": lambda: Forum(1, 1000).posts(),
    "posts of 50 authors": lambda: Forum(50, 20).posts(),
    "posts of as many authors": lambda: Forum(PENDING, 200).posts(),
    "topics with their posts": lambda: Forum(50, 20).topics_with_posts(),
    "edits": lambda: Forum(50, 20).edits(),
    "a mix of all, 50 authors": lambda: Forum(50, 20).mixed(),
    "a mix of all, one author": lambda: Forum(1, 20).mixed(),
}


@pytest.fixture
async def redis(services: Services) -> AsyncIterator[RedisAccess]:
    failures = Counter("failures", "for a test", registry=CollectorRegistry())
    access = RedisAccess(services.redis_url, 10.0, failures)
    yield access
    await access.close()


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_pending_command_takes_at_most_two_and_a_half_times_its_payload(
    services: Services,
    redis: RedisAccess,
    shape: str,
) -> None:
    keys = RedisKeys("afterwrite")  # the prefix is part of what it costs
    async with Redis.from_url(services.redis_url, decode_responses=True) as server:
        before = await _used(server)
        overlay, payload = Overlay(redis, keys), 0
        pending = list(islice(SHAPES[shape](), PENDING))
        for at in range(0, PENDING, 100):
            laid = [
                Laid(command, scopes_of(CATALOG, keys, command, effects), (0, at + n))
                for n, (command, effects) in enumerate(pending[at : at + 100])
            ]
            assert all(await asyncio.gather(*map(overlay.lay, laid)))
            for one in laid:
                travelling = json.dumps(one.command.to_json(), separators=(",", ":"))
                payload += len(travelling.encode())
        used = await _used(server) - before
        names = [key async for key in server.scan_iter("afterwrite:overlay:*", count=5000)]
        for at in range(0, len(names), 1000):
            await server.unlink(*names[at : at + 1000])
    figures = f"{used / PENDING:.0f} bytes for {payload / PENDING:.0f}: {used / payload:.2f}"
    _log.info("%s: %s", shape, figures)
    assert used / payload <= MOST, figures


async def _used(server: "Redis") -> int:
    """Bytes of all that is kept, once what was removed before is freed, without connections."""

    async def freed() -> bool:
        return int((await server.info("memory"))["lazyfree_pending_objects"]) == 0

    await eventually_async(freed, 10, "Redis to free what was removed")
    memory = await server.info("memory")
    return int(memory["used_memory"]) - int(memory["mem_clients_normal"])
