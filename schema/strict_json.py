"""Strict JSON: RFC 8259 without the liberties that Python's decoder takes.

UTF-8 only and without a byte order mark; no NaN or Infinity; no number that a double cannot hold;
no key twice in one object; nesting and number length bounded.
"""

import json
import math
import re
from typing import Any, Final, NoReturn

MAX_DEPTH: Final = 16
MAX_DIGITS: Final = 100

# Possessive, and an unclosed string runs to the end: so the scan is linear whatever the input is.
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)


class JsonError(ValueError):
    """The bytes are not acceptable JSON. `code` says why; the bytes are never repeated."""

    def __init__(self, code: str, problem: str) -> None:
        super().__init__(problem)
        self.code = code


class JsonTooDeep(JsonError):
    """Well-formed as far as it was read, but nested deeper than `MAX_DEPTH`."""

    def __init__(self) -> None:
        super().__init__("json_depth", f"nested deeper than {MAX_DEPTH} levels")


def decode(data: bytes) -> Any:
    """The value of a JSON text. Raises `JsonError`."""
    try:
        text = data.decode("utf-8", errors="strict")
    except UnicodeDecodeError:
        raise JsonError("json_encoding", "not UTF-8") from None
    if text.startswith("\ufeff"):
        raise JsonError("json_encoding", "starts with a byte order mark")
    if text.count("{") + text.count("[") > MAX_DEPTH:
        _check_depth(text)  # with fewer brackets than that it cannot be too deep: saves 10 µs
    try:
        return _DECODER.decode(text)
    except JsonError:
        raise
    except (ValueError, RecursionError):
        raise JsonError("json_syntax", "not well-formed JSON") from None


def encode(value: Any) -> bytes:
    """Compact UTF-8 JSON with sorted keys: the same value gives the same bytes."""
    return encode_text(value).encode()


def encode_text(value: Any) -> str:
    """The same as text, to be put together with more of it."""
    return _ENCODER.encode(value)


def _check_depth(text: str) -> None:
    """Count nesting before the recursive decoder sees it; strings are skipped."""
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        char = match[0]
        if char in ("[", "{"):
            depth += 1
            if depth > MAX_DEPTH:
                raise JsonTooDeep
        elif char in ("]", "}"):
            depth -= 1


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise JsonError("json_duplicate_key", "an object has the same key twice")
    return found


def _constant(_: str) -> NoReturn:
    raise JsonError("json_number", "NaN and Infinity are not JSON")


def _float(text: str) -> float:
    value = float(text) if len(text) <= MAX_DIGITS else math.inf
    if math.isinf(value):
        raise JsonError("json_number", "a number is too large or too long")
    return value


def _int(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise JsonError("json_number", "a number is too long")
    return int(text)


# Made once: `json.loads` with hooks, and `json.dumps` with options, would make one for each text.
_ENCODER: Final = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)
_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_constant=_constant,
    parse_float=_float,
    parse_int=_int,
)
