"""D1 to D5: drains beside their references, in turns within each repeat.

One session serves all of them that were asked for: each competitor runs once a repeat, and a ratio is
taken of two runs of the same repeat.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import zip_longest

from tests.bench import rivals, workload
from tests.bench.draining import Drained, drain
from tests.bench.prepared import Ground, Plan, ground
from tests.bench.result import Ratio, Result, WrongRun, ratios
from tests.bench.rig import Bench, add_up

OURS, MIXED, BAD = "afterwrite", "afterwrite, mixed", "afterwrite, 1 % bad"
COPY, PROMISES = "COPY", "COPY with the promises"
SINKS = {f"sink, batch {batch:,}": batch for batch in (3_000, 10_000)}
PLAIN, FASTSTREAM, CELERY = "plain consumer", "FastStream", "Celery"
COUNTS = {
    "creates": 200_000,
    "mixed": 40_000,
    "promises": 40_000,
    "faststream": 30_000,
    "plain": 3_000,
    "celery": 1_500,
}
FULL = {
    "creates": 200_000,
    "mixed": 100_000,
    "promises": 200_000,
    "faststream": 50_000,
    "plain": 4_000,
    "celery": 4_000,
}
QUICK = {
    "creates": 4_000,
    "mixed": 2_000,
    "promises": 2_000,
    "faststream": 2_000,
    "plain": 300,
    "celery": 300,
}
"""Fewer where a reference takes long: a rate needs some seconds, not as many rows as ours. The sinks
and COPY have as many."""

NEEDS: dict[str, tuple[str, ...]] = {
    "D1": (OURS, *SINKS),
    "D2": (OURS, COPY, PROMISES),
    "D3": (OURS, PLAIN, FASTSTREAM, CELERY),
    "D4": (OURS, MIXED),
    "D5": (MIXED, BAD),
    "D6": (OURS,),
}
"""Who takes part in what."""

Run = Callable[[Ground], Awaitable[Drained]]


@dataclass
class Session:
    """All runs so far, by competitor; the n-th of each were in the same repeat."""

    runs: dict[str, list[Drained]] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)
    """Who left something behind that it should not have, or could not run, and what."""

    def rates(self, who: str, start: float = 0.0) -> list[float]:
        """Rows per second, from this share of the count on."""
        return [run.timing.rate(start) for run in self.runs[who]]

    def best(self, who: tuple[str, ...], start: float = 0.0) -> list[float]:
        """The rate of the fastest of these, repeat by repeat, of those that ran in it."""
        repeats = zip_longest(*(self.rates(w, start) for w in who), fillvalue=0.0)
        return [max(rates) for rates in repeats]

    def cpu_s(self, *who: str) -> dict[str, float]:
        """CPU seconds by competitor and process."""
        totals: dict[str, float] = {}
        for name in who:
            for run in self.runs[name]:
                add_up(totals, {f"{name}: {p}": s for p, s in run.cpu_s.items()})
        return totals


def sinks(bench: Bench) -> tuple[str, ...]:
    """Both sizes of batches; a quick run starts one JVM only."""
    return tuple(SINKS)[: 1 if bench.quick else None]


def competitors(bench: Bench) -> dict[str, Run]:
    """How each one runs; the counts are small when the bench is quick."""
    counts = QUICK if bench.quick else FULL if bench.full else COUNTS
    creates, mixed, bad = (
        Plan("creates", counts["creates"]),
        Plan("mixed", counts["mixed"]),
        Plan("bad", counts["mixed"]),
    )
    prepared, batched, single, tasks = (
        Plan("creates", counts[name]) for name in ("promises", "faststream", "plain", "celery")
    )
    return {
        OURS: lambda g: drain(g, creates),
        **{name: partial(rivals.sink, plan=creates, batch=SINKS[name]) for name in sinks(bench)},
        COPY: lambda g: rivals.copy(g, creates),
        PROMISES: lambda g: rivals.promises(g, prepared),
        FASTSTREAM: lambda g: rivals.consumer(g, batched, "faststream_consumer"),
        PLAIN: lambda g: rivals.consumer(g, single, "plain_consumer"),
        CELERY: lambda g: rivals.celery(g, tasks),
        MIXED: lambda g: drain(g, mixed),
        BAD: lambda g: drain(g, bad),
    }


async def session(bench: Bench, name: str) -> Session:
    """The runs that a measurement needs, and those of the others that were asked for with it."""
    found = bench.memory.get("drains")
    done = found if isinstance(found, Session) else Session()
    bench.memory["drains"] = done
    asked = {name, *bench.names} & NEEDS.keys()
    needed = {who for n in asked for who in NEEDS[n]}
    wanted = {who: run for who, run in competitors(bench).items() if who in needed}
    if not wanted.keys() <= done.runs.keys() | done.wrong.keys():
        await _run(bench, done, wanted)
    for who in NEEDS[name]:
        if who in done.wrong:
            raise WrongRun(f"{who}: {done.wrong[who]}")
    return done


async def _run(bench: Bench, done: Session, wanted: dict[str, Run]) -> None:
    """All in turns, each once a repeat; one that went wrong is left out from then on.

    Of the sinks the first repeat tells which batches suit this machine, and the better one goes on.
    """
    prepared = await ground(bench)
    for who in wanted:
        done.runs.pop(who, None)
        done.wrong.pop(who, None)
    for repeat in range(1, bench.repeats + 1):
        for who, run in wanted.items():
            if who in done.wrong:
                continue
            try:
                drained = await run(prepared)
            except Exception as error:  # noqa: BLE001 - the others run all the same
                done.wrong[who] = str(error) or repr(error)
                bench.say(f"{repeat}/{bench.repeats} {who}: WRONG: {error!r}")
                continue
            done.runs.setdefault(who, []).append(drained)
            rate, late = drained.timing.rate(), drained.timing.rate(0.5)
            bench.say(f"{repeat}/{bench.repeats} {who}: {rate:,.0f}/s, second half {late:,.0f}/s")
        if repeat == 1 and not bench.full:
            wanted = {who: run for who, run in wanted.items() if who not in worse(done)}


def worse(done: Session) -> set[str]:
    """The sinks that are not the fastest one, when the JVM is warm; all of them ran once."""
    late = {who: done.rates(who, 0.5)[0] for who in SINKS if done.runs.get(who)}
    return set(late) - {max(late, key=late.__getitem__, default="")}


CHECKED = "number and contents (sum of MD5) of all rows"
OURS_CHECKED = (
    f"{CHECKED}; of ours also post_count and the ledger's outcomes, and that all is settled"
)


async def against_sink(bench: Bench) -> Result:
    """D1: against the better one of the two sinks in each repeat, over all and in the second half.

    The goal counts for both: a JVM is slower at first, and that shall not be what decides.
    """
    done, theirs = await session(bench, "D1"), sinks(bench)
    whole, late = (ratios(done.rates(OURS, at), done.best(theirs, at)) for at in (0.0, 0.5))
    samples = {who: done.rates(who) for who in (OURS, *theirs)}
    samples |= {f"{who}, second half": done.rates(who, 0.5) for who in (OURS, *theirs)}
    notes = [
        f"in the second half {shown(late)}",
        "ours after the last row until all was settled: "
        + ", ".join(f"{run.settled_s:.1f} s" for run in done.runs[OURS]),
    ]
    return Result(
        "D1",
        "drain of creates ÷ tuned Debezium JDBC sink",
        "≥ 1.5",
        min(whole.median, late.median) >= 1.5,
        whole,
        samples,
        "rows/s",
        done.cpu_s(OURS, *theirs),
        {
            "rows": f"{done.runs[OURS][0].timing.count:,} posts of {workload.BODY_CHARS} characters"
            f" in {workload.TOPICS:,} topics by {workload.AUTHORS} authors, one lane, one writer",
            "writer": "default settings",
            "batches": "the better of 3,000 and 10,000 rows in each repeat"
            if bench.full
            else "3,000 and 10,000 rows in the first repeat, then the size that was faster there",
            "sink": "Kafka Connect 4.3.1, Debezium JDBC sink 3.6.0.Final; upsert, "
            "use.reduction.buffer, dialect.postgres.unnest.insert.enabled; batch.size = "
            "max.poll.records; max.partition.fetch.bytes 8 MiB (3,000), 16 MiB (10,000); "
            "JSON with schema.content; its default heap and G1",
        },
        OURS_CHECKED,
        notes,
    )


async def against_copy(bench: Bench) -> Result:
    """D2: how near the writer comes to what PostgreSQL can take, without the promises and with them."""
    done = await session(bench, "D2")
    found = _result(
        done,
        "D2",
        "drain of creates ÷ COPY of the same rows",
        0.4,
        OURS,
        COPY,
        settings={
            COPY: "chunks of 5,000 rows with a commit each; the table with its indexes",
            PROMISES: f"{_rows(done, PROMISES)} rows in transactions of 5,000 with position, command ids, "
            "topics and authors read, counters, ledger; all made beforehand in memory",
        },
        notes=[
            f"÷ {PROMISES}: {shown(ratios(done.rates(OURS), done.rates(PROMISES)))}",
            f"{PROMISES} ÷ {COPY}: {shown(ratios(done.rates(PROMISES), done.rates(COPY)))}",
        ],
    )
    samples = found.samples | {PROMISES: done.rates(PROMISES)}
    return replace(found, samples=samples, cpu_s=done.cpu_s(OURS, COPY, PROMISES))


async def against_plain(bench: Bench) -> Result:
    """D3: with FastStream and Celery beside it."""
    done = await session(bench, "D3")
    beside = (FASTSTREAM, CELERY)
    found = _result(
        done,
        "D3",
        "drain of creates ÷ a transaction a command",
        12,
        OURS,
        PLAIN,
        settings={
            "plain consumer": "aiokafka, uvloop; INSERT … ON CONFLICT DO NOTHING in a transaction",
            "FastStream": "batch subscriber, max_records 3,000, executemany in a transaction",
            "Celery": "on Redis; acks_late, prefetch 100, two processes, an INSERT a task",
        },
        notes=[
            *(f"÷ {who}: {shown(ratios(done.rates(OURS), done.rates(who)))}" for who in beside),
            "rows: " + ", ".join(f"{who} {_rows(done, who)}" for who in (OURS, PLAIN, *beside)),
        ],
    )
    samples = found.samples | {who: done.rates(who) for who in beside}
    return replace(found, samples=samples, cpu_s=done.cpu_s(OURS, PLAIN, *beside))


async def against_creates(bench: Bench) -> Result:
    """D4: a forum's mixture ÷ creates, in commands."""
    done = await session(bench, "D4")
    mix = "55 % posts, 10 % topics with a first post, 15 % edits, 5 % deletions, 15 % reactions"
    return _result(
        done,
        "D4",
        "mixed drain ÷ drain of creates",
        0.6,
        MIXED,
        OURS,
        unit="commands/s",
        settings={"mixture": f"{mix}; Zipf (exponent 1) over {workload.TOPICS:,} topics"},
    )


async def with_bad_ones(bench: Bench) -> Result:
    """D5: what one bad command in a hundred costs the others."""
    done = await session(bench, "D5")
    return _result(
        done,
        "D5",
        "mixed drain with 1 % bad commands ÷ without",
        0.8,
        BAD,
        MIXED,
        unit="commands/s",
        settings={"bad": "in turn: " + ", ".join(workload.BAD)},
    )


def _rows(done: Session, who: str) -> str:
    return f"{done.runs[who][0].timing.count:,}"


def _result(
    done: Session,
    name: str,
    title: str,
    goal: float,
    first: str,
    second: str,
    unit: str = "rows/s",
    settings: dict[str, str] | None = None,
    notes: list[str] | None = None,
) -> Result:
    """The first's rate ÷ the second's must be at least the goal, in the median."""
    ratio = ratios(done.rates(first), done.rates(second))
    return Result(
        name,
        title,
        f"≥ {goal:g}",
        ratio.median >= goal,
        ratio,
        {who: done.rates(who) for who in (first, second)},
        unit,
        done.cpu_s(first, second),
        {"commands": f"{first} {_rows(done, first)}, {second} {_rows(done, second)}"}
        | (settings or {}),
        OURS_CHECKED,
        notes or [],
    )


def shown(ratio: Ratio) -> str:
    return f"{ratio.min:.2f} / {ratio.median:.2f} / {ratio.max:.2f}"
