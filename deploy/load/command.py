"""The commands `afterwrite load stackexchange` and `afterwrite load verify`."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import httpx2
import typer

from deploy.connection import environment, required
from deploy.embedded.home import default_path
from deploy.load.api import Api, Patience, Tokens
from deploy.load.loader import Limits, Loader
from deploy.load.progress import showing
from deploy.load.report import Report
from deploy.load.stackexchange import Survey, survey
from deploy.load.state import LoadState
from deploy.load.verify import verify as verify_dump

REQUEST_TIMEOUT_S = 20.0
"""Longer than the API may take to accept; what takes longer is lost."""

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

Posts = Annotated[
    Path, typer.Argument(help="Posts.xml of the dump.", exists=True, dir_okay=False, readable=True)
]
AsJson = Annotated[bool, typer.Option("--json", help="Report as one JSON object.")]


@app.callback()
def _load() -> None:
    pass


@app.command()
def stackexchange(
    path: Posts,
    in_flight: Annotated[int, typer.Option(min=1, max=256, help="Requests at the same time.")] = 16,
    state: Annotated[
        Path | None, typer.Option(help="State file; default: in AFTERWRITE_HOME, one a dump.")
    ] = None,
    give_up_after: Annotated[
        float, typer.Option(min=0, help="Seconds without any answer of the API before giving up.")
    ] = 600,
    settle_within: Annotated[
        float, typer.Option(min=0, help="Seconds in which no command settles before giving up.")
    ] = 1200,
    strict: Annotated[
        bool, typer.Option(help="Exit with 1 also for rows that are no posts (tag wikis).")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Send the posts of a Stack Exchange dump through the API, each as its author.

    Questions become topics, answers become posts. It may be interrupted and run again: nothing is
    sent twice. Rows that cannot be taken are listed, with the reason.

    Exit codes: 0 every post is saved; 1 some are not (the report lists them); 2 wrong usage; 3 the
    API cannot be reached.

    Example: afterwrite load stackexchange tests/data/coffee/Posts.xml
    """
    found = survey(path)
    settings = environment()
    limits = Limits(in_flight=in_flight, settle_within_s=settle_within)
    file = state or default_path() / "load" / f"stackexchange-{found.digest}.jsonl"
    report = asyncio.run(_send(path, found, settings, file, limits, give_up_after))
    typer.echo(json.dumps(report.to_json(), indent=2) if as_json else report.to_text())
    raise typer.Exit(report.exit_code(strict))


async def _send(
    path: Path,
    found: Survey,
    settings: Mapping[str, str],
    file: Path,
    limits: Limits,
    give_up_after_s: float,
) -> Report:
    """Builds what a load needs, and runs it."""
    url = required(settings, "AFTERWRITE_URL")
    secret = required(settings, "AFTERWRITE_JWT_SECRET")
    tokens = Tokens(secret, settings.get("AFTERWRITE_JWT_AUDIENCE"))
    with LoadState(file, found.digest) as state, showing() as shown:
        connections = httpx2.Limits(max_connections=limits.in_flight)
        async with httpx2.AsyncClient(
            base_url=url, timeout=REQUEST_TIMEOUT_S, limits=connections, trust_env=False
        ) as client:
            api = Api(client, tokens, Patience(give_up_after_s, shown.say))
            return await Loader(path, found, api, state, shown, limits).load()


@app.command()
def verify(path: Posts, as_json: AsJson = False) -> None:
    """Compare PostgreSQL with the dump that was loaded into it, byte for byte.

    The site must hold this dump and nothing else. Reads AFTERWRITE_DATABASE_URL.

    Exit codes: 0 equal; 1 different (each difference is listed); 3 no database.

    Example: afterwrite load verify tests/data/coffee/Posts.xml
    """
    verdict = asyncio.run(verify_dump(path, required(environment(), "AFTERWRITE_DATABASE_URL")))
    typer.echo(json.dumps(verdict.to_json(), indent=2) if as_json else verdict.to_text())
    raise typer.Exit(1 if verdict.differences else 0)
