"""`afterwrite status`: how the running system is doing."""

import asyncio
import json
import logging
import sys
import time
from typing import Annotated, Any

import typer

from deploy.commands.operating import database_url
from deploy.embedded.home import Home
from deploy.settings import read_settings
from schema.settings import OperatorSettings
from schema.topics import topics
from writer.state import Pace, SystemState, pace, system_state

_CLEAR = "\x1b[H\x1b[2J"


def status(
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object; with --watch, one a line.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="One screen, refreshed.")] = False,
    every: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 2.0,
    looks: Annotated[
        int | None, typer.Option(min=1, help="End after so many looks; else at Ctrl-C.")
    ] = None,
) -> None:
    """Show processes, lanes, what is pending, parked and dead, and open incidents.

    Exit code 0 when all is well, 1 when something is not (with --watch: at the last look).

    Example: afterwrite status --watch
    """
    logging.disable(logging.CRITICAL)  # the drivers log what the answer says
    settings = read_settings(OperatorSettings)
    if not watch:
        report = _report(_look(settings), None)
        typer.echo(json.dumps(report, indent=2) if as_json else _text(report))
        raise typer.Exit(0 if report["healthy"] else 1)
    report = {}
    try:
        for report in _watched(settings, every, looks):
            typer.echo(json.dumps(report) if as_json else _screen(report))
    except KeyboardInterrupt:
        pass
    raise typer.Exit(0 if report.get("healthy") else 1)


def _watched(settings: OperatorSettings, every: float, looks: int | None) -> Any:
    """A report for each look, for ever or so many times."""
    before: SystemState | None = None
    done = 0
    while looks is None or done < looks:
        if done:
            time.sleep(every)
        state = _look(settings)
        yield _report(state, pace(before, state) if before is not None else None)
        before, done = state, done + 1


def _look(settings: OperatorSettings) -> SystemState:
    named = topics(settings)
    return asyncio.run(
        system_state(
            database_url(settings),
            settings.kafka_bootstrap,
            named.commands.name,
            settings.lanes,
            named.alerts.name,
        )
    )


def _report(state: SystemState, rates: Pace | None) -> dict[str, Any]:
    found = state.to_json()
    processes = [
        {"name": p["name"], "pid": p["pid"], "state": p["state"]} for p in Home().processes()
    ]
    down = [p["name"] for p in processes if p["state"] != "running"]
    trouble = [*found.pop("trouble"), *(f"{name} is not running" for name in down)]
    return found | {
        "healthy": not trouble,
        "rates": rates.to_json() if rates is not None else None,
        "processes": processes,
        "trouble": trouble,
    }


def _screen(report: dict[str, Any]) -> str:
    lines = [f"{report['at'][:19].replace('T', ' ')} UTC", _text(report)]
    rates = report["rates"]
    if rates is not None:
        told = f"  {rates['accepted']:.1f} accepted/s, {rates['decided']:.1f} decided/s"
        if report["pending"]:
            left = rates["drained_in_s"]
            told += f", drained in {duration(left)}" if left is not None else ", not draining"
        lines.append(told)
    return ("" if not sys.stdout.isatty() else _CLEAR) + "\n".join(lines)


def _text(report: dict[str, Any]) -> str:
    lines = ["All is well." if report["healthy"] else "Not well: " + "; ".join(report["trouble"])]
    for process in report["processes"]:
        lines.append(f"  {process['name']:<9} {process['state']:<10} pid {process['pid'] or '-'}")
    for lane in report["lanes"]:
        begin, end = ("?" if lane[name] is None else lane[name] for name in ("begin", "end"))
        lines.append(
            f"  lane {lane['lane']}: position {lane['position']} of {end}, log from {begin}, "
            f"epoch {lane['epoch']}, held by {lane['owner'] or 'nobody'}"
        )
    counts = ", ".join(
        f"{name} {'?' if report[name] is None else report[name]}"
        for name in ("pending", "parked", "dead")
    )
    if report["oldest_pending_s"] is not None:
        counts += f"; the oldest has waited {duration(report['oldest_pending_s'])}"
    lines.append(f"  {counts}")
    for alert in report["incidents"] or ():
        since = alert["since"][:16].replace("T", " ")
        lines.append(f"  incident since {since}: {alert['title']}")
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """`42 s`, `12 min`, `3 h 5 min`, `2 d 4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"
