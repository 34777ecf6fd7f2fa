"""Load over HTTP: servers as processes, clients as processes, and proof of what was accepted."""

import asyncio
import contextlib
import itertools
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from math import ceil
from pathlib import Path

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition

from frontend_api.http_server import BoundedProtocol
from schema.identifiers import new_row_id, user_id_for
from tests.bench.http_client import Answers, Plan, Sender, body_of
from tests.bench.result import WrongRun
from tests.bench.rig import Bench
from tests.installation import ROOT, SECRET, Installation, Running, eventually_async, free_port

CHARS = 240
AUTHORS = 400
TOPICS = 100
LIVELY = {"writes_per_minute": "1000000", "log_level": "warning"}
"""For the API: no limit on how much one author writes, and no line of log for each request."""
PARSER = "httptools" if any("httptools" in c.__module__ for c in BoundedProtocol.__mro__) else "h11"
"""The HTTP parser that our API runs on; the references run on the same."""


def nearest_rank(figures: Sequence[float], percent: float) -> float:
    """The percentile by nearest rank: a figure that was measured, never one between two."""
    ordered = sorted(figures)
    return ordered[max(0, ceil(len(ordered) * percent / 100) - 1)]


@dataclass
class Site:
    """The authors and topics that requests are about, the same in every database of a run."""

    authors: list[uuid.UUID] = field(default_factory=list)
    topics: list[uuid.UUID] = field(default_factory=list)

    @classmethod
    def of(cls, authors: int = AUTHORS, topics: int = TOPICS) -> "Site":
        return cls(
            [user_id_for(f"author-{n}") for n in range(authors)],
            _new_ids(topics),
        )

    async def fill(self, url: str) -> None:
        """Make authors and topics, as they are on a site that has been there for a while."""
        now = datetime.now(UTC)
        connection = await asyncpg.connect(url)
        try:
            await connection.executemany(
                'INSERT INTO "user" (id, version, created_at, updated_at, name) '
                "VALUES ($1, 1, $2, $2, $3)",
                [(id_, now, f"author-{n}") for n, id_ in enumerate(self.authors)],
            )
            await self._insert_topics(connection, self.topics)
        finally:
            await connection.close()

    async def add_topics(self, url: str, count: int) -> list[uuid.UUID]:
        """More topics, into which none of the authors writes."""
        made = _new_ids(count)
        connection = await asyncpg.connect(url)
        try:
            await self._insert_topics(connection, made)
        finally:
            await connection.close()
        return made

    async def _insert_topics(
        self, connection: asyncpg.Connection, topics: Sequence[uuid.UUID]
    ) -> None:
        now = datetime.now(UTC)
        await connection.executemany(
            "INSERT INTO topic (id, version, created_at, updated_at, author_id, title) "
            "VALUES ($1, 1, $2, $2, $3, $4)",
            [(id_, now, self.authors[0], f"Topic {n}") for n, id_ in enumerate(topics)],
        )

    def senders(self, installation: Installation) -> list[Sender]:
        """Each author writes into one of the topics."""
        return [
            Sender(
                f"/v1/topics/{self.topics[n % len(self.topics)]}/posts",
                installation.token(f"author-{n}"),
            )
            for n in range(len(self.authors))
        ]


def _new_ids(count: int) -> list[uuid.UUID]:
    """As the driver takes them."""
    return [uuid.UUID(int=new_row_id().int) for _ in range(count)]


_numbers = itertools.count()


def fresh_numbers() -> int:
    """The first of many numbers of posts that no other run has."""
    return next(_numbers) * 10_000_000


async def load(plan: Plan, clients: int = 1) -> Answers:
    """Run the plan in processes of their own, and join what they report. Numbers are given here.

    With several clients each has its part of the connections and of the rate. Raises `WrongRun` if
    a client fails.
    """
    each = replace(
        plan,
        connections=plan.connections // clients,
        rate=plan.rate / clients if plan.rate else None,
    )
    found = await asyncio.gather(
        *(_client(replace(each, first=fresh_numbers())) for _ in range(clients))
    )
    return found[0] if clients == 1 else _joined(found)


async def _client(plan: Plan) -> Answers:
    return Answers.from_json(await run_apart("tests.bench.http_client", plan.to_json()))


async def run_apart(module: str, given: str = "", **environment: str) -> str:
    """Run a module as a process of its own; returns what it has written into the file it was told.

    Raises `WrongRun` if it fails.
    """
    with tempfile.NamedTemporaryFile("r", encoding="utf-8", suffix=".json") as file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module, file.name),
            cwd=ROOT,
            env=os.environ | environment,
            stdin=subprocess.PIPE,
        )
        try:
            await process.communicate(given.encode())
        finally:
            if process.returncode is None:
                process.kill()
        if process.returncode != 0:
            raise WrongRun(f"{module} ended with {process.returncode}")
        return file.read()


def _joined(found: Sequence[Answers]) -> Answers:
    joined = Answers(
        began=max(a.began for a in found), until=min(a.until for a in found), last=found[0].last
    )
    for one in found:
        for at, seconds in zip(one.ended, one.seconds, strict=True):
            if joined.began <= at <= joined.until:
                joined.ended.append(at)
                joined.seconds.append(seconds)
        for status, count in one.statuses.items():
            joined.statuses[status] = joined.statuses.get(status, 0) + count
        joined.accepted += one.accepted
        joined.errors += one.errors
        joined.lost += one.lost
        joined.given_up += one.given_up
        joined.unanswered += one.unanswered
        joined.cpu_s += one.cpu_s
    return joined


def must_be_clean(answers: Answers, what: str) -> Answers:
    """Raises `WrongRun` if any request had another answer than the expected one, or none."""
    if answers.errors or answers.lost or answers.unanswered or answers.given_up:
        raise WrongRun(
            f"{what}: {answers.statuses}, lost {answers.lost}, unanswered {answers.unanswered}, "
            f"given up {answers.given_up}; {'; '.join(answers.errors)}"
        )
    if not answers.seconds:
        raise WrongRun(f"{what}: nothing was answered")
    return answers


# -- what was accepted is there ------------------------------------------------------------------


def bodies(accepted: Sequence[tuple[int, str]], chars: int = CHARS) -> dict[uuid.UUID, str]:
    """What has to be there, by id. Raises `WrongRun` if an id was given twice."""
    wanted = {uuid.UUID(id_): body_of(number, chars) for number, id_ in accepted}
    if len(wanted) != len(accepted):
        raise WrongRun(f"{len(accepted) - len(wanted)} ids were given twice")
    return wanted


async def must_be_saved(url: str, wanted: Mapping[uuid.UUID, str]) -> None:
    """Every accepted post is there once, as it was sent, and no other of these numbers.

    Raises `WrongRun`. Posts are told by their numbers, at the beginning of their text.
    """
    numbers = [body.partition(" ")[0] for body in wanted.values()]
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            "SELECT id, body FROM post WHERE left(body, 12) BETWEEN $1 AND $2",
            min(numbers),
            max(numbers),
        )
    finally:
        await connection.close()
    must_agree(((row["id"], row["body"]) for row in rows), wanted)


def must_agree(found: Iterable[tuple[uuid.UUID, str]], wanted: Mapping[uuid.UUID, str]) -> None:
    """Counts and contents. Raises `WrongRun`."""
    rows = list(found)
    there = dict(rows)
    if len(rows) != len(wanted) or len(there) != len(rows):
        raise WrongRun(f"{len(wanted)} were accepted, {len(rows)} are there")
    different = sum(there.get(id_) != body for id_, body in wanted.items())
    if different:
        raise WrongRun(f"{different} of {len(wanted)} are not there as they were sent")


async def writing(installation: Installation) -> None:
    """Wait until a writer has taken the lanes."""

    async def taken() -> bool:
        query = "SELECT count(*) FROM afterwrite.lane WHERE owner IS NULL"
        return bool(await installation.value(query) == 0)

    await eventually_async(taken, 30, "the writer to take its lanes")


async def drained(installation: Installation, timeout: float = 120) -> None:
    """Wait until the writer has decided and settled all that is in the log. Raises `WrongRun`.

    The caller sees to it that nothing more is accepted.
    """
    topic = f"{installation.name}.commands"
    consumer = AIOKafkaConsumer(bootstrap_servers=installation.services.kafka_bootstrap)
    await consumer.start()
    try:
        lanes = [TopicPartition(topic, lane) for lane in range(installation.lanes)]
        ends = await consumer.end_offsets(lanes)
    finally:
        await consumer.stop()
    connection = await asyncpg.connect(installation.owner_url)

    async def done() -> bool:
        rows = await connection.fetch(
            "SELECT lane, position, outcome_seq = settled_seq AS settled FROM afterwrite.lane"
        )
        return all(
            row["settled"] and row["position"] >= ends[TopicPartition(topic, row["lane"])]
            for row in rows
        )

    try:
        await eventually_async(done, timeout, "everything accepted to be settled")
        other = await connection.fetchval(
            "SELECT count(*) FROM afterwrite.ledger WHERE outcome <> 'saved'"
        )
    except AssertionError as error:
        raise WrongRun(str(error)) from error
    finally:
        await connection.close()
    if other:
        raise WrongRun(f"{other} commands were not saved")


# -- servers -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Served:
    """A server under load."""

    name: str
    port: int
    pid: int
    expected: int = 202
    """The status of its answers."""


def served(name: str, process: Running) -> Served:
    """Our own API."""
    return Served(name, int(process.url.rpartition(":")[2]), process.pid)


@asynccontextmanager
async def reference(
    bench: Bench, name: str, expected: int, **environment: str
) -> AsyncIterator[Served]:
    """A server of tests/bench/references, as a process of its own, once it listens."""
    port = free_port()
    settings = {"PORT": str(port), "SECRET": SECRET, "PARSER": PARSER} | {
        key.upper(): value for key, value in environment.items()
    }
    log = bench.folder / f"{name}-{port}.log"
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", f"tests.bench.references.http_{name}"),
            cwd=ROOT,
            env=os.environ | {f"REFERENCE_{key}": value for key, value in settings.items()},
            stdout=out,
            stderr=out,
        )
    try:
        await _listens(process, port, log)
        yield Served(name, port, process.pid, expected)
    finally:
        with contextlib.suppress(ProcessLookupError):  # it ended by itself
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            await process.wait()


async def _listens(process: asyncio.subprocess.Process, port: int, log: Path) -> None:
    async def there() -> bool:
        if process.returncode is not None:
            raise WrongRun(f"a reference ended at once: {_end_of(log)}")
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        await writer.wait_closed()
        return True

    await eventually_async(there, 30, f"{log.stem} to be served")


def _end_of(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-2000:]
