"""`afterwrite lane`: what an operator may do with a lane."""

from typing import Annotated

import typer

from deploy.commands.operating import By, act_of, operator_settings, order, run
from deploy.errors import UsageTrouble

app = typer.Typer(no_args_is_help=True, help="Lanes: let a halted one go on.")


@app.callback()
def _lane() -> None:
    """Lanes: let a halted one go on."""


@app.command()
def resume(
    lane: Annotated[int, typer.Argument(min=0, help="Number of the lane.")],
    reason: Annotated[str | None, typer.Option(help="Why, for the audit log.")] = None,
    by: By = None,
) -> None:
    """Let a halted lane go on, after its cause has been mended.

    Exit code 1 when it was not halted. A pause is taken back by `afterwrite writer resume`.

    Example: afterwrite lane resume 0
    """
    settings = operator_settings()
    performed = run(order(settings, act_of("continue", by, lane=lane, reason=reason)))
    if not performed.ok:
        raise UsageTrouble(f"{performed.result['why']}.", "`afterwrite status` shows the lanes.")
    why = performed.result["were_halted"].get(str(lane))
    typer.echo(
        f"lane {lane} goes on; it stood still: {why}" if why else f"lane {lane} was not halted"
    )
    raise typer.Exit(0 if why else 1)
