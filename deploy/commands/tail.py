"""`afterwrite tail`: follow what becomes of changes."""

import json
import uuid
from typing import Annotated, Any

import typer

from deploy.commands.operating import AsJson, author_id, moment, operator_settings, run
from schema.topics import topics
from writer.operation.outcomes import follow


def tail(
    user: Annotated[
        str | None, typer.Option(help="Only of this author: an id, or a trial user's name.")
    ] = None,
    state: Annotated[
        str | None,
        typer.Option(help="Only these: saved, rejected, parked, duplicate, notice or act."),
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="First what was told since then: 30m, 2h, 3d ago, or a time.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="End after so many.")] = None,
    as_json: AsJson = False,
) -> None:
    """Follow what the writer makes of changes, one line each, until Ctrl-C. It asks Kafka only.

    Example: afterwrite tail --state rejected
    """
    settings = operator_settings()
    author, start = author_id(user), moment(since)
    outcomes = topics(settings).outcomes

    async def show() -> None:
        shown = 0
        messages = follow(settings.kafka_bootstrap, outcomes.name, outcomes.partitions, start)
        async for message in messages:
            if not _wanted(message, author, state):
                continue
            typer.echo(json.dumps(message) if as_json else line_of(message))
            shown += 1
            if shown == limit:
                return

    run(show())


def _wanted(message: dict[str, Any], author: uuid.UUID | None, state: str | None) -> bool:
    whose = message.get("author_id") or message.get("author")
    if author is not None and whose != str(author):
        return False
    return state is None or state == (message.get("kind") or message.get("outcome"))


def line_of(message: dict[str, Any]) -> str:
    """One message for a reader. Nothing in it was written by users."""
    at = str(message.get("told_at", ""))[:19].replace("T", " ")
    kind = message.get("kind")
    if kind == "act":
        done = "done" if message.get("ok") else "not done, or not all of it"
        return f"{at}  act        {message.get('act_id')}  {done}"
    if kind is not None:
        return f"{at}  {kind:<9}  {message.get('command')}  of {message.get('author')}"
    rows = ", ".join(f"{r.get('op')} {r.get('type')}" for r in message.get("rows") or ())
    problem = message.get("problem") or {}
    why = f"  {problem['code']}: {problem.get('detail')}" if problem else f"  {rows}"
    place = f"{message.get('lane')}:{message.get('offset')}"
    return f"{at}  {message.get('outcome', '?'):<9}  {message.get('command_id')}  {place}{why}"
