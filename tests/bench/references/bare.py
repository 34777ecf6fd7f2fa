"""Bare round trips, one at a time: an entry put into Redis, a command acknowledged by Kafka.

Both are as large as accepting a post makes them, and made as fast as they can be; then once more with as
much time from one to the next as an accepted post takes, since what follows a pause takes longer. Writes how
long each took, in seconds, as JSON to the file that is its argument.
"""

import asyncio
import itertools
import json
import os
import sys
import time
import uuid
from pathlib import Path

import uvloop
from aiokafka import AIOKafkaProducer
from redis.asyncio import Redis

from schema.catalog import load_catalog
from schema.commands import Command
from schema.content import Kind
from schema.envelope import Record
from schema.overlay import PUT
from schema.redis_keys import RedisKeys, short_id
from schema.scopes import Touch, entry_of, scopes_of_touches
from tests.bench.http_client import body_of
from tests.commands import author, command, create, sealed

CATALOG = load_catalog("schema.forum")
AUTHORS = [author(f"author-{n}") for n in range(100)]


def post(number: int) -> Command:
    topic = uuid.UUID(int=number % 100)
    body = body_of(number, 240)
    values = {"topic_id": str(topic), "reply_to": None, "body": body}
    return command(AUTHORS[number % len(AUTHORS)], create("post", None, **values), stream=topic)


def put_arguments(keys: RedisKeys, kind: Kind, made: Command) -> list[str]:
    """Keys and arguments of the script that lays a command over its author's view."""
    [mutation] = made.mutations
    row = kind.from_json(mutation.values)
    scopes = scopes_of_touches(CATALOG, keys, made, [Touch(kind, mutation.id, row, 1)])
    payload, members = entry_of(keys, made, scopes)
    author_id = made.author.id
    return [
        *(keys.entries(author_id), keys.index(author_id)),
        *(short_id(made.command_id), payload, *members),
    ]


async def main() -> dict[str, list[float]]:
    topic = os.environ["REFERENCE_TOPIC"]
    redis = Redis.from_url(os.environ["REFERENCE_REDIS_URL"])
    producer = AIOKafkaProducer(
        bootstrap_servers=os.environ["REFERENCE_KAFKA"], acks="all", enable_idempotence=True
    )
    await producer.start()
    keys, kind, log_id = RedisKeys(topic), CATALOG["post"], uuid.uuid4()
    script = await redis.script_load(PUT)
    numbers = itertools.count()

    async def trips(seconds: float, every: float) -> tuple[list[float], list[float]]:
        """For so many seconds, at most one of each every so many seconds."""
        in_redis: list[float] = []
        in_kafka: list[float] = []
        until = time.perf_counter() + seconds
        while (turn := time.perf_counter()) < until:
            made = post(next(numbers))
            arguments = put_arguments(keys, kind, made)
            record: Record = sealed(made, log_id)
            begun = time.perf_counter()
            await redis.evalsha(script, 2, *arguments)
            between = time.perf_counter()
            await producer.send_and_wait(
                topic, key=record.key, value=record.value, headers=list(record.headers)
            )
            ended = time.perf_counter()
            in_redis.append(between - begun)
            in_kafka.append(ended - between)
            if (rest := turn + every - ended) > 0:
                await asyncio.sleep(rest)
        return in_redis, in_kafka

    seconds = float(os.environ["REFERENCE_SECONDS"])
    at_once = await trips(seconds, 0)
    paced = await trips(seconds, float(os.environ["REFERENCE_EVERY"]))
    async for key in redis.scan_iter(f"*{topic}*"):
        await redis.delete(key)
    await producer.stop()
    await redis.aclose()
    return dict(zip(("redis", "kafka", "redis_paced", "kafka_paced"), at_once + paced, strict=True))


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(uvloop.run(main())), encoding="utf-8")
