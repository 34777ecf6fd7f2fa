"""The references of the drains: each a process of its own, watched and verified as ours is."""

import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg

from tests.bench.draining import Drained, expected, newest_post, verify, watch
from tests.bench.prepared import Ground, Plan
from tests.bench.result import WrongRun
from tests.installation import ROOT, Installation


async def copy(ground: Ground, plan: Plan) -> Drained:
    """COPY of the same rows, in chunks of 5,000 with a commit each."""
    async with ground.copy() as target:
        words = (target.owner_url, str(ground.origin.base_ms), str(plan.count))
        return await _race(ground, plan, target, "copy_limit", words)


async def _race(
    ground: Ground, plan: Plan, target: Installation, module: str, words: Sequence[str]
) -> Drained:
    """Run a reference until all its rows are there; check them."""
    command = [sys.executable, "-m", f"tests.bench.references.{module}", *words]
    async with started(target, module, command) as process:
        return await watched(ground, plan, target, module, process)


@asynccontextmanager
async def started(
    target: Installation, name: str, command: Sequence[str]
) -> AsyncIterator["subprocess.Popen[bytes]"]:
    """A process with its output in the target's folder; it is gone after the block."""
    with (target.folder / f"{name}.log").open("ab") as out:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out)  # noqa: ASYNC220
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def watched(
    ground: Ground,
    plan: Plan,
    target: Installation,
    name: str,
    process: "subprocess.Popen[bytes]",
) -> Drained:
    """Time the rows that a process puts there, and check them."""
    connection = await asyncpg.connect(target.owner_url)
    meter = ground.bench.meter(**{name: process.pid})
    cpu_s: dict[str, float] = {}

    def alive() -> None:
        if process.poll() not in (None, 0):
            text = (target.folder / f"{name}.log").read_text(errors="replace")
            raise WrongRun(f"{name} ended: {text[-2000:]}")

    try:
        timing = await watch(newest_post(connection), plan.count, alive)
        cpu_s = meter.read()
        await verify(connection, expected(ground, plan), ledger=False)
    finally:
        await connection.close()
    return Drained(timing, cpu_s=cpu_s)
