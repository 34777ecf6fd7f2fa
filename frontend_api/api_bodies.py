"""What bodies of requests look like, as named schemas: creations, merge patches, commands."""

from collections.abc import Sequence
from typing import Any, Final

from schema.catalog import Catalog
from schema.commands import MAX_MUTATIONS
from schema.content import Kind
from schema.json_schema import (
    UUID,
    Component,
    Schema,
    camel,
    change_values,
    changed_fields,
    closed,
    create_values,
    created_fields,
    described,
    example_value,
    example_values,
    named,
)

_UUID7: Final = {
    **UUID,
    "pattern": "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$",
}
_EXPECTED: Final = {
    "type": "integer",
    "minimum": 0,
    "maximum": 2**31 - 1,
    "description": "Refuse when the row has another version, as If-Match does.",
}


def creation(kind: Kind, given: Sequence[str], opening: Kind | None) -> Component:
    """The body of a creation: what the address does not say, and what the opening row needs."""
    body = create_values(kind, given)
    opens = kind.model.opens_with
    if opening is not None and opens is not None:
        more = create_values(opening)
        body["properties"] |= {name: more["properties"][name] for name in opens.fields}
        wanted = [name for name in opens.fields if name in more.get("required", ())]
        body["required"] = [*body.get("required", ()), *wanted]
    where = "".join(f"In{camel(kind.fields[name].parent_name)}" for name in given)
    if opening is not None:
        where = f"With{camel(opening.name)}"
    return named(f"Create{camel(kind.name)}{where}", body)


def creation_example(kind: Kind, given: Sequence[str], opening: Kind | None) -> dict[str, Any]:
    example = example_values(kind, created_fields(kind, given))
    opens = kind.model.opens_with
    if opening is not None and opens is not None:
        example |= {name: example_value(opening, opening.fields[name]) for name in opens.fields}
    return example


def change(kind: Kind) -> Component:
    """The merge patch of a row."""
    return named(f"Change{camel(kind.name)}", change_values(kind))


def change_example(kind: Kind) -> dict[str, Any]:
    fields = changed_fields(kind)
    shown = example_values(kind, fields)
    return shown or {f.name: example_value(kind, f) for f in fields[:1]}


def mutations(catalog: Catalog) -> Schema:
    """One mutation of a command: whatever a rule permits to somebody."""
    found = [
        named(f"Mutation{op.capitalize()}{camel(kind.name)}", _mutation(kind, op))
        for kind in catalog
        for op in ("create", "update", "delete")
        if kind.rules[op] is not None
    ]
    return named("Mutation", {"description": "One mutation of a command.", "oneOf": found})


def _mutation(kind: Kind, op: str) -> Schema:
    properties: dict[str, Schema] = {
        "op": {"type": "string", "const": op},
        "type": {"type": "string", "const": kind.name},
    }
    if op == "create":
        values = create_values(kind)
        if not kind.model.natural_key:
            told = f"The id of the new {kind.name}, if others of the command refer to it."
            properties["id"] = described(_UUID7, f"{told} Made within the last 30 days.")
        properties["values"] = named(f"{camel(kind.name)}Values", values)
        required = ["op", "type", *(["values"] if values.get("required") else [])]
        return closed(properties, required)
    properties |= {"id": UUID, "expected_version": _EXPECTED}
    if op == "update":
        properties["values"] = change(kind)
        return closed(properties, ["op", "type", "id", "values"])
    return closed(properties, ["op", "type", "id"])


def command_input(catalog: Catalog) -> Component:
    """The body of a command."""
    listed = {
        "type": "array",
        "minItems": 1,
        "maxItems": MAX_MUTATIONS,
        "items": mutations(catalog),
        "description": "Applied in this order, all or not at all; of one stream.",
    }
    return named("SendCommand", closed({"mutations": listed}, ["mutations"]))


def command_input_example(catalog: Catalog) -> dict[str, Any]:
    """The first creation that somebody may make."""
    kind = next(kind for kind in catalog if kind.rules["create"] is not None)
    values = example_values(kind, created_fields(kind))
    return {"mutations": [{"op": "create", "type": kind.name, "values": values}]}
