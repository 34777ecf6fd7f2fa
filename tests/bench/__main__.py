"""`python -m tests.bench NAME… [--json] [--repeats N] [--quick] [--full] [--write] [--strict]`.

Without a name: all. Progress goes to stderr, the results to stdout; with `--json` the last line is the
result of the last measurement. `--write` writes docs/benchmarks.md and its charts, when all is done.

Exit code 0: everything was measured, whether its goal is met or not; 1: something could not be measured, or
left behind what it should not have (with `--strict`: or a goal is not met); 130: interrupted, and then
nothing is written.
"""

import argparse
import asyncio
import json
import signal
import sys
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path

from deploy.errors import Trouble
from tests.bench.charts import short
from tests.bench.registry import BENCHMARKS, load
from tests.bench.report import PAGE, Entry, blank, write
from tests.bench.result import REPORTED, Result, WrongRun
from tests.bench.rig import Bench

LIMIT_MIN = 30.0
"""After so long no measurement is begun, and the one under way is given up: a machine that hangs is not
occupied for ever. Of `--full`, which is long, eight times as much."""


def main() -> int:
    options = _options()
    started = time.monotonic()

    def say(line: str) -> None:
        sys.stderr.write(f"[{time.monotonic() - started:5.0f} s] {line}\n")
        sys.stderr.flush()

    try:
        with Bench(options.repeats, options.quick, say, full=options.full) as bench:
            return asyncio.run(_run(bench, options))
    except (KeyboardInterrupt, asyncio.CancelledError):
        say("interrupted: nothing is written")
        return 130
    except Trouble as trouble:
        say(f"{trouble}: nothing is written")
        return 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.bench", description=__doc__)
    known = ", ".join(f"{name} ({m.title})" for name, m in BENCHMARKS.items())
    listed = known.replace("%", "%%")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of: {listed}; none: all")
    parser.add_argument("--json", action="store_true", help="end with the result as JSON")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each competitor (5)")
    parser.add_argument("--quick", action="store_true", help="once, small: figures mean nothing")
    parser.add_argument("--full", action="store_true", help="with more rows and longer; hours")
    parser.add_argument("--strict", action="store_true", help="exit code 1 if a goal is not met")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    parser.add_argument(
        "--page", type=Path, metavar="FILE.md", help="write another page, beside its charts"
    )
    parser.add_argument(
        "--limit-min", type=float, metavar="N", help=f"give up after N minutes ({LIMIT_MIN:g})"
    )
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown or options.repeats < 1:
        parser.error(f"no such measurement: {', '.join(unknown)}; there are {known}")
    if options.quick and options.write:
        parser.error("the figures of a quick run mean nothing: they are not written")
    if options.write:
        options.page = PAGE
    if options.limit_min is None:
        options.limit_min = 8 * LIMIT_MIN if options.full else LIMIT_MIN
    return options


async def _run(bench: Bench, options: argparse.Namespace) -> int:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    deadline = asyncio.get_running_loop().time() + 60 * options.limit_min
    bench.names = options.names or list(BENCHMARKS)
    if options.page:
        blank(options.page)
    # Asked for before anything can go wrong with the servers.
    versions = await bench.versions() if options.page else {}
    entries: list[Entry] = []
    for number, name in enumerate(bench.names, 1):
        bench.say(f"{number} of {len(bench.names)}: {name}, {BENCHMARKS[name].title}")
        entry = await measured(bench, name, deadline)
        entries.append(entry)
        told = summary(entry.result) if entry.result else f"{name}: NOT MEASURED: {entry.wrong}"
        sys.stdout.write(told + "\n")
        if options.json and entry.result:
            sys.stdout.write(json.dumps(entry.result.to_json(), ensure_ascii=False) + "\n")
        sys.stdout.flush()
    if options.page:
        write(entries, versions, list(BENCHMARKS), options.page)
        bench.say(f"written: {options.page}")
    for line in _told(entries):
        bench.say(line)
    return exit_code(entries, options.strict)


async def measured(bench: Bench, name: str, deadline: float) -> Entry:
    """A measurement's result, or why there is none: the others are measured all the same.

    `deadline` is the event loop's time.
    """
    title, day = BENCHMARKS[name].title, f"{datetime.now(UTC):%Y-%m-%d}"
    if asyncio.get_running_loop().time() >= deadline:
        return Entry(name, title, day, None, "not begun: the time was up")
    limit = asyncio.timeout_at(deadline)
    result, wrong = None, ""
    try:
        async with limit:
            result = await load(name)(bench)
    except (WrongRun, Trouble) as error:
        wrong = str(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this measurement's
        wrong = "given up: the time was up" if limit.expired() else repr(error)
        if not limit.expired():
            bench.say(traceback.format_exc())
    return Entry(name, title, day, result, wrong)


def exit_code(entries: list[Entry], strict: bool) -> int:
    """1 when something was not measured; when strict, also when a goal is not met."""
    return int(any(e.result is None or (strict and not e.result.met) for e in entries))


def _told(entries: list[Entry]) -> list[str]:
    """What came out of each, in a line."""
    lines = []
    for entry in entries:
        r = entry.result
        if r is None:
            told = f"NOT MEASURED: {entry.wrong.splitlines()[0] if entry.wrong else ''}"
        else:
            told = f"{short(r.ratio.median) if r.ratio else '':>6}  goal {r.goal}"
            told += "" if r.goal == REPORTED else ": met" if r.met else ": NOT MET"
        lines.append(f"{entry.name:3} {told}")
    judged = [e.result is not None and e.result.met for e in entries if not _only_reported(e)]
    return [*lines, f"{sum(judged)} of {len(judged)} goals are met"]


def _only_reported(entry: Entry) -> bool:
    return entry.result is not None and entry.result.goal == REPORTED


def summary(result: Result) -> str:
    """A result as lines of text."""
    lines = [f"{result.name}: {result.title}"]
    if result.ratio is not None:
        r = result.ratio
        lines.append(f"  ratio {r.min:.2f} / {r.median:.2f} / {r.max:.2f} (min/median/max)")
    lines.append(f"  goal {result.goal}: {'met' if result.met else 'NOT MET'}")
    for who, figures in result.samples.items():
        shown = "  ".join(f"{figure:,.6g}" for figure in figures)
        lines.append(f"  {who} [{result.unit}]: {shown}")
    if result.cpu_s:
        lines.append("  CPU s: " + ", ".join(f"{w} {s:.1f}" for w, s in result.cpu_s.items()))
    lines += [f"  {note}" for note in result.notes]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
