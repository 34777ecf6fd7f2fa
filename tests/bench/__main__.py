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

from tests.bench.registry import BENCHMARKS, load
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
    return options


async def _run(bench: Bench, options: argparse.Namespace) -> int:
    results: list[Result] = []
    wrong: dict[str, str] = {}
    bench.names = options.names or list(BENCHMARKS)
    for name in bench.names:
        bench.say(f"{name}: {BENCHMARKS[name][1]}")
        try:
            result = await load(name)(bench)
        except WrongRun as error:
            wrong[name] = str(error)
            sys.stdout.write(f"{name}: WRONG: {error}\n")
            continue
        results.append(result)
        sys.stdout.write(summary(result) + "\n")
        if options.json:
            sys.stdout.write(json.dumps(result.to_json(), ensure_ascii=False) + "\n")
        sys.stdout.flush()
    return 0 if not wrong and all(result.met for result in results) else 1


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
