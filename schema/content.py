"""Content types: a kind of row that users write, declared once.

HTTP routes, validation, overlay keys and SQL follow from the declaration. A rule is written once,
too: the writer enforces it in its transaction, the front end asks it early of what it can read.
"""

import hashlib
import json
import types
import typing
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from schema.fields import (
    PYTHON_KINDS,
    Author,
    ByRule,
    Field,
    Fixed,
    Internal,
    Ref,
    Text,
    parse_time,
)
from schema.identifiers import IdReader, RowId, derived_id
from schema.rules import Rule, parse

Row = dict[str, Any]
Visibility = Literal["author", "everyone"]
_LONG_NAMES = {"timestamptz": "timestamp with time zone"}
_DIGESTED = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True)
STANDARD_COLUMNS = ("id", "version", "created_at", "updated_at")


@dataclass(frozen=True)
class Listing:
    """A list of rows. `by` names the reference that selects them; None lists all of the type."""

    by: str | None = None
    newest_first: bool = False


@dataclass(frozen=True)
class Opening:
    """A row that is created together with another, by one command: a topic and its first post."""

    type: str
    by: str
    fields: tuple[str, ...]


class ContentType(BaseModel):
    """Base of all declarations. Class attributes declare the type, annotations its fields."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    table: ClassVar[str]
    plural: ClassVar[str]
    stream: ClassVar[str] = "id"
    """`id` for an aggregate root, else the path of references to it: `topic_id`, `post_id.topic_id`."""
    lists: ClassVar[Mapping[str, Listing]] = {}
    counted_in: ClassVar[Mapping[str, str]] = {}
    """Reference → column of the row referred to, which counts these rows."""
    natural_key: ClassVar[tuple[str, ...]] = ()
    """Fields that name a row: its id is derived from them and creating it twice is one row."""
    opens_with: ClassVar[Opening | None] = None
    private_to: ClassVar[str | None] = None
    """The field that holds the only user who may read the row."""
    visible_while_pending: ClassVar[Visibility] = "author"
    is_actor: ClassVar[bool] = False
    """The type of the authors themselves; an author's row is made by his first command."""
    is_notice: ClassVar[bool] = False
    """The type of the messages to authors, which the writer makes."""
    is_preference: ClassVar[bool] = False
    """The type of how users want to be told, one row for each; a site may do without."""
    may_create: ClassVar[str | None] = None
    may_change: ClassVar[str | None] = None
    may_delete: ClassVar[str | None] = None
    """None: nobody but the writer itself."""


class Kind:
    """What the machinery needs to know of one content type, worked out once from its declaration."""

    def __init__(self, model: type[ContentType]) -> None:
        self.model = model
        self.name = model.table
        self.plural = model.plural
        self.fields = {name: _field(name, info) for name, info in model.model_fields.items()}
        self.refs = [f for f in self.fields.values() if f.ref is not None]
        self.defaults: Row = {f.name: f.default for f in self.fields.values()}
        self.from_input = frozenset(f.name for f in self.fields.values() if f.from_input)
        self.changeable = frozenset(f.name for f in self.fields.values() if f.changeable)
        self.parents = [(f.name, f.parent_name, f.ref.type) for f in self.refs if f.ref is not None]
        """(column, name in rules, type) of each reference."""
        self.strong_parents = [
            (f.name, f.ref.type) for f in self.refs if f.ref is not None and not f.ref.weak
        ]
        """(column, type) of the references whose rows take this one along when they vanish."""
        self.natural_key = model.natural_key
        self.stream_path = () if model.stream == "id" else tuple(model.stream.split("."))
        self._validate = model.__pydantic_validator__.validate_python
        self._ids = [f.name for f in self.fields.values() if f.kind == "uuid"]
        self._times = [f.name for f in self.fields.values() if f.kind == "time"]
        members = {name: _shown_as(f) for name, f in self.fields.items()}
        members["version"] = str
        self._digested = [(f'"{name}":', name, members[name]) for name in sorted(members)]
        # Filled in by the catalog, which knows the other kinds:
        self.counters: tuple[str, ...] = ()
        self.counted: tuple[tuple[Kind, str, str], ...] = ()
        """(kind, reference, column) of each counter that rows of this kind move."""
        self.children: list[tuple[Kind, str]] = []
        """(kind, reference) of the rows that vanish with a row of this kind."""
        self.rules: dict[str, Rule | None] = {
            "create": parse(model.may_create) if model.may_create else None,
            "update": parse(model.may_change) if model.may_change else None,
            "delete": parse(model.may_delete) if model.may_delete else None,
        }
        self.field_rules = {f.name: parse(f.rule) for f in self.fields.values() if f.rule}
        self.author_fields = [f.name for f in self.fields.values() if f.is_author]
        self.author_field: str | None = self.author_fields[0] if self.author_fields else None

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns a row has in PostgreSQL, in the order of its statements."""
        return (*STANDARD_COLUMNS, *self.fields, *self.counters)

    @property
    def written_columns(self) -> tuple[str, ...]:
        """The columns that content is written to; counters are kept up beside them."""
        return (*STANDARD_COLUMNS, *self.fields)

    def column_types(self) -> dict[str, str]:
        """Every column with the name PostgreSQL gives to its type."""
        standard = {
            "id": "uuid",
            "version": "integer",
            "created_at": "timestamp with time zone",
            "updated_at": "timestamp with time zone",
        }
        fields = {f.name: _LONG_NAMES.get(f.pg_type, f.pg_type) for f in self.fields.values()}
        return standard | fields | dict.fromkeys(self.counters, "bigint")

    def parents_of(self, row: Mapping[str, Any]) -> list[tuple[str, str, uuid.UUID]]:
        """(name in rules, type, id) of each row that this row refers to."""
        return [
            (name, type_, row[column])
            for column, name, type_ in self.parents
            if row.get(column) is not None
        ]

    def validate(self, content: Row) -> None:
        """Raises pydantic's `ValidationError` if these values of all fields are not as declared."""
        self._validate(content)

    def natural_id(self, values: Mapping[str, Any]) -> RowId:
        """The id of the row that these values of the natural key name."""
        return derived_id(self.name, *(str(values[name]) for name in self.model.natural_key))

    def to_json(self, row: Mapping[str, Any]) -> Row:
        """The row's declared fields and counters as JSON values."""
        shown = {n: f.to_json(row[n]) for n, f in self.fields.items() if n in row}
        return shown | {name: row[name] for name in self.counters if name in row}

    def from_json(self, values: Mapping[str, Any], read_id: IdReader = uuid.UUID) -> Row:
        """Field values out of a command or the overlay. Raises ValueError on a malformed value."""
        if not values.keys() <= self.fields.keys():
            raise KeyError(min(values.keys() - self.fields.keys()))
        row = dict(values)
        for name in self._ids:
            if row.get(name) is not None:
                row[name] = read_id(row[name])
        for name in self._times:
            if row.get(name) is not None:
                row[name] = parse_time(row[name])
        return row

    def digest(self, row: Mapping[str, Any]) -> str:
        """SHA-256 over a row's content and version, by which an audit knows that it is unchanged."""
        # Put together here: the encoder of `json` takes three times as long, and gives the same.
        members: list[str] = []
        for key, name, shown in self._digested:
            value = row[name]
            members.append(f"{key}null" if value is None else key + shown(value))
        return hashlib.sha256(f"{{{','.join(members)}}}".encode()).hexdigest()


def _shown_as(field: Field) -> Callable[[Any], str]:
    """How a digest shows a value of a field: as JSON."""
    if field.kind == "text":
        return encode_basestring_ascii
    if field.kind == "uuid":
        return '"{}"'.format
    return lambda value: _DIGESTED.encode(field.to_json(value))


def _field(name: str, info: FieldInfo) -> Field:
    def marker(kind: type[Any]) -> Any:
        return next((m for m in info.metadata if isinstance(m, kind)), None)

    base, nullable = _unwrap(info.annotation)
    kind = PYTHON_KINDS.get(base)
    if kind is None:
        raise TypeError(f"field {name!r} has type {base!r}; use one of {list(PYTHON_KINDS)}")
    if kind == "text" and marker(Text) is None:
        raise TypeError(f"field {name!r} is text without limits; annotate it with Text(...)")
    default = None if info.default is PydanticUndefined else info.default
    by_rule: ByRule | None = marker(ByRule)
    is_author, internal = marker(Author) is not None, marker(Internal) is not None
    fixed = marker(Fixed) is not None or marker(Ref) is not None or is_author
    return Field(
        name=name,
        kind=kind,
        nullable=nullable,
        required=info.is_required(),
        default=default,
        ref=marker(Ref),
        is_author=is_author,
        internal=internal,
        changeable=not (fixed or internal),
        rule=by_rule.rule if by_rule else None,
    )


def _unwrap(annotation: Any) -> tuple[type, bool]:
    """The plain type behind an annotation, and whether it may be None."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        inner = [a for a in typing.get_args(annotation) if a is not type(None)]
        return _unwrap(inner[0])[0], True
    if origin is typing.Annotated:
        return _unwrap(typing.get_args(annotation)[0])
    return (origin or annotation), False
