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
from schema.pace import Pace, duration
from schema.settings import OperatorSettings
from schema.topics import topics
from writer.state import SystemState, pace, system_state

_CLEAR = "\x1b[H\x1b[2J"
_APART_S = 1.0


def status(
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object; with --watch, one a line.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="One screen, refreshed.")] = False,
    every: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 2.0,
    looks: Annotated[
        int | None, typer.Option(min=1, help="End after so many looks; else at Ctrl-C.")
    ] = None,
    rates: Annotated[
        bool, typer.Option(help="Look twice, so that rates can be told; or once, at once.")
    ] = True,
) -> None:
    """Show processes, lanes, what is pending, parked and dead, how fast it is saved, open incidents.

    Commands accepted, applied and settled a second are counted between two looks, and the time to
    drain is how long it takes at that pace. A single `status` looks twice, a second apart, unless a
    server is away; --no-rates looks once.

    Exit code 0 when all is well, 1 when something is not (with --watch: at the last look).

    Example: afterwrite status --watch
    """
    logging.disable(logging.CRITICAL)  # the drivers log what the answer says
    settings = read_settings(OperatorSettings)
    if not watch:
        report = _report(*_looked(settings, rates))
        typer.echo(json.dumps(report, indent=2) if as_json else _text(report))
        raise typer.Exit(0 if report["healthy"] else 1)
    report = {}
    try:
        for report in _watched(settings, every, looks):
            typer.echo(json.dumps(report) if as_json else _screen(report))
    except KeyboardInterrupt:
        pass
    raise typer.Exit(0 if report.get("healthy") else 1)


def _looked(settings: OperatorSettings, rates: bool) -> tuple[SystemState, Pace | None]:
    """How it is now; and its pace, if that is wanted and both servers answer."""
    before = _look(settings)
    if not rates or before.pending is None:
        return before, None
    time.sleep(_APART_S)
    after = _look(settings)
    return after, pace(before, after)


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
    return ("" if not sys.stdout.isatty() else _CLEAR) + "\n".join(lines)


def _text(report: dict[str, Any]) -> str:
    lines = ["All is well." if report["healthy"] else "Not well: " + "; ".join(report["trouble"])]
    names, states = (
        max((len(p[column]) for p in report["processes"]), default=0)
        for column in ("name", "state")
    )
    for process in report["processes"]:
        lines.append(
            f"  {process['name']:<{names}}  {process['state']:<{states}}  pid {process['pid'] or '-'}"
        )
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
    if report["rates"] is not None:
        lines.append(f"  {Pace(**report['rates']).sentence}")
    for alert in report["incidents"] or ():
        since = alert["since"][:16].replace("T", " ")
        lines.append(f"  incident since {since}: {alert['title']}")
    return "\n".join(lines)
