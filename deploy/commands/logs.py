"""`afterwrite logs`: what a process of the stack has written."""

import time
from pathlib import Path
from typing import Annotated

import typer

from deploy.embedded.home import Home
from deploy.embedded.process import Process
from deploy.errors import UsageTrouble

POLL_S = 0.3


def logs(
    name: Annotated[
        str,
        typer.Argument(
            help="postgres, redis, kafka, api, writer, notifier, mail-worker, migrate …"
        ),
    ],
    lines: Annotated[
        int, typer.Option("-n", "--lines", min=0, help="How many to begin with.")
    ] = 50,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as it is written.")] = False,
) -> None:
    """Show the last lines a process of the stack has logged.

    Example: afterwrite logs writer -f
    """
    home = Home()
    path = home.logs / f"{name}.log"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in home.logs.glob("*.log")))
        raise UsageTrouble(
            f"{home.logs} has no log called {name!r}.",
            f"It has: {known}." if known else "Nothing has been started there yet.",
        )
    text = Process(name, path).log_tail(lines)
    if text:
        typer.echo(text)
    if follow:
        _follow(path)


def _follow(path: Path) -> None:
    with path.open("rb") as file:
        file.seek(0, 2)
        while True:
            part = file.read()
            if part:
                typer.echo(part.decode("utf-8", "replace"), nl=False)
            else:
                time.sleep(POLL_S)  # a file does not tell when it grows
