"""A1 to A3: accepting a post over HTTP, beside endpoints that do less, or that wait for PostgreSQL."""

import json
from dataclasses import dataclass, field

from tests.bench.http_client import Answers
from tests.bench.http_ground import (
    INSERT,
    NOOP,
    OURS,
    PUBLISH,
    STEPS,
    VERIFIED,
    Ground,
    Runs,
    ground,
)
from tests.bench.http_load import CHARS, PARSER, nearest_rank, run_apart
from tests.bench.result import Ratio, Result, ratios
from tests.bench.rig import Bench, median

CONNECTIONS = 32
_TRIPS = {
    "redis": "bare Redis round trip",
    "kafka": "bare Kafka acknowledgement",
    "redis_paced": "bare Redis round trip, as often as a post",
    "kafka_paced": "bare Kafka acknowledgement, as often as a post",
}


# -- A1 and A2 -----------------------------------------------------------------------------------


@dataclass
class Figures:
    """What A1 and A2 are both read from."""

    runs: Runs
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
            f"CPU a request: server {self.runs.each_us(who, 'server'):.0f} µs, "
            f"client {self.runs.each_us(who, 'client'):.0f} µs"
            for who in self.rates
        ]


async def _figures(bench: Bench) -> Figures:
    """Measured once in a run of the benchmark, alternating within each repeat."""
    found = bench.memory.get("accept")
    if isinstance(found, Figures):
        return found
    async with ground(bench) as side_by_side:
        figures = Figures(Runs(side_by_side))
        for repeat in range(bench.repeats):
            for who in (NOOP, OURS, INSERT, PUBLISH, STEPS):
                seconds = 0.5 if bench.quick else 3.0 if bench.full else 2.0
                answers = await figures.runs.run(who, CONNECTIONS, seconds)
                figures.note(who, answers)
                bench.say(f"  {repeat + 1}: {who}: {answers.rate:,.0f} requests/s")
    bench.memory["accept"] = figures
    return figures


def _result(name: str, title: str, goal: str, met: bool, ratio: Ratio, figures: Figures) -> Result:
    return Result(
        name=name,
        title=title,
        goal=goal,
        met=met,
        ratio=ratio,
        samples=figures.rates,
        unit="requests/s",
        cpu_s=figures.runs.cpu_s,
        settings=settings(figures.runs.ground),
        verified=VERIFIED,
        notes=[
            *figures.notes(),
            *_beside(figures),
            "the writer stands still while requests are counted, and drains them after each run: "
            "what an API process can accept is measured, not how cores are shared",
        ],
    )


def _beside(figures: Figures) -> list[str]:
    """How far those come that take one of our steps, or all of them as one would write them by hand."""
    pairs = ((PUBLISH, NOOP), (PUBLISH, INSERT), (STEPS, NOOP), (STEPS, INSERT), (OURS, STEPS))
    return [
        f"{one} ÷ {other}: {found.median:.2f} ({found.min:.2f} to {found.max:.2f})"
        for one, other in pairs
        for found in [ratios(figures.rates[one], figures.rates[other])]
    ]


def settings(side_by_side: Ground) -> dict[str, str]:
    """How servers and clients were set up."""
    return {
        "connections": str(CONNECTIONS),
        "post": f"{CHARS} characters, each one its own; {len(side_by_side.site.authors)} authors "
        f"with a token each, {len(side_by_side.site.topics)} topics",
        "servers": f"uvicorn, one process, uvloop, no log line a request; all on {PARSER}",
        "references": "the same check of the text by pydantic, PyJWT for the token; asyncpg pool, redis-py "
        "and aiokafka (acks=all, idempotent) with their default settings",
        STEPS: "rate and pending entries from Redis, topic and author from PostgreSQL, entry into Redis, "
        "record into Kafka; nothing signed, merged or settled",
    }


async def against_noop(bench: Bench) -> Result:
    """A1: requests/s of one API process ÷ the no-op endpoint's."""
    figures = await _figures(bench)
    ratio = ratios(figures.rates[OURS], figures.rates[NOOP])
    title = "accept at 32 connections ÷ no-op endpoint"
    return _result("A1", title, "≥ 0.7", ratio.median >= 0.7, ratio, figures)


async def against_insert(bench: Bench) -> Result:
    """A2: requests/s of one API process ÷ the synchronous INSERT endpoint's."""
    figures = await _figures(bench)
    ratio = ratios(figures.rates[OURS], figures.rates[INSERT])
    title = "accept at 32 connections ÷ synchronous INSERT endpoint"
    return _result("A2", title, "≥ 1.3", ratio.median >= 1.3, ratio, figures)


# -- A3 ------------------------------------------------------------------------------------------


async def alone(bench: Bench) -> Result:
    """A3: what accepting takes longer than the no-op, ÷ a bare Redis round trip and a bare
    Kafka acknowledgement, one after the other."""
    ours: list[float] = []
    noop: list[float] = []
    trips: dict[str, list[float]] = {name: [] for name in _TRIPS}
    async with ground(bench) as side_by_side:
        runs = Runs(side_by_side)
        seconds = 0.5 if bench.quick else 1.0
        for who in (
            NOOP,
            OURS,
        ):  # a process that has just been started takes longer, as a broker does
            await runs.run(who, CONNECTIONS, seconds)
        for repeat in range(bench.repeats):
            for who, figures in ((NOOP, noop), (OURS, ours)):
                answers = await runs.run(who, 1, seconds)
                figures.append(1e3 * nearest_rank(answers.seconds, 50))
            for name, found in (await _bare(side_by_side, seconds, ours[-1] / 1e3)).items():
                trips[name].append(1e3 * nearest_rank(found, 50))
            shown = ", ".join(f"{_TRIPS[name]} {found[-1]:.2f} ms" for name, found in trips.items())
            bench.say(
                f"  {repeat + 1}: {OURS} {ours[-1]:.2f} ms, {NOOP} {noop[-1]:.2f} ms, {shown}"
            )

    def together(*names: str) -> list[float]:
        return [sum(pair) for pair in zip(*(trips[name] for name in names), strict=True)]

    more = [one - other for one, other in zip(ours, noop, strict=True)]
    ratio = ratios(more, together("redis", "kafka"))
    longest = ratios(more, [max(pair) for pair in zip(trips["redis"], trips["kafka"], strict=True)])
    paced = ratios(more, together("redis_paced", "kafka_paced"))
    return Result(
        name="A3",
        title="accept at 1 connection: p50 − no-op's p50, ÷ Redis round trip + Kafka acknowledgement",
        goal="≤ 1.3",
        met=ratio.median <= 1.3,
        ratio=ratio,
        samples={OURS: ours, NOOP: noop} | {_TRIPS[name]: found for name, found in trips.items()},
        unit="ms, p50",
        cpu_s=runs.cpu_s,
        settings=settings(side_by_side)
        | {"connections": "1", "warm": "both servers have served before the first repeat"},
        verified=VERIFIED,
        notes=[
            f"÷ the longer of the two alone: {longest.median:.2f}",
            "÷ both made no more often than posts were accepted, as the kernel and the servers wake up "
            f"for each post: {paced.median:.2f} ({paced.min:.2f} to {paced.max:.2f})",
        ],
    )


async def _bare(side_by_side: Ground, seconds: float, every: float) -> dict[str, list[float]]:
    """Bare round trips, in a process of their own on the event loop that the API runs on; by `_TRIPS`."""
    services = side_by_side.ours.services
    trips: dict[str, list[float]] = json.loads(
        await run_apart(
            "tests.bench.references.bare",
            REFERENCE_REDIS_URL=services.redis_url,
            REFERENCE_KAFKA=services.kafka_bootstrap,
            REFERENCE_TOPIC=side_by_side.bare,
            REFERENCE_SECONDS=str(seconds),
            REFERENCE_EVERY=str(every),
        )
    )
    return trips
