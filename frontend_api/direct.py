"""The short way from an address of the API to its handler.

The framework asks its routes one after the other and prepares for each request what no handler here
takes from it. What the API is called with most goes past that: an address is looked up by its parts.
Whatever is not found here, a wrong address or method, is the framework's as before.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from frontend_api.problems import ProblemError, problem_response

Handler = Callable[[Request], Awaitable[Response]]


@dataclass
class _Node:
    """What may come behind the first parts of an address."""

    fixed: "dict[str, _Node]" = field(default_factory=dict)
    any: "_Node | None" = None
    handlers: dict[str, tuple[Handler, tuple[str, ...]]] = field(default_factory=dict)
    """By method: the handler, and the names of the parts that vary, in their order."""


class Directory:
    """Handlers by method and address. Their routes take the request and nothing else."""

    def __init__(self) -> None:
        self._root = _Node()

    def add(self, routes: Iterable[BaseRoute]) -> None:
        """Where two have the same address, the first counts, as it does for the framework."""
        for route in routes:
            if isinstance(route, APIRoute):
                for method in route.methods or ():
                    self._add(method, route.path, route.endpoint)

    def find(self, method: str, path: str) -> tuple[Handler, dict[str, str]] | None:
        """The handler, and what the parts of the address are that vary."""
        node, values = self._root, []
        for part in path.split("/"):
            known = node.fixed.get(part)
            if known is None:
                known = node.any
                if known is None or not part:
                    return None
                values.append(part)
            node = known
        found = node.handlers.get(method)
        if found is None:
            return None
        handler, names = found
        return handler, dict(zip(names, values, strict=True))

    def _add(self, method: str, path: str, handler: Handler) -> None:
        node, names = self._root, []
        for part in path.split("/"):
            if part.startswith("{"):
                names.append(part.strip("{}"))
                node.any = node.any or _Node()
                node = node.any
            else:
                node = node.fixed.setdefault(part, _Node())
        node.handlers.setdefault(method, (handler, tuple(names)))


class Direct:
    """Calls the handler that the directory has. Stands where the framework's routes would begin."""

    def __init__(self, app: ASGIApp, directory: Directory) -> None:
        self._app = app
        self._directory = directory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = (
            self._directory.find(scope["method"], scope["path"])
            if scope["type"] == "http"
            else None
        )
        if found is None:
            await self._app(scope, receive, send)
            return
        handler, scope["path_params"] = found
        try:
            response = await handler(Request(scope, receive, send))
        except ProblemError as error:
            response = problem_response(error.problem, error.headers)
        await response(scope, receive, send)
