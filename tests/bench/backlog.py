"""D6: a long backlog: does the writer get slower, or bigger, while it drains it?

The drains of 200,000 creates tell it; `--full` drains 1,000,000 once instead. Memory is the writer's resident
set as /proc has it, asked with every look.
"""

import statistics
from dataclasses import replace

from tests.bench.draining import Drained, drain
from tests.bench.drains import OURS, OURS_CHECKED, session
from tests.bench.prepared import Plan, ground
from tests.bench.result import Ratio, Result
from tests.bench.rig import Bench

MIB = 1024 * 1024
LIMIT_MIB = 200
FLAT = 1.05
"""The last tenth may hold so much more memory than the fifth one: what grows from there is a leak.
Before, memory grows until as many batches are in work as ever will be."""
LONG = 1_000_000


async def growing(bench: Bench) -> Result:
    """The rate of the last tenth of a backlog ÷ that of its first."""
    if bench.full:
        long = await drain(await ground(bench), Plan("creates", LONG))
        cpu_s = {f"{OURS}: {name}": seconds for name, seconds in long.cpu_s.items()}
        return replace(judged([long]), cpu_s=cpu_s)
    done = await session(bench, "D6")
    return replace(judged(done.runs[OURS]), cpu_s=done.cpu_s(OURS))


def judged(runs: list[Drained]) -> Result:
    """Met when the median is and no run's memory grows or goes beyond its limit."""
    ratio = Ratio.of([tenth(run, 9) / tenth(run, 0) for run in runs])
    peaks = [max(held for _, held in run.memory) / MIB for run in runs]
    growth = [memory_at(run, 9) / memory_at(run, 4) for run in runs]
    counts = sorted({run.timing.count for run in runs})
    samples = {f"tenth {n + 1}": [tenth(run, n) for run in runs] for n in (0, 4, 9)}
    return Result(
        "D6",
        "backlog: rate of the last tenth ÷ the first; the writer's memory",
        f"≥ 0.95; flat, < {LIMIT_MIB} MB",
        ratio.median >= 0.95 and max(peaks) < LIMIT_MIB and max(growth) <= FLAT,
        ratio,
        samples,
        "rows/s",
        settings={"backlog": " and ".join(f"{count:,}" for count in counts) + " creates"},
        verified=OURS_CHECKED,
        notes=[
            "writer's memory at its most: " + ", ".join(f"{peak:.0f} MiB" for peak in peaks),
            "last tenth ÷ fifth tenth: " + ", ".join(f"{g:.3f}" for g in growth),
        ],
    )


def tenth(run: Drained, n: int) -> float:
    """Rows per second in a tenth of the run, counted from 0."""
    return run.timing.rate(n / 10, (n + 1) / 10)


def memory_at(run: Drained, n: int) -> float:
    """Bytes held in a tenth of the run, in the middle."""
    first, last = run.timing.count * n / 10, run.timing.count * (n + 1) / 10
    held = [held for there, held in run.memory if first <= there <= last]
    return statistics.median(held or [run.memory[-1][1]])
