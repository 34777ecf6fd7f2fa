"""What the measurements over HTTP stand on: our API, our writer, and the references beside them."""

import json
import signal
import uuid
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.bench.http_client import Answers, Plan, Sender
from tests.bench.http_load import (
    CHARS,
    LIVELY,
    Served,
    Site,
    bodies,
    drained,
    load,
    must_agree,
    must_be_clean,
    must_be_saved,
    reference,
    served,
    writing,
)
from tests.bench.rig import Bench, add_up
from tests.installation import Installation, Running

OURS, NOOP, INSERT, PUBLISH, STEPS, PAGE = (
    "afterwrite",
    "no-op",
    "synchronous INSERT",
    "publish only",
    "the same steps by hand",
    "page by hand",
)
"""The goal is held against servers on the parser that ours falls back to; this one is shown beside."""
VERIFIED = "all statuses; each accepted post is there once, with the id and the text as sent"


@dataclass
class Ground:
    """Our API and writer at work, a database of its own for what is measured beside them, and the
    references, each started when it is asked for first."""

    bench: Bench
    stack: AsyncExitStack
    ours: Installation
    theirs: Installation
    site: Site
    senders: list[Sender]
    api: Served
    writer: Running
    _references: dict[str, Served] = field(default_factory=dict)

    async def server(self, who: str) -> Served:
        """Our API, or a reference."""
        if who == OURS:
            return self.api
        if who not in self._references:
            self._references[who] = await self.stack.enter_async_context(self._start(who))
        return self._references[who]

    def _start(self, who: str) -> AbstractAsyncContextManager[Served]:
        if who == NOOP:
            return reference(self.bench, "noop", 202)
        if who == INSERT:
            return reference(self.bench, "insert", 201, database_url=self.theirs.owner_url)
        if who == PAGE:
            return reference(self.bench, "page", 200, database_url=self.ours.frontend_url)
        published = {"kafka": self.ours.services.kafka_bootstrap, "topic": self.published(who)}
        if who == PUBLISH:
            return reference(self.bench, "publish", 202, **published)
        return reference(
            self.bench,
            "steps",
            202,
            database_url=self.ours.frontend_url,
            redis_url=self.ours.services.redis_url,
            **published,
        )

    def published(self, who: str) -> str:
        """The topic of a reference that publishes."""
        return f"{self.ours.name}.{'published' if who == PUBLISH else 'steps'}"

    @property
    def bare(self) -> str:
        """The topic of bare acknowledgements."""
        return f"{self.ours.name}.bare"

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """The writer stands still in this block, and has drained everything after it."""
        self.writer.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.writer.signal(signal.SIGCONT)
        await drained(self.ours)


@asynccontextmanager
async def ground(bench: Bench) -> AsyncIterator[Ground]:
    """The ground that is shared, or one that ends with this block."""
    found = bench.memory.get("ground over HTTP")
    if isinstance(found, Ground):
        yield found
        return
    async with AsyncExitStack() as stack:
        ours = await stack.enter_async_context(bench.installation())
        theirs = await stack.enter_async_context(bench.installation())
        site = Site.of()
        for url in (ours.owner_url, theirs.owner_url):
            await site.fill(url)
        writer = ours.start("writer", log_level="warning")
        api = served(OURS, await ours.start("api", **LIVELY).ready())
        await writing(ours)
        made = Ground(bench, stack, ours, theirs, site, site.senders(ours), api, writer)
        topics = (made.published(PUBLISH), made.published(STEPS), made.bare)
        await _make_topics(ours.services.kafka_bootstrap, *topics)
        yield made


@asynccontextmanager
async def shared_ground(bench: Bench) -> AsyncIterator[None]:
    """All measurements in this block stand on one ground: for a smoke test, which must be short."""
    async with ground(bench) as made:
        bench.memory["ground over HTTP"] = made
        try:
            yield
        finally:
            del bench.memory["ground over HTTP"]


async def _make_topics(bootstrap: str, *names: str) -> None:
    """Topics of one partition, for what is not ours."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, 1, 1) for name in names])
    finally:
        await admin.close()


@dataclass
class Runs:
    """Closed-loop runs on a ground: each verified, and what they cost."""

    ground: Ground
    cpu_s: dict[str, float] = field(default_factory=dict)
    posts: dict[str, int] = field(default_factory=dict)
    """How many posts the CPU seconds were for, by server."""
    _published: dict[str, int] = field(default_factory=dict)

    async def run(self, who: str, connections: int, seconds: float) -> Answers:
        """One run against one server. Raises `WrongRun`."""
        server = await self.ground.server(who)
        plan = Plan(
            port=server.port,
            senders=self.ground.senders,
            connections=connections,
            seconds=seconds,
            warm_s=0.2 if self.ground.bench.quick else 0.5,
            chars=CHARS,
            expected=server.expected,
        )
        meter = self.ground.bench.meter(server=server.pid)
        if who == OURS:
            async with self.ground.paused():
                answers = must_be_clean(await load(plan), who)
                used = meter.read()
        else:
            answers = must_be_clean(await load(plan), who)
            used = meter.read()
        used |= {"client": answers.cpu_s}
        add_up(self.cpu_s, {f"{who}: {process}": seconds for process, seconds in used.items()})
        self.posts[who] = self.posts.get(who, 0) + len(answers.accepted)
        await self._verify(who, answers)
        return answers

    async def _verify(self, who: str, answers: Answers) -> None:
        wanted = bodies(answers.accepted)
        if who == OURS:
            await must_be_saved(self.ground.ours.owner_url, wanted)
        elif who == INSERT:
            await must_be_saved(self.ground.theirs.owner_url, wanted)
        elif who in (PUBLISH, STEPS):
            before = self._published.get(who, 0)
            found = await self._read_published(who, before + len(wanted))
            must_agree(found[before:], wanted)
            self._published[who] = before + len(wanted)

    async def _read_published(self, who: str, at_least: int) -> list[tuple[uuid.UUID, str]]:
        part = TopicPartition(self.ground.published(who), 0)
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.ground.ours.services.kafka_bootstrap,
            auto_offset_reset="none",
        )
        await consumer.start()
        found: list[tuple[uuid.UUID, str]] = []
        try:
            consumer.assign([part])
            consumer.seek(part, 0)
            end = (await consumer.end_offsets([part]))[part]
            while len(found) < max(end, at_least):
                batch = await consumer.getmany(timeout_ms=10_000)
                if not batch:
                    break  # fewer than were accepted: the comparison says so
                for records in batch.values():
                    posts = (json.loads(record.value) for record in records)
                    found += [(uuid.UUID(post["id"]), post["body"]) for post in posts]
        finally:
            await consumer.stop()
        return found

    def each_us(self, who: str, process: str) -> float:
        """Microseconds of CPU that one post took of a process."""
        return self.cpu_s[f"{who}: {process}"] / self.posts[who] * 1e6
