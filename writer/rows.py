"""Rows that a batch needs, in memory: read once in its transaction, changed command by command."""

import uuid
from collections.abc import Mapping, Sequence
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
    _by_parent: dict[Key, list[Key]] = field(default_factory=dict)
    _filed: int = 0
    """How many of the rows that are known `_by_parent` knows."""

    def get(self, type_: str, row_id: uuid.UUID) -> Row | None:
        """The row or None. Raises KeyError when it was never read: that would be a fault of ours."""
        return self.known[type_, row_id]

    def update(self, catalog: Catalog, changed: Mapping[Key, Row | None]) -> None:
        whole = 0 < self._filed == len(self.known)  # else it is made anew, when it is asked for
        self.known.update(changed)
        if whole:
            self._file(catalog, changed)

    def below(self, catalog: Catalog, key: Key) -> Sequence[Key]:
        """What may hang on a row: whatever is known to have referred to it at some time.

        Kept from the first deletion on: to look through all rows for each took 70 µs in a batch of 500.
        """
        if self._filed != len(self.known):
            self._by_parent.clear()
            self._file(catalog, self.known)
        return self._by_parent.get(key, ())

    def _file(self, catalog: Catalog, rows: Mapping[Key, Row | None]) -> None:
        for key, row in rows.items():
            if row is not None:
                for column, type_ in catalog[key[0]].strong_parents:
                    self._by_parent.setdefault((type_, row[column]), []).append(key)
        self._filed = len(self.known)


class StagedRows:
    """The rows as one command would leave them. Nothing shows in `base` before `keep()`."""

    def __init__(self, catalog: Catalog, base: Rows) -> None:
        self._catalog = catalog
        self._base = base
        self._known = base.known
        self._staged: dict[Key, Row | None] = {}
        self.gone: list[uuid.UUID] = []
        """Rows that were removed, and what was seen to vanish with them."""

    def get(self, type_: str, row_id: uuid.UUID) -> Row | None:
        key = (type_, row_id)
        return self._staged[key] if key in self._staged else self._known[key]

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
        parent = (kind.name, row_id)
        known = (*self._base.below(self._catalog, parent), *self._staged)
        found = {key for key in known if self._hangs(key, parent)}
        seen = self._base.hanging.get(parent, ())
        found |= {key for key in seen if key not in self._known and key not in self._staged}
        for key in found - into:
            into.add(key)
            self._collect(self._catalog[key[0]], key[1], into)

    def _hangs(self, key: Key, parent: Key) -> bool:
        row = self.get(*key)
        return row is not None and any(
            type_ == parent[0] and row[column] == parent[1]
            for column, type_ in self._catalog[key[0]].strong_parents
        )

    def keep(self) -> None:
        self._base.update(self._catalog, self._staged)
        self._staged = {}
