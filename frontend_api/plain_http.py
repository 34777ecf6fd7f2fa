"""The short way through HTTP for requests that leave nothing open; all others are h11's, as before.

A plain request came whole, alone, in HTTP/1.1, on a connection that is between two requests. Its head
is in the narrow grammar below, has one Host, at most one Content-Length and no field that changes how
bytes are to be read or what becomes of the connection. What is not exactly that is not looked at
twice: h11 decides, and says what is wrong with it.
"""

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import RequestResponseCycle

_LINE: Final = re.compile(rb"(GET|POST|PUT|PATCH|DELETE) (/[!-~]*) HTTP/1\.1")
_FIELD: Final = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]++):[ \t]*+([!-~]++(?:[ \t]++[!-~]++)*+)?+[ \t]*+"
)
_LENGTH: Final = re.compile(rb"0|[1-9][0-9]{0,8}")
_NOT_PLAIN: Final = frozenset(
    b"transfer-encoding keep-alive proxy-connection upgrade te trailer expect http2-settings".split()
)
_MAX_HEAD: Final = 8192
_STATUS_LINES: Final = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus}
_BODILESS: Final = frozenset({204, 304})

Headers = list[tuple[bytes, bytes]]
Plain = tuple[bytes, bytes, Headers, bytes]
"""Method, target, headers with names in lower case, body."""


def plain_request(data: bytes) -> Plain | None:
    """The request that these bytes are, if they are one whole plain request and nothing more."""
    end = data.find(b"\r\n\r\n", 0, _MAX_HEAD)
    if end < 0:
        return None
    first, *fields = data[:end].split(b"\r\n")
    line = _LINE.fullmatch(first)
    if line is None:
        return None
    headers: Headers = []
    hosts, length = 0, None
    for text in fields:
        found = _FIELD.fullmatch(text)
        if found is None:
            return None
        name, value = found[1].lower(), found[2] or b""
        if name in _NOT_PLAIN or (name == b"connection" and value.lower() != b"keep-alive"):
            return None
        if name == b"host":
            hosts += 1
        elif name == b"content-length":
            if length is not None or not _LENGTH.fullmatch(value):
                return None
            length = int(value)
        headers.append((name, value))
    if hosts != 1 or len(data) != end + 4 + (length or 0):
        return None
    return line[1], line[2], headers, data[end + 4 :]


class PlainCycle(RequestResponseCycle):
    """One plain request and its answer, which is written without asking h11."""

    _head = b""
    _bodiless = False
    _chunked = False

    async def send(self, message: Any) -> None:
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if not self.response_started:
            if message["type"] != "http.response.start":
                raise RuntimeError(f"expected the start of an answer, got {message['type']}")
            self.response_started = True
            self._head = self._started(message["status"], message.get("headers", ()))
        elif not self.response_complete:
            if message["type"] != "http.response.body":
                raise RuntimeError(f"expected the body of an answer, got {message['type']}")
            self._written(message.get("body", b""), more=message.get("more_body", False))
        else:
            raise RuntimeError(f"{message['type']} after the answer was complete")

    def _started(self, status: int, given: Iterable[tuple[bytes, bytes]]) -> bytes:
        """The head of the answer; it leaves together with the beginning of the body."""
        headers = [*self.default_headers, *given]
        names = {name.lower() for name, _ in headers}
        self._bodiless = status in _BODILESS
        if b"content-length" not in names and not self._bodiless:
            self._chunked = True
            headers.append((b"transfer-encoding", b"chunked"))
        if b"connection" in names or not self.keep_alive:
            self.keep_alive = False
            if b"connection" not in names:
                headers.append((b"connection", b"close"))
        lines = b"".join([b"%b: %b\r\n" % header for header in headers])
        if lines.count(b"\n") != len(headers) or lines.count(b"\r") != len(headers):
            raise RuntimeError("a header of the answer has a line break in it")
        return _STATUS_LINES[status] + lines + b"\r\n"

    def _written(self, body: bytes, *, more: bool) -> None:
        if self._bodiless:
            body = b""
        if self._chunked:
            body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + (
                b"" if more else b"0\r\n\r\n"
            )
        if self._head or body:
            self.transport.write(self._head + body)
        self._head = b""
        if not more:
            self.response_complete = True
            self.message_event.set()
            if not self.keep_alive:
                self.transport.close()
            self.on_response()
