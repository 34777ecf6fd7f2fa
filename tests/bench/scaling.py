"""S1: more lanes with as many writers, more API processes; and a model of machines that are not here.

Draining: the same commands in 1, 2 and 4 lanes, a writer process for each lane. The writers hold their
lanes and are stopped while the log is filled, so that all of them begin at the same moment. The rate is that
of outcomes told, which come after the rows: what a site can go on with. Accepting: the
same connections on 1 and on 2 API processes.

The model knows two things of each point with one process: how fast that process is, and how many CPU
seconds everybody together spends on a command. More processes are as much faster, until the cores are used
up (`Cost.rate`). It is checked against the points with more processes, then asked about a larger site.
"""

import asyncio
import os
import signal
import time
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition

from schema.envelope import Envelope, Record, seal
from schema.topics import lane_of
from tests.bench import workload
from tests.bench.draining import watch
from tests.bench.http_client import Answers, Plan
from tests.bench.http_load import (
    LIVELY,
    Site,
    bodies,
    drained,
    load,
    must_agree,
    must_be_clean,
    must_be_saved,
    writing,
)
from tests.bench.prepared import SOURCE, publish
from tests.bench.result import REPORTED, Ratio, Result, WrongRun, ratios
from tests.bench.rig import Bench, add_up, median
from tests.bench.workload import Origin
from tests.commands import KEYRING
from tests.installation import Installation, Running
from writer.kafka_errors import stop_client

COMMANDS = 20_000
LANES = (1, 2, 4)
APIS = (1, 2)
CONNECTIONS = 32
BROKERS, CORES, REPLICAS, BUSY = 3, 16, 3, 0.6
"""The larger site: a broker's share of its cores that may be busy leaves room for one broker to fail."""


@dataclass
class Point:
    """Commands a second, and what a command cost by kind of process, in CPU seconds."""

    rates: list[float] = field(default_factory=list)
    cpu_s: dict[str, float] = field(default_factory=dict)
    commands: int = 0

    def add(self, rate: float, commands: int, cpu_s: Mapping[str, float]) -> None:
        self.rates.append(rate)
        self.commands += commands
        add_up(self.cpu_s, cpu_s)

    @property
    def rate(self) -> float:
        return median(self.rates)

    def cost(self, *kinds: str) -> float:
        """CPU seconds a command, of these kinds of processes or of all."""
        return sum(s for kind, s in self.cpu_s.items() if kind in (kinds or self.cpu_s)) / max(
            self.commands, 1
        )


@dataclass(frozen=True)
class Cost:
    """What the model knows: `alone`, the rate of one process, and CPU seconds a command of all together."""

    alone: float
    cpu_s: float

    def rate(self, processes: int, cores: float) -> float:
        """Commands a second of so many processes on so many cores."""
        return min(processes * self.alone, cores / self.cpu_s)


async def lanes_and_processes(bench: Bench) -> Result:
    """S1: rates with 1, 2, 4 lanes and 1, 2 API processes; the model, checked against them."""
    repeats = bench.repeats
    drains = {lanes: Point() for lanes in (LANES[:2] if bench.quick else LANES)}
    accepts = {apis: Point() for apis in (APIS[:1] if bench.quick else APIS)}
    prepared = _Prepared.of(bench, 2_000 if bench.quick else COMMANDS)
    for repeat in range(repeats):
        for lanes, point in drains.items():
            await _drain(bench, prepared, lanes, point)
            bench.say(f"{repeat + 1}/{repeats} {_many(lanes, 'lane')}: {point.rates[-1]:,.0f}/s")
        await _accept(bench, accepts)
        for apis, point in accepts.items():
            bench.say(
                f"{repeat + 1}/{repeats} {_many(apis, 'API process', 'es')}: {point.rates[-1]:,.0f}/s"
            )
    cores = os.cpu_count() or 1
    checked = _checked(drains, cores) | _checked(accepts, cores)
    cpu_s: dict[str, float] = {}
    for point in (*drains.values(), *accepts.values()):
        add_up(cpu_s, point.cpu_s)
    return Result(
        name="S1",
        title=f"drain with {max(drains)} lanes and writers ÷ 1 lane and writer, on the cores there are",
        goal=REPORTED,
        met=all(point.rate > 0 for point in (*drains.values(), *accepts.values())),
        ratio=ratios(drains[max(drains)].rates, drains[1].rates),
        samples={f"drain, {_many(n, 'lane')}": p.rates for n, p in drains.items()}
        | {f"accept, {_many(n, 'API process', 'es')}": p.rates for n, p in accepts.items()},
        unit="commands/s",
        cpu_s=cpu_s,
        settings={
            "commands": f"{prepared.count:,}",
            "connections": str(CONNECTIONS),
            "cores": str(cores),
            "repeats": str(repeats),
        },
        verified="every post is there once, as it was sent; each lane was written by its own writer",
        notes=[
            *_told(drains, "lanes"),
            *_told(accepts, "API processes"),
            *checked.values(),
            *_larger_site(drains[1], accepts[1]),
        ],
    )


def _many(count: int, one: str, more: str = "s") -> str:
    return f"{count} {one}{more if count > 1 else ''}"


def _told(points: Mapping[int, Point], what: str) -> list[str]:
    first = points[1]
    return [
        f"{n} {what} ÷ 1: {Ratio.of([a / b for a, b in zip(p.rates, first.rates, strict=True)]).median:.2f}"
        for n, p in points.items()
        if n > 1
    ]


def _checked(points: Mapping[int, Point], cores: int) -> dict[str, str]:
    """What the model says of each point that it does not come from, ÷ what was measured."""
    first = points[1]
    model = Cost(first.rate, first.cost())
    of = "accept" if "api" in first.cpu_s else "drain"
    return {
        f"{of} {n}": f"model of {of}, {n} processes ÷ measured: "
        f"{model.rate(n, cores) / point.rate:.2f} "
        f"({first.rate:,.0f}/s alone, {1e6 * first.cost():.0f} µs of CPU a command)"
        for n, point in points.items()
        if n > 1
    }


def _larger_site(drain: Point, accept: Point) -> list[str]:
    """What three brokers of sixteen cores would carry, and what would have to stand beside them."""
    # Each replica appends what the leader appends; the writer's fetch is from the leader only.
    broker_s = REPLICAS * accept.cost("kafka") + drain.cost("kafka")
    rate = BROKERS * CORES * BUSY / broker_s
    cores = {
        "PostgreSQL": drain.cost("postgres"),
        "Redis": accept.cost("redis") + drain.cost("redis"),
        "API": accept.cost("api"),
        "writers": drain.cost("writer"),
    }
    beside = ", ".join(f"{name} {rate * cost:.0f}" for name, cost in cores.items())
    return [
        f"on paper, {BROKERS} brokers × {CORES} cores, {REPLICAS} replicas, {BUSY:.0%} busy: "
        f"{rate:,.0f} commands/s = {BROKERS * CORES} × {BUSY:g} ÷ {1e6 * broker_s:.0f} µs; "
        f"for it {rate / accept.rate:.0f} API processes, {rate / drain.rate:.0f} lanes, "
        f"and cores: {beside}",
        "whichever of these ends first ends the whole: one PostgreSQL has one disk for its log, one Redis "
        "one thread for commands",
    ]


# -- draining ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Prepared:
    """Posts by 500 authors in 1,000 topics, as records."""

    origin: Origin
    count: int
    records: Sequence[tuple[uuid.UUID, Record]]
    """Stream and record, in order."""

    @classmethod
    def of(cls, bench: Bench, count: int) -> "_Prepared":
        bench.say(f"sealing {count:,} commands")
        origin = Origin(_an_hour_ago_ms(), uuid.uuid4())
        commands = workload.creates(origin, 0, count)
        sealed = [(c.stream, seal(Envelope(c, origin.log_id), KEYRING, SOURCE)) for c in commands]
        return cls(origin, count, sealed)

    @property
    def expected(self) -> dict[uuid.UUID, str]:
        made = workload.created(self.origin, self.count).posts
        first = workload.founded(self.origin).posts
        return {id_: body for id_, body in made.items() if id_ not in first}


def _an_hour_ago_ms() -> int:
    return time.time_ns() // 1_000_000 - 3_600_000


async def _drain(bench: Bench, prepared: _Prepared, lanes: int, point: Point) -> None:
    async with bench.installation(lanes) as installation:
        await _fill(installation, prepared.origin)
        writers = [
            installation.start("writer", f"writer-{n}", writer_lanes=str(n), log_level="warning")
            for n in range(lanes)
        ]
        await writing(installation)
        await asyncio.sleep(
            0.2 if bench.quick else 0.5
        )  # they have opened their lanes, and wait for what comes
        for writer in writers:
            writer.signal(signal.SIGSTOP)
        await _publish(installation, prepared)
        connection = await asyncpg.connect(installation.owner_url)
        log = AIOKafkaConsumer(bootstrap_servers=bench.services.kafka_bootstrap)
        told = [TopicPartition(f"{installation.name}.outcomes", lane) for lane in range(lanes)]

        async def settled() -> int:
            ends: dict[TopicPartition, int] = await log.end_offsets(told)
            return sum(ends.values())

        try:
            await log.start()
            meter = bench.meter(**{f"writer {n}": w.pid for n, w in enumerate(writers)})
            for writer in writers:
                writer.signal(signal.SIGCONT)
            timing = await watch(settled, prepared.count, lambda: _all_run(writers))
            spent = _by_kind(meter.read())
            await drained(installation)
            owners = await connection.fetchval("SELECT count(DISTINCT owner) FROM afterwrite.lane")
            rows = await connection.fetch("SELECT id, body FROM post")
        finally:
            await stop_client(log)
            await connection.close()
        if owners != lanes:
            raise WrongRun(f"{owners} writers held {lanes} lanes")
        must_agree(((row["id"], row["body"]) for row in rows), prepared.expected)
    point.add(timing.rate(), prepared.count, spent)


async def _fill(installation: Installation, origin: Origin) -> None:
    """Authors and topics that the commands are about; the lanes belong to the log of the records."""
    site = Site(
        [a.id for a in workload.AUTHOR_OF], [origin.row_id(n) for n in range(workload.TOPICS)]
    )
    await site.fill(installation.owner_url)
    await installation.fetch("UPDATE afterwrite.lane SET log_id = $1", origin.log_id)


async def _publish(installation: Installation, prepared: _Prepared) -> None:
    by_lane: dict[int, list[Record]] = defaultdict(list)
    for stream, record in prepared.records:
        by_lane[lane_of(stream, installation.lanes)].append(record)
    for lane, records in by_lane.items():
        bootstrap, topic = installation.services.kafka_bootstrap, f"{installation.name}.commands"
        await publish(bootstrap, topic, records, lane)


def _all_run(processes: list[Running]) -> None:
    for process in processes:
        if process.popen.poll() is not None:
            raise WrongRun(f"{process.name} ended: {process.log.read_text()[-2000:]}")


def _by_kind(cpu_s: Mapping[str, float]) -> dict[str, float]:
    """`writer 0` and `writer 1` are `writer`."""
    found: dict[str, float] = {}
    for name, seconds in cpu_s.items():
        add_up(found, {name.partition(" ")[0]: seconds})
    return found


# -- accepting ---------------------------------------------------------------------------------


async def _accept(bench: Bench, points: Mapping[int, Point]) -> None:
    """Load on so many API processes of one installation; its writer is stopped meanwhile."""
    site = Site.of()
    async with bench.installation() as installation:
        await site.fill(installation.owner_url)
        running = [installation.start("api", f"api-{n}", **LIVELY) for n in range(max(points))]
        writer = installation.start("writer", log_level="warning")
        for api in running:
            await api.ready()
        await writing(installation)
        plan = Plan(
            port=0,
            senders=site.senders(installation),
            connections=CONNECTIONS,
            seconds=0.5 if bench.quick else 2.0,
            warm_s=0.3 if bench.quick else 1.0,
        )
        for apis, point in points.items():
            used = running[:apis]
            meter = bench.meter(**{f"api {n}": api.pid for n, api in enumerate(used)})
            writer.signal(signal.SIGSTOP)
            try:
                answers = await asyncio.gather(*(_load(plan, api, apis) for api in used))
                spent = _by_kind(meter.read())
            finally:
                writer.signal(signal.SIGCONT)
            accepted = [one for found in answers for one in found.accepted]
            await drained(installation)
            await must_be_saved(installation.owner_url, bodies(accepted))
            point.add(sum(found.rate for found in answers), len(accepted), spent)


async def _load(plan: Plan, api: Running, share: int) -> Answers:
    """This process's share of the connections."""
    port = int(api.url.rpartition(":")[2])
    one = replace(plan, port=port, connections=plan.connections // share)
    return must_be_clean(await load(one), "accept")
