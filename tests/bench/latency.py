"""E1: from the 202 to the moment the author is told that his post is saved."""

import json
import time
from dataclasses import dataclass, replace
from typing import Any

from tests.bench.http_client import Plan
from tests.bench.http_ground import INSERT, ground
from tests.bench.http_load import (
    CHARS,
    PARSER,
    bodies,
    drained,
    fresh_numbers,
    load,
    must_be_clean,
    must_be_saved,
    nearest_rank,
    run_apart,
)
from tests.bench.result import Ratio, Result
from tests.bench.rig import Bench, add_up, median
from tests.installation import Installation

LISTENERS = 16
ALONE = "afterwrite, 202 → saved, one at a time"
LOADED = "afterwrite, 202 → saved, at half the sustained rate"
WAITING, WAITING_LOADED = f"{INSERT}, one at a time", f"{INSERT}, at the same rate"


@dataclass(frozen=True)
class _Tail:
    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, seconds: list[float]) -> "_Tail":
        return cls(1e3 * nearest_rank(seconds, 50), 1e3 * nearest_rank(seconds, 99))


async def until_saved(bench: Bench) -> Result:
    """E1: p50 from the 202 to saved ÷ p50 of the synchronous INSERT, alone and at a rate."""
    found: dict[str, list[_Tail]] = {ALONE: [], LOADED: [], WAITING: [], WAITING_LOADED: []}
    cpu_s: dict[str, float] = {}
    seconds, warm_s = (0.4, 0.2) if bench.quick else (1.5, 0.5)
    async with ground(bench) as side_by_side:
        ours, theirs, site = side_by_side.ours, side_by_side.theirs, side_by_side.site
        api, insert = side_by_side.api, await side_by_side.server(INSERT)
        senders = side_by_side.senders
        listening: dict[str, Any] = {
            "port": api.port,
            "tokens": [sender.token for sender in senders[:LISTENERS]],
            "topics": [str(topic) for topic in site.topics[:LISTENERS]],
            "seconds": seconds,
            "warm_s": warm_s,
        }
        waiting = Plan(
            insert.port, senders, connections=1, seconds=seconds, warm_s=warm_s, expected=201
        )
        plan = replace(waiting, port=api.port, expected=202, connections=32)
        # A broker that has just been started takes three times as long for a record as a minute later.
        await _sustained(bench, plan, ours)
        await _listen(listening | {"rate": None, "warm_s": 0.0})
        must_be_clean(await load(waiting), INSERT)
        await drained(ours)
        rate = await _sustained(bench, plan, ours) / 2
        for repeat in range(bench.repeats):
            meter = bench.meter(api=api.pid, writer=side_by_side.writer.pid)
            for name, at in ((ALONE, None), (LOADED, rate)):
                told = await _listen(listening | {"rate": at})
                add_up(cpu_s, {"client": told["cpu_s"]})
                await drained(ours)
                await must_be_saved(ours.owner_url, bodies(told["accepted"]))
                found[name].append(_Tail.of(told["seconds"]))
            add_up(cpu_s, meter.read())
            for name, plan in (
                (WAITING, waiting),
                (WAITING_LOADED, replace(waiting, rate=rate, connections=LISTENERS)),
            ):
                answers = must_be_clean(await load(plan), name)
                await must_be_saved(theirs.owner_url, bodies(answers.accepted))
                found[name].append(_Tail.of(answers.seconds))
            shown = ", ".join(f"{name} {tails[-1].p50_ms:.2f} ms" for name, tails in found.items())
            bench.say(f"  {repeat + 1}: p50: {shown}")
    alone, loaded = _ratio(found, ALONE, WAITING), _ratio(found, LOADED, WAITING_LOADED)
    worse = alone if alone.median >= loaded.median else loaded
    return Result(
        name="E1",
        title="202 → saved: p50 ÷ p50 of the synchronous INSERT (the worse of one at a time and at "
        "half the sustained rate)",
        goal="≤ 3",
        met=worse.median <= 3,
        ratio=worse,
        samples={name: [tail.p50_ms for tail in tails] for name, tails in found.items()},
        unit="ms, p50",
        cpu_s=cpu_s,
        settings={
            "rate": f"{rate:,.0f} posts/s of {CHARS} characters: half of what API and writer "
            "sustained together in this run",
            "saved": "the event of the author's stream (SSE) has arrived, behind commit and settling",
            "warm": "both sides have served before the first repeat",
            "servers": f"uvicorn, one process each, uvloop, {PARSER}",
        },
        verified="everything accepted was told as saved, and is there: counts, ids and texts",
        notes=[
            f"÷ the INSERT: {alone.median:.2f} one at a time, {loaded.median:.2f} at the rate",
            *(
                f"{name}: p50 {median([t.p50_ms for t in tails]):.2f} ms, "
                f"p99 {median([t.p99_ms for t in tails]):.2f} ms"
                for name, tails in found.items()
            ),
        ],
    )


def _ratio(found: dict[str, list[_Tail]], ours: str, theirs: str) -> Ratio:
    pairs = zip(found[ours], found[theirs], strict=True)
    return Ratio.of([one.p50_ms / other.p50_ms for one, other in pairs])


async def _sustained(bench: Bench, plan: Plan, ours: Installation) -> float:
    """Posts a second that are accepted and saved, from the first one sent to the last one saved."""
    answers = await load(replace(plan, warm_s=0, seconds=0.5 if bench.quick else 4.0))
    must_be_clean(answers, "the sustained rate")
    await drained(ours)
    return len(answers.accepted) / (time.monotonic() - answers.began)


async def _listen(plan: dict[str, Any]) -> dict[str, Any]:
    given = json.dumps(plan | {"first": fresh_numbers()})
    told: dict[str, Any] = json.loads(await run_apart("tests.bench.saved_client", given))
    return told
