"""Field kinds of content types: what a value looks like in JSON, in Python and in PostgreSQL."""

import json
import re
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic_core import PydanticCustomError

Json = dict[str, Any]
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # C0, DEL, C1, line separators


@dataclass(frozen=True)
class Text:
    """Text as its author wrote it, kept byte for byte; NUL and lone surrogates are refused.

    `max_bytes` counts UTF-8, `max_chars` counts code points. `one_line` refuses control characters.
    """

    max_bytes: int = 65_536
    max_chars: int | None = None
    min_chars: int = 1
    one_line: bool = False

    def check(self, value: str) -> str:
        try:
            size = len(value) if value.isascii() else len(value.encode())
        except UnicodeEncodeError:
            raise PydanticCustomError("text_surrogate", "contains a lone surrogate") from None
        if "\x00" in value:
            raise PydanticCustomError("text_nul", "contains the character U+0000")
        if self.one_line and _CONTROL.search(value):
            raise PydanticCustomError("text_control", "contains a control character or line break")
        if len(value) < self.min_chars:
            raise PydanticCustomError("text_short", "is empty")
        if size > self.max_bytes:
            raise PydanticCustomError(
                "text_long", "is longer than {limit} bytes of UTF-8", {"limit": self.max_bytes}
            )
        if self.max_chars is not None and len(value) > self.max_chars:
            raise PydanticCustomError(
                "text_long", "is longer than {limit} characters", {"limit": self.max_chars}
            )
        return value


@dataclass(frozen=True)
class Ref:
    """The id of a row of another content type, fixed at creation.

    The row must exist when the command is applied. A `weak` reference has no foreign key and may
    dangle when its target is deleted later.
    """

    type: str
    weak: bool = False


@dataclass(frozen=True)
class Author:
    """The author of the command; never taken from input."""


@dataclass(frozen=True)
class ByRule:
    """Only who satisfies the rule may give this field a value other than its default."""

    rule: str


@dataclass(frozen=True)
class Fixed:
    """Given at creation, never changed."""


@dataclass(frozen=True)
class Internal:
    """Set by the writer, never taken from input."""


@dataclass(frozen=True)
class Field:
    """One column of a content type, as both sides see it."""

    name: str
    kind: str  # "uuid", "text", "bool", "int", "time", "json"
    nullable: bool
    required: bool
    default: Any
    ref: Ref | None
    is_author: bool
    internal: bool
    changeable: bool
    rule: str | None

    @property
    def from_input(self) -> bool:
        return not (self.is_author or self.internal)

    @property
    def parent_name(self) -> str:
        """What rules call the row this field refers to: `topic_id` is `parent.topic`."""
        return self.name.removesuffix("_id")

    @property
    def pg_type(self) -> str:
        return PG_TYPES[self.kind]

    def to_json(self, value: Any) -> Any:
        if value is None:
            return None
        if self.kind == "uuid":
            return str(value)
        if self.kind == "time":
            return render_time(value)
        if self.kind == "json" and isinstance(value, str):
            return json.loads(value)
        return value

    def from_json(self, value: Any) -> Any:
        if value is None:
            return None
        if self.kind == "uuid":
            return uuid.UUID(value)
        if self.kind == "time":
            return parse_time(value)
        return value


PG_TYPES = {
    "uuid": "uuid",
    "text": "text",
    "bool": "boolean",
    "int": "bigint",
    "time": "timestamptz",
    "json": "json",
}

PYTHON_KINDS: dict[type, str] = {
    uuid.UUID: "uuid",
    str: "text",
    bool: "bool",
    int: "int",
    datetime: "time",
    dict: "json",
}


def render_time(value: datetime) -> str:
    """RFC 3339 in UTC with microseconds, PostgreSQL's precision."""
    if value.tzinfo is not UTC:  # the conversion would take a third of the time
        value = value.astimezone(UTC)
    return f"{value.isoformat(timespec='microseconds')[:-6]}Z"


def parse_time(value: str) -> datetime:
    """The time in UTC. Raises ValueError, also for one that UTC puts outside the calendar."""
    parsed = datetime.fromisoformat(value)
    if parsed.tzinfo is UTC:
        return parsed  # as `render_time` writes it; the conversion would take a third of the time
    if parsed.tzinfo is None:
        raise ValueError("a time needs its zone")
    try:
        return parsed.astimezone(UTC)
    except OverflowError:
        raise ValueError("a time must lie in the years 1 to 9999") from None
