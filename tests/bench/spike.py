"""A5: spikes of ten times what a slow PostgreSQL takes: everybody is answered, and nothing is lost.

A minute each when all is measured in full; of a shorter one the backlog grows as fast.
"""

import asyncio
import signal
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from tests.bench.http_client import Answers, Plan
from tests.bench.http_load import (
    CHARS,
    PARSER,
    Site,
    bodies,
    drained,
    load,
    must_be_clean,
    must_be_saved,
    nearest_rank,
    served,
    writing,
)
from tests.bench.result import Ratio, Result, WrongRun
from tests.bench.rig import Bench
from tests.installation import Installation, eventually_async
from tests.proxy import PostgresProxy

TIMES = 10
CONNECTIONS = 200
BATCH = 50
"""Commands in one transaction at most: what a slow PostgreSQL takes is then little enough for one API
process on a small machine to be offered ten times as much."""
SHARE = 0.5
"""Of what the API can accept at all: the spike is not to be more. PostgreSQL is made slower until its
tenth part is what the writer drains."""
DEADLINE_S = 3.0
REFUSALS = (429, 503)


@dataclass(frozen=True)
class _Slow:
    """A PostgreSQL far away, and what the writer drains into it."""

    latency_s: float
    drained_a_second: float
    accepted: list[tuple[int, str]]
    """What was accepted to find this out. It has to be there in the end, too."""


@dataclass(frozen=True)
class _Spike:
    """One of them: its answers, by how many the backlog grew, and how long that took to drain."""

    answers: Answers
    behind: int
    drained_s: float

    @property
    def fifths(self) -> list[list[float]]:
        """How long answers took, by the part of the time in which they fell due."""
        return _fifths(self.answers)

    @property
    def p99_s(self) -> float:
        """Of its worst fifth."""
        return max(nearest_rank(fifth, 99) for fifth in self.fifths)

    @property
    def accepted(self) -> int:
        return self.answers.statuses.get("202", 0)

    @property
    def refused(self) -> int:
        return sum(n for status, n in self.answers.statuses.items() if status != "202")

    @property
    def wrong(self) -> int:
        a = self.answers
        return len(a.errors) + a.lost + a.unanswered + a.given_up


async def ten_times(bench: Bench) -> Result:
    """A5: ten times the sustained rate, with PostgreSQL slow; p99 stays under its bound."""
    seconds = 1.5 if bench.quick else 60.0 if bench.full else 8.0
    async with AsyncExitStack() as stack:
        installation = await stack.enter_async_context(bench.installation())
        site = Site.of()
        await site.fill(installation.owner_url)
        proxy = await stack.enter_async_context(PostgresProxy(installation.admin_url))
        installation.through("127.0.0.1", proxy.port)
        writer = installation.start("writer", log_level="warning", batch_size=str(BATCH))
        api = served("api", await installation.start("api", log_level="warning").ready())
        installation.direct()
        await writing(installation)
        plan = Plan(
            api.port,
            site.senders(installation),
            connections=CONNECTIONS,
            seconds=seconds,
            chars=CHARS,
            also=REFUSALS,
            last_answer_s=60,
        )
        meter = bench.meter(api=api.pid, writer=writer.pid)
        slow = await _made_slow(bench, installation, proxy, plan)
        plan = replace(plan, rate=TIMES * slow.drained_a_second)
        bench.say(
            f"  {1e3 * slow.latency_s:.0f} ms away the writer drains {slow.drained_a_second:.0f}/s: "
            f"{plan.rate:.0f}/s for {seconds:g} s"
        )
        accepted = slow.accepted
        spikes: list[_Spike] = []
        for repeat in range(bench.repeats):
            proxy.latency(slow.latency_s)
            before = len(accepted) - await _position(installation)
            answers = await load(plan)
            accepted = accepted + answers.accepted
            behind = len(accepted) - await _position(installation) - before
            proxy.latency(0)
            await drained(installation)
            spikes.append(_Spike(answers, behind, time.monotonic() - answers.until))
            bench.say(
                f"  {repeat + 1}: p99 {1e3 * spikes[-1].p99_s:.0f} ms, {spikes[-1].accepted} accepted"
            )
        await must_be_saved(installation.owner_url, bodies(accepted))
        cpu_s = meter.read() | {"client": sum(spike.answers.cpu_s for spike in spikes)}
    return _result(spikes, slow, seconds, cpu_s)


async def _made_slow(
    bench: Bench, installation: Installation, proxy: PostgresProxy, plan: Plan
) -> _Slow:
    """Move PostgreSQL away until ten times what the writer drains is what the API can be offered."""
    most = replace(plan, connections=32, seconds=0.5 if bench.quick else 3.0, warm_s=0.5, also=())
    writer = installation.processes["writer"]
    writer.signal(signal.SIGSTOP)  # it is to find a backlog
    answers = must_be_clean(await load(most), "what the API accepts at most")
    offered = SHARE * answers.rate
    latency_s = 0.025
    proxy.latency(latency_s)
    writer.signal(signal.SIGCONT)
    for _ in range(4):
        rate = await _drain_rate(installation, 0.5 if bench.quick else 4.0)
        too_fast = TIMES * rate / offered
        if too_fast <= 1:
            return _Slow(latency_s, rate, answers.accepted)
        latency_s *= 1.2 * too_fast
        proxy.latency(latency_s)
    raise WrongRun(f"the writer drains {rate:.0f}/s whatever PostgreSQL takes")


async def _drain_rate(installation: Installation, seconds: float) -> float:
    """Commands a second, between two moments at which a transaction has just been committed."""

    async def moved(beyond: int) -> tuple[float, int]:
        at = beyond

        async def further() -> bool:
            nonlocal at
            at = await _position(installation)
            return at > beyond

        await eventually_async(further, 30, "the writer to move on")
        return time.monotonic(), at

    begun, first = await moved(await _position(installation))
    await asyncio.sleep(seconds)
    ended, last = await moved(await _position(installation))
    return (last - first) / (ended - begun)


async def _position(installation: Installation) -> int:
    return int(await installation.value("SELECT sum(position) FROM afterwrite.lane"))


def _result(spikes: list[_Spike], slow: _Slow, seconds: float, cpu_s: dict[str, float]) -> Result:
    p50 = [1e3 * nearest_rank(spike.answers.seconds, 50) for spike in spikes]
    p99 = [1e3 * spike.p99_s for spike in spikes]
    accepted, refused, wrong = (
        sum(figures)
        for figures in zip(*((s.accepted, s.refused, s.wrong) for s in spikes), strict=True)
    )
    return Result(
        name="A5",
        title=f"a spike of {TIMES} × the sustained rate for {seconds:g} s, PostgreSQL slow: p99 of "
        "accept ÷ its deadline",
        goal="< 1 throughout, everything drained, nothing lost",
        # A spike of which most was drained while it lasted would have been none.
        met=max(p99) < 1e3 * DEADLINE_S
        and not wrong
        and all(spike.behind >= spike.accepted / 2 for spike in spikes),
        ratio=Ratio.of([spike.p99_s / DEADLINE_S for spike in spikes]),
        samples={"afterwrite, p50": p50, "afterwrite, p99 of the worst fifth of the time": p99},
        unit="ms",
        cpu_s=cpu_s,
        settings={
            "sustained": f"{slow.drained_a_second:.0f} commands/s: what the writer drains in batches "
            f"of {BATCH}, PostgreSQL {1e3 * slow.latency_s:.0f} ms away in each direction",
            "load": f"{TIMES * slow.drained_a_second:.0f} posts/s of {CHARS} characters (open loop), "
            f"{CONNECTIONS} connections",
            "deadline": f"{DEADLINE_S:g} s (AFTERWRITE_ACCEPT_DEADLINE_S), 429 and 503 as by default",
            "servers": f"uvicorn, uvloop, {PARSER}; API and writer reach PostgreSQL the same slow way",
        },
        verified="everything accepted was drained by the writer: counts, ids and texts",
        notes=[
            f"{accepted} accepted, {refused} refused (429 or 503), {wrong} without a proper answer",
            f"longest answer {1e3 * max(max(spike.answers.seconds) for spike in spikes):.0f} ms",
            "more pending at the end of a spike than at its beginning: "
            + ", ".join(str(spike.behind) for spike in spikes)
            + "; with PostgreSQL near again all were saved after "
            + ", ".join(f"{spike.drained_s:.1f} s" for spike in spikes),
        ],
    )


def _fifths(answers: Answers) -> list[list[float]]:
    fifths: list[list[float]] = [[] for _ in range(5)]
    length = (answers.until - answers.began) / 5
    for ended, seconds in zip(answers.ended, answers.seconds, strict=True):
        at = int((ended - seconds - answers.began) / length)
        fifths[max(0, min(at, 4))].append(seconds)
    if not all(fifths):
        raise WrongRun("for a fifth of the time nothing was accepted")
    return fifths
