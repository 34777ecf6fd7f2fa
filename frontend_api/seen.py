"""What a reader sees: rows and pages, and how far they can be relied upon."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from frontend_api.merge import Page, Shown
from frontend_api.overlay import OverlayState
from frontend_api.overlay_rows import RowRef
from schema.identifiers import CommandId
from schema.structs import struct


class OverlayIncomplete(Exception):
    """It cannot be told whether this is there: Redis is away, or its memory is being rebuilt."""


@struct(frozen=True)
class Freshness:
    """How far an answer can be relied upon."""

    overlay: OverlayState = OverlayState.COMPLETE
    stale_s: float | None = None
    """Age of what PostgreSQL said, if it was read from the cache because PostgreSQL is away."""
    older_missing: bool = False
    """Only what is pending could be read: PostgreSQL is away, and what it said is not known."""

    @property
    def whole(self) -> bool:
        """Whether all that its reader changed is in the answer."""
        return self.overlay is OverlayState.COMPLETE

    def plus(self, other: "Freshness") -> "Freshness":
        """Of an answer made of two: the worse of each."""
        ages = [age for age in (self.stale_s, other.stale_s) if age is not None]
        worse = max(self.overlay, other.overlay, key=list(OverlayState).index)
        missing = self.older_missing or other.older_missing
        return Freshness(worse, max(ages) if ages else None, missing)


@struct(frozen=True)
class View:
    """Rows as their reader sees them. What is not in `rows` could not be read."""

    rows: Mapping[RowRef, Shown | None] = field(default_factory=dict)
    freshness: Freshness = Freshness()
    overlay_empty: bool = True
    database_read: bool = True
    new: frozenset[RowRef] = frozenset()
    """Rows that their reader made so lately that the database need not know them; only told while
    the database is away."""

    def __contains__(self, ref: RowRef) -> bool:
        return ref in self.rows

    def get(self, type_: str, row_id: uuid.UUID) -> Shown | None:
        return self.rows.get((type_, row_id))

    def plus(self, other: "View") -> "View":
        return replace(
            other,
            rows={**self.rows, **other.rows},
            freshness=self.freshness.plus(other.freshness),
            overlay_empty=self.overlay_empty and other.overlay_empty,
            database_read=self.database_read and other.database_read,
        )


@dataclass(frozen=True)
class ListPage:
    page: Page
    freshness: Freshness


@dataclass(frozen=True)
class CommandPage:
    """Commands of one author as JSON, newest first. `ledger_read` is False if only the overlay
    could be read; `next_after` is the command id to continue behind."""

    items: list[dict[str, Any]]
    next_after: CommandId | None
    freshness: Freshness
    ledger_read: bool = True
