"""FastAPI with a hand-written page of posts: one query by asyncpg, and no overlay."""

import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import asyncpg
from fastapi import FastAPI, HTTPException, Query

from tests.bench.references.http_posts import Author, Page, Post, serve

PAGE = """
SELECT id, version, created_at, updated_at, topic_id, author_id, reply_to, body, reaction_count
FROM post WHERE topic_id = $1 AND ($2::uuid IS NULL OR id > $2) ORDER BY id LIMIT $3
"""
EXISTS = "SELECT 1 FROM topic WHERE id = $1"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with asyncpg.create_pool(os.environ["REFERENCE_DATABASE_URL"]) as pool:
        app.state.pool = pool
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/v1/topics/{topic_id}/posts")
async def posts(
    topic_id: uuid.UUID,
    author: Author,
    after: uuid.UUID | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
) -> Page:
    rows = await app.state.pool.fetch(PAGE, topic_id, after, limit + 1)
    if not rows and not await app.state.pool.fetchval(EXISTS, topic_id):
        raise HTTPException(404, "There is no such topic.")
    items = [Post(**dict(row)) for row in rows[:limit]]
    return Page(items=items, next=items[-1].id if len(rows) > limit else None)


if __name__ == "__main__":
    serve(app)
