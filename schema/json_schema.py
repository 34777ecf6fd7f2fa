"""Content types as JSON Schema (2020-12), for OpenAPI and AsyncAPI: rows, values, mutations.

A schema with a name of its own is a `Component`; `hoisted()` moves all of them to one place and
leaves references behind, so that whoever describes something needs no list of what else is there.
"""

import functools
import hashlib
import inspect
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Final

from schema.content import ContentType, Kind
from schema.fields import Field, Text

Schema = dict[str, Any]
UUID: Final[Schema] = {
    "type": "string",
    "format": "uuid",
    "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
}
TIME: Final[Schema] = {"type": "string", "format": "date-time"}
VERSION: Final[Schema] = {
    "type": "integer",
    "minimum": 1,
    "maximum": 2**31 - 1,
    "description": "Rises by one with every change.",
}
EXAMPLE_TIME: Final = "2026-05-01T12:00:00.123456Z"
_BASE: Final[dict[str, Schema]] = {
    "uuid": UUID,
    "text": {"type": "string"},
    "bool": {"type": "boolean"},
    "int": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    "time": TIME,
    "json": {"type": "object"},
}
_DECLARED: Final = (
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minProperties",
    "maxProperties", "pattern", "description", "examples",
)  # fmt: skip
_NO_NUL: Final = r"^[^\u0000]*$"
_ONE_LINE: Final = r"^[^\u0000-\u001f\u007f-\u009f\u2028\u2029]*$"


class Component(dict[str, Any]):
    """A part of a document that is kept under `#/components/<section>/<name>`."""

    def __init__(self, section: str, name: str, content: Mapping[str, Any]) -> None:
        super().__init__(content)
        self.section = section
        self.name = name


def named(name: str, schema: Mapping[str, Any]) -> Component:
    return Component("schemas", name, schema)


def hoisted(part: Any, components: dict[str, dict[str, Any]]) -> Any:
    """The part with references instead of its components, which are put into `components`.

    Raises ValueError when two different ones have the same name.
    """
    if isinstance(part, Component):
        content = {key: hoisted(value, components) for key, value in part.items()}
        kept = components.setdefault(part.section, {}).setdefault(part.name, content)
        if kept != content:
            raise ValueError(f"two different {part.section} are called {part.name!r}")
        return {"$ref": f"#/components/{part.section}/{part.name}"}
    if isinstance(part, Mapping):
        return {key: hoisted(value, components) for key, value in part.items()}
    if isinstance(part, list | tuple):
        return [hoisted(value, components) for value in part]
    return part


def camel(name: str) -> str:
    """`reply_to` → `ReplyTo`."""
    return "".join(part.capitalize() for part in name.split("_"))


def purpose(kind: Kind) -> str:
    """What the declaration says of itself, in its first sentences."""
    return (inspect.getdoc(kind.model) or f"A {kind.name}.").partition("\n\n")[0]


def described(schema: Mapping[str, Any], description: str) -> Schema:
    return {**schema, "description": description}


def closed(properties: Mapping[str, Any], required: Iterable[str], **more: Any) -> Schema:
    """An object with these members and no others."""
    wanted = list(required)
    return {
        "type": "object",
        **more,
        **({"required": wanted} if wanted else {}),
        "properties": dict(properties),
        "additionalProperties": False,
    }


# -- fields -----------------------------------------------------------------------------------


def input_schema(kind: Kind, field: Field) -> Schema:
    """A field as it is written: its type and what its declaration allows."""
    shown = dict(_BASE[field.kind])
    declared = _declared(kind.model)[field.name]
    plain = next((b for b in declared.get("anyOf", ()) if b.get("type") != "null"), declared)
    told = {**plain, **declared}
    shown |= {name: told[name] for name in _DECLARED if name in told}
    text = next(
        (m for m in kind.model.model_fields[field.name].metadata if isinstance(m, Text)), None
    )
    if text is not None:
        shown = _limited(shown, text)
    if "description" not in shown:
        shown |= _said_of(kind, field)
    return _nullable(shown) if field.nullable else shown


@functools.cache
def _declared(model: type[ContentType]) -> Mapping[str, Any]:
    properties: dict[str, Any] = model.model_json_schema()["properties"]
    return properties


def row_field_schema(kind: Kind, field: Field) -> Schema:
    """A field as answers have it: its type and meaning, whatever limits hold for what is written."""
    written = input_schema(kind, field)
    shown = dict(_BASE[field.kind])
    shown |= {name: written[name] for name in ("description", "examples") if name in written}
    return _nullable(shown) if field.nullable else shown


def _nullable(schema: Schema) -> Schema:
    return {**schema, "type": [schema["type"], "null"]}


def _limited(shown: Schema, limits: Text) -> Schema:
    """Lengths count code points; what counts bytes can only be told in words."""
    size = f"At most {limits.max_bytes} bytes of UTF-8."
    told = [shown.get("description", ""), "One line." if limits.one_line else "", size]
    return {
        "minLength": limits.min_chars,
        "maxLength": min(limits.max_bytes, limits.max_chars or limits.max_bytes),
        "pattern": _ONE_LINE if limits.one_line else _NO_NUL,
        **shown,
        "description": " ".join(filter(None, told)),
    }


def _said_of(kind: Kind, field: Field) -> Schema:
    if field.is_author:
        return {"description": f"The author of the {kind.name}."}
    if field.ref is not None:
        return {"description": f"The {field.ref.type} it belongs to or refers to."}
    return {"description": "Set by the system."} if field.internal else {}


# -- rows and values --------------------------------------------------------------------------


def row_properties(kind: Kind) -> dict[str, Schema]:
    """All members of a row that come from its table."""
    return {
        "id": UUID,
        "version": VERSION,
        "created_at": TIME,
        "updated_at": TIME,
        **{field.name: row_field_schema(kind, field) for field in kind.fields.values()},
        **{
            name: {"type": "integer", "minimum": 0, "description": "Counted by the system."}
            for name in kind.counters
        },
    }


def created_fields(kind: Kind, given: Iterable[str] = ()) -> list[Field]:
    """What a creation may say; `given` is said elsewhere."""
    return [f for f in kind.fields.values() if f.from_input and f.name not in given]


def changed_fields(kind: Kind) -> list[Field]:
    """What a change may say."""
    return [f for f in kind.fields.values() if f.changeable]


def create_values(kind: Kind, given: Iterable[str] = ()) -> Schema:
    """The values of a creation."""
    fields = created_fields(kind, given)
    return closed(
        {f.name: input_schema(kind, f) for f in fields}, [f.name for f in fields if f.required]
    )


def change_values(kind: Kind) -> Schema:
    """The values of a change: at least one."""
    properties = {f.name: input_schema(kind, f) for f in changed_fields(kind)}
    return closed(properties, [], minProperties=1)


# -- examples ---------------------------------------------------------------------------------


def example_id(of: str) -> str:
    """An id for examples: the same for the same thing, and a UUIDv7 like the real ones."""
    low = int.from_bytes(hashlib.sha256(of.encode()).digest()[:8], "big") >> 2
    ms = 1_777_636_800_123  # the example time
    return str(uuid.UUID(int=(ms << 80) | (0x7 << 76) | (0b10 << 62) | low))


def example_value(kind: Kind, field: Field) -> Any:
    """A value that the field takes: its declared example, if it has one."""
    schema = input_schema(kind, field)
    if schema.get("examples"):
        return schema["examples"][0]
    if field.ref is not None:
        return None if field.nullable else example_id(field.ref.type)
    if field.default is not None or field.nullable:
        return field.to_json(field.default)
    plain: dict[str, Any] = {
        "uuid": example_id("user" if field.is_author else field.name),
        "text": field.name[: schema.get("maxLength", 1)],
        "bool": False,
        "int": max(schema.get("minimum", 0), min(1, schema.get("maximum", 1))),
        "time": EXAMPLE_TIME,
        "json": {},
    }
    return plain[field.kind]


def example_row(kind: Kind) -> dict[str, Any]:
    """A row as it is once it is saved."""
    return {
        "id": example_id(kind.name),
        "version": 1,
        "created_at": EXAMPLE_TIME,
        "updated_at": EXAMPLE_TIME,
        **{field.name: example_value(kind, field) for field in kind.fields.values()},
        **dict.fromkeys(kind.counters, 0),
    }


def example_values(kind: Kind, fields: Iterable[Field]) -> dict[str, Any]:
    """The values of a request with these fields: what must be said, or what has an example."""
    return {
        f.name: example_value(kind, f)
        for f in fields
        if f.required or input_schema(kind, f).get("examples")
    }
