"""A4: accepting while PostgreSQL stands still, and beside it an endpoint that waits for PostgreSQL."""

import asyncio
import time
from dataclasses import dataclass, replace

from tests.bench.http_client import Answers, Plan
from tests.bench.http_ground import INSERT, OURS, ground
from tests.bench.http_load import (
    CHARS,
    PARSER,
    bodies,
    drained,
    load,
    must_be_clean,
    must_be_saved,
    nearest_rank,
)
from tests.bench.result import Ratio, Result
from tests.bench.rig import Bench, add_up, median

SHARE = 0.25
"""Of what API and writer carry together at most: what is measured is a standstill, not a queue."""
BESIDE_RATE = 10.0
"""Of the endpoint beside it. What it has waiting when PostgreSQL goes on takes the cores that both share, just
when our slowest answers are counted: enough to count its own, not so many that ours wait for them."""


@dataclass(frozen=True)
class Times:
    """Seconds: undisturbed; then a time in whose middle PostgreSQL stands still."""

    undisturbed: float
    disturbed: float
    still: float

    @property
    def all(self) -> float:
        return self.undisturbed + self.disturbed


@dataclass(frozen=True)
class Seen:
    """p99 in milliseconds of what fell due before, in the disturbed time, and in the standstill."""

    before: float
    disturbed: float
    still: float

    @classmethod
    def of(cls, answers: Answers, times: Times, still: tuple[float, float]) -> "Seen":
        due = [
            (ended - took, took) for ended, took in zip(answers.ended, answers.seconds, strict=True)
        ]
        begins = still[0] - (times.disturbed - times.still) / 2

        def p99(since: float, until: float) -> float:
            return 1e3 * nearest_rank([took for at, took in due if since <= at < until], 99)

        return cls(
            p99(answers.began, begins),
            p99(begins, answers.until),
            p99(*still),
        )


async def standstill(bench: Bench) -> Result:
    """A4: p99 of accepting in 15 s of which PostgreSQL stands still for 5 ÷ undisturbed."""
    times = Times(10.0 if bench.full else 5.0, 15.0, 5.0)
    if bench.quick:
        times = Times(1.0, 1.5, 0.5)
    ours: list[Seen] = []
    theirs: list[Seen] = []
    errors = 0
    cpu_s: dict[str, float] = {}
    async with ground(bench) as side_by_side:
        installation, other = side_by_side.ours, side_by_side.theirs
        api, insert = side_by_side.api, await side_by_side.server(INSERT)
        senders = side_by_side.senders
        plan = Plan(
            port=api.port,
            senders=senders,
            connections=32,
            seconds=times.all,
            warm_s=1.0,
            chars=CHARS,
            last_answer_s=60,
        )
        most = await load(replace(plan, seconds=0.5 if bench.quick else 3.0))
        rate = SHARE * must_be_clean(most, "what is accepted at most").rate
        await drained(installation)
        plan = replace(plan, rate=rate)
        beside = Plan(
            port=insert.port,
            senders=senders,
            connections=256,
            seconds=times.all,
            warm_s=1.0,
            rate=BESIDE_RATE,
            chars=CHARS,
            expected=201,
            last_answer_s=60,
        )
        for repeat in range(bench.repeats):
            meter = bench.meter(api=api.pid, writer=side_by_side.writer.pid)
            one, two, still = await _run(bench, times, plan, beside)
            add_up(cpu_s, meter.read() | {"client": one.cpu_s})
            errors += sum(n for status, n in one.statuses.items() if status != "202")
            errors += one.lost + one.unanswered + one.given_up
            await drained(installation)
            await must_be_saved(installation.owner_url, bodies(one.accepted))
            await must_be_saved(other.owner_url, bodies(must_be_clean(two, INSERT).accepted))
            ours.append(Seen.of(one, times, still))
            theirs.append(Seen.of(two, times, still))
            bench.say(
                f"  {repeat + 1}: p99 {ours[-1].before:.1f} → {ours[-1].disturbed:.1f} ms, "
                f"{INSERT} {theirs[-1].before:.1f} → {theirs[-1].disturbed:.0f} ms"
            )
    ratio = Ratio.of([seen.disturbed / seen.before for seen in ours])
    return Result(
        name="A4",
        title=f"accept while PostgreSQL stands still for {times.still:g} of {times.disturbed:g} s: "
        "p99 ÷ undisturbed",
        goal="≤ 1.2; no errors",
        met=ratio.median <= 1.2 and errors == 0,
        ratio=ratio,
        samples={
            f"{OURS}, undisturbed": [seen.before for seen in ours],
            f"{OURS}, disturbed": [seen.disturbed for seen in ours],
            f"{INSERT}, undisturbed": [seen.before for seen in theirs],
            f"{INSERT}, disturbed": [seen.disturbed for seen in theirs],
        },
        unit="ms, p99",
        cpu_s=cpu_s,
        settings={
            "load": f"{rate:.0f} posts/s of {CHARS} characters (open loop), {SHARE:.0%} of what "
            "was accepted at most; beside it "
            f"{BESIDE_RATE:g}/s to the endpoint with the synchronous INSERT",
            "standstill": "all processes of PostgreSQL are stopped (SIGSTOP)",
            "servers": f"uvicorn, one process each, uvloop, {PARSER}; a writer at work",
        },
        verified="everything accepted was drained by the writer: counts, ids and texts",
        notes=[
            f"errors of {OURS}: {errors}",
            f"while it stands still: p99 {median([s.still for s in ours]):.1f} ms; "
            f"{INSERT} {median([s.still for s in theirs]):.0f} ms",
        ],
    )


async def _run(
    bench: Bench, times: Times, plan: Plan, beside: Plan
) -> tuple[Answers, Answers, tuple[float, float]]:
    """Both loads at once; PostgreSQL stands still in the middle of the disturbed time."""
    both = asyncio.gather(load(plan), load(beside))
    try:
        await asyncio.sleep(
            plan.warm_s + 0.5 + times.undisturbed + (times.disturbed - times.still) / 2
        )
        since = time.monotonic()
        bench.services.pause("postgres")
        try:
            await asyncio.sleep(times.still)
        finally:
            bench.services.resume("postgres")
        until = time.monotonic()
        one, two = await both
    finally:
        both.cancel()
    return one, two, (since, until)
