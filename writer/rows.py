"""Rows that a batch needs, in memory: read once in its transaction, changed command by command."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

from schema.catalog import Catalog
from schema.content import Kind, Row

Key = tuple[str, uuid.UUID]


@dataclass
class Rows:
    """What is known of rows: (type, id) → the row, or None when it is not there."""

    known: dict[Key, Row | None] = field(default_factory=dict)

    def get(self, type_: str, row_id: uuid.UUID) -> Row | None:
        """The row or None. Raises KeyError when it was never read: that would be a fault of ours."""
        return self.known[type_, row_id]


class StagedRows:
    """The rows as one command would leave them. Nothing shows in `base` before `keep()`."""

    def __init__(self, catalog: Catalog, base: Rows) -> None:
        self._catalog = catalog
        self._base = base
        self._staged: dict[Key, Row | None] = {}

    def get(self, type_: str, row_id: uuid.UUID) -> Row | None:
        key = (type_, row_id)
        return self._staged[key] if key in self._staged else self._base.get(type_, row_id)

    def put(self, kind: Kind, row: Row) -> None:
        self._staged[kind.name, row["id"]] = row

    def remove(self, kind: Kind, row_id: uuid.UUID) -> None:
        """The row goes, and with it every known row that hangs on it, as the foreign keys do."""
        self._staged[kind.name, row_id] = None
        for child, ref in self._catalog.children(kind):
            for row in list(self._present(child)):
                if row[ref] == row_id:
                    self.remove(child, row["id"])

    def keep(self) -> None:
        self._base.known.update(self._staged)
        self._staged = {}

    def _present(self, kind: Kind) -> Iterator[Row]:
        for key in {**self._base.known, **self._staged}:
            if key[0] == kind.name:
                row = self.get(*key)
                if row is not None:
                    yield row
