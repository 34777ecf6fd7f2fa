"""A page that one statement sees is the one that a transaction reads step by step, row by row."""

import json
import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest
from prometheus_client import Gauge

from frontend_api.content_reader import ContentReader
from frontend_api.snapshots import Snapshot
from schema.catalog import load_catalog
from schema.content import Row
from tests.installation import Installation

pytestmark = [pytest.mark.integration, pytest.mark.once]

CATALOG = load_catalog("schema.forum")
ROWS = 6


@pytest.fixture
async def reader(database: Installation) -> AsyncIterator[ContentReader]:
    made = ContentReader(
        database.frontend_url,
        CATALOG,
        pool_size=2,
        timeout_s=10,
        gauge=Gauge("unused", "Of no use here.", registry=None),
        on_writable_role=pytest.fail,
    )
    made.start()
    await made.until_available()
    yield made
    await made.close()


async def _fill(url: str, ada: uuid.UUID, bob: uuid.UUID) -> uuid.UUID:
    """Topics, posts in one of them and in another, notices of two users, one of them with JSON."""
    ids = sorted(uuid.uuid4() for _ in range(ROWS))
    connection = await asyncpg.connect(url)
    at = "now(), now() + interval '1 second'"
    try:
        for user in (ada, bob):
            await connection.execute(
                f'INSERT INTO "user" (id, version, created_at, updated_at, name) '
                f"VALUES ($1, 1, {at}, 'x')",
                user,
            )
        for n, id_ in enumerate(ids):
            await connection.execute(
                "INSERT INTO topic (id, version, created_at, updated_at, author_id, title) "
                f"VALUES ($1, $2, {at}, $3, $4)",
                *(id_, n + 1, ada, f"Topic {n}"),
            )
        for n, id_ in enumerate(reversed(ids)):
            for topic in ids[:2]:
                await connection.execute(
                    "INSERT INTO post (id, version, created_at, updated_at, topic_id, author_id, body) "
                    f"VALUES ($1, $2, {at}, $3, $4, $5)",
                    *(uuid.uuid5(id_, str(topic)), n + 1, topic, ada, f"Post {n}"),
                )
            await connection.execute(
                "INSERT INTO notice (id, version, created_at, updated_at, user_id, kind, command_id, "
                f"code, detail, returned) VALUES ($1, $2, {at}, $3, 'k', $1, 'c', 'd', $4)",
                *(id_, n + 1, (ada, bob)[n % 2], json.dumps({"n": n}) if n > 2 else None),
            )
    finally:
        await connection.close()
    return ids[1]


async def test_one_statement_sees_the_same_page(
    reader: ContentReader, database: Installation
) -> None:
    ada, bob = uuid.uuid4(), uuid.uuid4()
    topic = await _fill(database.owner_url, ada, bob)
    for name, parent, most in (
        ("topics", None, 6),
        ("topic_posts", topic, 6),
        ("notices", None, 3),
    ):
        lst, seen = CATALOG.lists[name], list[Row]()
        after: uuid.UUID | None = None
        while True:

            async def page(snapshot: Snapshot, after: uuid.UUID | None = after) -> list[Row]:
                return await snapshot.page(lst, 2, after, parent, ada)  # noqa: B023 - awaited here

            rows = await reader.read(page)
            for commands in (None, [], [uuid.uuid4()]):
                glance = await reader.glance_page(lst, 2, after, parent, ada, commands)
                assert glance.page == rows
                assert not glance.ledger
                assert (commands is None) == (not glance.positions)
                if lst.parent is not None:
                    assert list(glance.rows) == [(lst.parent.name, parent)]
            seen += rows
            if len(rows) < 2:
                break
            after = rows[-1]["id"]
        ids = [row["id"] for row in seen]
        assert ids == sorted(ids, reverse=lst.listing.newest_first)
        assert len(ids) == most
        assert rows == [] or most % 2 == 1  # an empty page is among them, too


async def test_the_ledger_of_a_page_is_its_readers(
    reader: ContentReader, database: Installation
) -> None:
    ada, bob, command = uuid.uuid4(), uuid.uuid4(), uuid.uuid4()
    topic = await _fill(database.owner_url, ada, bob)
    connection = await asyncpg.connect(database.owner_url)
    try:
        await connection.execute(
            'INSERT INTO afterwrite.ledger (lane, "offset", period, seq, epoch, outcome, command_id, '
            "author_id, accepted_at, decided_at, effects) "
            "VALUES (0, 0, date_trunc('month', now()), 0, 0, 'saved', $1, $2, now(), now(), '[]')",
            command,
            ada,
        )
    finally:
        await connection.close()
    for name, parent in (("topics", None), ("topic_posts", topic), ("notices", None)):
        lst = CATALOG.lists[name]
        for after in (None, uuid.UUID(int=1)):
            for who, found in ((ada, [command]), (bob, [])):
                glance = await reader.glance_page(lst, 2, after, parent, who, [command])
                assert [row["command_id"] for row in glance.ledger] == found
