"""`python -m tests.bench NAME… [--json] [--repeats N] [--quick] [--full] [--write]`.

Without a name: all. Progress goes to stderr, the results to stdout; with `--json` the last line is the
result of the last measurement. `--write` writes docs/benchmarks.md and its charts. Exit code 1 when
a goal is not met or a run was wrong.
"""

import argparse
import asyncio
import json
import sys
import time
import traceback
from datetime import UTC, datetime

from deploy.errors import Trouble
from tests.bench.registry import BENCHMARKS, load
from tests.bench.report import Entry, write
from tests.bench.result import Result, WrongRun
from tests.bench.rig import Bench


def main() -> int:
    options = _options()
    started = time.monotonic()

    def say(line: str) -> None:
        sys.stderr.write(f"[{time.monotonic() - started:5.0f} s] {line}\n")
        sys.stderr.flush()

    with Bench(options.repeats, options.quick, say, full=options.full) as bench:
        return asyncio.run(_run(bench, options))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.bench", description=__doc__)
    known = ", ".join(f"{name} ({title})" for name, (_, title) in BENCHMARKS.items())
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of: {known}; none: all")
    parser.add_argument("--json", action="store_true", help="end with the result as JSON")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each competitor (5)")
    parser.add_argument("--quick", action="store_true", help="once, small: figures mean nothing")
    parser.add_argument("--full", action="store_true", help="D6 with a backlog of 1,000,000")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown or options.repeats < 1:
        parser.error(f"no such measurement: {', '.join(unknown)}; there are {known}")
    if options.quick and options.write:
        parser.error("the figures of a quick run mean nothing: they are not written")
    return options


async def _run(bench: Bench, options: argparse.Namespace) -> int:
    entries: list[Entry] = []
    bench.names = options.names or list(BENCHMARKS)
    for name in bench.names:
        title = BENCHMARKS[name][1]
        bench.say(f"{name}: {title}")
        result, wrong = None, ""
        try:
            result = await load(name)(bench)
        except (WrongRun, Trouble) as error:
            wrong = str(error)
        except Exception as error:  # noqa: BLE001 - the others are measured all the same
            bench.say(traceback.format_exc())
            wrong = repr(error)
        entries.append(Entry(name, title, f"{datetime.now(UTC):%Y-%m-%d}", result, wrong))
        sys.stdout.write((summary(result) if result else f"{name}: WRONG: {wrong}") + "\n")
        if options.json and result:
            sys.stdout.write(json.dumps(result.to_json(), ensure_ascii=False) + "\n")
        sys.stdout.flush()
    if options.write:
        write(entries, await bench.versions(), list(BENCHMARKS))
        bench.say("written: docs/benchmarks.md")
    return 0 if all(entry.result is not None and entry.result.met for entry in entries) else 1


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
