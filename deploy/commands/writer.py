"""`afterwrite writer`: pause the writer, and let it go on."""

from typing import Annotated

import typer

from deploy.commands.operating import By, Yes, act_of, confirm, operator_settings, order, run
from deploy.errors import UsageTrouble

app = typer.Typer(no_args_is_help=True, help="Pause the writer, and let it go on.")
Lane = Annotated[int | None, typer.Option(min=0, help="Number of the lane; all if not given.")]


@app.command()
def pause(
    reason: Annotated[str, typer.Option(help="Why; it is shown wherever the pause is.")],
    lane: Lane = None,
    yes: Yes = False,
    by: By = None,
) -> None:
    """Pause the writer: changes are accepted, seen by their authors, and saved after the pause.

    Example: afterwrite writer pause --reason "tables are being changed"
    """
    settings = operator_settings()
    lanes = range(settings.lanes) if lane is None else [lane]
    act = act_of("pause", by, lane=lane, reason=reason)
    confirm(f"Pause {_lanes(lanes)}?", str(len(lanes)), yes)
    performed = run(order(settings, act))
    if not performed.ok:
        raise UsageTrouble(f"{performed.result['why']}.", "`afterwrite status` shows the lanes.")
    typer.echo(f"{_lanes(performed.result['lanes'])} paused: {reason}")
    typer.echo("Go on with: afterwrite writer resume")


@app.command()
def resume(
    lane: Lane = None,
    reason: Annotated[str | None, typer.Option(help="Why, for the audit log.")] = None,
    by: By = None,
) -> None:
    """Take a pause back. Exit code 1 when nothing was paused.

    A lane that is halted has a cause of its own, and stays so: see `afterwrite lane resume`.

    Example: afterwrite writer resume --reason "done"
    """
    settings = operator_settings()
    performed = run(order(settings, act_of("resume", by, lane=lane, reason=reason)))
    if not performed.ok:
        raise UsageTrouble(f"{performed.result['why']}.", "`afterwrite status` shows the lanes.")
    paused = performed.result["were_paused"]
    for number, why in paused.items():
        typer.echo(f"lane {number} goes on; it was paused: {why}")
    for number, why in performed.result["halted"].items():
        typer.echo(f"lane {number} is halted, and stays so: {why}")
    if not paused:
        typer.echo("Nothing was paused.")
    raise typer.Exit(0 if paused else 1)


def _lanes(numbers: "range | list[int]") -> str:
    shown = ", ".join(str(number) for number in numbers)
    return f"lane {shown}" if len(numbers) == 1 else f"lanes {shown}"
