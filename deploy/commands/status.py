"""`afterwrite status`: how the running system is doing."""

import asyncio
import json
import logging
from typing import Annotated, Any

import typer

from deploy.embedded.home import Home
from deploy.settings import read_settings
from schema.settings import OwnerSettings
from schema.topics import topics
from writer.state import system_state


def status(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show processes, lanes, and how many commands are pending, parked and dead.

    Exit code 0 when all is well, 1 when something is not.

    Example: afterwrite status --json
    """
    logging.disable(logging.CRITICAL)  # the drivers log what the answer says
    report = _report(read_settings(OwnerSettings))
    typer.echo(json.dumps(report, indent=2) if as_json else _text(report))
    raise typer.Exit(0 if report["healthy"] else 1)


def _report(settings: OwnerSettings) -> dict[str, Any]:
    state = asyncio.run(
        system_state(
            settings.database_url.get_secret_value(),
            settings.kafka_bootstrap,
            topics(settings).commands.name,
            settings.lanes,
        )
    ).to_json()
    processes = [
        {"name": p["name"], "pid": p["pid"], "state": p["state"]} for p in Home().processes()
    ]
    down = [p["name"] for p in processes if p["state"] != "running"]
    trouble = [*state.pop("trouble"), *(f"{name} is not running" for name in down)]
    return (
        {"healthy": not trouble}
        | {k: v for k, v in state.items() if k != "healthy"}
        | {
            "processes": processes,
            "trouble": trouble,
        }
    )


def _text(report: dict[str, Any]) -> str:
    lines = ["All is well." if report["healthy"] else "Not well: " + "; ".join(report["trouble"])]
    for process in report["processes"]:
        lines.append(f"  {process['name']:<9} {process['state']:<10} pid {process['pid'] or '-'}")
    for lane in report["lanes"]:
        end = "?" if lane["end"] is None else lane["end"]
        lines.append(
            f"  lane {lane['lane']}: position {lane['position']} of {end}, epoch {lane['epoch']}, "
            f"held by {lane['owner'] or 'nobody'}"
        )
    counts = ", ".join(
        f"{name} {'?' if report[name] is None else report[name]}"
        for name in ("pending", "parked", "dead")
    )
    return "\n".join([*lines, f"  {counts}"])
