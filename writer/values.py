"""Values of rows: out of a mutation, checked against the declaration once more."""

import uuid

from pydantic import ValidationError

from schema.commands import Command, Mutation
from schema.content import Kind, Row
from schema.outcomes import Problem
from writer.failures import Halt, Refused


def values_of(kind: Kind, mutation: Mutation) -> Row:
    """The mutation's values in Python form. Raises `Refused` for what may not be set.

    Raises `Halt` for a field that is not known here: a newer front end has accepted it.
    """
    for name in mutation.values:
        field = kind.fields.get(name)
        if field is None:
            raise Halt(f"{kind.name} has no field {name!r} here; upgrade the writer")
        if not (field.from_input if mutation.op == "create" else field.changeable):
            raise Refused(Problem("invalid", f"{name} cannot be set."))
    try:
        return kind.from_json(mutation.values)
    except (ValueError, TypeError, AttributeError):
        raise Refused(Problem("invalid", "A value has the wrong form.")) from None


def new_row(kind: Kind, row_id: uuid.UUID, values: Row, command: Command) -> Row:
    """The row that a command creates, with defaults and its author. Raises `Refused`."""
    row: Row = {
        "id": row_id,
        "version": 1,
        "created_at": command.accepted_at,
        "updated_at": command.accepted_at,
    }
    for name, field in kind.fields.items():
        row[name] = command.author.id if field.is_author else values.get(name, field.default)
    validate(kind, row)
    return row


def validate(kind: Kind, row: Row) -> None:
    """Raises `Refused` with the fields at fault; the input itself is not repeated."""
    try:
        kind.model.model_validate({name: row[name] for name in kind.fields})
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
