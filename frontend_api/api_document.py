"""The OpenAPI document: what the routes say of themselves, with their parts in one place."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from fastapi.routing import APIRoute, iter_route_contexts
from starlette.routing import BaseRoute

from schema.catalog import Catalog
from schema.json_schema import hoisted, purpose

OPENAPI_VERSION: Final = "3.2.0"
"""3.2 describes event streams (`itemSchema`)."""
API_VERSION: Final = "1"
_TITLE: Final = "Afterwrite"
_SUMMARY: Final = "Accepts changes at once; PostgreSQL gets each exactly once, in order."
_DESCRIPTION: Final = """\
A change is answered with 202 as soon as it is certain not to get lost. From then on its author sees
it in every read, marked `pending`; a moment later it is saved, exactly once, in the order accepted,
or rejected with a reason.

Every row has `id`, `version` and `state`, and while pending `command`. Every error is a problem
(RFC 9457) with a `code` to decide by. Members may be added to answers: ignore those you don't know.
"""
_TAGS: Final = {
    "commands": "Several mutations as one, and what became of a command.",
    "events": "What becomes of the caller's commands, as it happens.",
    "operation": "For those who run it.",
}


def openapi_document(routes: Sequence[BaseRoute], catalog: Catalog) -> dict[str, Any]:
    """The document of these routes. Raises ValueError when two parts share a name."""
    components: dict[str, dict[str, Any]] = {
        "securitySchemes": {
            "bearer": {
                "type": "http",
                "scheme": "bearer",
                "bearerFormat": "JWT",
                "description": "`sub` is the user's id (a UUID), `exp` is needed; `name` and "
                "`roles` are read.",
            }
        }
    }
    paths: dict[str, dict[str, Any]] = {}
    for path, method, operation in _operations(routes):
        paths.setdefault(path, {})[method] = hoisted(operation, components)
    used = {
        tag for path in paths.values() for operation in path.values() for tag in operation["tags"]
    }
    tags = {kind.plural: purpose(kind) for kind in catalog} | _TAGS
    return {
        "openapi": OPENAPI_VERSION,
        "info": {
            "title": _TITLE,
            "summary": _SUMMARY,
            "description": _DESCRIPTION,
            "version": API_VERSION,
            "license": {"name": "Apache License 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "Where this document came from."}],
        "tags": [
            {"name": name, "description": text} for name, text in tags.items() if name in used
        ],
        "security": [{"bearer": []}],
        "paths": {path: paths[path] for path in sorted(paths)},
        "components": {
            section: {name: named[name] for name in sorted(named)}
            for section, named in sorted(components.items())
        },
    }


def _operations(routes: Sequence[BaseRoute]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for context in iter_route_contexts(routes):
        path = context.path_format
        if path is None or not isinstance(context.original_route, APIRoute):
            continue
        if not context.include_in_schema:
            continue
        for method in sorted(context.methods or ()):
            operation = {
                "operationId": context.operation_id,
                "tags": list(context.tags),
                "summary": context.summary,
                **(context.openapi_extra or {}),
            }
            yield path, method.lower(), operation
