"""What OpenAPI is told of the operations that no content type declares: events, and running it."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from frontend_api.api_parts import (
    CACHE_CONTROL,
    EVENT_STREAM,
    LAST_EVENT_ID,
    LAST_EVENT_ID_QUERY,
    TRACE,
    answer,
    problems,
)
from frontend_api.events import EVENTS, EXAMPLE, written
from schema.json_schema import UUID, closed, described, named
from schema.outcomes import Outcome, State
from schema.problem_schema import PROBLEM

Operation = dict[str, Any]

# -- events -----------------------------------------------------------------------------------

_ROW: Final = {
    "type": "object",
    "required": ["type", "id", "op", "version"],
    "properties": {
        "type": {"type": "string"},
        "id": UUID,
        "op": {"type": "string", "enum": ["create", "update", "delete"]},
        "version": {"type": ["integer", "null"]},
    },
}
COMMAND_EVENT: Final = named(
    "CommandEvent",
    {
        "type": "object",
        "description": "What a command, its outcome or a notice has to tell.",
        "required": ["command"],
        "properties": {
            "command": UUID,
            "state": {
                "type": ["string", "null"],
                "enum": [State.SAVED.value, State.REJECTED.value, State.PARKED.value, None],
                "description": "Null of a command that repeats another: that one's events tell.",
            },
            "outcome": {
                "type": "string",
                "enum": [outcome.value for outcome in Outcome if outcome is not Outcome.DEAD],
            },
            "rows": {"type": "array", "items": _ROW},
            "problem": PROBLEM,
            "duplicate_of": UUID,
            "notice": described(UUID, "The notice that tells of it."),
            "row": {
                "type": "object",
                "description": "Of a notice that is not saved yet: its row, as answers have it.",
                "additionalProperties": True,
            },
        },
    },
)
"""The data of every event but `reset`, which has none."""
_EVENT: Final = named(
    "Event",
    {
        "type": "object",
        "description": "One block of the stream.",
        "required": ["event", "data"],
        "properties": {
            "event": {"type": "string", "enum": list(EVENTS)},
            "id": {"type": "string", "description": "To go on behind it: `Last-Event-ID`."},
            "data": {
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": {"anyOf": [COMMAND_EVENT, closed({}, [])]},
            },
            "retry": {"type": "integer", "description": "Milliseconds to wait after a break."},
        },
    },
)


def streaming() -> Operation:
    """GET of the caller's events, as a stream."""
    told = "\n".join(f"- `{name}`: {what}" for name, what in EVENTS.items())
    good = {
        "description": "The stream.",
        "headers": {"Cache-Control": CACHE_CONTROL, "traceparent": TRACE},
        "content": {EVENT_STREAM: {"itemSchema": _EVENT, "example": written(EXAMPLE).decode()}},
    }
    return {
        "description": "Server-sent events of the caller; a comment every 15 seconds while there "
        f"are none. Ends when the token expires.\n\n{told}",
        "parameters": [LAST_EVENT_ID, LAST_EVENT_ID_QUERY],
        "responses": {"200": good, **problems(401, 429)},
    }


# -- operation --------------------------------------------------------------------------------


def alive() -> Operation:
    """GET of /livez."""
    schema = closed({"status": {"type": "string", "const": "ok"}}, ["status"])
    return _open(
        "It looks at nothing else: what the process needs may be away.",
        {"200": answer("The process runs.", named("Alive", schema), {"status": "ok"})},
    )


def ready() -> Operation:
    """GET of /readyz."""
    check = {
        "type": "object",
        "required": ["ok"],
        "properties": {
            "ok": {"type": "boolean"},
            "seconds": {"type": "number", "minimum": 0, "description": "How long it took."},
        },
    }
    names = {"type": "array", "items": {"type": "string"}, "description": "What is away."}
    schema = named(
        "Readiness",
        {
            "type": "object",
            "required": ["status", "degraded", "checks"],
            "properties": {
                "status": {"type": "string", "enum": ["ok", "degraded", "not ready"]},
                "degraded": names,
                "checks": {"type": "object", "additionalProperties": check},
            },
        },
    )

    def example(status: str, *away: str) -> dict[str, Any]:
        checks = {
            n: {"ok": n not in away}
            for n in ("kafka", "log", "disk", "database", "overlay", "redis")
        }
        return {"status": status, "degraded": list(away), "checks": checks}

    yes = answer("Commands are accepted.", schema, example("degraded", "database"))
    no = answer("They are not: Kafka is away.", schema, example("not ready", "kafka"))
    described = _open(
        "Ready means that commands are accepted. PostgreSQL and Redis may be away; that is said. "
        "With `disk` degraded, new changes are refused (`log_full`), and reads go on.",
        {"200": yes},
    )
    problem = described["responses"]["503"]["content"]
    no["content"] |= problem  # it may be refused before anything is looked at, like any request
    return described | {"responses": described["responses"] | {"503": no}}


def measured(media_type: str) -> Operation:
    """GET of /metrics."""
    content = {"schema": {"type": "string"}, "example": "afterwrite_database_available 1.0\n"}
    good = {
        "description": "Every metric.",
        "headers": {"traceparent": TRACE},
        "content": {media_type: content},
    }
    return _open("In the text format of Prometheus.", {"200": good})


def openapi() -> Operation:
    """GET of /openapi.json."""
    members = ("info", "paths", "components")
    return _document(
        "OpenApi", "openapi", "3.2.0", members, "The HTTP interface: this document (OpenAPI 3)."
    )


def asyncapi() -> Operation:
    """GET of /asyncapi.json."""
    members = ("info", "channels", "operations", "components")
    return _document(
        "AsyncApi", "asyncapi", "3.1.0", members, "What flows through Kafka (AsyncAPI 3)."
    )


def _document(
    name: str, kind: str, version: str, members: Sequence[str], description: str
) -> Operation:
    schema = {
        "type": "object",
        "required": [kind, *members],
        "properties": {
            kind: {"type": "string", "pattern": "^3\\."},
            **{member: {"type": "object"} for member in members},
        },
        "additionalProperties": True,
    }
    example = {kind: version, **{member: {} for member in members}}
    return _open(description, {"200": answer("The document.", named(name, schema), example)})


def _open(description: str, good: Mapping[str, Any]) -> Operation:
    """For callers without a token."""
    return {"description": description, "security": [], "responses": {**good, **problems()}}
