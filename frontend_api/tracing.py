"""What every answer has: the trace of its request, and a shape even where nobody expected it."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from frontend_api import trace
from frontend_api.messages import Request, Response
from frontend_api.problems import for_framework, problem_of_status, problem_response
from schema.telemetry import Log

_PARENT = b"traceparent"

_log = Log("frontend_api")


def begin_trace(request: Request) -> str:
    """The trace of this request; returns the `traceparent` that its answer has."""
    return trace.begin(request.headers(_PARENT), request.headers(b"tracestate")).parent


def traced(send: Send, parent: str) -> Send:
    """Sends answers with this `traceparent`, if they have none."""

    async def with_parent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", []))
            if all(name != _PARENT for name, _ in headers):
                headers.append((_PARENT, parent.encode()))
            message = {**message, "headers": headers}
        await send(message)

    return with_parent


def unexpected(path: str | None, error: Exception) -> Response:
    """An exception that nobody expected becomes a 500 problem and a line in the log."""
    _log.error("unexpected_error", path=path, exc_info=error)
    return problem_response(problem_of_status(500))


class Unexpected:
    """The same within the framework, whose own answer would be another."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:  # whatever it is, it is said, and the client gets an answer
            response = unexpected(scope.get("path"), error)
            if started:
                raise
            await for_framework(response)(scope, receive, send)
