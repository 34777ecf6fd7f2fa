"""`afterwrite dead`: look at dead letters. What mends them is in `dead_mending`."""

import base64
import csv
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from deploy.commands import dead_mending
from deploy.commands.operating import (
    AsJson,
    Author,
    Code,
    Names,
    Since,
    Type,
    Until,
    counted,
    database_url,
    operator_settings,
    run,
    wanted,
    with_names,
)
from schema.acts import Letters
from schema.envelope import headers_to_json
from writer.operation import audit_log, letters
from writer.operation.connecting import connected
from writer.operation.letters import DeadLetter

app = typer.Typer(
    no_args_is_help=True, help="Dead letters: look at them, mend, replay or discard them."
)
app.command()(dead_mending.replay)
app.command()(dead_mending.edit)
app.command()(dead_mending.discard)

Limit = Annotated[int, typer.Option(min=1, max=100_000, help="So many at most.")]
_CSV: Final = (
    "letter", "died_at", "code", "type", "author", "author_id", "command_id", "detail", "sqlstate",
    "constraint", "attempts", "closed", "replay_id", "mutations",
)  # fmt: skip
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet would take for a formula; it gets an apostrophe before it."""


@app.command("list")
def list_(
    names: Names = None,
    code: Code = None,
    type_: Type = None,
    author: Author = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 50,
    closed: Annotated[
        bool, typer.Option("--closed", help="Those, too, that were replayed or discarded.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List dead letters in the order of the log.

    Example: afterwrite dead list --code check_violation --since 2h
    """
    url = database_url(operator_settings())
    meant = wanted(code, type_, author, since, until, limit)

    async def look() -> tuple[list[DeadLetter], int]:
        async with connected(url) as connection:
            chosen = await with_names(connection, meant, names)
            found = await letters.find(connection, chosen, closed=closed)
            return found, await letters.count(connection, chosen, closed=closed)

    found, total = run(look())
    if as_json:
        for letter in found:
            typer.echo(json.dumps(letter.to_json()))
    elif found:
        typer.echo("\n".join(_table([_columns(letter) for letter in found])))
    else:
        typer.echo("No dead letters.")
    if total > len(found):
        typer.echo(f"The first {len(found):,} of {total:,}; --limit shows more.", err=True)


@app.command()
def groups(
    code: Code = None,
    type_: Type = None,
    author: Author = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """Count open dead letters by code, content type and day; the largest group first.

    Example: afterwrite dead groups --since 1d
    """
    url = database_url(operator_settings())

    async def look() -> list[letters.Group]:
        async with connected(url) as connection:
            meant = wanted(code, type_, author, since, until, limit)
            return await letters.groups(connection, meant)

    found = run(look())
    if as_json:
        for group in found:
            typer.echo(json.dumps(group.to_json()))
        return
    rows = [
        (str(g.count), g.code, g.type or "-", g.day.isoformat(), f"e.g. {g.sample}", g.detail)
        for g in found
    ]
    typer.echo("\n".join(_table(rows)) or "No dead letters.")


@app.command()
def peek(
    name: Annotated[str, typer.Argument(help="LANE:OFFSET, or the id of its command.")],
    raw: Annotated[
        bool, typer.Option("--raw", help="The bytes of its value, as they are.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, bytes too.")] = False,
) -> None:
    """Show one dead letter whole: why it died, and what was sent.

    Example: afterwrite dead peek 0:41
    """
    letter = run(_one(name))
    if raw:
        sys.stdout.buffer.write(letter.value or b"")
        sys.stdout.buffer.flush()
    elif as_json:
        typer.echo(json.dumps(_exported(letter), indent=2))
    else:
        typer.echo(_shown(letter))


@app.command()
def export(
    names: Names = None,
    code: Code = None,
    type_: Type = None,
    author: Author = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 100_000,
    closed: Annotated[
        bool, typer.Option("--closed", help="Those, too, that were replayed or discarded.")
    ] = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="CSV for a spreadsheet, without the bytes.")
    ] = False,
    output: Annotated[Path | None, typer.Option(help="Write to this file.")] = None,
) -> None:
    """Write dead letters out whole, as NDJSON with their bytes in base64, or as CSV.

    Example: afterwrite dead export --since 7d --output letters.ndjson
    """
    url = database_url(operator_settings())

    async def look() -> list[DeadLetter]:
        async with connected(url) as connection:
            meant = wanted(code, type_, author, since, until, limit)
            meant = await with_names(connection, meant, names)
            return await letters.find(connection, meant, closed=closed)

    found = run(look())
    text = to_csv(found) if as_csv else "".join(f"{json.dumps(_exported(x))}\n" for x in found)
    if output is None:
        typer.echo(text, nl=False)
        return
    output.write_text(text, encoding="utf-8")
    typer.echo(f"{counted(len(found))} in {output}.")


@app.command()
def log(
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """Show the audit log: who did what, when and why; the latest first.

    Example: afterwrite dead log --limit 5
    """
    url = database_url(operator_settings())

    async def look() -> list[audit_log.Entry]:
        async with connected(url) as connection:
            return await audit_log.latest(connection, limit)

    entries = run(look())
    if as_json:
        for entry in entries:
            typer.echo(json.dumps(entry.to_json()))
        return
    rows = [
        (f"{e.at:%Y-%m-%d %H:%M:%S}", e.who, e.act, said(e.act, e.result), e.reason or "")
        for e in entries
    ]
    typer.echo("\n".join(_table(rows)) or "Nobody has done anything.")


def said(kind: str, result: Any) -> str:
    """What became of an act, in a few words."""
    if "why" in result:
        return f"not done: {result['why']}"
    if not result.get("done"):
        return "interrupted or under way"
    told = [f"{name} {len(result[name])}" for name in ("replayed", "discarded") if name in result]
    if result.get("refused"):
        told.append(f"left {len(result['refused'])}")
    if "lanes" in result:
        told.append("lane " + ", ".join(map(str, result["lanes"])))
    return "; ".join(told) or kind


async def _one(name: str) -> DeadLetter:
    async with connected(database_url(operator_settings())) as connection:
        meant = await with_names(connection, Letters(), [name])
        return (await letters.find(connection, meant, closed=True))[0]


def _columns(letter: DeadLetter) -> tuple[str, ...]:
    died = f"{letter.died_at:%Y-%m-%d %H:%M:%S}"
    who = letter.command.author.name if letter.command else "-"
    closed = (f"[{letter.closed}]",) if letter.closed else ()
    return letter.name, died, letter.code, letter.type or "-", _line(who), letter.detail, *closed


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows with their columns beside each other; the last one as long as it is."""
    widths: dict[int, int] = {}
    for row in rows:
        for n, cell in enumerate(row[:-1]):
            widths[n] = max(widths.get(n, 0), len(cell))
    return [
        "  ".join([*(c.ljust(widths[n]) for n, c in enumerate(row[:-1])), _line(row[-1])]).rstrip()
        for row in rows
    ]


def _line(text: str) -> str:
    """Text of others on one line of a terminal: what could steer it is shown, not sent."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _shown(letter: DeadLetter) -> str:
    lines = [
        f"letter     {letter.name}" + (f"  [{letter.closed}]" if letter.closed else ""),
        f"died       {letter.died_at:%Y-%m-%d %H:%M:%S} UTC, tried {letter.attempts} times"
        if letter.attempts > 1
        else f"died       {letter.died_at:%Y-%m-%d %H:%M:%S} UTC",
        f"code       {letter.code}",
        f"detail     {_line(letter.detail)}",
    ]
    if letter.sqlstate:
        constraint = f", constraint {letter.constraint}" if letter.constraint else ""
        lines.append(f"database   SQLSTATE {letter.sqlstate}{constraint}")
    if letter.replay_id:
        begun = "" if letter.closed else " (begun; `dead replay` completes it)"
        lines.append(f"replay     {letter.replay_id}{begun}")
    command = letter.command
    if command is None:
        bytes_ = len(letter.value or b"")
        lines.append(f"no command {letter.why_not}; {bytes_:,} bytes, see --raw")
        return "\n".join(lines)
    lines += [
        f"command    {command.command_id}",
        f"author     {_line(command.author.name)} ({command.author.id})",
        f"accepted   {command.accepted_at:%Y-%m-%d %H:%M:%S} UTC",
        f"stream     {command.stream}",
    ]
    if command.replays is not None:
        lines.append(f"repeats    {command.replays}")
    for number, mutation in enumerate(command.mutations):
        version = mutation.expected_version
        seen = f" of version {version}" if version is not None else ""
        lines.append(f"mutation {number} {mutation.op} {mutation.type} {mutation.id}{seen}")
        for field, value in mutation.values.items():
            lines.append(f"    {field} = {json.dumps(value, ensure_ascii=False)}")
    return "\n".join(lines)


def _exported(letter: DeadLetter) -> dict[str, Any]:
    """All of it: what was kept of the record, byte for byte, and the command it holds."""
    return letter.whole() | {
        "key_base64": _base64(letter.key),
        "value_base64": _base64(letter.value),
        "headers": json.loads(headers_to_json(letter.headers)),
    }


def _base64(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode()


def to_csv(found: list[DeadLetter]) -> str:
    """A spreadsheet's view; nothing that users wrote is taken for a formula."""
    made = io.StringIO()
    rows = csv.writer(made)
    rows.writerow(_CSV)
    for letter in found:
        cells = letter.to_json()
        command = letter.command
        mutations = [m.to_json() for m in command.mutations] if command else []
        cells["mutations"] = json.dumps(mutations, ensure_ascii=False) if command else None
        rows.writerow(_cell(cells[name]) for name in _CSV)
    return made.getvalue()


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
