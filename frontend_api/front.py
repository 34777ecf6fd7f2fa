"""Where every request comes in: its trace, its limits, its handler, and the answer on its way out.

One function after the other instead of layers around one another: a layer costs each request a
coroutine, and a wrapper for each message. What the directory has is answered here; the framework is
asked for the rest.
"""

from collections.abc import Mapping
from typing import Any

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from frontend_api import trace
from frontend_api.direct import Directory
from frontend_api.limits import READING, Gone, Limits
from frontend_api.messages import EXCHANGE, Exchange, Handler, Request, Response
from frontend_api.problems import ProblemError, problem_response
from frontend_api.tracing import begin_trace, traced, unexpected


class Front:
    """An ASGI application for HTTP. `cross_origin` are arguments of the framework's CORS layer."""

    def __init__(
        self,
        directory: Directory,
        framework: ASGIApp,
        limits: Limits,
        cross_origin: Mapping[str, Any] | None,
    ) -> None:
        self._directory = directory
        self._framework = framework
        self._limits = limits
        self._cross_origin = (
            CORSMiddleware(self._within, **cross_origin) if cross_origin is not None else None
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Exchange | None = scope.pop(EXCHANGE, None)
        request = Request(scope)
        parent = begin_trace(request)
        if self._cross_origin is not None and request.header(b"origin") is not None:
            await self._cross_origin(scope, receive, traced(send, parent))
        else:
            await self._handle(request, scope, receive, send, exchange)

    async def _within(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Within the layer for other sites' pages, which has to see the messages."""
        await self._handle(Request(scope), scope, receive, send, None)

    async def _handle(
        self,
        request: Request,
        scope: Scope,
        receive: Receive,
        send: Send,
        exchange: Exchange | None,
    ) -> None:
        try:
            request.body = await self._read(request, scope, receive, exchange)
        except Gone:
            return
        except ProblemError as error:
            refusal = problem_response(error.problem, {"Connection": "close"})
            await _send(refusal, send, exchange)
            return
        submits = request.method not in READING
        if submits:
            try:
                self._limits.enter()
            except ProblemError as error:
                await _send(problem_response(error.problem), send, exchange)
                return
        try:
            found = self._directory.find(request.method, request.path)
            if found is not None:
                await _send(await _answer(request, *found), send, exchange)
            else:
                send = traced(send, _parent())
                await self._framework(scope, _whole(request.body, receive), send)
        finally:
            if submits:
                self._limits.leave()

    async def _read(
        self, request: Request, scope: Scope, receive: Receive, exchange: Exchange | None
    ) -> bytes:
        self._limits.check_head(request, scope.get("raw_path") or b"")
        body = exchange.body() if exchange is not None else None
        if body is None:
            return await self._limits.body(receive)
        self._limits.check_size(len(body))
        return body


async def _answer(request: Request, handler: Handler, path_params: Mapping[str, str]) -> Response:
    request.path_params = path_params
    try:
        return await handler(request)
    except ProblemError as error:
        return problem_response(error.problem, error.headers)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is said, and answered
        return unexpected(request.path, error)


async def _send(response: Response, send: Send, exchange: Exchange | None) -> None:
    response.headers["traceparent"] = _parent()
    if exchange is not None:
        await exchange.answer(response)
        return
    headers = response.raw_headers()
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})


def _parent() -> str:
    of = trace.current()
    assert of is not None
    return of.parent


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
