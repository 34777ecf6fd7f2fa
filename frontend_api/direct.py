"""The short way from an address of the API to its handler.

The framework asks its routes one after the other and prepares for each request what no handler here
takes from it. What the API is called with most goes past that: an address is looked up by its parts.
Whatever is not found here, a wrong address or method, is the framework's as before.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter
from starlette.exceptions import HTTPException

from frontend_api.messages import Handler


@dataclass
class _Node:
    """What may come behind the first parts of an address."""

    fixed: "dict[str, _Node]" = field(default_factory=dict)
    any: "_Node | None" = None
    handlers: dict[str, tuple[Handler, tuple[str, ...]]] = field(default_factory=dict)
    """By method: the handler, and the names of the parts that vary, in their order."""


class Directory:
    """Handlers by method and address."""

    def __init__(self) -> None:
        self._root = _Node()
        self.described = APIRouter()
        """The same for the framework, which describes them and says what methods an address has."""

    def route(
        self,
        method: str,
        path: str,
        handler: Handler,
        *,
        name: str,
        summary: str,
        tag: str,
        operation: Mapping[str, Any],
    ) -> None:
        """Add a handler. Where two have the same address, the first counts, as for the framework."""
        route(
            self.described, method, path, _elsewhere,
            name=name, summary=summary, tag=tag, operation=operation,
        )  # fmt: skip
        node, names = self._root, []
        for part in path.split("/"):
            if part.startswith("{"):
                names.append(part.strip("{}"))
                node.any = node.any or _Node()
                node = node.any
            else:
                node = node.fixed.setdefault(part, _Node())
        node.handlers.setdefault(method, (handler, tuple(names)))

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


def route(
    router: APIRouter,
    method: str,
    path: str,
    endpoint: Callable[..., Awaitable[Any]],
    *,
    name: str,
    summary: str,
    tag: str,
    operation: Mapping[str, Any],
) -> None:
    """Add a route whose handler reads the request itself: FastAPI's own validation echoes input."""
    router.add_api_route(
        path,
        endpoint,
        methods=[method],
        name=name,
        operation_id=name,
        summary=summary,
        tags=[tag],
        response_model=None,
        responses={},
        status_code=202 if method != "GET" else 200,
        openapi_extra=dict(operation),
    )


async def _elsewhere() -> None:
    # The framework is asked for what the directory does not have. It also takes some odd spellings
    # of addresses that are none, such as one with a line break at its end.
    raise HTTPException(404)
