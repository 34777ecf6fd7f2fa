"""`afterwrite bench`: the benchmark, from a checkout."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from deploy.errors import UsageTrouble

ROOT = Path(__file__).parent.parent.parent


def bench(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME…", help="Such as D1; none: all of them.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON, as the last line.")
    ] = False,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each competitor.")] = 5,
    quick: Annotated[
        bool, typer.Option("--quick", help="Once and small: shows that it runs, not how fast.")
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="More rows, longer spikes, a backlog of 1,000,000.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit code 1 if a goal is not met.")
    ] = False,
    write: Annotated[bool, typer.Option("--write", help="Write docs/benchmarks.md.")] = False,
) -> None:
    """Measure Afterwrite beside its references, on this machine, with servers of its own.

    Needs a checkout with its development environment (`make lint` makes it); docs/benchmarks.md
    tells what each measurement is. Exit code 1 when something could not be measured or a run was wrong.

    Example: afterwrite bench D1 --json
    """
    if not (ROOT / "tests" / "bench" / "__main__.py").is_file():
        raise UsageTrouble(
            "The benchmark is part of the checkout, not of the installed package.",
            "Get the source, and call `make bench` or `.venv/bin/afterwrite bench` there.",
        )
    chosen = {
        "--json": as_json,
        "--quick": quick,
        "--full": full,
        "--strict": strict,
        "--write": write,
    }
    words = [*(names or ()), "--repeats", str(repeats), *(w for w, on in chosen.items() if on)]
    done = subprocess.run([sys.executable, "-m", "tests.bench", *words], cwd=ROOT, check=False)
    raise typer.Exit(done.returncode)
