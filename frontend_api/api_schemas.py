"""What answers look like, as named schemas: rows, pages, accepted changes, commands, mutations."""

from collections.abc import Iterable
from typing import Any, Final

from frontend_api.overlay import OverlayState
from schema.catalog import Catalog
from schema.content import Kind
from schema.json_schema import (
    EXAMPLE_TIME,
    UUID,
    VERSION,
    Component,
    Schema,
    camel,
    described,
    example_id,
    example_row,
    named,
    purpose,
    row_properties,
)
from schema.outcomes import Outcome, State
from schema.problem_schema import PROBLEM

EXAMPLE_COMMAND: Final = example_id("command")
_OPEN_STATES: Final = [State.SAVED, State.PENDING, State.DELAYED, State.PARKED]
_COMMAND: Final = described(UUID, "While it is not saved: the command it waits for.")
_MARKS: Final[dict[str, Schema]] = {
    "overlay": {
        "type": "string",
        "enum": [state.value for state in OverlayState if state is not OverlayState.COMPLETE],
        "description": "Present when pending changes may be missing here.",
    },
    "stale_s": {
        "type": "number",
        "minimum": 0,
        "description": "Present when PostgreSQL cannot be read: how many seconds old this is.",
    },
}
_OLDER: Final[Schema] = {
    "type": "string",
    "enum": ["unavailable"],
    "description": "Present when PostgreSQL cannot be read and nothing is known of what it held: what "
    "is saved, and so older, is missing.",
}
_DISPLAY: Final = {
    "type": "string",
    "enum": ["delayed"],
    "description": "Present when Redis is away: reads show the change only once it is saved.",
}


def _words(states: Iterable[str]) -> list[str]:
    return [str(state) for state in states]


def _state(states: Iterable[str] = _OPEN_STATES) -> Schema:
    return {"type": "string", "enum": _words(states)}


def _members(kind: Kind) -> dict[str, Schema]:
    """The members of a row, wherever it stands."""
    own = row_properties(kind)
    return {
        "id": own["id"],
        "version": own["version"],
        "state": _state(),
        "command": _COMMAND,
    } | own


def _required(kind: Kind) -> list[str]:
    return [name for name in _members(kind) if name != "command"]


def row(kind: Kind) -> Component:
    """A row of a list, or inside of another."""
    return named(
        camel(kind.name),
        {
            "type": "object",
            "description": purpose(kind),
            "required": _required(kind),
            "properties": _members(kind),
            "examples": [row_example(kind)],
        },
    )


def row_example(kind: Kind, **more: Any) -> dict[str, Any]:
    example = example_row(kind)
    return {"id": example["id"], "version": 1, "state": "saved", **more} | example


def read_row(kind: Kind) -> Component:
    """A row that was asked for by itself."""
    return named(
        f"{camel(kind.name)}Read",
        {
            "type": "object",
            "description": f"A {kind.name}, and how far the answer can be relied upon.",
            "required": _required(kind),
            "properties": _members(kind) | _MARKS,
        },
    )


def page(kind: Kind, *, pending_alone: bool = False) -> Component:
    """One page of a list. `pending_alone`: it may be told without PostgreSQL, and says so."""
    after = {
        "type": ["string", "null"],
        "description": "Give it as `after` to go on; null on the last page.",
    }
    return named(
        f"{camel(kind.name)}Page",
        {
            "type": "object",
            "description": f"Some {kind.plural}, in the order of the list.",
            "required": ["items", "next"],
            "properties": {
                "items": {"type": "array", "maxItems": 100, "items": row(kind)},
                "next": after,
            }
            | _MARKS
            | ({"older": _OLDER} if pending_alone else {}),
        },
    )


def created(kind: Kind, opening: Kind | None) -> Component:
    """A creation: the row as it will look, with the row that was created together with it."""
    opened = {opening.name: row(opening)} if opening is not None else {}
    return named(
        f"{camel(kind.name)}Created",
        {
            "type": "object",
            "description": f"A new {kind.name}, pending or saved.",
            "required": [*_required(kind), *opened],
            "properties": {**_members(kind), **opened, "display": _DISPLAY},
        },
    )


def created_example(kind: Kind, opening: Kind | None) -> dict[str, Any]:
    waits = {"state": "pending", "command": EXAMPLE_COMMAND}
    example = row_example(kind, **waits)
    if opening is not None:
        example[opening.name] = row_example(opening, **waits)
    return example


def changed(kind: Kind) -> Component:
    """A change: the row as it will look, or as much of it as is known without PostgreSQL."""
    return named(
        f"{camel(kind.name)}Changed",
        {
            "type": "object",
            "description": f"A changed {kind.name}, pending or saved. While PostgreSQL cannot be "
            "read, only the id and what was sent may be known.",
            "required": ["id", "state"],
            "properties": {**_members(kind), "display": _DISPLAY},
        },
    )


DELETED: Final = named(
    "Deleted",
    {
        "type": "object",
        "description": "A row that is, or will be, deleted.",
        "required": ["id", "state", "deleted"],
        "properties": {
            "id": UUID,
            "version": VERSION,
            "state": _state(),
            "command": _COMMAND,
            "deleted": {"type": "boolean", "enum": [True]},
            "display": _DISPLAY,
        },
    },
)


MINIMAL: Final = named(
    "Minimal",
    {
        "type": "object",
        "description": "What is answered to a change with `Prefer: return=minimal`.",
        "required": ["id", "state"],
        "properties": {
            "id": UUID,
            "version": VERSION,
            "state": _state(State),
            "command": _COMMAND,
            "deleted": {"type": "boolean", "enum": [True]},
            "display": _DISPLAY,
        },
    },
)


def deleted_example(kind: Kind) -> dict[str, Any]:
    return {
        "id": example_id(kind.name),
        "state": "pending",
        "version": 1,
        "deleted": True,
        "command": EXAMPLE_COMMAND,
    }


# -- commands ---------------------------------------------------------------------------------


def command(catalog: Catalog) -> Component:
    """What became of a command, or that it was accepted."""
    types = [kind.name for kind in catalog]
    entry = {
        "type": "object",
        "description": "A row it touches. Just accepted, its fields are here as well.",
        "required": ["type", "op", "id"],
        "properties": {
            "type": {"type": "string", "enum": types},
            "op": {"type": "string", "enum": ["create", "update", "delete"]},
            "id": UUID,
            "version": {"type": ["integer", "null"]},
        },
        "additionalProperties": True,
    }
    time = {"type": ["string", "null"], "format": "date-time"}
    return named(
        "Command",
        {
            "type": "object",
            "description": "An accepted request, and what became of it.",
            "required": ["id", "state", "accepted_at", "settled_at", "outcome", "rows"],
            "properties": {
                "id": UUID,
                "state": _state(State),
                "accepted_at": time,
                "settled_at": described(time, "Null until it is decided."),
                "outcome": {"type": ["string", "null"], "enum": [*_words(Outcome), None]},
                "rows": {"type": "array", "items": named("CommandRow", entry)},
                "keeps_trying_until": described(
                    {"type": "string", "format": "date-time"},
                    "While it is delayed or parked: it is tried until then at the latest.",
                ),
                "problem": PROBLEM,
                "duplicate_of": described(UUID, "The command that this one repeats."),
                "display": _DISPLAY,
            },
        },
    )


def command_page(catalog: Catalog) -> Component:
    """One page of an author's commands."""
    ledger = {
        "type": "string",
        "enum": ["unavailable"],
        "description": "Present while PostgreSQL is away: what was settled long ago is not there.",
    }
    properties = {
        "items": {"type": "array", "maxItems": 100, "items": command(catalog)},
        "next": {
            "type": ["string", "null"],
            "description": "Give it as `after` to go on; null on the last page.",
        },
        "ledger": ledger,
    }
    return named(
        "CommandPage",
        {
            "type": "object",
            "description": "Some commands of their author, newest first.",
            "required": ["items", "next"],
            "properties": properties | _MARKS,
        },
    )


def command_example(kind: Kind, state: State) -> dict[str, Any]:
    saved = state is State.SAVED
    entry: dict[str, Any] = {"type": kind.name, "op": "create", "id": example_id(kind.name)}
    return {
        "id": EXAMPLE_COMMAND,
        "state": state.value,
        "accepted_at": EXAMPLE_TIME,
        "settled_at": "2026-05-01T12:00:00.234567Z" if saved else None,
        "outcome": "saved" if saved else None,
        "rows": [entry | {"version": 1} if saved else entry | row_example(kind, state=state.value)],
    }
