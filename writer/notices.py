"""Notices: what the writer itself tells an author, and what Afterwrite's own commands may tell him.

A rejected command takes along what hangs on it. Its author gets one notice of it all: what he sent is
returned in the notice of the command that was at fault, also when it is decided much later, as long as
he has not read that notice and it does not grow too large. What another author had built on it is
returned to him in a notice of his own, one for all of it in a transaction.
"""

import json
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from schema.catalog import Catalog
from schema.commands import Command
from schema.content import Row
from schema.identifiers import new_row_id
from schema.outcomes import Problem
from writer.decisions import Change
from writer.failures import Halt, Refused
from writer.knowledge import Knowledge
from writer.rows import Rows, StagedRows
from writer.values import new_row

AT_FAULT = "parent_command"
"""Member of the problem `parent_rejected`: the command whose rejection is the reason."""
MOST_MUTATIONS = 100
MOST_BYTES = 262_144
"""What one notice returns at most, beyond what its first command holds."""


@dataclass
class Notices:
    """Makes the notices of one batch. `rows` has the earlier ones that may be added to."""

    catalog: Catalog
    rows: Rows
    known: Knowledge
    now: datetime

    def of_rejection(self, command: Command, problem: Problem) -> list[Change]:
        """The notice of a rejected command, new or added to; none of Afterwrite's own."""
        if command.system:
            return []
        at_fault = command_at_fault(command, problem)
        there = self._open(command.author.id, at_fault)
        added = _with(there, command) if there is not None else None
        if there is None or added is None:
            change = Change(self.catalog.notice, "create", self._new(command, problem))
        else:
            row = there | added | {"version": there["version"] + 1, "updated_at": self.now}
            change = Change(self.catalog.notice, "update", row)
        self.rows.known[self.catalog.notice.name, change.row["id"]] = change.row
        self.known.told[command.author.id, at_fault] = change.row["id"]
        return [change]

    def _open(self, author: uuid.UUID, at_fault: uuid.UUID) -> Row | None:
        """The notice that this author has of that rejection, while he has not read it."""
        notice = self.known.told.get((author, at_fault))
        row = self.rows.known.get((self.catalog.notice.name, notice)) if notice else None
        return None if row is None or row.get("read") else row

    def _new(self, command: Command, problem: Problem) -> Row:
        """The message to the author, with everything he sent."""
        row: Row = {
            "id": new_row_id(),
            "version": 1,
            "created_at": self.now,
            "updated_at": self.now,
        }
        row |= {name: field.default for name, field in self.catalog.notice.fields.items()}
        row |= {
            "user_id": command.author.id,
            "kind": "rejected",
            "command_id": command.command_id,
            "code": problem.code,
            "detail": problem.detail,
            "returned": {"mutations": [m.to_json() for m in command.mutations]},
        }
        return row


def command_at_fault(command: Command, problem: Problem) -> uuid.UUID:
    """The command whose rejection is the reason of this one: itself, if it hangs on none."""
    found = problem.extra.get(AT_FAULT)
    return uuid.UUID(found) if found is not None else command.command_id


def _with(notice: Row, command: Command) -> dict[str, Any] | None:
    """What changes in a notice that returns this command, too; None if it would grow too large."""
    returned = dict(notice["returned"] or {})
    returned["mutations"] = [
        *returned.get("mutations", []),
        *(m.to_json() for m in command.mutations),
    ]
    returned["dependants"] = [*returned.get("dependants", []), str(command.command_id)]
    if len(returned["mutations"]) > MOST_MUTATIONS or len(json.dumps(returned)) > MOST_BYTES:
        return None
    many = len(returned["dependants"])
    reason = str(notice["detail"]).partition("\n")[0]
    more = "1 more change of yours needed it" if many == 1 else f"{many} more changes needed it"
    return {
        "returned": returned,
        "detail": f"{reason}\n{more}, and could not be saved either.",
    }


def told_by_system(catalog: Catalog, command: Command, staged: StagedRows) -> list[Change]:
    """The changes of a command that Afterwrite itself made. It may create notices to its author, and
    nothing else; no rule is asked. Raises `Refused`."""
    kind = catalog.notice
    changes = []
    for mutation in command.mutations:
        if mutation.type != kind.name or mutation.op != "create":
            raise Refused(Problem("forbidden", "Only notices can be made this way."))
        unknown = set(mutation.values) - set(kind.fields)
        if unknown:
            raise Halt(f"{kind.name} has no field {min(unknown)!r} here; upgrade the writer")
        try:
            values = kind.from_json(mutation.values)
        except (ValueError, TypeError, AttributeError):
            raise Refused(Problem("invalid", "A value has the wrong form.")) from None
        if values.get("user_id") != command.author.id:
            raise Refused(Problem("forbidden", "A notice is made to the author of its command."))
        if staged.get(kind.name, mutation.id) is not None:
            raise Refused(Problem("id_taken", f"There is a {kind.name} with this id."))
        row = new_row(kind, mutation.id, values, command)
        staged.put(kind, row)
        changes.append(Change(kind, "create", row))
    return changes
