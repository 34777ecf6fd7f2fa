"""Under which names an entry of the overlay is to be found: the same for all who lay one there."""

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, Final

from schema.catalog import Catalog
from schema.commands import Command
from schema.content import Kind
from schema.overlay import index_prefix, pack
from schema.redis_keys import SHARED, RedisKeys, short_id
from schema.structs import struct

_UUID_CHARS: Final = 36
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@struct(frozen=True)
class Scope:
    """One index member of a command: under which key it is found. It ends with the command's id."""

    key: str
    member: str


@struct(frozen=True)
class Touch:
    """One row that a command touches. `row` is what is known of it, `adds` how many rows are added."""

    kind: Kind
    row_id: uuid.UUID
    row: Mapping[str, Any] = field(default_factory=dict)
    adds: int = 0


def scopes_of_touches(
    catalog: Catalog,
    keys: RedisKeys,
    command: Command,
    touches: Sequence[Touch],
    owner: uuid.UUID | None = None,
) -> list[Scope]:
    """Every index member under which the command is to be found, each once.

    `owner` is whose overlay it is for: its author's if nobody else's.
    """
    command_id = command.command_id
    counted_by = f"{command.author.id}:{command_id}" if owner == SHARED else f"{command_id}"
    owner = owner or command.author.id
    scopes: dict[tuple[str, str], None] = {}
    counts: dict[str, dict[str, int]] = {}
    for touch in touches:
        kind, row = touch.kind, touch.row
        scopes[keys.row(owner, kind.name, touch.row_id), f"{command_id}"] = None
        for lst in catalog.lists_of(kind):
            # Without its parent at hand, the change goes where every list of this name looks.
            parent = row.get(lst.listing.by) if lst.listing.by else None
            scopes[keys.list(owner, lst.name, parent), f"{touch.row_id}:{command_id}"] = None
        for ref, column in kind.model.counted_in.items():
            if touch.adds and row.get(ref) is not None:
                key = keys.count(owner, catalog.parent(kind, ref).name, row[ref])
                columns = counts.setdefault(key, {})
                columns[column] = columns.get(column, 0) + touch.adds
    for key, columns in counts.items():
        for column, delta in columns.items():
            if delta:
                scopes[key, f"{column}:{delta}:{counted_by}"] = None
    return [Scope(key, member) for key, member in scopes]


def entry_of(
    keys: RedisKeys, command: Command, scopes: Sequence[Scope], owner: uuid.UUID | None = None
) -> tuple[str, list[str]]:
    """The payload of a command's entry, and its index members without the command's id."""
    owner = owner or command.author.id
    base = len(keys.base(owner))
    members = [index_prefix(s.key[base:]) + shortened(s.member[:-_UUID_CHARS]) for s in scopes]
    return pack(members, command.text), members


def prefix_of(keys: RedisKeys, owner: uuid.UUID, key: str) -> str:
    """What stands before the members of an index in Redis; `key` is one of `RedisKeys`."""
    return index_prefix(key[len(keys.base(owner)) :])


def shortened(text: str) -> str:
    """A member, or the end of a range, with its ids as they are in Redis."""
    if len(text) < _UUID_CHARS:
        return text  # it has none
    return _UUID.sub(_short, text)


def _short(found: re.Match[str]) -> str:
    return short_id(uuid.UUID(found[0]))
