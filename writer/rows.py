"""Rows that a batch needs, in memory: read once in its transaction, changed command by command."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

from schema.catalog import Catalog
from schema.content import Kind, Row

Key = tuple[str, uuid.UUID]
MOST_GONE = 1000
"""So many rows that vanish with another are remembered; what needs one of the others waits in vain."""


@dataclass
class Rows:
    """What is known of rows: (type, id) → the row, or None when it is not there."""

    known: dict[Key, Row | None] = field(default_factory=dict)
    hanging: dict[Key, list[Key]] = field(default_factory=dict)
    """Row → rows that were found to vanish with it, whose contents nobody needs."""

    def get(self, type_: str, row_id: uuid.UUID) -> Row | None:
        """The row or None. Raises KeyError when it was never read: that would be a fault of ours."""
        return self.known[type_, row_id]


class StagedRows:
    """The rows as one command would leave them. Nothing shows in `base` before `keep()`."""

    def __init__(self, catalog: Catalog, base: Rows) -> None:
        self._catalog = catalog
        self._base = base
        self._staged: dict[Key, Row | None] = {}
        self.gone: list[uuid.UUID] = []
        """Rows that were removed, and what was seen to vanish with them."""

    def get(self, type_: str, row_id: uuid.UUID) -> Row | None:
        key = (type_, row_id)
        return self._staged[key] if key in self._staged else self._base.get(type_, row_id)

    def put(self, kind: Kind, row: Row) -> None:
        self._staged[kind.name, row["id"]] = row

    def remove(self, kind: Kind, row_id: uuid.UUID) -> None:
        """The row goes, and with it every row that is known to hang on it, as the foreign keys do."""
        below: set[Key] = set()
        self._collect(kind, row_id, below)
        for key in below:
            self._staged[key] = None
        self._staged[kind.name, row_id] = None
        self.gone += [row_id, *sorted(found for _, found in below)[:MOST_GONE]]

    def _collect(self, kind: Kind, row_id: uuid.UUID, into: set[Key]) -> None:
        """What hangs on a row: present in memory, or seen in the database and not removed since."""
        found = {
            (child.name, row["id"])
            for child, ref in self._catalog.children(kind)
            for row in self._present(child)
            if row[ref] == row_id
        }
        seen = self._base.hanging.get((kind.name, row_id), ())
        found |= {key for key in seen if key not in self._base.known and key not in self._staged}
        for key in found - into:
            into.add(key)
            self._collect(self._catalog[key[0]], key[1], into)

    def keep(self) -> None:
        self._base.known.update(self._staged)
        self._staged = {}

    def _present(self, kind: Kind) -> Iterator[Row]:
        for key in {**self._base.known, **self._staged}:
            if key[0] == kind.name:
                row = self.get(*key)
                if row is not None:
                    yield row
