"""M1: what a pending command takes in Redis, and what a command takes in Kafka's log on the disk.

Posts are pieces of what people really wrote (tests/data/coffee), each another one: words in turn would
compress as no site's posts do. They are sent over HTTP to a real API, as a page sends them, and no writer
runs, so that all of them are pending. The payload of a command is its JSON, the value of its record; what
it takes of the request's body is told beside it.

What is in Redis for a pending command is all that is there because of it: entry, index, keys, the count of
its author's rate. The read cache, which the same requests fill with what PostgreSQL said to them, is
none of it: it is bounded by a setting of its own however much is pending. Both are told: Redis's memory
with it, and once its keys are deleted, without.
"""

import asyncio
import html
import json
import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from aiokafka import AIOKafkaConsumer, TopicPartition
from redis.asyncio import Redis

from tests.bench.http_load import LIVELY, Site, drained, must_agree, writing
from tests.bench.result import Ratio, Result, WrongRun
from tests.bench.rig import Bench, add_up
from tests.installation import ROOT, Installation
from tests.services import Embedded
from writer.kafka_errors import stop_client

POSTS = 500
CHARS = 240
REDIS_GOAL, KAFKA_GOAL = 2.5, 1.6
_WARMER = "somebody else"
_BODY = re.compile(r' Body="([^"]*)"')


@dataclass(frozen=True)
class Case:
    """How the same posts are sent: by how many authors, over how many connections at once."""

    name: str
    authors: int
    connections: int


CASES = (
    Case("20 an author, 32 at once", POSTS // 20, 32),
    Case("1 an author, 1 at a time", POSTS, 1),
)
"""The usual one in an outage, and the most expensive one: each author has keys, each record a batch
of its own. The goals count for both."""


@dataclass(frozen=True)
class Taken:
    """Bytes of all commands together: in Redis, in Kafka's log on the disk, and parts of the latter."""

    redis: int
    cached: int
    """In Redis beside it: the read cache."""
    kafka: int
    values: int
    keys: int
    headers: int
    bodies: int
    outcomes: int
    commands: int

    @property
    def of_redis(self) -> float:
        return self.redis / self.values

    @property
    def of_redis_with_cache(self) -> float:
        return (self.redis + self.cached) / self.values

    @property
    def of_kafka(self) -> float:
        return self.kafka / self.values

    @property
    def told(self) -> str:
        """Where the bytes are, for one command."""
        n = self.commands
        framing = self.kafka - self.values - self.keys - self.headers
        return (
            f"a command of {self.values / n:.0f} bytes of JSON, for a body of {self.bodies / n:.0f}: "
            f"{self.redis / n:.0f} in Redis, and {self.cached / n:.0f} of the read cache; "
            f"{self.kafka / n:.0f} in the log, of which headers "
            f"{self.headers / n:.0f}, key {self.keys / n:.0f}, framing {framing / n:.0f}; "
            f"{self.outcomes / n:.0f} in the outcomes topic; "
            f"÷ body: Redis {self.redis / self.bodies:.2f}, Kafka {self.kafka / self.bodies:.2f}"
        )


def pieces(count: int, chars: int = CHARS) -> list[str]:
    """Texts of so many characters that people wrote, none of them twice."""
    xml = (ROOT / "tests/data/coffee/Posts.xml").read_text(encoding="utf-8")
    text = " ".join(" ".join(html.unescape(body).split()) for body in _BODY.findall(xml))
    made = [text[at : at + chars].strip() or "-" for at in range(0, len(text) - chars, chars)]
    if len(set(made)) < count:
        raise WrongRun(f"there are {len(set(made))} texts of {chars} characters, not {count}")
    return list(dict.fromkeys(made))[:count]


async def bytes_a_command(bench: Bench) -> Result:
    """M1: bytes in Redis and in Kafka's log ÷ bytes of the commands' JSON."""
    if not isinstance(bench.services, Embedded):
        raise WrongRun("Kafka's files can only be measured where the servers are ours")
    count, cases = (100, CASES[:1]) if bench.quick else (POSTS, CASES)
    found: dict[str, list[Taken]] = {case.name: [] for case in cases}
    cpu_s: dict[str, float] = {}
    for repeat in range(bench.repeats):
        for case in cases:
            taken = await _measure(bench, case, pieces(count), cpu_s)
            found[case.name].append(taken)
            bench.say(
                f"{repeat + 1}/{bench.repeats} {case.name}: Redis {taken.of_redis:.2f}, "
                f"Kafka {taken.of_kafka:.2f} × payload"
            )
    redis = {name: [t.of_redis for t in taken] for name, taken in found.items()}
    cached = {name: [t.of_redis_with_cache for t in taken] for name, taken in found.items()}
    kafka = {name: [t.of_kafka for t in taken] for name, taken in found.items()}
    return Result(
        name="M1",
        title="bytes in Redis for a pending command ÷ its payload, in the dearest case",
        goal=f"Redis ≤ {REDIS_GOAL}, Kafka ≤ {KAFKA_GOAL}",
        met=max(map(max, redis.values())) <= REDIS_GOAL
        and max(map(max, kafka.values())) <= KAFKA_GOAL,
        ratio=Ratio.of(max(redis.values(), key=max)),
        samples={f"Redis, {name}": figures for name, figures in redis.items()}
        | {f"Redis and read cache, {name}": figures for name, figures in cached.items()}
        | {f"Kafka, {name}": figures for name, figures in kafka.items()},
        unit="bytes ÷ byte of payload",
        cpu_s=cpu_s,
        settings={
            "posts": f"{count:,} of {CHARS} characters, pieces of what people wrote; no writer runs",
            "payload": "the command's JSON, the value of its record",
            "Redis": "all that is there for it; the read cache, which is bounded, apart",
            "Kafka": "the log and its indexes, as the disk has them",
        },
        verified="all pending as sent, for their author; drained afterwards, and in PostgreSQL as sent",
        notes=[
            f"at most {max(map(max, redis.values())):.2f} in Redis, "
            f"{max(map(max, kafka.values())):.2f} in Kafka's log",
            *(f"{name}: {taken[-1].told}" for name, taken in found.items()),
        ],
    )


async def _measure(
    bench: Bench, case: Case, texts: Sequence[str], cpu_s: dict[str, float]
) -> Taken:
    authors = min(case.authors, len(texts))
    site = Site.of(authors=authors)
    async with bench.installation() as installation:
        await site.fill(installation.owner_url)
        api = await installation.start("api", **LIVELY).ready()
        meter = bench.meter(api=api.pid)
        redis: Redis = Redis.from_url(bench.services.redis_url)
        try:
            first = await _send(
                installation, site, 1, ["The first one, which loads scripts."], _WARMER
            )
            log = _log_bytes(bench, installation)
            memory = await _resting(redis)
            sent = await _send(installation, site, case.connections, texts)
            full = await _resting(redis)
            await _forget_cache(redis, installation.name)
            pending = await _resting(redis)
            logged = _log_bytes(bench, installation) - log
            parts = await _parts(installation, len(texts))
            await _all_pending(installation, site, texts, sent)
            sent |= first
        finally:
            await redis.aclose()
        add_up(cpu_s, meter.read())
        installation.start("writer", log_level="warning")
        await writing(installation)
        await drained(installation)
        rows = await installation.fetch("SELECT id, body FROM post")
        must_agree(((row["id"], row["body"]) for row in rows), sent)
        outcomes = _log_bytes(bench, installation, "outcomes")  # its topics end with it
    return Taken(
        pending - memory,
        full - pending,
        logged,
        *parts,
        outcomes=outcomes,
        bodies=sum(len(_request(text)) for text in texts),
        commands=len(texts),
    )


def _request(text: str) -> bytes:
    return json.dumps({"body": text}, ensure_ascii=False, separators=(",", ":")).encode()


async def _send(
    installation: Installation,
    site: Site,
    connections: int,
    texts: Sequence[str],
    *names: str,
) -> dict[uuid.UUID, str]:
    """Each text as a post of the next author in turn; returns them by id.

    Authors are those of the site, if none are named.
    """
    accepted: dict[uuid.UUID, str] = {}
    waiting: Iterator[tuple[int, str]] = iter(enumerate(texts))
    authors = names or [f"author-{n}" for n in range(len(site.authors))]
    tokens = [installation.token(name) for name in authors]
    async with httpx2.AsyncClient(
        base_url=installation.processes["api"].url,
        limits=httpx2.Limits(max_connections=connections),
        timeout=30,
    ) as client:

        async def connection() -> None:
            for number, text in waiting:
                response = await client.post(
                    f"/v1/topics/{site.topics[number % len(site.topics)]}/posts",
                    content=_request(text),
                    headers={
                        "Authorization": f"Bearer {tokens[number % len(tokens)]}",
                        "Content-Type": "application/json",
                    },
                )
                if response.status_code != 202:
                    raise WrongRun(f"{response.status_code}: {response.text}")
                accepted[uuid.UUID(response.json()["id"])] = text

        await asyncio.gather(*(connection() for _ in range(connections)))
    return accepted


async def _all_pending(
    installation: Installation, site: Site, texts: Sequence[str], sent: dict[uuid.UUID, str]
) -> None:
    """Every tenth is shown to its author as it was sent, and as pending."""
    number_of = {text: number for number, text in enumerate(texts)}
    for id_, text in list(sent.items())[::10]:
        author = f"author-{number_of[text] % len(site.authors)}"
        async with installation.client(author) as client:
            shown: dict[str, Any] = (await client.get(f"/v1/posts/{id_}")).json()
        if (shown.get("state"), shown.get("body")) != ("pending", text):
            raise WrongRun(f"post {id_} is not pending as it was sent: {shown}")


async def _parts(installation: Installation, count: int) -> tuple[int, int, int]:
    """Bytes of all values, keys and headers in the log, without the first record.

    Raises `WrongRun` at another count.
    """
    consumer = AIOKafkaConsumer(
        bootstrap_servers=installation.services.kafka_bootstrap, auto_offset_reset="earliest"
    )
    await consumer.start()
    values = keys = headers = seen = 0
    try:
        lane = TopicPartition(f"{installation.name}.commands", 0)
        consumer.assign([lane])
        consumer.seek(lane, 1)  # the first one is not counted
        end = (await consumer.end_offsets([lane]))[lane]
        while await consumer.position(lane) < end:
            for record in (await consumer.getmany(lane, timeout_ms=1000)).get(lane, ()):
                seen += 1
                values += len(record.value)
                keys += len(record.key)
                headers += sum(len(name) + len(content) for name, content in record.headers)
    finally:
        await stop_client(consumer)
    if seen != count:
        raise WrongRun(f"the log has {seen} commands, not {count}")
    return values, keys, headers


async def _forget_cache(redis: Redis, prefix: str) -> None:
    async for key in redis.scan_iter(match=f"{prefix}:cache:*", count=1000):
        await redis.delete(key)


async def _resting(redis: Redis) -> int:
    """Bytes that Redis holds for data, once that has stopped changing: no buffers of clients or files."""
    before = -1
    for _ in range(100):
        info: dict[str, Any] = await redis.info("memory")
        now = int(info["used_memory"] - info["mem_clients_normal"] - info["mem_aof_buffer"])
        if now == before:
            return now
        before = now
        await asyncio.sleep(0.2)
    raise WrongRun("Redis's memory does not come to rest")


def _log_bytes(bench: Bench, installation: Installation, topic: str = "commands") -> int:
    """Bytes of all lanes' segments and indexes, as the disk has them: an index is mostly a hole."""
    assert isinstance(bench.services, Embedded)
    folder: Path = bench.services.kafka_folder
    files = folder.glob(f"{installation.name}.{topic}-[0-9]*/*")
    return sum(
        file.stat().st_size if file.suffix == ".log" else _used(file)
        for file in files
        if file.is_file()
    )


def _used(file: Path) -> int:
    """512 bytes a block, and never more than its size."""
    stat = file.stat()
    return min(stat.st_blocks * 512, stat.st_size)
