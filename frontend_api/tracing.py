"""The outermost layers: a trace for every request, and an answer to what nobody expected."""

from collections.abc import MutableMapping
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from frontend_api import trace
from frontend_api.problems import problem_of_status, problem_response
from schema.telemetry import Log

_log = Log("frontend_api")
_SAID: Final = "afterwrite.unexpected"


class Tracing:
    """Every answer has the `traceparent` of its request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        parent = trace.begin(*(_values(scope, n) for n in (b"traceparent", b"tracestate"))).parent

        async def traced(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", []), (b"traceparent", parent.encode())]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, traced)


class Unexpected:
    """An exception that nobody expected becomes a 500 problem and a line in the log.

    It stands inside of the layers that add headers: the framework's own would stand outside.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched(message: MutableMapping[str, Any]) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:  # whatever it is, it is said, and the client gets an answer
            if scope.get(_SAID) is not error:  # there is one such layer within the framework, too
                _log.error("unexpected_error", path=scope.get("path"), exc_info=error)
                scope[_SAID] = error
            if started:
                raise
            await problem_response(problem_of_status(500))(scope, receive, send)


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]
