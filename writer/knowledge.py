"""What earlier commands have decided: the part of the ledger that a batch has to know."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from schema.outcomes import Outcome
from writer.record import LaneRecord


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
    keys: dict[tuple[uuid.UUID, str], tuple[uuid.UUID, str | None]] = field(default_factory=dict)
    """(author, Idempotency-Key) → the command that used it first, and its fingerprint."""
    denied: dict[uuid.UUID, Outcome] = field(default_factory=dict)
    """Row id → the outcome that keeps it from being there; `saved` means it was deleted."""
    parked: dict[uuid.UUID, list[ParkedCommand]] = field(default_factory=dict)
    """Stream → its parked commands, in the order of their offsets."""

    def streams_waiting_for(self, row_ids: Sequence[uuid.UUID]) -> list[uuid.UUID]:
        wanted = set(row_ids)
        return [s for s, held in self.parked.items() if held and held[0].waits_for & wanted]
