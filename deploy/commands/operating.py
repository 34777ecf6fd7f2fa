"""What the operators' commands share: connections, filters, who is asking, and asking back."""

import asyncio
import getpass
import logging
import re
import socket
import sys
import uuid
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, TypeVar

import asyncpg
import typer

from deploy.errors import NotReachable, UsageTrouble
from deploy.settings import read_catalog, read_settings
from schema import clock
from schema.acts import Act, ActKind, Letters, Operator
from schema.envelope import Keyring
from schema.fields import parse_time
from schema.identifiers import new_id, user_id_for
from schema.settings import OperatorSettings
from schema.topics import topics
from writer.failures import LogUnavailable
from writer.operation.connecting import connected
from writer.operation.letters import named
from writer.operation.perform import Performed, Tools, perform
from writer.publisher import OutcomePublisher

T = TypeVar("T")
_AGO: Final = re.compile(r"(\d+)(s|m|h|d|w)")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
NOBODY: Final = uuid.UUID(int=0)
"""Id of whoever works on a command line: his name is all that is known of him."""

Names = Annotated[
    list[str] | None,
    typer.Argument(help="Letters, as LANE:OFFSET or by the id of their command."),
]
Code = Annotated[str | None, typer.Option(help="Only with this code.")]
Type = Annotated[str | None, typer.Option("--type", help="Only of this content type.")]
Author = Annotated[
    str | None, typer.Option(help="Only of this author: an id, or the name of a trial user.")
]
Since = Annotated[
    str | None, typer.Option(help="Died since then: 30m, 2h, 3d ago, or a time with its zone.")
]
Until = Annotated[str | None, typer.Option(help="Died before then, told in the same way.")]
AsJson = Annotated[bool, typer.Option("--json", help="NDJSON: one JSON object a line.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask back.")]
By = Annotated[
    str | None, typer.Option(help="Who does it, for the audit log; else the user of this system.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would happen, do nothing.")]


def operator_settings() -> OperatorSettings:
    """The settings; drivers do not log what the command says."""
    logging.disable(logging.CRITICAL)
    return read_settings(OperatorSettings)


def database_url(settings: OperatorSettings) -> str:
    """The writer's role will do; else the owner's."""
    url = settings.writer_database_url or settings.database_url
    if url is None:
        raise UsageTrouble(
            "Neither AFTERWRITE_WRITER_DATABASE_URL nor AFTERWRITE_DATABASE_URL is set.",
            "Set one of them, or start a stack with `afterwrite up`.",
        )
    return url.get_secret_value()


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run it; what cannot be reached ends the command with exit code 3."""
    try:
        return asyncio.run(work)
    except LogUnavailable as error:
        raise NotReachable(
            f"Kafka: {error}.",
            "Check AFTERWRITE_KAFKA_BOOTSTRAP; then give the same command again: what was begun is "
            "completed, not doubled.",
        ) from error
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise NotReachable(
            f"{type(error).__name__}: {str(error) or 'no answer in time'}.",
            "Check the servers and AFTERWRITE_WRITER_DATABASE_URL; the same command may be given again.",
        ) from error


@asynccontextmanager
async def tools(settings: OperatorSettings, *, sign: bool) -> AsyncIterator[Tools]:
    """What acts are performed with. Raises `UsageTrouble` when something is to be signed and cannot."""
    if settings.signing_keys is None and sign:
        raise UsageTrouble(
            "AFTERWRITE_SIGNING_KEYS is not set, and a replay has to be signed.",
            "Set it to what the API and the writer have.",
        )
    keys = settings.signing_keys
    publisher = OutcomePublisher(settings.kafka_bootstrap)
    try:
        async with connected(database_url(settings)) as connection:
            yield Tools(
                connection,
                publisher,
                Keyring.parse(keys.get_secret_value()) if keys is not None else Keyring({}),
                read_catalog(settings),
                topics(settings).commands.name,
                settings.lanes,
            )
    finally:
        await publisher.close()


async def order(settings: OperatorSettings, act: Act) -> Performed:
    """Perform an act that publishes nothing."""
    async with tools(settings, sign=False) as made:
        return await perform(made, act)


def act_of(kind: ActKind, by: str | None, **members: Any) -> Act:
    """An act of whoever runs this command. Raises `UsageTrouble` for one that cannot be meant."""
    who = by or f"{getpass.getuser()}@{socket.gethostname()}"
    try:
        return Act(new_id(), kind, Operator(NOBODY, who, ("operator",)), clock.now(), **members)
    except ValueError as error:
        raise UsageTrouble(f"This cannot be meant: {error}.", "See --help.") from error


def moment(text: str | None) -> datetime | None:
    """A time: `2h` ago, or as RFC 3339 says it. Raises `UsageTrouble`."""
    if text is None:
        return None
    ago = _AGO.fullmatch(text)
    try:
        if ago is not None:
            return clock.now() - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        return parse_time(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise UsageTrouble(
            f"{text!r} is no time.", "Say 30m, 2h or 3d, or 2026-03-01T12:00:00Z."
        ) from error


def author_id(text: str | None) -> uuid.UUID | None:
    """The id of an author; of a trial user, his name will do."""
    if text is None:
        return None
    try:
        return uuid.UUID(text)
    except ValueError:
        return user_id_for(text)


def wanted(
    code: str | None = None,
    type_: str | None = None,
    author: str | None = None,
    since: str | None = None,
    until: str | None = None,
    limit: int | None = None,
) -> Letters:
    """The filter that the options say."""
    return Letters(
        code=code,
        type=type_,
        author=author_id(author),
        since=moment(since),
        until=moment(until),
        limit=limit,
    )


async def with_names(
    connection: asyncpg.Connection, letters: Letters, names: Sequence[str] | None
) -> Letters:
    """The filter narrowed to the letters that are named. Raises `UsageTrouble` for unknown names."""
    if not names:
        return letters
    try:
        places, unknown = await named(connection, names)
    except ValueError as error:
        raise UsageTrouble(
            f"{error}.", "A letter is named LANE:OFFSET, or by the id of its command."
        ) from error
    if unknown:
        raise UsageTrouble(
            f"There is no dead letter {', '.join(unknown)}.", "`afterwrite dead list` shows them."
        )
    return replace(letters, places=tuple(dict.fromkeys(places)))


def confirm(question: str, answer: str, yes: bool) -> None:
    """Go on only when it was meant: `--yes`, or the answer typed. Raises `UsageTrouble`."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageTrouble(f"{question} Nobody can be asked here.", "Give --yes if it is meant.")
    typed = typer.prompt(f"{question} Type {answer} to go on", default="", show_default=False)
    if typed != answer:
        raise UsageTrouble("Nothing was done.", f"Type {answer}, or give --yes.")


def counted(number: int, noun: str = "dead letter") -> str:
    """`1 dead letter`, `3 dead letters`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
