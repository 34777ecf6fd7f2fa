"""One drain: a real writer process on a fresh copy of the template, timed from the first row to the last.

While it runs, a connection of its own asks every 20 ms which is the newest row (creates) or where the
lane stands (mixed). Both are one index or table row, so that asking costs the run nothing; both say only
what is committed. The start of the process is not counted, nor the rows of the first answer.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import asyncpg

from tests.bench import workload
from tests.bench.prepared import Ground, Plan, mixture
from tests.bench.result import WrongRun
from tests.bench.rig import rss_of
from tests.bench.workload import FOUNDING, Expected
from tests.installation import Installation, Running

EVERY_S = 0.02
STALLED_S = 60.0
"""A run that shows nothing new for so long has failed."""

_NEWEST = "SELECT id FROM post ORDER BY id DESC LIMIT 1"
_POSITION = "SELECT position, halted FROM afterwrite.lane WHERE lane = 0"
_TABLES = {
    "post": "id::text || body",
    "topic": "id::text || title",
    "reaction": "id::text",
}

Probe = Callable[[], Awaitable[int]]


@dataclass
class Timing:
    """How many of `count` were there at which second; the first mark is when the first came."""

    count: int
    began: float = 0.0
    marks: list[tuple[float, int]] = field(default_factory=list)

    def rate(self, start: float = 0.0, end: float = 1.0) -> float:
        """Per second, between these shares of the count.

        Of a run so small that one look saw all of it, from when the watch began.
        """
        (t0, n0), (t1, n1) = self._at(start), self._at(end)
        return (n1 - n0) / (t1 - t0) if t1 > t0 else n1 / (t1 - self.began)

    def _at(self, share: float) -> tuple[float, int]:
        return next(mark for mark in self.marks if mark[1] >= share * self.count)

    @property
    def seconds(self) -> float:
        return self.marks[-1][0] - self.marks[0][0]


async def watch(probe: Probe, count: int, alive: Callable[[], None]) -> Timing:
    """Ask until all are there. Raises `WrongRun` when nothing new comes for a minute.

    `alive` raises when the process has ended.
    """
    timing = Timing(count, time.monotonic())
    seen, moved = 0, timing.began
    while seen < count:
        now_there = await probe()
        now = time.monotonic()
        if now_there > seen:
            seen, moved = now_there, now
            timing.marks.append((now, seen))
        elif now - moved > STALLED_S:
            raise WrongRun(f"stalled at {seen:,} of {count:,}")
        else:
            alive()
        await asyncio.sleep(EVERY_S)
    return timing


def newest_post(connection: asyncpg.Connection) -> Probe:
    """How many creates are there, told by the number in the newest id."""

    async def ask() -> int:
        newest = await connection.fetchval(_NEWEST)
        return 0 if newest is None else max(workload.number_of(newest) - workload.FIRST + 1, 0)

    return ask


def position(connection: asyncpg.Connection) -> Probe:
    """How many commands after the founding are applied, as the lane's row says."""

    async def ask() -> int:
        (row,) = await connection.fetch(_POSITION)
        if row["halted"] is not None:
            raise WrongRun(f"the lane is halted: {row['halted']}")
        return int(row["position"]) - FOUNDING

    return ask


@dataclass
class Drained:
    """What one run of a competitor showed."""

    timing: Timing
    settled_s: float = 0.0
    """Seconds from the last row to the last settled command."""
    cpu_s: dict[str, float] = field(default_factory=dict)
    memory: list[tuple[int, int]] = field(default_factory=list)
    """At each look: how many were there, and how many bytes the process held."""


async def drain(ground: Ground, plan: Plan, **settings: str) -> Drained:
    """Drain a prepared topic with `afterwrite serve writer` and check what it left behind.

    Settings are the default ones, if none are given. Raises `WrongRun` when a row is missing, is
    there twice, has other contents, or an outcome is not what it must be.
    """
    prefix = await ground.prefix_of(plan)
    async with ground.copy(prefix) as installation:
        connection = await asyncpg.connect(installation.owner_url)
        try:
            writer = installation.start("writer", **settings)
            meter = ground.bench.meter(writer=writer.pid)
            memory: list[tuple[int, int]] = []
            probe = position(connection)

            async def look() -> int:
                there = await probe()
                memory.append((there, rss_of(writer.pid)))
                return there

            timing = await watch(look, plan.count, lambda: _is_running(writer))
            settled_s = await _settled(installation, timing.marks[-1][0])
            cpu_s = meter.read()
            writer.terminate()
            await verify(connection, expected(ground, plan), ledger=True)
        finally:
            await connection.close()
    return Drained(timing, settled_s, cpu_s, memory)


def _is_running(process: Running) -> None:
    if process.popen.poll() is not None:
        raise WrongRun(f"{process.name} ended: {process.log.read_text()[-2000:]}")


async def _settled(installation: Installation, since: float) -> float:
    """Wait until every outcome is told; returns how long after `since` that was."""
    connection = await asyncpg.connect(installation.owner_url)
    try:
        while await connection.fetchval(
            "SELECT outcome_seq > settled_seq FROM afterwrite.lane WHERE lane = 0"
        ):
            if time.monotonic() - since > STALLED_S * 5:
                raise WrongRun("what was applied is not settled after five minutes")
            await asyncio.sleep(EVERY_S)
    finally:
        await connection.close()
    return time.monotonic() - since


# -- verification -------------------------------------------------------------------------------


def expected(ground: Ground, plan: Plan) -> Expected:
    """What a plan leads to; remembered for the run, since working it out takes as long as a drain."""
    key = f"expected {plan}"
    found = ground.bench.memory.get(key)
    if isinstance(found, Expected):
        return found
    if plan.kind == "creates":
        made = workload.created(ground.origin, plan.count)
    else:
        mixed = mixture(ground.origin, plan)
        for _ in mixed.steps(plan.count):
            pass
        made = mixed.expected
    ground.bench.memory[key] = made
    return made


async def verify(connection: asyncpg.Connection, wanted: Expected, ledger: bool) -> None:
    """Compare number and contents of all rows, counted columns and, of ours, the ledger.

    Raises `WrongRun`, with the difference.
    """
    for table, wants in wanted.digest().items():
        (row,) = await connection.fetch(
            f"SELECT count(*) AS n, coalesce(sum(('x' || left(md5({_TABLES[table]}), 15))"
            f"::bit(60)::bigint), 0)::text AS digest FROM public.{table}"
        )
        _same(f"rows of {table}", row["n"], wants[0])
        _same(f"contents of {table}", int(row["digest"]), wants[1])
    if not ledger:
        return
    wrong = await connection.fetchval(
        "SELECT count(*) FROM topic t WHERE post_count <> "
        "(SELECT count(*) FROM post p WHERE p.topic_id = t.id)"
    )
    _same("topics whose post_count is wrong", wrong, 0)
    rows = await connection.fetch("SELECT outcome, count(*) AS n FROM afterwrite.ledger GROUP BY 1")
    _same("outcomes", outcomes_of(rows), dict(wanted.outcomes))


def outcomes_of(rows: list[asyncpg.Record]) -> Mapping[str, int]:
    return {row["outcome"]: row["n"] for row in rows}


def _same(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise WrongRun(f"{what}: {found}, must be {wanted}")
