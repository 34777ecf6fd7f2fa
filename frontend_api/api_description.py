"""What OpenAPI is told of each operation: parameters, bodies, answers. Follows the catalog."""

import re
from typing import Any, Final

from frontend_api.input_models import CommandInput, Model
from frontend_api.problems import MEDIA_TYPE
from frontend_api.validation import JSON
from schema.content import Kind
from schema.outcomes import CODES

_PARAMETER = re.compile(r"\{(\w+)\}")
_TYPES: Final[dict[str, dict[str, Any]]] = {
    "uuid": {"type": "string", "format": "uuid"},
    "text": {"type": "string"},
    "bool": {"type": "boolean"},
    "int": {"type": "integer"},
    "time": {"type": "string", "format": "date-time"},
    "json": {"type": "object"},
}
_PROBLEM: Final = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "enum": sorted(CODES)},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["pointer", "code", "detail"],
                "properties": {
                    "pointer": {"type": "string"},
                    "code": {"type": "string"},
                    "detail": {"type": "string"},
                },
            },
        },
    },
}
_WRITE_HEADERS: Final = (
    ("Idempotency-Key", "Repeating a request with the same key is safe; a UUID will do."),
    ("Prefer", "`wait=N`: answer when it is saved or rejected, at most N seconds later."),
)
_IF_MATCH: Final = ("If-Match", 'The version it must still have, such as `"v3"`.')


def row_schema(kind: Kind) -> dict[str, Any]:
    """A row as answers have it."""
    properties: dict[str, Any] = {
        "id": _TYPES["uuid"],
        "version": {"type": "integer"},
        "state": {"type": "string", "enum": ["saved", "pending", "delayed", "parked"]},
        "command": {**_TYPES["uuid"], "description": "While pending: what it waits for."},
        "created_at": _TYPES["time"],
        "updated_at": _TYPES["time"],
    }
    for field in kind.fields.values():
        shown = dict(_TYPES[field.kind])
        if field.nullable:
            shown["type"] = [shown["type"], "null"]
        properties[field.name] = shown
    properties |= {name: {"type": "integer"} for name in kind.counters}
    return {"type": "object", "required": ["id", "state"], "properties": properties}


def reading(path: str, kind: Kind, *, paged: bool = False) -> dict[str, Any]:
    schema = row_schema(kind)
    parameters = _in_path(path)
    if paged:
        schema = {
            "type": "object",
            "required": ["items", "next"],
            "properties": {
                "items": {"type": "array", "items": schema},
                "next": {"type": ["string", "null"], "description": "Give it as `after`."},
            },
        }
        limit = {"type": "integer", "minimum": 1, "maximum": 100, "default": 50}
        parameters += [
            {"name": "limit", "in": "query", "schema": limit},
            {"name": "after", "in": "query", "schema": {"type": "string"}},
        ]
    return {"parameters": parameters, "responses": _answers(200, "What is there", schema)}


def writing(
    path: str,
    kind: Kind,
    model: Model | None = None,
    *,
    media_type: str = JSON,
    versioned: bool = False,
) -> dict[str, Any]:
    headers = [*_WRITE_HEADERS, *([_IF_MATCH] if versioned else [])]
    described: dict[str, Any] = {
        "parameters": [
            *_in_path(path),
            *(
                {"name": n, "in": "header", "schema": {"type": "string"}, "description": d}
                for n, d in headers
            ),
        ],
        "responses": _answers(202, "Accepted; the row as it will look", row_schema(kind)),
    }
    if model is not None:
        described["requestBody"] = _body(model, media_type)
    return described


def commanding(path: str, *, submit: bool) -> dict[str, Any]:
    schema = {
        "type": "object",
        "required": ["id", "state", "accepted_at", "rows"],
        "properties": {
            "id": _TYPES["uuid"],
            "state": {
                "type": "string",
                "enum": ["pending", "delayed", "parked", "saved", "rejected"],
            },
            "accepted_at": {"type": ["string", "null"], "format": "date-time"},
            "settled_at": {"type": ["string", "null"], "format": "date-time"},
            "outcome": {"type": ["string", "null"]},
            "rows": {"type": "array", "items": {"type": "object"}},
            "problem": _PROBLEM,
        },
    }
    described: dict[str, Any] = {
        "parameters": _in_path(path),
        "responses": _answers(202 if submit else 200, "The command", schema),
    }
    if submit:
        described["requestBody"] = _body(CommandInput, JSON)
    return described


def _in_path(path: str) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": _TYPES["uuid" if name == "id" else "text"],
        }
        for name in _PARAMETER.findall(path)
    ]


def _body(model: Model, media_type: str) -> dict[str, Any]:
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    definitions = schema.pop("$defs", {})
    return {"required": True, "content": {media_type: {"schema": _inlined(schema, definitions)}}}


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """The schema without references and without null defaults, which only mean: not sent."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            return _inlined(definitions[schema["$ref"].rsplit("/", 1)[-1]], definitions)
        return {
            name: _inlined(part, definitions)
            for name, part in schema.items()
            if name != "default" or part is not None
        }
    if isinstance(schema, list):
        return [_inlined(part, definitions) for part in schema]
    return schema


def _answers(status: int, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    problem = {"description": "A problem", "content": {MEDIA_TYPE: {"schema": _PROBLEM}}}
    good = {"description": description, "content": {JSON: {"schema": schema}}}
    answers: dict[str, Any] = {str(status): good, "4XX": problem, "5XX": problem}
    if status == 202:
        answers |= {
            "200": {**good, "description": "Saved while the request waited, or a repeat's answer"},
            "201": {**good, "description": "Created and saved while the request waited"},
        }
    return answers
