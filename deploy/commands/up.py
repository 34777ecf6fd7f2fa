"""`afterwrite up`: the whole system on this machine."""

import os
import signal
import sys
from types import FrameType
from typing import Annotated

import typer

from deploy.errors import UsageTrouble


def up(
    with_parent: Annotated[
        bool,
        typer.Option("--with-parent", help="Stop when the program that called this ends (Linux)."),
    ] = False,
) -> None:
    """Start PostgreSQL, Valkey or Redis, Kafka, the API, a writer and what tells people, on this machine.

    AFTERWRITE_HOME is the folder for all state (default: ./.afterwrite), PORT the HTTP port
    (default: 8000; 0 takes a free one), AFTERWRITE_CONTENT the module with the content types, in
    this folder or installed. Mail is kept as files in the folder, unless AFTERWRITE_SMTP_URL names
    a server; AFTERWRITE_ALERT_URLS says how administrators are told. Ctrl-C or SIGTERM stops
    everything in order.

    Example: PORT=8080 afterwrite up
    """
    if sys.platform == "win32":
        raise UsageTrouble(
            "`afterwrite up` does not run on Windows: there is no Valkey for it.",
            "Use it inside WSL, or run the containers of deploy/compose.yaml.",
        )
    # Until the stack has its own handlers, SIGTERM ends us as Ctrl-C does: with clean-up.
    signal.signal(signal.SIGTERM, _interrupt)
    from deploy.embedded import content, launch, stack
    from deploy.embedded.home import Home

    if with_parent:
        launch.tie(os.getppid(), signal.SIGTERM)
    home = Home()
    content.check(home, os.environ)
    try:
        stack.run(home, os.environ)
    except KeyboardInterrupt:
        typer.echo("Stopped before everything was up.")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
