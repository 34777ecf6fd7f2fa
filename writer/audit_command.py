"""The command `afterwrite audit`."""

import asyncio
import json
import os
import time
from collections.abc import Mapping
from typing import Annotated

import asyncpg
import typer

from schema.catalog import CatalogError, load_catalog
from schema.settings import ENV_PREFIX
from writer.audit import CannotConnect, Report
from writer.audit import audit as run_audit

DIFFERENT, USAGE, UNREACHABLE = 1, 2, 3
_EVERY_S = 5.0


def audit(
    as_json: Annotated[bool, typer.Option("--json", help="Report as one JSON object.")] = False,
) -> None:
    """Prove that the ledger and the content agree. Changes nothing; runs on a live system.

    Exit codes: 0 clean, 1 findings, 2 wrong settings, 3 the database cannot be reached. Reads
    AFTERWRITE_DATABASE_URL (the owner) and AFTERWRITE_CONTENT.

    Example: afterwrite audit --json
    """
    raise typer.Exit(audit_with(os.environ, as_json))


def audit_with(environment: Mapping[str, str], as_json: bool) -> int:
    """Runs an audit with these settings, prints its report, returns the exit code."""
    url = environment.get(f"{ENV_PREFIX}DATABASE_URL")
    if not url:
        typer.echo(f"{ENV_PREFIX}DATABASE_URL is not set: the owner's PostgreSQL URL.", err=True)
        return USAGE
    try:
        catalog = load_catalog(environment.get(f"{ENV_PREFIX}CONTENT") or "schema.forum")
    except CatalogError as error:
        typer.echo(str(error), err=True)
        return USAGE
    try:
        report = asyncio.run(run_audit(url, catalog, _Lines()))
    except (
        CannotConnect,
        OSError,
        asyncpg.InterfaceError,
        asyncpg.PostgresConnectionError,
    ) as error:
        typer.echo(f"The database cannot be reached: {error}", err=True)
        return UNREACHABLE
    except (asyncpg.UndefinedTableError, asyncpg.InsufficientPrivilegeError) as error:
        typer.echo(f"The database cannot be audited: {error}. Run `afterwrite migrate`,", err=True)
        typer.echo(f"and let {ENV_PREFIX}DATABASE_URL name the owner of the tables.", err=True)
        return USAGE
    typer.echo(json.dumps(report.to_json(), indent=2) if as_json else text(report))
    return 0 if report.clean else DIFFERENT


class _Lines:
    """Progress for people: a line on standard error now and then, none when it is quickly done."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, stage: str, rows: int) -> None:
        if time.monotonic() - self._last >= _EVERY_S:
            typer.echo(f"audit: {rows:,} {stage} …", err=True)
            self._last = time.monotonic()


def text(report: Report) -> str:
    """A report for people."""
    lines = [str(finding) for finding in report.findings]
    if report.total > len(lines):
        lines.append(f"… and {report.total - len(lines):,} more.")
    lines.append(
        f"{_many(report.lanes, 'lane')}, {_many(report.ledger_rows, 'ledger row')}, "
        f"{_many(report.content_rows, 'content row')}."
    )
    if report.unverifiable:
        lines.append(f"{report.unverifiable:,} unverifiable: retention dropped their ledger rows.")
    if report.clean:
        lines.append("Clean: ledger and content agree.")
    else:
        counts = ", ".join(f"{n:,} {code}" for code, n in sorted(report.counts.items()))
        lines.append(f"Not clean: {counts}.")
    return "\n".join(lines)


def _many(count: int, one: str) -> str:
    return f"{count:,} {one}{'' if count == 1 else 's'}"
