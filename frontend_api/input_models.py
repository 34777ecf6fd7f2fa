"""Input models, generated from the declarations: what a request may say of a content type.

Values stay JSON values: they travel as the client wrote them. The models only check.
"""

import uuid
from datetime import timedelta
from typing import Annotated, Any, Final, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    StrictBool,
    StrictInt,
    StrictStr,
    create_model,
)
from pydantic import Field as PydanticField
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from schema.commands import MAX_MUTATIONS
from schema.content import Kind
from schema.fields import Field, Text, parse_time
from schema.identifiers import is_uuid7

MAX_AGE: Final = timedelta(days=30)
MAX_AHEAD: Final = timedelta(minutes=10)
_MAX_INT: Final = 2**63 - 1
_JSON_TEXT: Final = Text(max_bytes=262_144, min_chars=0)

Model: TypeAlias = type[BaseModel]
_CONFIG = ConfigDict(strict=True, extra="forbid")


def read_canonical(value: str) -> uuid.UUID | None:
    """The id; None for every spelling of a UUID but the usual one, in lower case."""
    try:
        parsed = uuid.UUID(value)
    except ValueError:
        return None
    return parsed if str(parsed) == value else None


def canonical_uuid(value: str) -> str:
    """Refuses what is not in the usual spelling."""
    if read_canonical(value) is None:
        raise PydanticCustomError("uuid", "is not a UUID in its usual spelling, in lower case")
    return value


def _uuid7(value: str) -> str:
    if not is_uuid7(uuid.UUID(value)):
        raise PydanticCustomError("uuid7", "is not a UUIDv7")
    return value


def _time(value: str) -> str:
    try:
        parse_time(value)
    except ValueError:
        raise PydanticCustomError("time", "is not an RFC 3339 time with its zone") from None
    return value


def _json_object(value: dict[str, Any]) -> dict[str, Any]:
    """The strings in it must be storable, like any other text."""
    stack: list[Any] = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            _JSON_TEXT.check(item)
        elif isinstance(item, dict):
            stack += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            stack += item
    return value


_UUID_SCHEMA = {"format": "uuid", "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"}
UuidText = Annotated[
    StrictStr, AfterValidator(canonical_uuid), PydanticField(json_schema_extra=_UUID_SCHEMA)
]
Uuid7Text = Annotated[UuidText, AfterValidator(_uuid7)]
_TimeText = Annotated[
    StrictStr, AfterValidator(_time), PydanticField(json_schema_extra={"format": "date-time"})
]
_Int64 = Annotated[StrictInt, PydanticField(ge=-_MAX_INT - 1, le=_MAX_INT)]
_Object = Annotated[dict[str, Any], AfterValidator(_json_object)]


def create_input(kind: Kind, *, given: tuple[str, ...] = (), opening: Kind | None = None) -> Model:
    """What a creation may say. `given` are fields that the address says already.

    `opening` is the kind that is created together with this one; its declared fields are taken too.
    """
    fields = {
        f.name: _input(kind, f, required=f.required)
        for f in kind.fields.values()
        if f.from_input and f.name not in given
    }
    opens = kind.model.opens_with
    if opening is not None and opens is not None:
        for name in opens.fields:
            opened = opening.fields[name]
            fields[name] = _input(opening, opened, required=opened.required)
    return _model(f"Create{_camel(kind.name)}", fields, {})


def patch_input(kind: Kind) -> Model:
    """What a merge patch may say: any changeable field, null only where the field may be null."""
    fields = {f.name: _input(kind, f, required=False) for f in kind.fields.values() if f.changeable}
    return _model(f"Change{_camel(kind.name)}", fields, {"minProperties": 1})


class MutationInput(BaseModel):
    """One mutation of a command."""

    model_config = _CONFIG

    op: StrictStr = PydanticField(json_schema_extra={"enum": ["create", "update", "delete"]})
    type: StrictStr
    id: UuidText | None = None
    values: dict[str, Any] | None = None
    expected_version: Annotated[StrictInt, PydanticField(ge=0, le=2**31 - 1)] | None = None


class CommandInput(BaseModel):
    """Several mutations, applied all or not at all."""

    model_config = _CONFIG

    mutations: Annotated[list[MutationInput], PydanticField(min_length=1, max_length=MAX_MUTATIONS)]


def _model(name: str, fields: dict[str, Any], schema_extra: dict[str, Any]) -> Model:
    config = ConfigDict(strict=True, extra="forbid", json_schema_extra=schema_extra)
    model: Model = create_model(name, __config__=config, **fields)
    return model


def _input(kind: Kind, field: Field, *, required: bool) -> tuple[Any, Any]:
    info = kind.model.model_fields[field.name]
    annotation = _annotation(field, info)
    if field.nullable and field.kind != "text":
        annotation = annotation | None
    if required:
        return annotation, PydanticField()
    return annotation, PydanticField(default=None)


def _annotation(field: Field, info: FieldInfo) -> Any:
    """The field's type over JSON values, with the declaration's own constraints."""
    if field.kind == "uuid":
        return UuidText
    if field.kind == "time":
        return _TimeText
    if field.kind == "json":
        return _Object
    base: Any = {"bool": StrictBool, "int": _Int64}.get(field.kind, info.annotation)
    for constraint in info.metadata:
        base = Annotated[base, constraint]
    limits = next((m for m in info.metadata if isinstance(m, Text)), None)
    if limits is not None:
        shown: dict[str, Any] = {"minLength": limits.min_chars}
        shown["maxLength"] = limits.max_chars or limits.max_bytes
        base = Annotated[base, PydanticField(json_schema_extra=shown)]
    return base


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))
