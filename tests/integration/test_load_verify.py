"""`afterwrite load verify` on PostgreSQL: equal is equal, and each difference is found."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import asyncpg
import pytest
import pytest_asyncio

from deploy.errors import NotReachable
from deploy.load.stackexchange import Answer, Question, read
from deploy.load.verify import Verdict, verify
from schema.identifiers import new_row_id, user_id_for

pytestmark = [pytest.mark.integration, pytest.mark.once]

COFFEE = Path(__file__).parents[1] / "data" / "coffee" / "Posts.xml"
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class Database(Protocol):
    owner_url: str


class Loaded:
    """A database with the coffee dump in it, as loading leaves it."""

    def __init__(self, url: str, connection: asyncpg.Connection) -> None:
        self.url = url
        self.sql = connection

    async def verify(self) -> Verdict:
        return await verify(COFFEE, self.url)

    async def fill(self) -> None:
        rows = [row for row in read(COFFEE) if isinstance(row, Question | Answer)]
        topics = {row.row: new_row_id() for row in rows if isinstance(row, Question)}
        await self.sql.executemany(
            """INSERT INTO public."user" (id, version, created_at, updated_at, name)
               VALUES ($1, 1, $2, $2, $3)""",
            [(user_id_for(name), NOW, name) for name in {row.author for row in rows}],
        )
        await self.sql.executemany(
            """INSERT INTO public.topic (id, version, created_at, updated_at, author_id, title)
               VALUES ($1, 1, $2, $2, $3, $4)""",
            [
                (topics[row.row], NOW, user_id_for(row.author), row.title)
                for row in rows
                if isinstance(row, Question)
            ],
        )
        questions_first = sorted(rows, key=lambda row: isinstance(row, Answer))
        await self.sql.executemany(
            """INSERT INTO public.post
                   (id, version, created_at, updated_at, topic_id, author_id, body)
               VALUES ($1, 1, $2, $2, $3, $4, $5)""",
            [
                (
                    new_row_id(),
                    NOW,
                    topics[row.parent if isinstance(row, Answer) else row.row],
                    user_id_for(row.author),
                    row.body,
                )
                for row in questions_first
            ],
        )


@pytest_asyncio.fixture
async def loaded(database: Database) -> AsyncIterator[Loaded]:
    connection = await asyncpg.connect(database.owner_url)
    made = Loaded(database.owner_url, connection)
    await made.fill()
    yield made
    await connection.close()


async def test_what_was_loaded_is_equal(loaded: Loaded) -> None:
    verdict = await loaded.verify()
    assert verdict.differences == []
    assert (verdict.topics, verdict.answers, verdict.authors) == (225, 327, 115)
    assert verdict.to_json()["equal"] is True


FIRST_POST = "(SELECT id FROM public.post ORDER BY id LIMIT 1)"
LAST_POST = "(SELECT id FROM public.post ORDER BY id DESC LIMIT 1)"


@pytest.mark.parametrize(
    ("statement", "difference"),
    [
        (f"UPDATE public.post SET body = body || ' ' WHERE id = {FIRST_POST}", "changed: topic"),
        (f"UPDATE public.post SET body = upper(body) WHERE id = {LAST_POST}", "changed: post"),
        (
            f"""UPDATE public.post SET author_id = (SELECT id FROM public."user" WHERE id <> author_id
                LIMIT 1) WHERE id = {LAST_POST}""",
            "its author",
        ),
        (
            f"""UPDATE public.post SET topic_id = (SELECT id FROM public.topic WHERE id <> topic_id
                LIMIT 1) WHERE id = {LAST_POST}""",
            "its title or parent",
        ),
        (
            "UPDATE public.topic SET title = title || '?' WHERE id IN "
            "(SELECT topic_id FROM public.post ORDER BY id DESC LIMIT 1)",
            "changed: topic",
        ),
        (f"DELETE FROM public.post WHERE id = {LAST_POST}", "missing: post"),
        (
            f"""INSERT INTO public.post (id, version, created_at, updated_at, topic_id, author_id, body)
                SELECT 'ffffffff-ffff-7fff-bfff-ffffffffffff', version, created_at, updated_at,
                    topic_id, author_id, body FROM public.post WHERE id = {LAST_POST}""",
            "extra: post",
        ),
    ],
)
async def test_each_difference_is_the_only_one(
    loaded: Loaded, statement: str, difference: str
) -> None:
    await loaded.sql.execute(statement)
    verdict = await loaded.verify()
    assert len(verdict.differences) == 1
    assert difference in verdict.differences[0]


async def test_another_name_of_an_author_is_a_difference(loaded: Loaded) -> None:
    await loaded.sql.execute("""UPDATE public."user" SET name = 'eve' WHERE name = 'user-4'""")
    assert any("its author" in text for text in (await loaded.verify()).differences)


async def test_no_database_is_not_reachable() -> None:
    with pytest.raises(NotReachable):
        await verify(COFFEE, "postgresql://nobody@127.0.0.1:1/none")
