"""The trial of reads under faults, as a command of its own.

    .venv/bin/python -m tests.trials.reads --authors 100 --changes 100 --seed 1

It starts PostgreSQL with a streaming replica, Redis, Kafka, two APIs, a writer and its standby, lets
the authors work while all but Kafka is paused, killed and made to forget, and then judges every
single answer. The exit code is 1 if one of them was wrong.
"""

import argparse
import asyncio
import json
import pickle
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.installation import Installation, fresh_name
from tests.replica import replica_of
from tests.services import Embedded
from tests.trials.campaign import Campaign, Plan, Result
from tests.trials.faults import FORGETTING, WEIGHTS
from tests.trials.planted import BUGS

_EVERY_S = 5.0


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.trials.reads",
        description="Authors change and read while servers are paused, killed and made to forget; "
        "every read is judged. Exit code 1: a promise was broken.",
    )
    parser.add_argument("--authors", type=int, default=100, help="how many write (100)")
    parser.add_argument("--changes", type=int, default=100, help="changes of each (100)")
    parser.add_argument("--seed", type=int, default=1, help="of what they do and what is done (1)")
    parser.add_argument(
        "--minutes", type=float, default=15, help="changes are made for at most (15)"
    )
    parser.add_argument("--think", type=float, default=0.3, help="seconds between changes (0.3)")
    parser.add_argument("--gap", type=float, default=2.0, help="seconds between faults (2)")
    parser.add_argument("--no-faults", action="store_true", help="leave the servers alone")
    parser.add_argument("--keep-memory", action="store_true", help="Redis is never made to forget")
    parser.add_argument("--planted", choices=BUGS, default="", help="plant this bug in the APIs")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--keep", type=Path, help="a folder for the logs of the processes")
    parser.add_argument("--record", type=Path, help="a file for the whole record (pickle)")
    return parser.parse_args(argv)


def plan_of(asked: argparse.Namespace) -> Plan:
    faults = {
        fault: 0 if asked.no_faults or (asked.keep_memory and fault in FORGETTING) else weight
        for fault, weight in WEIGHTS.items()
    }
    return Plan(
        authors=asked.authors,
        changes=asked.changes,
        seed=asked.seed,
        seconds=asked.minutes * 60,
        think_s=asked.think,
        gap_s=asked.gap,
        faults=faults,
        planted=asked.planted,
    )


async def run(plan: Plan, folder: Path) -> Result:
    """The trial on servers of its own. Call it in the main thread."""
    services = Embedded()
    installation = Installation(services, fresh_name(), folder)
    try:
        await installation.create()
        try:
            async with replica_of(services) as replica:
                campaign = Campaign(plan, installation, replica)
                telling = asyncio.create_task(tell(campaign))
                try:
                    return await campaign.run()
                finally:
                    telling.cancel()
        finally:
            await installation.destroy()
    finally:
        services.stop()


async def tell(campaign: Campaign) -> None:
    """A line on standard error every few seconds."""
    begun = time.monotonic()
    total = campaign.plan.authors * campaign.plan.changes
    while True:
        await asyncio.sleep(_EVERY_S)
        record = campaign.record
        sys.stderr.write(
            f"{time.monotonic() - begun:6.0f} s  {len(record.changes)} of {total} changes, "
            f"{len(record.reads)} reads, {sum(record.faults.values())} faults\n"
        )


def show(figures: dict[str, Any]) -> str:
    return "\n".join(
        f"{name.replace('_', ' ')}: "
        + ("\n  ".join(["", *value]) if name == "examples" else str(value))
        for name, value in figures.items()
    )


def main(argv: list[str] | None = None) -> int:
    asked = arguments(argv)
    with tempfile.TemporaryDirectory(prefix="afterwrite-trial-") as temporary:
        folder = asked.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        result = asyncio.run(run(plan_of(asked), folder))
    if asked.record is not None:
        asked.record.write_bytes(pickle.dumps(result.record))
    figures = result.figures()
    sys.stdout.write((json.dumps(figures, indent=2) if asked.json else show(figures)) + "\n")
    return 0 if result.passed else 1


if __name__ == "__main__":
    sys.exit(main())
