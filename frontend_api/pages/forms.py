"""What a page's form sends, read strictly: fields by name, each once, as text."""

import re
import uuid
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import Request

from frontend_api.problems import fail, invalid

_MAX_FIELDS: Final = 32
_KEY: Final = re.compile(r"^[0-9a-f-]{36}$")
_NAME: Final = re.compile(rb'^form-data; name="([a-z][a-z0-9_.]{0,80})"$', re.IGNORECASE)
_BOUNDARY: Final = re.compile(r'^multipart/form-data;\s*boundary="?([!-~]{1,70}?)"?$')


@dataclass(frozen=True)
class Form:
    """The fields of one form."""

    fields: dict[str, str] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """A field as its author meant it: browsers send CRLF for every line end he typed."""
        return self.fields.get(name, "").replace("\r\n", "\n")

    @property
    def key(self) -> str | None:
        """The form's Idempotency-Key. Raises `ProblemError` if it is none that we gave."""
        key = self.fields.get("key")
        if key is not None and not _KEY.match(key):
            raise fail("idempotency_key_malformed", "This form was changed. Reload the page.")
        return key

    @property
    def version(self) -> int | None:
        """The version that the form was filled from."""
        text = self.fields.get("version", "")
        if not re.fullmatch(r"[0-9]{1,9}", text):
            return None
        return int(text)


def new_key() -> str:
    """A key for a form that is about to be rendered: sent twice, it is one change."""
    return str(uuid.uuid4())


async def read_form(request: Request) -> Form:
    """The form of a POST. Raises `ProblemError` 400, 415 or 422."""
    media_type = request.headers.get("content-type", "")
    body = await request.body()
    if media_type.partition(";")[0].strip().lower() == "application/x-www-form-urlencoded":
        return Form(_once(_urlencoded(body)))
    boundary = _BOUNDARY.match(media_type)
    if boundary is None:
        raise fail("unsupported_media_type", "Send a form.")
    return Form(_once(_multipart(body, boundary[1].encode())))


def _urlencoded(body: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(body),
            errors="strict",
            max_num_fields=_MAX_FIELDS,
        )
    except ValueError:
        raise fail("bad_request", "The form cannot be read.") from None


def _multipart(body: bytes, boundary: bytes) -> list[tuple[str, str]]:
    """Text fields only; long texts are half as large this way than percent-encoded."""
    parts = (b"\r\n" + body).split(b"\r\n--" + boundary)
    if len(parts) < 2 or parts[0] or parts[-1].rstrip(b"\r\n") != b"--" or len(parts) > _MAX_FIELDS:
        raise fail("bad_request", "The form cannot be read.")
    found = []
    for part in parts[1:-1]:
        head, separator, value = part.partition(b"\r\n\r\n")
        headers = dict(line.partition(b": ")[::2] for line in head.lower().split(b"\r\n") if line)
        name = _NAME.match(headers.get(b"content-disposition", b""))
        if not separator or name is None:
            raise fail("bad_request", "The form cannot be read.")
        try:
            found.append((name[1].decode(), value.decode()))
        except UnicodeDecodeError:
            raise invalid("is not UTF-8", f"/{name[1].decode()}") from None
    return found


def _once(pairs: list[tuple[str, str]]) -> dict[str, str]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise fail("bad_request", "The form has a field twice.")
    return fields
