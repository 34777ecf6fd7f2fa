"""Every statement the front end sends to PostgreSQL, as text. All of them only read.

Identifiers come from the declarations of the content types, never from a request; values are always
parameters.
"""

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

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
    pages: dict[tuple[str, bool], str]
    """By the list's name and whether the page starts behind a row. Parameters: `page_parameters`."""
    glances: dict[tuple[bool, tuple[str, ...]], str] = field(default_factory=dict)
    """Kept by whether they see the ledger, and the names of the kinds that they see."""
    glanced_pages: dict[tuple[str, bool, bool], str] = field(default_factory=dict)
    """Kept by the list's name and what `glance_page` is told."""

    @classmethod
    def of(cls, catalog: Catalog) -> "Statements":
        lists = catalog.lists.values()
        return cls(
            {kind.name: _by_id(kind) for kind in catalog},
            {(one.name, behind): _page(one, behind) for one in lists for behind in (False, True)},
        )

    def glance(self, kinds: Sequence[Kind], *, ledger: bool) -> str:
        """One statement, and so one snapshot, for lanes, ledger and rows of these kinds.

        Parameters: with `ledger` authors and their commands, to be found there; the ids of each kind.
        It returns one row of arrays: lanes, with `ledger` what was found, the rows of each kind. To
        plan for the ledger takes the server about 80 µs, and more with each month that it holds.
        """
        seen = tuple(kind.name for kind in kinds)
        known = self.glances.get((ledger, seen))
        if known is None:
            parts = [_LANES, _LEDGER] if ledger else [_LANES]
            parts += [
                f"array({_records(kind)} where id = any(${at}::uuid[]))"
                for at, kind in enumerate(kinds, start=3 if ledger else 1)
            ]
            known = self.glances[ledger, seen] = f"select {', '.join(parts)}"
        return known

    def glance_page(self, lst: ListOf, *, behind: bool, places: bool) -> str:
        """One statement, and so one snapshot, for a page, the row it belongs to, lanes and ledger.

        Parameters: those of the page; with `places` an author and his commands, to be found in the
        ledger. It returns one row of arrays: with `places` lanes and ledger; the row that the list
        belongs to, if to any; of each column of the page its values, or null if the page is empty.
        An array of records would take the server, and who reads it, twice as long.
        """
        known = self.glanced_pages.get((lst.name, behind, places))
        if known is None:
            parts = []
            if places:
                at = 2 + len(_conditions(lst, behind))
                parts += [_LANES, _ledger_of_one(at, at + 1)]
            if lst.parent is not None:
                parts.append(
                    f"array({_records(lst.parent)} where id = ${3 if behind else 2}::uuid)"
                )
            parts += [
                f"array_agg({quoted(column)} order by id {_order(lst)})"
                for column in lst.kind.columns
            ]
            page = _page(lst, behind)
            known = f"select {', '.join(parts)} from ({page}) as page"  # noqa: S608 - declared names
            self.glanced_pages[lst.name, behind, places] = known
        return known


def page_parameters(
    lst: ListOf,
    limit: int,
    after: uuid.UUID | None,
    parent: uuid.UUID | None,
    reader: uuid.UUID,
) -> list[Any]:
    """Of the page that starts behind `after`, or of the first one if that is None."""
    values: list[Any] = [limit]
    if after is not None:
        values.append(after)
    if lst.parent is not None:
        values.append(parent)
    if lst.kind.model.private_to is not None:
        values.append(reader)
    return values


def _ledger_of_one(author: int, commands: int) -> str:
    """By the numbers of these two parameters."""
    return f"""array(select row(author_id, command_id, outcome, lane, "offset") from afterwrite.ledger
    where author_id = ${author}::uuid and command_id = any(${commands}::uuid[]))"""  # noqa: S608 - numbers


def _records(kind: Kind) -> str:
    columns = ", ".join(quoted(column) for column in kind.columns)
    return f"select row({columns}) from public.{quoted(kind.name)}"  # noqa: S608 - declared names


def _select(kind: Kind) -> str:
    columns = ", ".join(quoted(column) for column in kind.columns)
    return f"select {columns} from public.{quoted(kind.name)}"  # noqa: S608 - declared names only


def _by_id(kind: Kind) -> str:
    return f"{_select(kind)} where id = any($1::uuid[])"


def _order(lst: ListOf) -> str:
    return "desc" if lst.listing.newest_first else "asc"


def _conditions(lst: ListOf, behind: bool) -> list[str]:
    """On the rows of a page. Each has one parameter, in the order of `page_parameters`.

    That a first page starts behind nothing is another statement and not a null parameter, which no
    index could be searched by.
    """
    beyond = "<" if lst.listing.newest_first else ">"
    owners = (lst.listing.by, lst.kind.model.private_to)
    columns = [f"id {beyond}"] if behind else []
    columns += [f"{quoted(column)} =" for column in owners if column is not None]
    return [f"{column} ${at}::uuid" for at, column in enumerate(columns, start=2)]


def _page(lst: ListOf, behind: bool) -> str:
    conditions = _conditions(lst, behind)
    where = f" where {' and '.join(conditions)}" if conditions else ""
    return f"{_select(lst.kind)}{where} order by id {_order(lst)} limit $1"
