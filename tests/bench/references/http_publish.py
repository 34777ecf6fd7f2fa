"""FastAPI that only publishes to Kafka: accepted when all replicas have it, and nobody sees it yet."""

import json
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaProducer
from fastapi import FastAPI

from schema.identifiers import new_row_id
from tests.bench.references.http_posts import Author, Made, NewPost, serve

TOPIC = os.environ.get("REFERENCE_TOPIC", "")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    producer = AIOKafkaProducer(
        bootstrap_servers=os.environ["REFERENCE_KAFKA"],
        acks="all",
        enable_idempotence=True,
        value_serializer=lambda value: json.dumps(value).encode(),
    )
    async with producer:
        app.state.producer = producer
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/v1/topics/{topic_id}/posts", status_code=202)
async def create_post(topic_id: uuid.UUID, post: NewPost, author: Author) -> Made:
    post_id = new_row_id()
    message = {
        "id": str(post_id),
        "topic_id": str(topic_id),
        "author_id": str(author),
        "reply_to": str(post.reply_to) if post.reply_to else None,
        "body": post.body,
    }
    await app.state.producer.send_and_wait(TOPIC, message, key=topic_id.bytes)
    return Made(id=post_id, state="pending")


if __name__ == "__main__":
    serve(app)
