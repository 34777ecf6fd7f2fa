"""Every statement the front end sends to PostgreSQL, as text. All of them only read.

Identifiers come from the declarations of the content types, never from a request; values are always
parameters.
"""

import re
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Statements:
    """The statements of one catalog, worked out once."""

    by_id: dict[str, str]
    pages: dict[str, str]

    @classmethod
    def of(cls, catalog: Catalog) -> "Statements":
        return cls(
            {kind.name: _by_id(kind) for kind in catalog},
            {lst.name: _page(lst) for lst in catalog.lists.values()},
        )


def _select(kind: Kind) -> str:
    columns = ", ".join(quoted(column) for column in kind.columns)
    return f"select {columns} from public.{quoted(kind.name)}"  # noqa: S608 - declared names only


def _by_id(kind: Kind) -> str:
    return f"{_select(kind)} where id = any($1::uuid[])"


def _page(lst: ListOf) -> str:
    """Parameters: limit, the row id to start behind (or null), the parent's id, the reader's id.

    The latter two only where the list has a parent or the rows are private.
    """
    order, beyond = ("desc", "<") if lst.listing.newest_first else ("asc", ">")
    conditions = [f"($2::uuid is null or id {beyond} $2::uuid)"]
    owners = [lst.listing.by, lst.kind.model.private_to]
    for at, column in enumerate((c for c in owners if c is not None), start=3):
        conditions.append(f"{quoted(column)} = ${at}::uuid")
    where = " and ".join(conditions)
    return f"{_select(lst.kind)} where {where} order by id {order} limit $1"
