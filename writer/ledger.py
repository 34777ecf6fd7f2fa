"""What the ledger keeps of decisions: its rows, as the driver takes them, and their texts.

All of it is made once for a command: what settling tells of it later is made of the same parts.
"""

import json
import uuid
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from typing import Any, NamedTuple

from writer.decisions import Change, Decision
from writer.publisher import Told

LedgerRow = tuple[Any, ...]
"""Values in the order of `statements.LEDGER_COLUMNS`."""


class Numbered(NamedTuple):
    """A decision with the outcome number that it got, and its texts for the ledger.

    `effects`: a JSON list; `shown`: what everybody may know of them. `problem`: a JSON object, or None.
    """

    seq: int
    decision: Decision
    effects: str
    shown: str
    problem: str | None

    @classmethod
    def of(cls, seq: int, decision: Decision) -> "Numbered":
        problem = decision.problem
        changes = decision.changes
        if len(changes) > 1:  # a command may touch a row more than once: the last effect counts
            changes = list({(c.kind.name, c.row["id"]): c for c in changes}.values())
        shown = [_shown(change) for change in changes]
        effects = [f"{s}, {_kept(c)}" for s, c in zip(shown, changes, strict=True)]
        return cls(
            seq,
            decision,
            _json_list(effects),
            _json_list(shown),
            json.dumps(problem.to_json()) if problem is not None else None,
        )

    @property
    def denied(self) -> list[uuid.UUID] | None:
        return list(self.decision.denied) or None


def _json_list(objects: Sequence[str]) -> str:
    """A JSON list of objects that are given as their members."""
    return f"[{{{'}, {'.join(objects)}}}]" if objects else "[]"


def _shown(change: Change) -> str:
    """The members of `Change.effect` that everybody may know, as JSON.

    Nothing in them needs escaping: names are declared, ids are ids.
    """
    row = change.row
    return (
        f'"type": "{change.kind.name}", "id": "{row["id"]}", "op": "{change.op}", '
        f'"version": {row["version"]}'
    )


def _kept(change: Change) -> str:
    """The other members of `Change.effect`, for the audit."""
    row, kind = change.row, change.kind
    digest = "null" if change.op == "delete" else f'"{kind.digest(row)}"'
    parents = [f'"{row[name]}"' for name, _ in kind.strong_parents if row.get(name) is not None]
    return f'"digest": {digest}, "parents": [{", ".join(parents)}]'


def told_of(made: Numbered) -> Told:
    """What settling tells of a decision."""
    decision = made.decision
    record = decision.record
    command = record.command if record.envelope is not None else None
    notice = decision.notice
    return Told(
        made.seq,
        record.offset,
        decision.outcome.value,
        command.command_id if command else None,
        command.author.id if command else None,
        made.problem,
        decision.duplicate_of,
        made.shown,
        tuple([change.kind.name for change in decision.changes]),
        str(notice["id"]) if notice is not None else None,
    )


def ledger_rows(
    numbered: Sequence[Numbered], periods: Sequence[date], lane: int, epoch: int, now: datetime
) -> Iterator[LedgerRow]:
    """The rows of decisions that are new to the ledger; `periods` are those of their records."""
    for made, period in zip(numbered, periods, strict=True):
        decision = made.decision
        record = decision.record
        command = record.command if record.envelope is not None else None
        yield (
            lane,
            record.offset,
            period,
            made.seq,
            epoch,
            decision.outcome.value,
            command.command_id if command else None,
            command.author.id if command else None,
            decision.stream,
            command.accepted_at if command else None,
            now,
            made.effects,
            made.problem,
            decision.duplicate_of,
            made.denied,
        )
