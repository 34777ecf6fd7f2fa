"""FastAPI with a synchronous INSERT: the request waits for PostgreSQL, as most sites do it."""

import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from fastapi import FastAPI, HTTPException

from schema.identifiers import new_row_id
from tests.bench.references.http_posts import Author, Made, NewPost, serve

INSERT = """
INSERT INTO post (id, version, created_at, updated_at, topic_id, author_id, reply_to, body)
VALUES ($1, 1, now(), now(), $2, $3, $4, $5)
"""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with asyncpg.create_pool(os.environ["REFERENCE_DATABASE_URL"]) as pool:
        app.state.pool = pool
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/v1/topics/{topic_id}/posts", status_code=201)
async def create_post(topic_id: uuid.UUID, post: NewPost, author: Author) -> Made:
    post_id = new_row_id()
    try:
        await app.state.pool.execute(INSERT, post_id, topic_id, author, post.reply_to, post.body)
    except asyncpg.ForeignKeyViolationError as error:
        raise HTTPException(404, "There is no such topic.") from error
    return Made(id=post_id, state="saved")


if __name__ == "__main__":
    serve(app)
