"""T1: from the death of a writer to the next command that its standby has saved.

Authors write without a pause, so that the writer dies in the middle of its work, each time at another
point of it. The command that counts is sent when the writer is dead, over HTTP like the others.
"""

import asyncio
import random
import signal
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import asyncpg
import httpx2

from tests.bench.http_load import LIVELY, Site, drained, must_agree, writing
from tests.bench.result import Ratio, Result, WrongRun
from tests.bench.rig import PRODUCTION, Bench, add_up
from tests.installation import Installation, Running, eventually_async

GOAL_S = 3.0
AUTHORS = 8
EVERY_S = 0.02
PAUSE_S = 0.05
"""Between two posts of one author: with eight, some hundred posts a second."""
LONGEST_S = 60.0


@dataclass
class _Authors:
    """Authors who post, and all that was accepted."""

    client: httpx2.AsyncClient
    site: Site
    tokens: list[str]
    accepted: dict[uuid.UUID, str] = field(default_factory=dict)
    numbers: int = 0

    async def post(self, author: int) -> uuid.UUID:
        """Send one post; returns its id."""
        self.numbers += 1
        body = f"{self.numbers}: is the standby there already?"
        response = await self.client.post(
            f"/v1/topics/{self.site.topics[author]}/posts",
            json={"body": body},
            headers={"Authorization": f"Bearer {self.tokens[author]}"},
        )
        if response.status_code != 202:
            raise WrongRun(f"{response.status_code}: {response.text}")
        row = uuid.UUID(response.json()["id"])
        self.accepted[row] = body
        return row

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """All of them keep posting while the block runs."""
        ending = asyncio.Event()

        async def keep_posting(author: int) -> None:
            while not ending.is_set():
                await self.post(author)
                await asyncio.sleep(PAUSE_S)

        tasks = [asyncio.create_task(keep_posting(n)) for n in range(AUTHORS)]
        try:
            yield
        finally:
            ending.set()
            await asyncio.gather(*tasks)


async def killed(bench: Bench) -> Result:
    """T1: seconds from SIGKILL to the first command that was sent after it being saved."""
    site = Site.of(AUTHORS, AUTHORS)
    seconds: list[float] = []
    cpu_s: dict[str, float] = {}
    repeats = bench.repeats if bench.quick else max(bench.repeats, 5)
    async with bench.installation() as installation:
        await site.fill(installation.owner_url)
        api = await installation.start("api", **LIVELY).ready()
        holder = installation.start("writer", "writer-0")
        await writing(installation)
        tokens = [installation.token(f"author-{n}") for n in range(AUTHORS)]
        connection = await asyncpg.connect(installation.owner_url)
        try:
            async with httpx2.AsyncClient(base_url=api.url, timeout=30) as client:
                authors = _Authors(client, site, tokens)
                for repeat in range(1, repeats + 1):
                    standby = await _standing_by(installation, f"writer-{repeat}")
                    meter = bench.meter(api=api.pid, standby=standby.pid)
                    took_s = await _take_over(authors, connection, holder)
                    add_up(cpu_s, meter.read())
                    seconds.append(took_s)
                    bench.say(f"{repeat}/{repeats} killed → saved: {took_s:.2f} s")
                    holder = standby
            await drained(installation)
            epoch = await connection.fetchval("SELECT epoch FROM afterwrite.lane")
            if epoch != repeats + 1:
                raise WrongRun(f"the lane was taken {epoch} times, not {repeats + 1}")
        finally:
            await connection.close()
        rows = await installation.fetch("SELECT id, body FROM post")
        must_agree(((row["id"], row["body"]) for row in rows), authors.accepted)
    return Result(
        name="T1",
        title="seconds from a writer's death (SIGKILL) to the next command, saved by its standby",
        goal=f"≤ {GOAL_S:g} s in each repeat",
        met=max(seconds) <= GOAL_S,
        ratio=Ratio.of(seconds),
        samples={"killed → saved": seconds},
        unit="s",
        cpu_s=cpu_s,
        settings={"AFTERWRITE_LEASE_S": PRODUCTION["AFTERWRITE_LEASE_S"], "authors": str(AUTHORS)},
        verified=f"all {len(authors.accepted):,} accepted posts are there once, as they were sent",
        notes=["the ratio is seconds"],
    )


async def _standing_by(installation: Installation, name: str) -> Running:
    """A writer that has tried to take the lane, and did not get it."""
    standby = await installation.start("writer", name).ready()

    async def connected() -> bool:
        query = (
            "SELECT count(*) > 1 FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name = 'afterwrite lane 0'"
        )
        return bool(await installation.value(query))

    await eventually_async(connected, LONGEST_S, "the standby to stand by")
    return standby


async def _take_over(authors: _Authors, connection: asyncpg.Connection, holder: Running) -> float:
    async with authors.writing():
        await asyncio.sleep(random.uniform(0.5, 1.0))
        holder.signal(signal.SIGKILL)
        began = time.monotonic()
        row = await authors.post(0)
        while not await connection.fetchval("SELECT 1 FROM post WHERE id = $1", row):
            if time.monotonic() - began > LONGEST_S:
                raise WrongRun(f"nothing was saved in {LONGEST_S:g} s")
            await asyncio.sleep(EVERY_S)
        return time.monotonic() - began
