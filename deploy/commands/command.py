"""`afterwrite command`: the whole life of one command."""

import json
import uuid
from dataclasses import replace
from typing import Annotated

import typer

from deploy.commands.operating import database_url, operator_settings, run
from deploy.errors import Trouble, UsageTrouble
from deploy.settings import read_catalog
from schema.fields import render_time
from schema.topics import topics
from writer.failures import LogUnavailable
from writer.operation.connecting import connected
from writer.operation.life import Life, Moment, life_of
from writer.operation.log_search import search

app = typer.Typer(no_args_is_help=True, help="The whole life of one command.")


@app.callback()
def _command() -> None:
    """The whole life of one command."""


@app.command()
def show(
    command: Annotated[str, typer.Argument(help="Id of the command, as the API answers it.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show when a command was accepted, where it is in the log, what became of it, and who was told.

    Exit code 1 when nobody knows of it.

    Example: afterwrite command show 01997f6e-3a52-7cc4-b2a1-9d2f0c5e7a11
    """
    settings = operator_settings()
    try:
        command_id = uuid.UUID(command)
    except ValueError as error:
        raise UsageTrouble(
            f"{command!r} is no id.", "It is what the API calls `command`."
        ) from error
    catalog, url = read_catalog(settings), database_url(settings)

    async def look() -> Life:
        async with connected(url) as connection:
            life = await life_of(connection, catalog, command_id)
            if life.state != "unknown":
                return life
            rows = await connection.fetch("SELECT lane, position FROM afterwrite.lane")
        positions = {row["lane"]: row["position"] for row in rows}
        topic = topics(settings).commands.name
        try:
            found = await search(settings.kafka_bootstrap, topic, positions, command_id)
        except (LogUnavailable, TimeoutError) as error:
            asked = Moment("the log cannot be read", None, {"error": str(error)})
            return replace(life, moments=[*life.moments, asked])
        if found is None:
            return life
        waits = Moment("in the log, waiting", found.appended_at, found.to_json())
        return replace(life, state="pending", moments=[*life.moments, waits])

    life = run(look())
    if as_json:
        typer.echo(json.dumps(life.to_json(), indent=2))
    else:
        typer.echo("\n".join([f"{life.command_id}  {life.state}", *map(_line, life.moments)]))
    if life.state == "unknown" and not any(m.what != "made" for m in life.moments):
        raise Trouble(
            "Nobody knows of this command.",
            "It was not accepted, or retention has dropped it from the ledger.",
        )


def _line(moment: Moment) -> str:
    at = render_time(moment.at)[:23].replace("T", " ") if moment.at is not None else "-"
    told = []
    for name, value in moment.detail.items():
        if name == "rows":
            told.append(", ".join(f"{r['op']} {r['type']} {r['id']}" for r in value) or "no rows")
        elif name == "problem":
            told.append(f"{value['code']}: {value['detail']}")
        elif name == "detail":
            told.append(str(value).replace("\n", " "))
        else:
            shown = " ".join(value) if isinstance(value, list) else value
            told.append(f"{name} {shown}")
    return f"  {at:<23}  {moment.what:<20}  {'; '.join(told)}".rstrip()
