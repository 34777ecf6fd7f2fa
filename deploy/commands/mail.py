"""`afterwrite mail`: mails that could not be sent, and addresses that refused them."""

import asyncio
import json
import logging
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar

import typer

from deploy.errors import NotReachable, Trouble, UsageTrouble
from deploy.settings import read_settings
from schema.clock import now
from schema.settings import Settings
from schema.topics import Topics, topics
from writer.failures import LogUnavailable
from writer.mail.addresses import BadAddress
from writer.mail.operation import (
    DeadMail,
    clear_address,
    dead_mail,
    dead_mails,
    marked_addresses,
    send_again,
)

app = typer.Typer(
    no_args_is_help=True, help="Mails that could not be sent, and addresses that refused them."
)
T = TypeVar("T")
AsJson = Annotated[bool, typer.Option("--json", help="JSON, for scripts.")]
Which = Annotated[str, typer.Argument(help="Number of the dead mail, or its mail id.")]


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The latest so many.")] = 50,
    code: Annotated[str | None, typer.Option(help="Only with this code.")] = None,
    to: Annotated[str | None, typer.Option(help="Only to this address.")] = None,
    addresses: Annotated[
        bool, typer.Option("--addresses", help="Addresses that refused, instead of mails.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List dead mails, oldest first, or the addresses that are marked because they refused mail.

    Example: afterwrite mail list --code refused --limit 20
    """
    settings, named = _where()
    if addresses:
        marks = _ask(marked_addresses(settings.kafka_bootstrap, named))
        rows = [{"address": a} | mark.to_json() for a, mark in sorted(marks.items())]
        lines = [f"{r['address']}  {r['code']} {r['reply']}  since {r['at']}" for r in rows]
    else:
        found = _ask(dead_mails(settings.kafka_bootstrap, named, limit=limit, code=code, to=to))
        rows = [dead.to_json() for dead in found]
        lines = [_line(row) for row in rows]
    typer.echo(json.dumps(rows, indent=2) if as_json else "\n".join(lines) or "None.")


@app.command()
def show(which: Which, as_json: AsJson = False) -> None:
    """Show one dead mail whole: what it is, and why it was not sent.

    Example: afterwrite mail show 12
    """
    settings, named = _where()
    shown = _found(settings, named, which).to_json(whole=True)
    if as_json:
        typer.echo(json.dumps(shown, indent=2))
        return
    for name, value in shown.items():
        text = value if isinstance(value, str) else json.dumps(value, indent=2)
        typer.echo(f"{name:<9} {_printable(text)}")


@app.command("clear-address")
def clear(address: Annotated[str, typer.Argument(help="The address.")]) -> None:
    """Send mail to an address again which had refused it. Exit code 1 if it was not marked.

    Example: afterwrite mail clear-address ada@example.com
    """
    settings, named = _where()
    try:
        if not _ask(clear_address(settings.kafka_bootstrap, named, address)):
            raise Trouble("This address is not marked.", "See `afterwrite mail list --addresses`.")
    except BadAddress as error:
        raise UsageTrouble(f"This is no address: {error}.", "Give one bare address.") from error
    typer.echo("Cleared. What is queued from now on is sent to it.")


@app.command()
def retry(which: Which, as_json: AsJson = False) -> None:
    """Send a dead mail again, as a new mail. Asked twice for the same one, it is sent once.

    Example: afterwrite mail retry 12
    """
    settings, named = _where()
    dead = _found(settings, named, which)
    try:
        mail = _ask(send_again(settings.kafka_bootstrap, named, dead, now()))
    except ValueError as error:
        raise Trouble(f"It cannot be sent again: {error}.", "Nothing was queued.") from error
    text = f"Queued as {mail.mail_id}."
    typer.echo(json.dumps({"queued": str(mail.mail_id)}) if as_json else text)


def _where() -> tuple[Settings, Topics]:
    logging.disable(logging.CRITICAL)  # the driver logs what the answer says
    settings = read_settings(Settings)
    return settings, topics(settings)


def _ask(work: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(work)
    except (LogUnavailable, TimeoutError) as error:
        raise NotReachable(
            "Kafka cannot be reached, or has not the topics.",
            "See that it runs, that AFTERWRITE_KAFKA_BOOTSTRAP is right, and run `afterwrite migrate`.",
        ) from error


def _found(settings: Settings, named: Topics, which: str) -> DeadMail:
    dead = _ask(dead_mail(settings.kafka_bootstrap, named, which))
    if dead is None:
        raise Trouble(f"There is no dead mail {which!r}.", "See `afterwrite mail list`.")
    return dead


def _line(row: dict[str, Any]) -> str:
    again = f"  (again: {row['again']})" if row["again"] else ""
    told = (
        f"{row['number']:>6}  {row['died_at']}  {row['code']:<16} {row['template']} to {row['to']}"
    )
    return _printable(f"{told}  {row['detail']}{again}")


def _printable(text: str) -> str:
    """Without what a terminal would obey: texts of users and of servers are among it."""
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)
