"""How a cached row or page is named and written. Pure: no clock, no I/O.

A value is `rows asked for|JSON`; a single row has 0 there. The JSON holds `at` (ms since 1970, when it
was read), `positions` (lane → position, where the ledger begins, what is parked), and `row`, or `rows`
and `complete`.
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from frontend_api.view import CachedPage, CachedRow, LanePosition
from schema.catalog import ListOf
from schema.content import Kind, Row
from schema.fields import parse_time, render_time

Positions = Mapping[int, LanePosition]

_PAGE_BYTES: Final = 262_144
"""A page whose rows take more is kept as far as they go."""
_ANY_NUMBER: Final = 1_000_000


@dataclass(frozen=True)
class KeptPage:
    """A page of which `asked` rows were asked for."""

    field: str
    kind: Kind
    rows: Sequence[Row]
    asked: int


@dataclass(frozen=True)
class Kept:
    """What one snapshot said and is still to be stored."""

    at_ms: int
    positions: Positions
    rows: Mapping[str, tuple[Kind, Row | None]]
    page: KeptPage | None = None

    @property
    def fields(self) -> list[str]:
        """The names of all its entries."""
        return [*self.rows, *([self.page.field] if self.page else [])]


def row_field(kind: Kind, row_id: uuid.UUID, owner: uuid.UUID) -> str:
    """Under which a reader finds the row; a private one only if he is its owner."""
    private = kind.model.private_to is not None
    return f"row:{kind.name}:{row_id}:{owner if private else ''}"


def kept_field(kind: Kind, row_id: uuid.UUID, row: Row | None) -> str | None:
    """Under which the row is kept. Whose a private row would be that is not there, nobody knows."""
    if kind.model.private_to is None:
        return row_field(kind, row_id, row_id)
    owner = row[kind.model.private_to] if row is not None else None
    return row_field(kind, row_id, owner) if owner is not None else None


def page_field(
    lst: ListOf, parent: uuid.UUID | None, after: uuid.UUID | None, reader: uuid.UUID
) -> str:
    """Under which a reader finds the page; one of private rows is each reader's own."""
    private = lst.kind.model.private_to is not None
    return f"page:{lst.name}:{parent or ''}:{after or ''}:{reader if private else ''}"


@dataclass(frozen=True)
class Written:
    """One entry as it is stored. A kept one that has `rank` rows gives way only to one of as many."""

    field: str
    rank: int
    value: str


def written(kept: Kept) -> list[Written]:
    places = {
        lane: [p.position, p.ledger_from, *sorted(p.parked)] for lane, p in kept.positions.items()
    }
    head = f'{{"at":{kept.at_ms},"positions":{json.dumps(places)}'
    entries = [
        Written(field, 0, f'0|{head},"row":{_json(kind, row) if row is not None else "null"}}}')
        for field, (kind, row) in kept.rows.items()
    ]
    return [*entries, *([_written_page(head, kept.page)] if kept.page is not None else [])]


def _written_page(head: str, page: KeptPage) -> Written:
    rows: list[str] = []
    left = _PAGE_BYTES
    for row in page.rows:
        text = _json(page.kind, row)
        left -= len(text.encode())
        if left < 0 and rows:
            break
        rows.append(text)
    complete = len(rows) == len(page.rows) < page.asked
    asked = page.asked if len(rows) == len(page.rows) else len(rows)
    body = f'{head},"complete":{json.dumps(complete)},"rows":[{",".join(rows)}]}}'
    # One that holds the end of its list is as good as any for which more was asked.
    return Written(page.field, _ANY_NUMBER if complete else asked, f"{asked}|{body}")


def parse_row(kind: Kind, value: str, now_s: float) -> CachedRow | None:
    """None if it cannot be used: another version, or another declaration of the type, wrote it."""
    try:
        said = json.loads(value.partition("|")[2])
        row = _row(kind, said["row"]) if said["row"] is not None else None
        return CachedRow(row, _positions(said), _age_s(said, now_s))
    except (ValueError, TypeError, KeyError):
        return None


def parse_page(kind: Kind, value: str, limit: int, now_s: float) -> CachedPage | None:
    """At most `limit` of its rows; None if it cannot be used."""
    try:
        said = json.loads(value.partition("|")[2])
        rows = [_row(kind, row) for row in said["rows"][:limit]]
        complete = said["complete"] and len(said["rows"]) <= limit
        return CachedPage(rows, complete, _positions(said), _age_s(said, now_s))
    except (ValueError, TypeError, KeyError):
        return None


def _json(kind: Kind, row: Row) -> str:
    values = kind.to_json(row) | {
        "id": str(row["id"]),
        "version": row["version"],
        "created_at": render_time(row["created_at"]),
        "updated_at": render_time(row["updated_at"]),
    }
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"))


def _row(kind: Kind, values: dict[str, Any]) -> Row:
    """Raises ValueError, TypeError or KeyError if these are not the columns of the type."""
    row: Row = kind.from_json({name: values.pop(name) for name in kind.fields})
    row |= {name: values.pop(name) for name in kind.counters}
    row |= {
        "id": uuid.UUID(values.pop("id")),
        "version": values.pop("version"),
        "created_at": parse_time(values.pop("created_at")),
        "updated_at": parse_time(values.pop("updated_at")),
    }
    if values:
        raise KeyError(*values)
    return row


def _positions(said: Mapping[str, Any]) -> dict[int, LanePosition]:
    return {
        int(lane): LanePosition(position, ledger_from, frozenset(parked))
        for lane, (position, ledger_from, *parked) in said["positions"].items()
    }


def _age_s(said: Mapping[str, Any], now_s: float) -> float:
    return float(max(0.0, now_s - said["at"] / 1000))
