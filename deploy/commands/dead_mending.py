"""`afterwrite dead replay`, `edit` and `discard`: deal with dead letters."""

import asyncio
import json
import os
import shlex
import subprocess
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

import asyncpg
import typer

from deploy.commands.operating import (
    AsJson,
    Author,
    By,
    Code,
    DryRun,
    Names,
    Since,
    Type,
    Until,
    Yes,
    act_of,
    confirm,
    counted,
    operator_settings,
    run,
    tools,
    wanted,
    with_names,
)
from deploy.errors import UsageTrouble
from schema.acts import MAX_LETTERS, Act, ActKind, Letters
from schema.commands import Command
from schema.settings import OperatorSettings
from writer.operation import letters
from writer.operation.perform import Tools, perform

Limit = Annotated[int, typer.Option(min=1, max=MAX_LETTERS, help="So many at most.")]
All = Annotated[bool, typer.Option("--all", help="All open letters, up to --limit.")]
Wait = Annotated[
    float, typer.Option(min=0, help="Seconds to wait for what the writer makes of them.")
]
Reason = Annotated[str | None, typer.Option(help="Why, for the audit log.")]
_OUTCOMES: Final = """
SELECT command_id, outcome, problem FROM afterwrite.ledger
WHERE command_id = ANY($1::uuid[]) AND outcome <> 'duplicate'
"""
_POLL_S: Final = 0.2


def replay(
    names: Names = None,
    code: Code = None,
    type_: Type = None,
    author: Author = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 100,
    everything: All = False,
    rate: Annotated[
        float | None, typer.Option(help="So many a second at most, as 50 or 0.5.")
    ] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    reason: Reason = None,
    by: By = None,
    wait: Wait = 5,
    as_json: AsJson = False,
) -> None:
    """Replay dead letters, in the order of the log: each becomes a new command that names the old one.

    Safe to repeat, also after it was interrupted. Exit code 1 when a letter was left or a replay was
    rejected again.

    Example: afterwrite dead replay --code check_violation --since 2h --dry-run
    """
    settings = operator_settings()
    meant = wanted(code, type_, author, since, until, limit)
    _must_be_meant(names, meant, everything)
    act = act_of("replay", by, letters=meant, rate=rate, dry_run=dry_run, reason=reason)
    raise typer.Exit(run(_deal(settings, act, names, yes, wait, as_json)))


def discard(
    names: Names = None,
    code: Code = None,
    type_: Type = None,
    author: Author = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 100,
    everything: All = False,
    reason: Annotated[str, typer.Option(help="Why, for the audit log.")] = "",
    dry_run: DryRun = False,
    yes: Yes = False,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Discard dead letters: they are kept, marked, and listed no more. A reason is needed.

    Example: afterwrite dead discard 0:41 --reason "spam, see ticket 12"
    """
    settings = operator_settings()
    meant = wanted(code, type_, author, since, until, limit)
    _must_be_meant(names, meant, everything)
    if not reason.strip():
        raise UsageTrouble("A reason is needed.", 'Add --reason "…"; it goes to the audit log.')
    act = act_of("discard", by, letters=meant, dry_run=dry_run, reason=reason)
    raise typer.Exit(run(_deal(settings, act, names, yes, 0, as_json)))


def edit(
    name: Annotated[str, typer.Argument(help="LANE:OFFSET, or the id of its command.")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="FIELD=VALUE, or N.FIELD=VALUE for mutation N."),
    ] = None,
    values: Annotated[
        str | None,
        typer.Option(help="A JSON object with the fields to change, or one for each mutation."),
    ] = None,
    editor: Annotated[bool, typer.Option("--editor", help="Change them in $EDITOR.")] = False,
    any_version: Annotated[
        bool, typer.Option("--any-version", help="Drop the version that its author had seen.")
    ] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    reason: Reason = None,
    by: By = None,
    wait: Wait = 5,
    as_json: AsJson = False,
) -> None:
    """Replay one dead letter with other values. The original is kept as it was.

    The values are held against the declaration of the content type before anything is sent.

    Example: afterwrite dead edit 0:41 --set title="Shorter" --dry-run
    """
    settings = operator_settings()

    async def work() -> int:
        async with tools(settings, sign=True) as made:
            chosen = await with_names(made.connection, Letters(), [name])
            found = (await letters.find(made.connection, chosen, closed=True))[0]
            if found.command is None:
                raise UsageTrouble(f"{found.why_not}.", "See `afterwrite dead peek`.")
            changed = _changes(made, found.command, set_ or [], values, editor)
            act = act_of(
                "edit", by, letters=Letters(places=chosen.places), values=changed,
                any_version=any_version, dry_run=dry_run, reason=reason,
            )  # fmt: skip
            return await _ask_and_do(made, act, 1, yes, wait, as_json)

    raise typer.Exit(run(work()))


def _must_be_meant(names: list[str] | None, meant: Letters, everything: bool) -> None:
    """Nobody deals with all letters by leaving something out."""
    narrowed = replace(meant, limit=None) != Letters()
    if not names and not narrowed and not everything:
        raise UsageTrouble("Which letters?", "Name some, filter them, or give --all.")


async def _deal(
    settings: OperatorSettings, act: Act, names: list[str] | None, yes: bool, wait_s: float,
    as_json: bool,
) -> int:  # fmt: skip
    async with tools(settings, sign=act.kind != "discard") as made:
        meant = await with_names(made.connection, act.letters or Letters(), names)
        if not names:
            # What is counted and confirmed is what is dealt with, not what has come since.
            meant = replace(meant, places=tuple(await letters.places_of(made.connection, meant)))
        total = len(meant.places or ())
        if not total:
            if not as_json:
                typer.echo("No dead letters match.")
            return 0
        act = replace(act, letters=Letters(places=meant.places))
        return await _ask_and_do(made, act, total, yes, wait_s, as_json)


_VERBS: Final[Mapping[ActKind, str]] = {
    "replay": "Replay", "edit": "Replay with other values", "discard": "Discard",
}  # fmt: skip


async def _ask_and_do(
    made: Tools, act: Act, total: int, yes: bool, wait_s: float, as_json: bool
) -> int:
    """Print the count, ask back, perform, and say what became of it. Returns the exit code."""
    if not as_json:
        typer.echo(f"{counted(total)}.")
    if not act.dry_run:
        confirm(f"{_VERBS[act.kind]} {counted(total)}?", str(total), yes)
    steps: list[dict[str, Any]] = []

    def progress(step: dict[str, Any]) -> None:
        steps.append(step)
        if not as_json:
            typer.echo(_step(act, step))

    performed = await perform(made, act, progress)
    if "why" in performed.result:
        raise UsageTrouble(f"{performed.result['why']}.", "See `afterwrite dead log`.")
    ids = [uuid.UUID(step["replay_id"]) for step in steps if "offset" in step]
    outcomes = await _outcomes(made.connection, ids, wait_s)
    if as_json:
        for step in steps:
            known = outcomes.get(step.get("replay_id", ""))
            typer.echo(json.dumps(step | ({"outcome": known[0]} if known else {})))
    else:
        _sum_up(act, steps, outcomes, len(ids))
    failed = any(outcome in ("rejected", "dead") for outcome, _ in outcomes.values())
    return 0 if performed.ok and not failed else 1


async def _outcomes(
    connection: asyncpg.Connection, ids: list[uuid.UUID], wait_s: float
) -> dict[str, tuple[str, str | None]]:
    """What the writer has made of replays by the end of the wait: id → outcome, and why not."""
    until = time.monotonic() + wait_s
    found: dict[str, tuple[str, str | None]] = {}
    while ids and wait_s:
        for row in await connection.fetch(_OUTCOMES, ids):
            problem = json.loads(row["problem"]) if row["problem"] else {}
            found[str(row["command_id"])] = row["outcome"], problem.get("detail")
        if len(found) == len(ids) or time.monotonic() > until:
            break
        await asyncio.sleep(_POLL_S)
    return found


def _step(act: Act, step: Mapping[str, Any]) -> str:
    if "why" in step:
        return f"{step['letter']} left: {step['why']}"
    if "forecast" in step:
        likely = step["forecast"]
        why = f" ({likely['code']}: {likely.get('detail', '')})" if "code" in likely else ""
        waits = f", waiting for {', '.join(likely['waits_for'])}" if "waits_for" in likely else ""
        return f"{step['letter']} would be {likely['outcome']}{why}{waits}"
    if act.kind == "discard":
        return f"{step['letter']} {'would be ' if act.dry_run else ''}discarded"
    return f"{step['letter']} replayed as {step['replay_id']}"


def _sum_up(
    act: Act, steps: list[dict[str, Any]], outcomes: Mapping[str, tuple[str, str | None]], sent: int
) -> None:
    for replay_id, (outcome, why) in outcomes.items():
        if outcome != "saved":
            typer.echo(f"{replay_id} {outcome}" + (f": {why}" if why else ""))
    left = sum("why" in step for step in steps)
    done = len(steps) - left
    if act.dry_run:
        typer.echo("A dry run: nothing was changed.")
        return
    told = [f"{done:,} {'discarded' if act.kind == 'discard' else 'replayed'}"]
    told += [f"{left:,} left as they are"] if left else []
    told += [f"{n:,} {outcome}" for outcome, n in Counter(o for o, _ in outcomes.values()).items()]
    undecided = sent - len(outcomes)
    told += [f"{undecided:,} not decided yet"] if undecided else []
    typer.echo(", ".join(told) + ".")


def _changes(
    made: Tools, command: Command, set_: list[str], values: str | None, editor: bool
) -> dict[int, dict[str, Any]]:
    """The fields that an edit changes, by mutation. Raises `UsageTrouble`."""
    changed: dict[int, dict[str, Any]] = {}
    if values is not None:
        for number, fields in _from_json(values).items():
            changed.setdefault(number, {}).update(fields)
    for text in set_:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageTrouble(f"{text!r} sets nothing.", "Say FIELD=VALUE.")
        number, field = _where(command, name)
        changed.setdefault(number, {})[field] = _value(made, command, number, field, value)
    if editor:
        for number, fields in _from_editor(command).items():
            changed.setdefault(number, {}).update(fields)
    return changed


def _from_json(text: str) -> dict[int, dict[str, Any]]:
    try:
        given = json.loads(text)
    except ValueError as error:
        raise UsageTrouble(f"--values is not JSON: {error}.", "See --help.") from error
    listed = given if isinstance(given, list) else [given]
    if not all(isinstance(fields, dict) for fields in listed):
        raise UsageTrouble("--values is no JSON object, and no list of them.", "See --help.")
    return {number: fields for number, fields in enumerate(listed) if fields}


def _where(command: Command, name: str) -> tuple[int, str]:
    """The mutation and the field that `FIELD` or `N.FIELD` names."""
    number, dot, field = name.partition(".")
    if dot and number.isdecimal():
        return int(number), field
    having = [n for n, m in enumerate(command.mutations) if name in m.values]
    if len(having) == 1 or len(command.mutations) == 1:
        return (having or [0])[0], name
    last = len(command.mutations) - 1
    raise UsageTrouble(
        f"{name} could be of several mutations.", f"Say N.{name}=…; they are numbered 0 to {last}."
    )


def _value(made: Tools, command: Command, number: int, field: str, text: str) -> Any:
    """Texts are taken as they are; anything else is JSON: true, 5, null."""
    if number < len(command.mutations) and command.mutations[number].type in made.catalog:
        declared = made.catalog[command.mutations[number].type].fields.get(field)
        if declared is not None and declared.kind in ("text", "uuid", "time"):
            return None if text == "null" and declared.nullable else text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _from_editor(command: Command) -> dict[int, dict[str, Any]]:
    """What the operator changed in his editor, as a merge patch of each mutation."""
    before = {str(n): dict(m.values) for n, m in enumerate(command.mutations) if m.op != "delete"}
    program = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "values.json"
        path.write_text(json.dumps(before, indent=2, ensure_ascii=False), encoding="utf-8")
        ended = subprocess.run([*shlex.split(program), str(path)], check=False)
        if ended.returncode:
            raise UsageTrouble(f"{program} ended with {ended.returncode}.", "Nothing was done.")
        try:
            after = json.loads(path.read_text(encoding="utf-8"))
            return {
                int(number): patch
                for number, old in before.items()
                if (patch := _patch(old, after.get(number, {})))
            }
        except (ValueError, AttributeError) as error:
            raise UsageTrouble(f"What was saved is not JSON: {error}.", "Try again.") from error


def _patch(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    changed = {name: value for name, value in after.items() if before.get(name, ...) != value}
    return changed | {name: None for name in before if name not in after}
