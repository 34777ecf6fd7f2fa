"""Values of rows: out of a mutation, checked against the declaration once more."""

import uuid
from typing import NoReturn

from pydantic import ValidationError

from schema.commands import Command, Mutation
from schema.content import Kind, Row
from schema.outcomes import Problem
from writer.failures import Halt, Refused
from writer.ids import read_id


def values_of(kind: Kind, mutation: Mutation) -> Row:
    """The mutation's values in Python form. Raises `Refused` for what may not be set.

    Raises `Halt` for a field that is not known here: a newer front end has accepted it.
    """
    allowed = kind.from_input if mutation.op == "create" else kind.changeable
    if not mutation.values.keys() <= allowed:
        _refuse(kind, mutation, allowed)
    try:
        return kind.from_json(mutation.values, read_id)
    except (ValueError, TypeError, AttributeError):
        raise Refused(Problem("invalid", "A value has the wrong form.")) from None


def _refuse(kind: Kind, mutation: Mutation, allowed: frozenset[str]) -> NoReturn:
    """For the first of the values that may not be set, or that is not known."""
    name = next(name for name in mutation.values if name not in allowed)
    if name not in kind.fields:
        raise Halt(f"{kind.name} has no field {name!r} here; upgrade the writer")
    raise Refused(Problem("invalid", f"{name} cannot be set."))


def new_row(kind: Kind, row_id: uuid.UUID, values: Row, command: Command) -> Row:
    """The row that a command creates, with defaults and its author. Raises `Refused`."""
    at = command.accepted_at
    content = kind.defaults | values
    for name in kind.author_fields:
        content[name] = command.author.id
    validate(kind, content)
    return {"id": row_id, "version": 1, "created_at": at, "updated_at": at, **content}


def validate(kind: Kind, content: Row) -> None:
    """Raises `Refused` with the fields at fault; the input itself is not repeated."""
    try:
        kind.validate(content)
    except ValidationError as error:
        found = tuple(
            {
                "pointer": "/" + "/".join(str(part) for part in fault["loc"]),
                "code": fault["type"],
                "detail": fault["msg"],
            }
            for fault in error.errors(include_url=False, include_input=False, include_context=False)
        )
        raise Refused(Problem("invalid", f"The {kind.name} is not valid.", found)) from None
