"""Reading a request strictly: content type, JSON, model, headers. Nothing here repeats the input."""

import base64
import binascii
import hashlib
import re
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import ValidationError

from frontend_api.input_models import MAX_AGE, MAX_AHEAD, Model, read_canonical
from frontend_api.problems import ProblemError, fail, invalid
from schema.identifiers import is_uuid7, time_of
from schema.outcomes import Problem
from schema.strict_json import JsonError, decode, encode

JSON: Final = "application/json"
MERGE_PATCH: Final = "application/merge-patch+json"
MAX_ERRORS: Final = 20

_KEY = re.compile(r"^[\x21-\x7e]{1,255}$")
_TAG = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
_TAGS = re.compile(rf"[ \t]*(?:{_TAG})?(?:[ \t]*,[ \t]*(?:{_TAG})?)*[ \t]*")
_OURS = re.compile(r'(?<!W/)"v(0|[1-9][0-9]{0,8})"')
_WAIT = re.compile(r"[0-9]{1,4}")


def read_json(body: bytes, content_type: str | None, allowed: Iterable[str] = (JSON,)) -> Any:
    """The body as strict JSON. Raises `ProblemError` 400, 415 or 422."""
    media_type, _, parameters = (content_type or "").partition(";")
    if media_type.strip().lower() not in allowed:
        raise fail("unsupported_media_type", f"Send {' or '.join(allowed)}.")
    for parameter in filter(None, (p.strip().lower() for p in parameters.split(";"))):
        name, _, value = parameter.partition("=")
        if name.strip() == "charset" and value.strip().strip('"') not in ("utf-8", "utf8"):
            raise fail("unsupported_media_type", "The charset must be UTF-8.")
    try:
        return decode(body)
    except JsonError as error:
        raise fail(error.code, f"The body is not acceptable: {error}.") from None


def check(model: Model, data: Any, at: str = "") -> dict[str, Any]:
    """The members that the client sent, checked. Raises `ProblemError` 422 with JSON Pointers."""
    try:
        model.__pydantic_validator__.validate_python(data)
    except ValidationError as error:
        raise ProblemError(_invalid(error, at)) from None
    assert isinstance(data, dict)
    return data


def _invalid(error: ValidationError, at: str) -> Problem:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    errors = []
    for one in found[:MAX_ERRORS]:
        place = [str(part) for part in one["loc"]]
        if one["type"] == "extra_forbidden":
            place = place[:-1]  # the last part is the client's own text
        pointer = at + "".join(f"/{part.replace('~', '~0').replace('/', '~1')}" for part in place)
        errors.append({"pointer": pointer, "code": one["type"], "detail": _say(one)})
    return Problem("invalid", "The request is not valid.", tuple(errors))


def _say(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "has a member that is not known here"
    return str(error["msg"])


def path_id(text: str) -> uuid.UUID:
    """An id in an address. Anything that is not a UUID in its usual spelling names nothing: 404."""
    found = read_canonical(text)
    if found is None:
        raise fail("not_found", "This is not the id of anything.")
    return found


def client_row_id(text: str, pointer: str) -> uuid.UUID:
    """The id that a client chose for a new row: a UUIDv7 made lately."""
    row_id = uuid.UUID(text)
    if not is_uuid7(row_id):
        raise invalid("is not a UUIDv7", pointer, "uuid7")
    age = datetime.now(tz=UTC) - time_of(row_id)
    if not -MAX_AHEAD < age < MAX_AGE:
        raise invalid("is not a UUIDv7 of the last 30 days", pointer, "uuid7_time")
    return row_id


def idempotency_key(header: str | None) -> str | None:
    """The key, sent bare or as a structured-field string. Raises `ProblemError` 400."""
    if header is None:
        return None
    text = header.strip()
    if len(text) >= 2 and text[0] == text[-1] == '"':
        text = re.sub(r'\\(["\\])', r"\1", text[1:-1])
    if not _KEY.match(text):
        raise fail(
            "idempotency_key_malformed", "Send 1 to 255 visible ASCII characters without spaces."
        )
    return text


def fingerprint(method: str, path: str, data: Any) -> str:
    """SHA-256 of a request: the same for the same JSON, however it is spelled."""
    head = f"{method} {path}\n".encode("utf-8", "surrogatepass")
    return hashlib.sha256(head + encode(data)).hexdigest()


def versions_of(if_match: str) -> frozenset[int] | None:
    """The versions that an If-Match header names; None for `*`. Raises `ProblemError` 400 or 412.

    Weak tags and tags that are none of ours match nothing, as the header is defined.
    """
    if if_match.strip() == "*":
        return None
    if not _TAGS.fullmatch(if_match):
        raise fail("bad_request", 'If-Match must be * or entity tags in quotes, such as "v3".')
    versions = frozenset(int(number) for number in _OURS.findall(if_match))
    if not versions:
        raise fail("version_conflict", 'No such version; tags look like "v3".')
    return versions


@dataclass(frozen=True)
class Preferences:
    """What a `Prefer` header asks for that is known here (RFC 7240); the rest is passed over."""

    wait_s: float | None = None
    respond_async: bool = False
    minimal: bool = False


_NOTHING: Final = Preferences()


def preferences(prefer: Sequence[str], most_s: float) -> Preferences:
    """What is preferred, of each the first; waiting is cut to `most_s` seconds."""
    if not prefer:
        return _NOTHING
    found: dict[str, str] = {}
    for part in ", ".join(prefer).split(","):
        name, _, value = part.partition(";")[0].partition("=")
        found.setdefault(name.strip().lower(), value.strip().strip('"'))
    wait = found.get("wait", "")
    return Preferences(
        min(float(wait), most_s) if _WAIT.fullmatch(wait) else None,
        "respond-async" in found,
        found.get("return", "").lower() == "minimal",
    )


def page_limit(text: str | None) -> int:
    """1 to 100, 50 if not said. Raises `ProblemError` 422."""
    if text is None:
        return 50
    if not re.fullmatch(r"[0-9]{1,3}", text) or not 1 <= int(text) <= 100:
        raise invalid("is not a number from 1 to 100", "?limit")
    return int(text)


def write_cursor(list_name: str, parent: uuid.UUID | None, after: uuid.UUID) -> str:
    """An opaque cursor: the row id to go on behind, bound to its list."""
    raw = after.bytes + _binding(list_name, parent)
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def read_cursor(list_name: str, parent: uuid.UUID | None, text: str | None) -> uuid.UUID | None:
    """Raises `ProblemError` 422 for a cursor that this list has not given."""
    if text is None:
        return None
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 24 or raw[16:] != _binding(list_name, parent):
        raise invalid("is not a cursor of this list", "?after", "cursor")
    return uuid.UUID(bytes=raw[:16])


def _binding(list_name: str, parent: uuid.UUID | None) -> bytes:
    return hashlib.sha256(f"{list_name}:{parent or ''}".encode()).digest()[:8]
