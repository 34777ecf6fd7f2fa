"""Bytes of a command, made readable: decoded, raw, and as a form whose values can be changed.

What users wrote is in here; it is shown as plain text and never as anything else.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from frontend_api.problems import invalid
from schema.commands import Command
from schema.strict_json import JsonError, decode

MOST_FIELDS: Final = 24
"""Fields of a form; with more values than that, they are edited as one JSON text."""
_MOST_SHOWN: Final = 100_000
_BYTES_A_LINE: Final = 16
ALL: Final = "all"
"""Name of the field with all values as one JSON text."""


@dataclass(frozen=True)
class Payload:
    """`decoded` is indented JSON, None if the bytes are none; `raw` is the text, or a hex dump."""

    decoded: str | None
    raw: str
    size: int
    headers: Sequence[tuple[str, str]]
    command: Command | None
    """None if it is not a command of ours."""
    key: str
    cut: bool = False


@dataclass(frozen=True)
class Field:
    """One value of one mutation in a form. `text`: typed as text, else as JSON."""

    name: str
    label: str
    value: str
    text: bool


def payload_of(
    key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, bytes | None]]
) -> Payload:
    """Whatever the bytes are; never raises."""
    content = value or b""
    try:
        data = decode(content)
        decoded = json.dumps(data, indent=2, ensure_ascii=False)
    except (JsonError, ValueError, RecursionError):
        decoded = None
    raw = shown_bytes(content)
    cut = len(raw) > _MOST_SHOWN or len(decoded or "") > _MOST_SHOWN
    return Payload(
        decoded[:_MOST_SHOWN] if decoded is not None else None,
        raw[:_MOST_SHOWN],
        len(content),
        [(name, shown_bytes(b)[:2000] if b is not None else "–") for name, b in headers],
        command_of(content),
        shown_bytes(key or b""),
        cut,
    )


def command_of(value: bytes | None) -> Command | None:
    """The command that these bytes are, if they are one; whether it is genuine is not asked."""
    try:
        return Command.from_json(decode(value or b""))
    except (JsonError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def shown_bytes(content: bytes) -> str:
    """Text as it is if it can be printed, else a hex dump."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return _hex(content)
    return text if all(c.isprintable() or c in "\n\r\t" for c in text) else _hex(content)


def _hex(content: bytes) -> str:
    lines = []
    for at in range(0, min(len(content), _MOST_SHOWN), _BYTES_A_LINE):
        part = content[at : at + _BYTES_A_LINE]
        seen = "".join(chr(b) if 32 <= b < 127 else "." for b in part)
        lines.append(f"{at:06x}  {part.hex(' '):<{_BYTES_A_LINE * 3 - 1}}  {seen}")
    return "\n".join(lines)


# -- edit ---------------------------------------------------------------------------------------


def fields_of(command: Command) -> list[Field]:
    """The form of a command's values."""
    found = [
        _field(n, name, value)
        for n, mutation in enumerate(command.mutations)
        if mutation.op != "delete"
        for name, value in mutation.values.items()
    ]
    if len(found) <= MOST_FIELDS:
        return found
    every = {str(n): dict(m.values) for n, m in enumerate(command.mutations) if m.op != "delete"}
    text = json.dumps(every, indent=2, ensure_ascii=False)
    return [Field(ALL, "All values, by the number of the change", text, text=False)]


def _field(n: int, name: str, value: Any) -> Field:
    if isinstance(value, str):
        return Field(f"v{n}.{name}", name, value, text=True)
    return Field(f"v{n}.{name}", name, json.dumps(value, ensure_ascii=False), text=False)


def values_of(command: Command, fields: Mapping[str, str]) -> dict[int, dict[str, Any]]:
    """What a form changes, by the number of the mutation. Raises `ProblemError` 422.

    Browsers send CRLF for every line end; a text that differs in nothing else is not changed.
    """
    changed: dict[int, dict[str, Any]] = {}
    for field in fields_of(command):
        if field.name not in fields:
            continue
        if field.name == ALL:
            return _all_of(command, fields[ALL])
        number, _, name = field.name[1:].partition(".")
        before = command.mutations[int(number)].values[name]
        value = _value(field, fields[field.name])
        if value != before and not _same_but_for_line_ends(value, before):
            changed.setdefault(int(number), {})[name] = value
    return changed


def _all_of(command: Command, text: str) -> dict[int, dict[str, Any]]:
    data = _json(text, ALL)
    changed: dict[int, dict[str, Any]] = {}
    for n, mutation in enumerate(command.mutations):
        values = data.get(str(n), {}) if isinstance(data, dict) else None
        if not isinstance(values, dict):
            raise invalid("is not values by the number of the change", f"/{ALL}")
        for name, value in values.items():
            if name not in mutation.values or mutation.values[name] != value:
                changed.setdefault(n, {})[name] = value
    return changed


def _value(field: Field, text: str) -> Any:
    return text.replace("\r\n", "\n") if field.text else _json(text, field.name)


def _same_but_for_line_ends(one: Any, other: Any) -> bool:
    if not isinstance(one, str) or not isinstance(other, str):
        return False
    return one == other.replace("\r\n", "\n")


def _json(text: str, name: str) -> Any:
    try:
        return decode(text.encode())
    except (JsonError, UnicodeEncodeError):
        raise invalid("is not JSON", f"/{name}") from None
