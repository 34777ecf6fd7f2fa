"""`afterwrite doctor`: what is wrong here, and what to do about it."""

import asyncio
import json
import logging
from dataclasses import asdict
from typing import Annotated

import typer

from deploy.doctor import examine
from deploy.embedded.home import known_settings

MARK = {"ok": "ok     ", "warning": "warning", "bad": "BAD    "}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object instead.")] = False,
) -> None:
    """Check versions, settings and servers; say what is wrong and what to do.

    The settings are those of the running stack, if there is one, overridden by the environment.
    Exit code 1 if anything is bad; a warning alone leaves it at 0.

    Example: afterwrite doctor --json
    """
    logging.disable(logging.CRITICAL)  # the drivers log what the findings say
    findings = asyncio.run(examine(known_settings()))
    healthy = all(finding.state != "bad" for finding in findings)
    if as_json:
        report = {"healthy": healthy, "findings": [asdict(finding) for finding in findings]}
        typer.echo(json.dumps(report, indent=2))
    else:
        for finding in findings:
            typer.echo(f"{MARK[finding.state]}  {finding.subject}: {finding.text}")
            if finding.todo:
                typer.echo(f"         → {finding.todo}")
    raise typer.Exit(0 if healthy else 1)
