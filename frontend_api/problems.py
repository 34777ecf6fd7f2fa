"""Errors as RFC 9457 problems: one shape for all, ASCII, never with the input in it."""

import json
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response as FrameworkResponse
from starlette.routing import Match

from frontend_api import trace
from frontend_api.messages import Response
from schema.outcomes import Problem

MEDIA_TYPE = "application/problem+json"
_RETRY_AFTER_S = {
    "not_accepted": 2,
    "outcome_unknown": 2,
    "overloaded": 1,
    "log_full": 30,
    "database_unavailable": 5,
    "overlay_incomplete": 1,
}
_BY_STATUS = {
    400: "bad_request",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "body_too_large",
    415: "unsupported_media_type",
    431: "header_too_large",
}


class ProblemError(Exception):
    """A request ends with this problem. `headers` go into the answer."""

    def __init__(self, problem: Problem, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(problem.code)
        self.problem = problem
        self.headers = dict(headers or {})


def fail(code: str, detail: str, **extra: Any) -> ProblemError:
    """The error to raise for a code. `detail` is ours: it must not repeat input."""
    return ProblemError(Problem(code, detail, extra=extra))


def invalid(detail: str, pointer: str, code: str = "invalid") -> ProblemError:
    """A 422 about one place of the body. `pointer` is a JSON Pointer."""
    error = {"pointer": pointer, "code": code, "detail": detail}
    return ProblemError(Problem("invalid", "The request is not valid.", errors=(error,)))


def problem_body(problem: Problem) -> bytes:
    return told(problem.to_json())


def told(problem: Mapping[str, Any]) -> bytes:
    """A problem, found now or by the writer, as the body of an answer to this request."""
    of = trace.current()
    shown = {**problem, "trace_id": of.id} if of is not None else problem
    return json.dumps(shown, ensure_ascii=True, separators=(",", ":")).encode()


def problem_headers(problem: Problem) -> dict[str, str]:
    """Headers that belong to a problem, whoever sends it."""
    headers: dict[str, str] = {}
    if problem.code in _RETRY_AFTER_S:
        headers["Retry-After"] = str(_RETRY_AFTER_S[problem.code])
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return headers


def problem_response(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    all_headers = {"Content-Type": MEDIA_TYPE, **problem_headers(problem), **(headers or {})}
    return Response(problem_body(problem), problem.status, all_headers)


def for_framework(response: Response) -> FrameworkResponse:
    """The same, where the framework wants one of its own."""
    return FrameworkResponse(response.body, response.status, response.headers)


def problem_of_status(status: int) -> Problem:
    """The problem for a status that the framework found by itself."""
    code = _BY_STATUS.get(status, "internal" if status >= 500 else "bad_request")
    details = {
        "not_found": "No such address.",
        "method_not_allowed": "See the Allow header for what this address takes.",
        "internal": "This is our fault; it has been logged.",
    }
    return Problem(code, details.get(code, "The request cannot be answered."))


def install(app: FastAPI) -> None:
    """Make every error of this app a problem; those that nobody expects have a layer of their own."""

    async def ours(_: Request, error: Exception) -> FrameworkResponse:
        assert isinstance(error, ProblemError)
        return for_framework(problem_response(error.problem, error.headers))

    async def framework(request: Request, error: Exception) -> FrameworkResponse:
        assert isinstance(error, HTTPException)
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = ", ".join(sorted(_allowed(request)))
        return for_framework(problem_response(problem_of_status(error.status_code), headers))

    async def validation(_: Request, error: Exception) -> FrameworkResponse:
        return for_framework(problem_response(Problem("invalid", "The request is not valid.")))

    app.add_exception_handler(ProblemError, ours)
    app.add_exception_handler(HTTPException, framework)
    app.add_exception_handler(RequestValidationError, validation)


def _allowed(request: Request) -> set[str]:
    """The methods of all routes of this address; the framework names those of the first only."""
    methods: set[str] = set()
    open_ = list(request.app.routes)
    while open_:
        route = open_.pop()
        included = getattr(route, "original_router", None)  # what include_router() leaves
        if included is not None:
            open_ += included.routes
        elif route.matches(request.scope)[0] is not Match.NONE:
            methods |= getattr(route, "methods", None) or set()
    return methods
