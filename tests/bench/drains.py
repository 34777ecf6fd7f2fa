"""D1 to D5: drains beside their references, in turns within each repeat.

One session serves all of them that were asked for: each competitor runs once a repeat, and a ratio is
taken of two runs of the same repeat.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests.bench import rivals
from tests.bench.draining import Drained, drain
from tests.bench.prepared import Ground, Plan, ground
from tests.bench.result import Ratio, Result, ratios
from tests.bench.rig import Bench, add_up

OURS, MIXED, BAD, COPY = "afterwrite", "afterwrite, mixed", "afterwrite, 1 % bad", "COPY"
CREATES = 200_000
MIXED_COMMANDS = 100_000

NEEDS = {
    "D1": (OURS,),
    "D2": (OURS, COPY),
    "D4": (OURS, MIXED),
    "D5": (MIXED, BAD),
}
"""Who takes part in what."""

Run = Callable[[Ground], Awaitable[Drained]]


@dataclass
class Session:
    """All runs so far, by competitor; the n-th of each were in the same repeat."""

    runs: dict[str, list[Drained]] = field(default_factory=dict)

    def rates(self, who: str, start: float = 0.0) -> list[float]:
        """Rows per second, from this share of the count on."""
        return [run.timing.rate(start) for run in self.runs[who]]

    def cpu_s(self, *who: str) -> dict[str, float]:
        """CPU seconds by competitor and process."""
        totals: dict[str, float] = {}
        for name in who:
            for run in self.runs[name]:
                add_up(totals, {f"{name}: {p}": s for p, s in run.cpu_s.items()})
        return totals


def competitors(bench: Bench) -> dict[str, Run]:
    """How each one runs; the counts are small when the bench is quick."""
    creates = Plan("creates", 3_000 if bench.quick else CREATES)
    mixed = 2_000 if bench.quick else MIXED_COMMANDS
    return {
        OURS: lambda g: drain(g, creates),
        COPY: lambda g: rivals.copy(g, creates),
        MIXED: lambda g: drain(g, Plan("mixed", mixed)),
        BAD: lambda g: drain(g, Plan("bad", mixed)),
    }


async def session(bench: Bench, name: str) -> Session:
    """The runs that a measurement needs, and those of the others that were asked for with it."""
    found = bench.memory.get("drains")
    done = found if isinstance(found, Session) else Session()
    bench.memory["drains"] = done
    asked = {name, *bench.names} & NEEDS.keys()
    wanted = [who for who in competitors(bench) if any(who in NEEDS[n] for n in asked)]
    if all(who in done.runs for who in NEEDS[name]):
        return done
    prepared = await ground(bench)
    runs: dict[str, list[Drained]] = {who: [] for who in wanted}
    for repeat in range(bench.repeats):
        for who in wanted:
            run = await competitors(bench)[who](prepared)
            runs[who].append(run)
            rate, late = run.timing.rate(), run.timing.rate(0.5)
            bench.say(
                f"{repeat + 1}/{bench.repeats} {who}: {rate:,.0f}/s, second half {late:,.0f}/s"
            )
    done.runs.update(runs)
    return done


CHECKED = "number and contents (sum of MD5) of all rows"
OURS_CHECKED = f"{CHECKED}; of ours also post_count and the ledger's outcomes"


async def against_sink(bench: Bench) -> Result:
    """D1."""
    done = await session(bench, "D1")
    ours = done.rates(OURS)
    ratio = Ratio.of(ours)
    return Result(
        "D1",
        "drain of creates",
        "≥ 1.5",
        False,
        ratio,
        {OURS: ours},
        "rows/s",
        done.cpu_s(OURS),
        verified=OURS_CHECKED,
    )


async def against_copy(bench: Bench) -> Result:
    """D2: how near the writer comes to what PostgreSQL can take."""
    done = await session(bench, "D2")
    ours, theirs = done.rates(OURS), done.rates(COPY)
    ratio = ratios(ours, theirs)
    return Result(
        "D2",
        "drain of creates ÷ COPY of the same rows",
        "≥ 0.4",
        ratio.median >= 0.4,
        ratio,
        {OURS: ours, COPY: theirs},
        "rows/s",
        done.cpu_s(OURS, COPY),
        {"COPY": "chunks of 5,000 rows, a commit each"},
        OURS_CHECKED,
    )


async def against_creates(bench: Bench) -> Result:
    """D4: a forum's mixture ÷ creates, in commands."""
    done = await session(bench, "D4")
    mixed, plain = done.rates(MIXED), done.rates(OURS)
    ratio = ratios(mixed, plain)
    return Result(
        "D4",
        "mixed drain ÷ drain of creates",
        "≥ 0.6",
        ratio.median >= 0.6,
        ratio,
        {MIXED: mixed, OURS: plain},
        "commands/s",
        done.cpu_s(MIXED, OURS),
        {"mixture": "55 % posts, 10 % topics, 15 % edits, 5 % deletions, 15 % reactions; Zipf"},
        OURS_CHECKED,
    )


async def with_bad_ones(bench: Bench) -> Result:
    """D5: what one bad command in a hundred costs the others."""
    done = await session(bench, "D5")
    bad, good = done.rates(BAD), done.rates(MIXED)
    ratio = ratios(bad, good)
    return Result(
        "D5",
        "mixed drain with 1 % bad commands ÷ without",
        "≥ 0.8",
        ratio.median >= 0.8,
        ratio,
        {BAD: bad, MIXED: good},
        "commands/s",
        done.cpu_s(BAD, MIXED),
        verified=OURS_CHECKED,
    )
