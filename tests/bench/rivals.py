"""The references of the drains: each a process of its own, watched and verified as ours is."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg

from tests.bench.draining import Drained, expected, newest_post, verify, watch
from tests.bench.prepared import Ground, Plan, make_topics, publish
from tests.bench.references import sink as sink_reference
from tests.bench.result import WrongRun
from tests.installation import ROOT, Installation, fresh_name


async def copy(ground: Ground, plan: Plan) -> Drained:
    """COPY of the same rows, in chunks of 5,000 with a commit each."""
    async with ground.copy() as target:
        chunk = min(5_000, plan.count // 10)
        words = (target.owner_url, str(ground.origin.base_ms), str(plan.count), str(chunk))
        return await _race(ground, plan, target, "copy_limit", words)


async def promises(ground: Ground, plan: Plan) -> Drained:
    """What PostgreSQL has to do for the promises, with all rows ready in memory."""
    async with ground.copy() as target:
        chunk = min(5_000, plan.count // 10)
        words = (target.owner_url, str(ground.origin.base_ms), str(plan.count), str(chunk))
        return await _race(ground, plan, target, "promises_limit", words, ledger=True)


async def sink(ground: Ground, plan: Plan, batch: int) -> Drained:
    """Kafka Connect with the Debezium JDBC sink, on a topic of its own with the same rows."""
    topic = await sink_topic(ground, plan)
    async with ground.copy() as target:
        bootstrap = ground.bench.services.kafka_bootstrap
        command = sink_reference.command(target.folder, bootstrap, topic, target.owner_url, batch)
        async with started(target, "connect", command) as process:
            return await watched(ground, plan, target, "connect", process)


async def consumer(ground: Ground, plan: Plan, module: str) -> Drained:
    """A Python program that reads the same topic as the sink."""
    topic = await sink_topic(ground, plan)
    async with ground.copy() as target:
        words = (ground.bench.services.kafka_bootstrap, topic, target.owner_url)
        return await _race(ground, plan, target, module, words)


async def celery(ground: Ground, plan: Plan) -> Drained:
    """Celery with its queue filled beforehand."""
    module, redis_url = "celery_worker", ground.bench.services.redis_url
    async with ground.copy() as target:
        queue = target.name
        rows = (str(ground.origin.base_ms), str(plan.count))
        words = [sys.executable, "-m", f"tests.bench.references.{module}"]
        async with started(target, "fill", [*words, "fill", redis_url, queue, *rows]) as filling:
            await asyncio.to_thread(filling.wait, 120)
            if filling.returncode != 0:
                raise WrongRun((target.folder / "fill.log").read_text(errors="replace")[-2000:])
        worker = [*words, "run", redis_url, queue, target.owner_url]
        async with started(target, module, worker) as process:
            return await watched(ground, plan, target, module, process)


async def sink_topic(ground: Ground, plan: Plan) -> str:
    """The topic with rows as JSON, made when first asked for."""
    known = ground.bench.memory.setdefault("json topics", {})
    assert isinstance(known, dict)
    if plan not in known:
        prefix = fresh_name()
        ground.bench.say(f"publishing {plan.count:,} rows as JSON for the references")
        await make_topics(ground.bench, prefix)
        known[plan] = f"{prefix}.commands"
        rows = sink_reference.records(ground.origin, plan.count)
        await publish(ground.bench.services.kafka_bootstrap, known[plan], rows)
    return str(known[plan])


async def _race(
    ground: Ground,
    plan: Plan,
    target: Installation,
    module: str,
    words: Sequence[str],
    ledger: bool = False,
) -> Drained:
    """Run a reference until all its rows are there; check them, and its ledger if it keeps one."""
    command = [sys.executable, "-m", f"tests.bench.references.{module}", *words]
    async with started(target, module, command) as process:
        return await watched(ground, plan, target, module, process, ledger)


@asynccontextmanager
async def started(
    target: Installation, name: str, command: Sequence[str]
) -> AsyncIterator["subprocess.Popen[bytes]"]:
    """A process with its output in the target's folder; it is gone after the block."""
    with (target.folder / f"{name}.log").open("ab") as out:
        process = subprocess.Popen(  # noqa: ASYNC220
            command, cwd=ROOT, stdout=out, stderr=out, start_new_session=True
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):  # its children, too: Celery has some
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


async def watched(
    ground: Ground,
    plan: Plan,
    target: Installation,
    name: str,
    process: "subprocess.Popen[bytes]",
    ledger: bool = False,
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
        await verify(connection, expected(ground, plan), ledger)
    finally:
        await connection.close()
    return Drained(timing, cpu_s=cpu_s)
