"""FastAPI that takes the steps of an accepted post one after the other, as one would write them by hand.

The author's rate is counted and what he has pending is read in Redis, topic and author are asked of
PostgreSQL, the post is kept in Redis for its author, and Kafka confirms it. Nothing is signed, merged or
settled, nothing is safe when a server hangs, and permissions are those of a forum with one rule.
"""

import json
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
from aiokafka import AIOKafkaProducer
from fastapi import FastAPI, HTTPException
from redis.asyncio import Redis

from schema.identifiers import new_row_id
from tests.bench.references.http_posts import Author, Made, NewPost, serve

TOPIC = os.environ.get("REFERENCE_TOPIC", "")
KEPT_S = 3
"""Nobody settles these entries: they go by themselves, so that as few are pending as with a writer."""
CHECK = """
SELECT t.locked, (SELECT banned FROM "user" WHERE id = $2) AS banned FROM topic t WHERE t.id = $1
"""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        app.state.producer = await stack.enter_async_context(
            AIOKafkaProducer(
                bootstrap_servers=os.environ["REFERENCE_KAFKA"],
                acks="all",
                enable_idempotence=True,
                value_serializer=lambda value: json.dumps(value).encode(),
            )
        )
        app.state.pool = await stack.enter_async_context(
            asyncpg.create_pool(os.environ["REFERENCE_DATABASE_URL"])
        )
        app.state.redis = Redis.from_url(os.environ["REFERENCE_REDIS_URL"])
        stack.push_async_callback(app.state.redis.aclose)
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/v1/topics/{topic_id}/posts", status_code=202)
async def create_post(topic_id: uuid.UUID, post: NewPost, author: Author) -> Made:
    redis: Redis = app.state.redis
    rate, view = f"{TOPIC}:rate:{author}", f"{TOPIC}:view:{author}"
    question = redis.pipeline()
    question.incr(rate)
    question.expire(rate, 60, nx=True)
    question.hgetall(view)
    counted, _, pending = await question.execute()
    if counted > 1_000_000 or len(pending) > 1_000:
        raise HTTPException(429, "This is too much at once.")
    row = await app.state.pool.fetchrow(CHECK, topic_id, author)
    if row is None:
        raise HTTPException(404, "There is no such topic.")
    if row["locked"] or row["banned"]:
        raise HTTPException(403, "You may not write here.")
    post_id = new_row_id()
    message = {
        "id": str(post_id),
        "topic_id": str(topic_id),
        "author_id": str(author),
        "reply_to": str(post.reply_to) if post.reply_to else None,
        "body": post.body,
    }
    kept = redis.pipeline()
    kept.hset(view, str(post_id), json.dumps(message))
    kept.expire(view, KEPT_S)
    await kept.execute()
    await app.state.producer.send_and_wait(TOPIC, message, key=topic_id.bytes)
    return Made(id=post_id, state="pending")


if __name__ == "__main__":
    serve(app)
