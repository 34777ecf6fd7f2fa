"""Preparing: the founding in a template of a database, and topics full of sealed commands.

A topic is made once and drained many times: the position is in PostgreSQL, so that a fresh copy of the
template is a fresh run on the same topic. The first records of every topic are the same founding, which
the template has applied. Commands are sealed by `schema.envelope.seal` with the front end's key.
"""

import itertools
import multiprocessing
import os
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache

import asyncpg
from aiokafka import AIOKafkaProducer
from redis.asyncio import Redis

from schema.envelope import Envelope, Record, seal
from schema.settings import OwnerSettings
from tests.bench import workload
from tests.bench.result import WrongRun
from tests.bench.rig import PRODUCTION, Bench
from tests.bench.workload import Bad, Origin, Step
from tests.commands import KEYRING
from tests.installation import Installation, eventually_async, fresh_name
from writer.kafka_errors import stop_client
from writer.topic_admin import migrate_topics

SOURCE = "/afterwrite/bench"
_CHUNK = 5_000
_BATCH_BYTES = 512 * 1024
"""A batch of records as sent; many more bytes in one would be more than the broker takes."""


@dataclass(frozen=True)
class Plan:
    """What a topic holds after the founding. `kind` is `creates`, `mixed` or `bad`."""

    kind: str
    count: int


@dataclass
class Ground:
    """The template, and the topics that go with it. Made once in a run."""

    bench: Bench
    template: str
    origin: Origin
    topics: dict[Plan, str] = field(default_factory=dict)
    """The prefix of the topics that hold a plan."""

    async def prefix_of(self, plan: Plan) -> str:
        """The prefix under which a topic holds this plan; it is produced when first asked for."""
        if plan not in self.topics:
            prefix = fresh_name()
            self.bench.say(f"sealing and publishing {plan.count:,} commands ({plan.kind})")
            await make_topics(self.bench, prefix)
            await publish(
                self.bench.services.kafka_bootstrap,
                f"{prefix}.commands",
                itertools.chain(_founding(self.origin), sealed(self.origin, plan)),
            )
            self.topics[plan] = prefix
        return self.topics[plan]

    @asynccontextmanager
    async def copy(self, prefix: str = "") -> AsyncIterator[Installation]:
        """A fresh database with the founding applied. Its processes end with it."""
        name = fresh_name()
        folder = self.bench.folder / name
        folder.mkdir()
        made = Installation(
            self.bench.services, name, folder, 1, PRODUCTION | {"AFTERWRITE_PREFIX": prefix or name}
        )
        await copy_database(self.bench.services.admin_url, self.template, name)
        if prefix:
            await forget_overlay(self.bench.services.redis_url, prefix)
        try:
            yield made
        finally:
            await made.destroy()


async def ground(bench: Bench) -> Ground:
    """The template of this run, made when first asked for."""
    found = bench.memory.get("ground")
    if not isinstance(found, Ground):
        found = bench.memory["ground"] = await _found(bench)
    return found


async def _found(bench: Bench) -> Ground:
    """A new installation's database, with the founding applied by a writer."""
    name = fresh_name()
    folder = bench.folder / name
    folder.mkdir()
    made = Installation(bench.services, name, folder, 1, dict(PRODUCTION))
    bench.say("founding: 1,000 topics by 500 authors, applied by a writer")
    await made.create()
    log_id = await made.value("SELECT log_id FROM afterwrite.lane WHERE lane = 0")
    # An hour ago: a run's ids must not be ahead of the clock.
    origin = Origin(time.time_ns() // 1_000_000 - 3_600_000, log_id)
    await publish(bench.services.kafka_bootstrap, f"{name}.commands", _founding(origin))
    writer = made.start("writer")
    try:
        await settled(made, workload.FOUNDING)
    finally:
        writer.terminate()
    return Ground(bench, name, origin)


async def settled(installation: Installation, position: int, timeout: float = 120) -> None:
    """Wait until all before the position is applied and settled."""

    async def there() -> bool:
        row = (await installation.fetch("SELECT * FROM afterwrite.lane WHERE lane = 0"))[0]
        if row["halted"] is not None or installation.processes["writer"].popen.poll() is not None:
            log = installation.processes["writer"].log.read_text()
            raise WrongRun(f"the writer does not write: {row['halted']}\n{log[-2000:]}")
        return bool(row["position"] >= position and row["outcome_seq"] == row["settled_seq"])

    await eventually_async(there, timeout, f"position {position} to be settled")


async def make_topics(bench: Bench, prefix: str) -> None:
    settings = OwnerSettings.model_validate(
        {
            "database_url": "postgresql://unused@127.0.0.1/unused",
            "kafka_bootstrap": bench.services.kafka_bootstrap,
            "prefix": prefix,
        }
    )
    await migrate_topics(settings, 1, 1, lambda line: None)


async def copy_database(admin_url: str, template: str, name: str) -> None:
    """A copy of a database nobody is connected to, and the server as calm as before each run."""
    connection = await asyncpg.connect(admin_url)
    try:
        await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        await connection.execute(f'ALTER DATABASE "{name}" OWNER TO afterwrite_owner')
        await connection.execute(f'REVOKE ALL ON DATABASE "{name}" FROM PUBLIC')
        await connection.execute(
            f'GRANT CONNECT ON DATABASE "{name}" TO afterwrite_writer, afterwrite_frontend'
        )
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


async def forget_overlay(redis_url: str, prefix: str) -> None:
    """What an earlier run on the same topic left in Redis."""
    redis: Redis = Redis.from_url(redis_url)
    try:
        keys = [key async for key in redis.scan_iter(match=f"{prefix}:*", count=1000)]
        if keys:
            await redis.unlink(*keys)
    finally:
        await redis.aclose()


# -- sealing ------------------------------------------------------------------------------------


def _founding(origin: Origin) -> Iterator[Record]:
    for command in workload.founding(origin):
        yield seal(Envelope(command, origin.log_id), KEYRING, SOURCE)


def steps(origin: Origin, plan: Plan) -> Iterator[Step]:
    """The commands of a plan, in order."""
    if plan.kind == "creates":
        return workload.creates(origin, 0, plan.count)
    return mixture(origin, plan).steps(plan.count)


def mixture(origin: Origin, plan: Plan) -> workload.Mixture:
    return workload.Mixture(origin, 0.01 if plan.kind == "bad" else 0.0)


def sealed(origin: Origin, plan: Plan) -> Iterator[Record]:
    """The records of a plan, in order, sealed by two processes where that is worth their start."""
    if plan.count < 4 * _CHUNK:
        yield from (seal_step(step, origin.log_id) for step in steps(origin, plan))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        chunks: list[Future[list[Record]]] = []
        for start in range(0, plan.count, _CHUNK):
            chunks.append(pool.submit(_seal_chunk, origin, plan, start))
            if len(chunks) > 6:
                yield from chunks.pop(0).result()
        for chunk in chunks:
            yield from chunk.result()


@lru_cache(1)
def _going_on(origin: Origin, plan: Plan) -> "_Progress":
    return _Progress(steps(origin, plan))


@dataclass
class _Progress:
    """How far this process has come in a plan. Chunks are handed out in order: it only goes on."""

    steps: Iterator[Step]
    at: int = 0

    def chunk(self, start: int) -> list[Step]:
        ahead = start - self.at
        self.at = start + _CHUNK
        return list(itertools.islice(self.steps, ahead, ahead + _CHUNK))


def _seal_chunk(origin: Origin, plan: Plan, start: int) -> list[Record]:
    chunk = _going_on(origin, plan).chunk(start)
    return [seal_step(step, origin.log_id) for step in chunk]


def seal_step(step: Step, log_id: uuid.UUID) -> Record:
    """The record of a command; of a bad one, what its kind says is wrong with it."""
    if not isinstance(step, Bad):
        return seal(Envelope(step, log_id), KEYRING, SOURCE)
    record = seal(Envelope(step.command, log_id), KEYRING, SOURCE)
    if step.kind == "garbage":
        return Record(record.key, os.urandom(200), record.headers)
    if step.kind == "unsigned":
        headers = tuple(
            (name, b"k1:" + b"0" * 64 if name == "ce_signature" else content)
            for name, content in record.headers
        )
        return Record(record.key, record.value, headers)
    return record


async def publish(bootstrap: str, topic: str, records: Iterable[Record], lane: int = 0) -> int:
    """Put records into one lane in this order, in batches, with acks=all; returns how many."""
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        acks="all",
        enable_idempotence=True,
        max_batch_size=_BATCH_BYTES,
    )
    await producer.start()
    count = 0
    try:
        batch = producer.create_batch()
        sent = []
        for record in records:
            while (
                batch.append(
                    timestamp=None,
                    key=record.key,
                    value=record.value,
                    headers=list(record.headers),
                )
                is None
            ):
                sent.append(await producer.send_batch(batch, topic, partition=lane))
                batch = producer.create_batch()
            count += 1
        sent.append(await producer.send_batch(batch, topic, partition=lane))
        for confirmed in sent:
            await confirmed
    finally:
        await stop_client(producer)
    return count
