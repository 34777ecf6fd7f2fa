"""Limits that hold before a request is understood: size, time and number.

The body is read whole, here, against a size and a deadline, so that everything behind this works on
complete requests only.
"""

import asyncio
from typing import Final
from urllib.parse import unquote_to_bytes

from starlette.types import Receive

from frontend_api.messages import Request
from frontend_api.problems import ProblemError, fail

READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that are no submissions."""


class Gone(Exception):
    """The client went away before its request was complete."""


class Limits:
    """At most `max_body_bytes` and `body_timeout_s` a request, `max_in_flight` submissions at once."""

    def __init__(self, *, max_body_bytes: int, body_timeout_s: float, max_in_flight: int) -> None:
        self._max_body_bytes = max_body_bytes
        self._body_timeout_s = body_timeout_s
        self._max_in_flight = max_in_flight
        self._in_flight = 0

    def check_head(self, request: Request, raw_path: bytes) -> None:
        """Raises `ProblemError` 400, 413 or 415: then the connection is to be closed."""
        if b"%" in raw_path:
            try:
                unquote_to_bytes(raw_path).decode()
            except UnicodeDecodeError:  # what the server puts in its place would be another address
                raise fail("bad_request", "The address must be UTF-8.") from None
        for coding in request.headers(b"content-encoding"):
            if coding.lower() not in ("", "identity"):
                raise fail("unsupported_media_type", "Send the body uncompressed.")
        length = request.header(b"content-length")
        if length is None:
            return
        if request.header(b"transfer-encoding") is not None:
            # Two parties that believe one each see different requests.
            raise fail("bad_request", "A body has a length or is chunked, not both.")
        if not (length.isascii() and length.isdigit()) or len(length) > 15:
            raise self._too_large()
        self.check_size(int(length))

    def check_size(self, size: int) -> None:
        """Raises `ProblemError` 413."""
        if size > self._max_body_bytes:
            raise self._too_large()

    async def body(self, receive: Receive) -> bytes:
        """Read it. Raises `ProblemError` 408 or 413: then the connection is to be closed; `Gone`."""
        try:
            async with asyncio.timeout(self._body_timeout_s):
                return await self._read(receive)
        except TimeoutError:
            raise fail("request_timeout", "The body did not arrive in time.") from None

    def enter(self) -> None:
        """A submission begins. Raises `ProblemError` 503, else `leave` has to follow."""
        if self._in_flight >= self._max_in_flight:
            raise fail("overloaded", "Send it again.")
        self._in_flight += 1

    def leave(self) -> None:
        self._in_flight -= 1

    def _too_large(self) -> ProblemError:
        return fail("body_too_large", f"At most {self._max_body_bytes} bytes.")

    async def _read(self, receive: Receive) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Gone
            part = message.get("body", b"")
            size += len(part)
            self.check_size(size)
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)
