"""`afterwrite lane`: what an operator may do with a lane."""

import asyncio
from typing import Annotated

import asyncpg
import typer

from deploy.errors import NotReachable
from deploy.settings import read_settings
from schema.settings import OwnerSettings
from writer.state import resume_lane

app = typer.Typer(no_args_is_help=True, help="Lanes: let a halted one go on.")


@app.callback()
def _lane() -> None:
    """Lanes: let a halted one go on."""


@app.command()
def resume(lane: Annotated[int, typer.Argument(min=0, help="Number of the lane.")]) -> None:
    """Let a halted lane go on, after its cause has been mended.

    Exit code 1 when it was not halted.

    Example: afterwrite lane resume 0
    """
    settings = read_settings(OwnerSettings)
    try:
        reason = asyncio.run(resume_lane(settings.database_url.get_secret_value(), lane))
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        raise NotReachable(f"PostgreSQL: {error}.", "Check AFTERWRITE_DATABASE_URL.") from error
    typer.echo(
        f"lane {lane} goes on; it stood still: {reason}"
        if reason
        else f"lane {lane} was not halted"
    )
    raise typer.Exit(0 if reason else 1)
