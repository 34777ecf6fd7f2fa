"""What earlier commands have decided: the part of the ledger that a batch has to know."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from schema.commands import Command
from schema.outcomes import Outcome
from writer.record import LaneRecord


def brings(command: Command) -> tuple[uuid.UUID, ...]:
    """The rows that are there after this command: what it creates, and its author's own row."""
    return (command.author.id, *(m.id for m in command.mutations if m.op == "create"))


@dataclass(frozen=True)
class ParkedCommand:
    """A command that is held back; `waits_for` names the missing rows, if it heads its stream."""

    record: LaneRecord
    stream: uuid.UUID
    code: str
    waits_for: frozenset[uuid.UUID]
    parked_at: datetime
    attempts: int
    retry_at: datetime | None  # None: it waits behind the head of its stream


@dataclass
class Knowledge:
    """Grows while a batch is decided, so that later commands see what earlier ones did."""

    decided: set[uuid.UUID] = field(default_factory=set)
    """Command ids that have an effective ledger row."""
    afresh: set[uuid.UUID] = field(default_factory=set)
    """Commands that this transaction has decided: of them the ledger has old news."""
    keys: dict[tuple[uuid.UUID, str], tuple[uuid.UUID, str | None]] = field(default_factory=dict)
    """(author, Idempotency-Key) → the command that used it first, and its fingerprint."""
    denied: dict[uuid.UUID, dict[uuid.UUID, Outcome]] = field(default_factory=dict)
    """Row id → what commands did that keeps it from being there; `saved` means it was deleted."""
    parked: dict[uuid.UUID, list[ParkedCommand]] = field(default_factory=dict)
    """Stream → its parked commands, in the order of their offsets."""
    at_fault: dict[uuid.UUID, uuid.UUID] = field(default_factory=dict)
    """Rejected command → the one whose rejection was the reason, if that was another."""
    told: dict[tuple[uuid.UUID, uuid.UUID], uuid.UUID] = field(default_factory=dict)
    """(author, command at fault) → the notice that he has of it."""

    def streams_waiting_for(self, row_ids: Sequence[uuid.UUID]) -> list[uuid.UUID]:
        wanted = set(row_ids)
        return [s for s, held in self.parked.items() if held and held[0].waits_for & wanted]

    def deny(self, row_id: uuid.UUID, command_id: uuid.UUID, outcome: Outcome) -> None:
        self.denied.setdefault(row_id, {})[command_id] = outcome

    def allow(self, row_id: uuid.UUID, command_id: uuid.UUID) -> None:
        """The command decided otherwise by now: it does not keep the row away any more."""
        self.denied.get(row_id, {}).pop(command_id, None)

    def fate(self, row_id: uuid.UUID) -> Outcome | None:
        """Why a row is not there, None when nobody knows. A parked creation may still bring it."""
        outcomes = self.denied.get(row_id, {}).values()
        return next((o for o in _BY_WEIGHT if o in outcomes), None)

    def who_rejected(self, row_id: uuid.UUID) -> uuid.UUID:
        """The command that is at fault when the creation of this row was rejected."""
        outcomes = self.denied.get(row_id, {})
        first = min(c for c, outcome in outcomes.items() if outcome is Outcome.REJECTED)
        return self.at_fault.get(first, first)


_BY_WEIGHT = (Outcome.PARKED, Outcome.SAVED, Outcome.REJECTED)
