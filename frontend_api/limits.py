"""Limits that hold before a request is understood: size, time and number. A plain ASGI layer.

The body is read whole, here, against a size and a deadline, so that everything behind this works on
complete requests only.
"""

import asyncio
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from frontend_api.problems import MEDIA_TYPE, fail, problem_body, problem_headers
from schema.outcomes import Problem

_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class _Gone(Exception):
    """The client went away before its request was complete."""


class Limits:
    """At most `max_body_bytes` and `body_timeout_s` a request, `max_in_flight` submissions at once."""

    def __init__(
        self, app: ASGIApp, *, max_body_bytes: int, body_timeout_s: float, max_in_flight: int
    ) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._body_timeout_s = body_timeout_s
        self._max_in_flight = max_in_flight
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal, body = None, b""
        try:
            refusal = self._refuse_headers(scope)
            if refusal is None:
                async with asyncio.timeout(self._body_timeout_s):
                    refusal, body = await self._read(receive)
        except TimeoutError:
            refusal = fail("request_timeout", "The body did not arrive in time.").problem
        except _Gone:
            return
        if refusal is not None:
            await _send_problem(send, refusal, close=True)
            return
        if scope["method"] in _READING:
            await self._app(scope, _whole(body, receive), send)
            return
        if self._in_flight >= self._max_in_flight:
            await _send_problem(send, fail("overloaded", "Send it again.").problem)
            return
        self._in_flight += 1
        try:
            await self._app(scope, _whole(body, receive), send)
        finally:
            self._in_flight -= 1

    def _refuse_headers(self, scope: Scope) -> Problem | None:
        try:
            unquote_to_bytes(scope.get("raw_path") or b"").decode()
        except UnicodeDecodeError:  # what the server puts in its place would be another address
            return fail("bad_request", "The address must be UTF-8.").problem
        headers = dict(scope["headers"])
        if headers.get(b"content-encoding", b"identity").lower() not in (b"", b"identity"):
            return fail("unsupported_media_type", "Send the body uncompressed.").problem
        if b"content-length" in headers and b"transfer-encoding" in headers:
            # Two parties that believe one each see different requests.
            return fail("bad_request", "A body has a length or is chunked, not both.").problem
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or len(length) > 15 or int(length) > self._max_body_bytes:
            return self._too_large()
        return None

    def _too_large(self) -> Problem:
        return fail("body_too_large", f"At most {self._max_body_bytes} bytes.").problem

    async def _read(self, receive: Receive) -> tuple[Problem | None, bytes]:
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            part = message.get("body", b"")
            size += len(part)
            if size > self._max_body_bytes:
                return self._too_large(), b""
            parts.append(part)
            if not message.get("more_body", False):
                return None, b"".join(parts)


def _whole(body: bytes, receive: Receive) -> Receive:
    """Gives the body that was read, then what comes after it."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _send_problem(send: Send, problem: Problem, *, close: bool = False) -> None:
    body = problem_body(problem)
    headers: list[tuple[bytes, bytes]] = [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
    ]
    headers += [(k.lower().encode(), v.encode()) for k, v in problem_headers(problem).items()]
    if close:
        headers.append((b"connection", b"close"))
    start: dict[str, Any] = {
        "type": "http.response.start",
        "status": problem.status,
        "headers": headers,
    }
    await send(start)
    await send({"type": "http.response.body", "body": body})
