"""A1 to A3: accepting a post over HTTP, beside endpoints that do less, or that wait for PostgreSQL."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.bench.http_client import Answers, Plan, Sender
from tests.bench.http_load import (
    CHARS,
    LIVELY,
    PARSER,
    Served,
    Site,
    bodies,
    drained,
    load,
    must_agree,
    must_be_clean,
    must_be_saved,
    nearest_rank,
    reference,
    served,
    writing,
)
from tests.bench.result import Ratio, Result, ratios
from tests.bench.rig import Bench, add_up, median
from tests.installation import ROOT, Installation

CONNECTIONS = 32
OURS, NOOP, INSERT, PUBLISH = "afterwrite", "no-op", "synchronous INSERT", "publish only"
VERIFIED = "all statuses; each accepted post is there once, with the id and the text as sent"


@dataclass
class Field:
    """Our API and its references, side by side, with what each has to be verified by."""

    bench: Bench
    ours: Installation
    theirs: Installation
    site: Site
    servers: dict[str, Served]
    senders: list[Sender]
    cpu_s: dict[str, float] = field(default_factory=dict)
    posts: dict[str, int] = field(default_factory=dict)
    """How many posts the CPU seconds were for, by server."""
    published: int = 0

    async def run(self, who: str, connections: int, seconds: float) -> Answers:
        """One closed-loop run against one server, verified."""
        server = self.servers[who]
        plan = Plan(
            port=server.port,
            senders=self.senders,
            connections=connections,
            seconds=seconds,
            warm_s=0.2 if self.bench.quick else 0.5,
            chars=CHARS,
            expected=server.expected,
        )
        meter = self.bench.meter(server=server.pid)
        answers = must_be_clean(await load(plan), who)
        used = meter.read() | {"client": answers.cpu_s}
        add_up(self.cpu_s, {f"{who}: {process}": seconds for process, seconds in used.items()})
        self.posts[who] = self.posts.get(who, 0) + len(answers.accepted)
        await self._verify(who, answers)
        return answers

    async def _verify(self, who: str, answers: Answers) -> None:
        wanted = bodies(answers.accepted)
        if who == OURS:
            writer = self.ours.processes["writer"]
            writer.signal(signal.SIGCONT)
            await drained(self.ours)
            writer.signal(signal.SIGSTOP)
            await must_be_saved(self.ours.owner_url, wanted)
        elif who == INSERT:
            await must_be_saved(self.theirs.owner_url, wanted)
        elif who == PUBLISH:
            found = await self._read_published(self.published + len(wanted))
            must_agree(found[self.published :], wanted)
            self.published += len(wanted)

    async def _read_published(self, at_least: int) -> list[tuple[uuid.UUID, str]]:
        part = TopicPartition(f"{self.ours.name}.published", 0)
        consumer = AIOKafkaConsumer(bootstrap_servers=self.ours.services.kafka_bootstrap)
        await consumer.start()
        found: list[tuple[uuid.UUID, str]] = []
        try:
            consumer.assign([part])
            await consumer.seek_to_beginning(part)
            end = (await consumer.end_offsets([part]))[part]
            while len(found) < max(end, at_least):
                for records in (await consumer.getmany(timeout_ms=5000)).values():
                    posts = (json.loads(record.value) for record in records)
                    found += [(uuid.UUID(post["id"]), post["body"]) for post in posts]
        finally:
            await consumer.stop()
        return found


@asynccontextmanager
async def field_of(bench: Bench) -> AsyncIterator[Field]:
    """Everything started: our API, a writer that stands still, and the references."""
    async with AsyncExitStack() as stack:
        ours = await stack.enter_async_context(bench.installation())
        theirs = await stack.enter_async_context(bench.installation())
        site = Site.of()
        for url in (ours.owner_url, theirs.owner_url):
            await site.fill(url)
        topic = f"{ours.name}.published"
        for name in (topic, f"{ours.name}.bare"):
            await make_topic(ours.services.kafka_bootstrap, name)
        ours.start("writer", log_level="warning")
        api = await ours.start("api", **LIVELY).ready()
        stack.callback(ours.processes["writer"].signal, signal.SIGCONT)
        kafka = {"kafka": ours.services.kafka_bootstrap, "topic": topic}
        servers = {
            NOOP: await stack.enter_async_context(reference(bench, "noop", 202)),
            INSERT: await stack.enter_async_context(
                reference(bench, "insert", 201, database_url=theirs.owner_url)
            ),
            PUBLISH: await stack.enter_async_context(reference(bench, "publish", 202, **kafka)),
            OURS: served(OURS, api),
        }
        await writing(ours)
        ours.processes["writer"].signal(signal.SIGSTOP)
        yield Field(bench, ours, theirs, site, servers, site.senders(ours))


async def make_topic(bootstrap: str, name: str) -> None:
    """A topic of one partition for a reference."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, 1, 1)])
    finally:
        await admin.close()


# -- A1 and A2 -----------------------------------------------------------------------------------


@dataclass
class Runs:
    """The runs that A1 and A2 are both read from."""

    field_: Field
    rates: dict[str, list[float]] = field(default_factory=dict)
    p50_ms: dict[str, list[float]] = field(default_factory=dict)
    p99_ms: dict[str, list[float]] = field(default_factory=dict)

    def note(self, who: str, answers: Answers) -> None:
        for figures, one in (
            (self.rates, answers.rate),
            (self.p50_ms, 1e3 * nearest_rank(answers.seconds, 50)),
            (self.p99_ms, 1e3 * nearest_rank(answers.seconds, 99)),
        ):
            figures.setdefault(who, []).append(one)

    def notes(self) -> list[str]:
        """Latency, and what one request takes of the CPU, of each server and of its client."""
        return [
            f"{who}: p50 {median(self.p50_ms[who]):.2f} ms, p99 {median(self.p99_ms[who]):.2f} ms; "
            f"CPU a request: server {self._each_us(who, 'server'):.0f} µs, "
            f"client {self._each_us(who, 'client'):.0f} µs"
            for who in self.rates
        ]

    def _each_us(self, who: str, process: str) -> float:
        return self.field_.cpu_s[f"{who}: {process}"] / self.field_.posts[who] * 1e6


async def _runs(bench: Bench) -> Runs:
    """Measured once in a run of the benchmark, alternating within each repeat."""
    found = bench.memory.get("accept")
    if isinstance(found, Runs):
        return found
    order = (NOOP, OURS, INSERT, PUBLISH)
    async with field_of(bench) as side_by_side:
        runs = Runs(side_by_side)
        for repeat in range(bench.repeats):
            for who in order:
                seconds = 1.0 if bench.quick else 3.0
                answers = await side_by_side.run(who, CONNECTIONS, seconds)
                runs.note(who, answers)
                bench.say(f"  {repeat + 1}: {who}: {answers.rate:,.0f} requests/s")
    bench.memory["accept"] = runs
    return runs


def _result(name: str, title: str, goal: str, met: bool, ratio: Ratio, runs: Runs) -> Result:
    return Result(
        name=name,
        title=title,
        goal=goal,
        met=met,
        ratio=ratio,
        samples=runs.rates,
        unit="requests/s",
        cpu_s=runs.field_.cpu_s,
        settings=settings(runs.field_),
        verified=VERIFIED,
        notes=[
            *runs.notes(),
            "the writer stands still while requests are counted, and drains them after each run: "
            "what an API process can accept is measured, not how cores are shared",
        ],
    )


def settings(side_by_side: Field) -> dict[str, str]:
    """How servers and clients were set up."""
    return {
        "connections": str(CONNECTIONS),
        "post": f"{CHARS} characters, each one its own; {len(side_by_side.site.authors)} authors "
        f"with a token each, {len(side_by_side.site.topics)} topics",
        "servers": f"uvicorn, one process, uvloop, {PARSER}; no log line a request",
        "references": "the same check of the text by pydantic, PyJWT for the token; asyncpg pool "
        "and aiokafka (acks=all, idempotent) with their default settings",
    }


async def against_noop(bench: Bench) -> Result:
    """A1: requests/s of one API process ÷ the no-op endpoint's."""
    runs = await _runs(bench)
    ratio = ratios(runs.rates[OURS], runs.rates[NOOP])
    title = "accept at 32 connections ÷ no-op endpoint"
    return _result("A1", title, "≥ 0.7", ratio.median >= 0.7, ratio, runs)


async def against_insert(bench: Bench) -> Result:
    """A2: requests/s of one API process ÷ the synchronous INSERT endpoint's."""
    runs = await _runs(bench)
    ratio = ratios(runs.rates[OURS], runs.rates[INSERT])
    title = "accept at 32 connections ÷ synchronous INSERT endpoint"
    return _result("A2", title, "≥ 1.3", ratio.median >= 1.3, ratio, runs)


# -- A3 ------------------------------------------------------------------------------------------


async def alone(bench: Bench) -> Result:
    """A3: what accepting takes longer than the no-op, ÷ a bare Redis round trip and a bare
    Kafka acknowledgement, one after the other."""
    ours: list[float] = []
    noop: list[float] = []
    redis: list[float] = []
    kafka: list[float] = []
    async with field_of(bench) as side_by_side:
        for repeat in range(bench.repeats):
            seconds = 0.5 if bench.quick else 2.0
            for who, figures in ((NOOP, noop), (OURS, ours)):
                answers = await side_by_side.run(who, 1, seconds)
                figures.append(1e3 * nearest_rank(answers.seconds, 50))
            trips = await _bare(side_by_side, seconds)
            redis.append(1e3 * nearest_rank(trips["redis"], 50))
            kafka.append(1e3 * nearest_rank(trips["kafka"], 50))
            bench.say(
                f"  {repeat + 1}: {OURS} {ours[-1]:.2f} ms, {NOOP} {noop[-1]:.2f} ms, "
                f"Redis {redis[-1]:.2f} ms, Kafka {kafka[-1]:.2f} ms"
            )
    bare = [one + other for one, other in zip(redis, kafka, strict=True)]
    more = [one - other for one, other in zip(ours, noop, strict=True)]
    ratio = ratios(more, bare)
    longest = ratios(more, [max(pair) for pair in zip(redis, kafka, strict=True)])
    return Result(
        name="A3",
        title="accept at 1 connection: p50 − no-op's p50, ÷ Redis round trip + Kafka acknowledgement",
        goal="≤ 1.3",
        met=ratio.median <= 1.3,
        ratio=ratio,
        samples={
            OURS: ours,
            NOOP: noop,
            "bare Redis round trip": redis,
            "bare Kafka acknowledgement": kafka,
        },
        unit="ms, p50",
        cpu_s=side_by_side.cpu_s,
        settings=settings(side_by_side) | {"connections": "1"},
        verified=VERIFIED,
        notes=[f"÷ the longer of the two alone: {longest.median:.2f}"],
    )


async def _bare(side_by_side: Field, seconds: float) -> dict[str, list[float]]:
    """Bare round trips, in a process of their own on the event loop that the API runs on."""
    services = side_by_side.ours.services
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.references.bare"),
        cwd=ROOT,
        env=os.environ
        | {
            "REFERENCE_REDIS_URL": services.redis_url,
            "REFERENCE_KAFKA": services.kafka_bootstrap,
            "REFERENCE_TOPIC": f"{side_by_side.ours.name}.bare",
            "REFERENCE_SECONDS": str(seconds),
        },
        stdout=subprocess.PIPE,
    )
    out, _ = await process.communicate()
    trips: dict[str, list[float]] = json.loads(out)
    return trips
