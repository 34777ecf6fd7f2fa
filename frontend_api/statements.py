"""Every statement the front end sends to PostgreSQL, as text. All of them only read.

Identifiers come from the declarations of the content types, never from a request; values are always
parameters.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from schema.catalog import Catalog, ListOf
from schema.content import Kind

_IDENTIFIER = re.compile(r"^[a-z_][a-z0-9_]{0,62}$")

MOST_PARKED: Final = 1000
"""How many parked commands of a lane `POSITIONS` tells with its position."""

POSITIONS: Final = """
select lane, position, ledger_from, array(
    select "offset" from afterwrite.parked where parked.lane = lane.lane
    order by "offset" limit 1000
) as parked
from afterwrite.lane
"""

DECISIONS: Final = """
select command_id, outcome, lane, "offset", accepted_at, decided_at, effects, problem, duplicate_of
from afterwrite.ledger
where author_id = $1 and command_id = any($2::uuid[])
"""

COMMANDS: Final = """
select command_id, outcome, lane, "offset", accepted_at, decided_at, effects, problem, duplicate_of
from afterwrite.ledger
where author_id = $1 and ($2::uuid is null or command_id < $2::uuid)
order by command_id desc
limit $3
"""

EFFECTIVE: Final = """
select command_id, outcome, lane, "offset", effects from afterwrite.ledger
where command_id = any($1::uuid[]) and outcome <> 'duplicate'
"""

PARKED: Final = """
select lane, "offset", key, value, headers from afterwrite.parked
where lane = $1 and "offset" > $2 order by "offset" limit $3
"""

LOG_ID: Final = "select log_id from afterwrite.lane order by lane limit 1"


def quoted(name: str) -> str:
    """An identifier of a declaration, quoted. Raises ValueError if it is not a plain one."""
    if not _IDENTIFIER.match(name):
        raise ValueError(f"{name!r} is not a plain lower-case SQL identifier")
    return f'"{name}"'


_LANES: Final = """array(select row(lane, position, ledger_from, array_to_string(array(
    select "offset" from afterwrite.parked where parked.lane = lane.lane
    order by "offset" limit 1000
), ',')) from afterwrite.lane)"""

_LEDGER: Final = """array(select row(author_id, command_id, outcome, lane, "offset")
    from unnest($1::uuid[], $2::uuid[]) as asked(author, command)
    join afterwrite.ledger on author_id = author and command_id = command)"""


@dataclass(frozen=True)
class Statements:
    """The statements of one catalog, worked out once."""

    by_id: dict[str, str]
    pages: dict[str, str]
    glances: dict[tuple[str, ...], str] = field(default_factory=dict)
    """Kept by what they see: names of kinds, then at most one name of a list."""

    @classmethod
    def of(cls, catalog: Catalog) -> "Statements":
        return cls(
            {kind.name: _by_id(kind) for kind in catalog},
            {lst.name: _page(lst) for lst in catalog.lists.values()},
        )

    def glance(self, kinds: Sequence[Kind], lst: ListOf | None = None) -> str:
        """One statement, and so one snapshot, for lanes, ledger, rows of these kinds, and a page.

        Parameters: authors and their commands, to be found in the ledger; the ids of each kind; then
        the page's. It returns one row of arrays: lanes, ledger, the rows of each kind, the page.
        """
        seen = (*(kind.name for kind in kinds), *((lst.name,) if lst is not None else ()))
        known = self.glances.get(seen)
        if known is None:
            parts = [_LANES, _LEDGER]
            parts += [
                f"array({_records(kind)} where id = any(${at}::uuid[]))"
                for at, kind in enumerate(kinds, start=3)
            ]
            if lst is not None:
                parts.append(f"array({_page(lst, _records(lst.kind), 3 + len(kinds))})")
            known = self.glances[seen] = f"select {', '.join(parts)}"
        return known


def _records(kind: Kind) -> str:
    columns = ", ".join(quoted(column) for column in kind.columns)
    return f"select row({columns}) from public.{quoted(kind.name)}"  # noqa: S608 - declared names


def _select(kind: Kind) -> str:
    columns = ", ".join(quoted(column) for column in kind.columns)
    return f"select {columns} from public.{quoted(kind.name)}"  # noqa: S608 - declared names only


def _by_id(kind: Kind) -> str:
    return f"{_select(kind)} where id = any($1::uuid[])"


def _page(lst: ListOf, select: str | None = None, first: int = 1) -> str:
    """Parameters: limit, the row id to start behind (or null), the parent's id, the reader's id.

    The latter two only where the list has a parent or the rows are private. `first` is the number of
    the first of them.
    """
    order, beyond = ("desc", "<") if lst.listing.newest_first else ("asc", ">")
    conditions = [f"(${first + 1}::uuid is null or id {beyond} ${first + 1}::uuid)"]
    owners = [lst.listing.by, lst.kind.model.private_to]
    for at, column in enumerate((c for c in owners if c is not None), start=first + 2):
        conditions.append(f"{quoted(column)} = ${at}::uuid")
    where = " and ".join(conditions)
    select = select or _select(lst.kind)
    return f"{select} where {where} order by id {order} limit ${first}"
