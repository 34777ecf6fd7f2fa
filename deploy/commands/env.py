"""`afterwrite env`: the running stack's settings, for a shell or a program."""

import json
import shlex
from typing import Annotated

import typer

from deploy.embedded.home import Home


def env(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead.")] = False,
) -> None:
    """Print the settings of the running stack as shell lines.

    Exit code 3 if none runs in AFTERWRITE_HOME (default: ./.afterwrite).

    Example: eval "$(afterwrite env)" && psql "$AFTERWRITE_DATABASE_URL"
    """
    values = Home().environment()
    if as_json:
        typer.echo(json.dumps(values, indent=2, sort_keys=True))
        return
    for name, value in sorted(values.items()):
        typer.echo(f"export {name}={shlex.quote(value)}")
