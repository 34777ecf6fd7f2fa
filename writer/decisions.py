"""Decisions: what a batch is going to write, command by command. Pure data."""

import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from schema.content import Kind, Row
from schema.outcomes import Outcome, Problem
from schema.structs import struct
from writer.record import LaneRecord


@struct(frozen=True)
class Change:
    """One row to insert, update or delete. `counted` are the counters of other rows it moves."""

    kind: Kind
    op: Literal["create", "update", "delete"]
    row: Row
    counted: tuple[tuple[Kind, uuid.UUID, str, int], ...] = ()

    def effect(self) -> dict[str, Any]:
        """What the ledger keeps of it, for the audit."""
        return {
            "type": self.kind.name,
            "id": str(self.row["id"]),
            "op": self.op,
            "version": self.row["version"],
            "digest": None if self.op == "delete" else self.kind.digest(self.row),
            "parents": [
                str(self.row[column])
                for column, _ in self.kind.strong_parents
                if self.row.get(column) is not None
            ],
        }


@dataclass(slots=True)
class Decision:
    """What becomes of one record, now."""

    record: LaneRecord
    outcome: Outcome
    stream: uuid.UUID | None
    changes: list[Change] = field(default_factory=list)
    problem: Problem | None = None
    sqlstate: str | None = None
    constraint: str | None = None
    duplicate_of: uuid.UUID | None = None
    denied: tuple[uuid.UUID, ...] = ()
    park: "Park | None" = None
    was_parked: bool = False
    attempts: int = 0

    @property
    def notice(self) -> Row | None:
        """The message to the author of a rejected command: the only row that it changes."""
        rejected = self.outcome is Outcome.REJECTED and self.changes
        return self.changes[-1].row if rejected else None

    @property
    def stays_parked(self) -> bool:
        """It was held back before and still is: nothing new to tell."""
        return self.was_parked and self.outcome is Outcome.PARKED

    @property
    def effects(self) -> list[dict[str, Any]]:
        """The last effect on each row; a command may touch one more than once."""
        if len(self.changes) == 1:
            return [self.changes[0].effect()]
        last = {(c.kind.name, c.row["id"]): c.effect() for c in self.changes}
        return list(last.values())


@dataclass(frozen=True)
class Park:
    """How a command is held back."""

    code: str
    waits_for: frozenset[uuid.UUID]
    parked_at: datetime
    attempts: int
    retry_at: datetime | None
