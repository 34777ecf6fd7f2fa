"""Parts that operations share in the API description: parameters, headers, problems."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

from frontend_api.problems import MEDIA_TYPE
from schema.content import Kind
from schema.json_schema import UUID, Component, camel, example_id
from schema.outcomes import CODES, Problem
from schema.problem_schema import PROBLEM

JSON: Final = "application/json"
EVENT_STREAM: Final = "text/event-stream"
_EXAMPLE_TRACE: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

# -- parameters -------------------------------------------------------------------------------


def _parameter(
    component: str, name: str, where: str, schema: Mapping[str, Any], description: str, **more: Any
) -> Component:
    content = {"name": name, "in": where, "description": description, "schema": schema, **more}
    return Component("parameters", component, content)


def id_of(kind: Kind, name: str = "id") -> Component:
    """The id of a row, in an address."""
    return _parameter(
        f"{camel(kind.name)}Id", name, "path", UUID, f"The id of the {kind.name}.",
        required=True, example=example_id(kind.name),
    )  # fmt: skip


COMMAND_ID: Final = _parameter(
    "CommandId", "id", "path", UUID, "The id of the command.",
    required=True, example=example_id("command"),
)  # fmt: skip
LIMIT: Final = _parameter(
    "Limit", "limit", "query",
    {"type": "integer", "minimum": 1, "maximum": 100, "default": 50},
    "How many rows a page has at most.",
)  # fmt: skip
AFTER: Final = _parameter(
    "After", "after", "query", {"type": "string", "pattern": "^[A-Za-z0-9_-]+$"},
    "Go on behind this place: the `next` of the page before. A cursor holds for its own list only.",
)  # fmt: skip
_EVENT_ID: Final = {"type": "string"}
_GO_ON: Final = (
    "Go on behind the event with this id. When that is not possible any more, the stream begins "
    "with `reset`."
)
LAST_EVENT_ID: Final = _parameter(
    "LastEventId", "Last-Event-ID", "header", _EVENT_ID, _GO_ON, example="0-41"
)
LAST_EVENT_ID_QUERY: Final = _parameter(
    "LastEventIdQuery", "last_event_id", "query", _EVENT_ID,
    "The same, for clients that cannot set the header; the header counts if both are there.",
    example="0-41",
)  # fmt: skip
IDEMPOTENCY_KEY: Final = _parameter(
    "IdempotencyKey", "Idempotency-Key", "header",
    {"type": "string", "pattern": "^[!-~]{1,255}$"},
    "Repeating a request with the same key is safe: it gets the same answer and takes effect once. "
    "A UUID will do; it is remembered for a day, and in the ledger for as long as that is kept.",
    example="8e03978e-40d5-43e8-bc93-6894a57f9324",
)  # fmt: skip
PREFER: Final = _parameter(
    "Prefer", "Prefer", "header", {"type": "string"},
    "`wait=N`: answer when the change is saved or rejected, at most N seconds later; then 202 as "
    "without it. `return=minimal`: answer with little more than id and state. Other preferences are "
    "ignored.",
    example="wait=5",
)  # fmt: skip
IF_MATCH: Final = _parameter(
    "IfMatch", "If-Match", "header", {"type": "string"},
    "The version that the row must still have, as its ETag said it; `*` for any. Without it the "
    "answer is 428, unless the installation does not ask for it.",
    example='"v3"',
)  # fmt: skip
TRACEPARENT: Final = _parameter(
    "Traceparent", "traceparent", "header", {"type": "string"},
    "W3C trace context: goes with the command to the writer. A malformed one is ignored.",
    example=_EXAMPLE_TRACE,
)  # fmt: skip

# -- headers of answers -----------------------------------------------------------------------


def _header(
    component: str,
    schema: Mapping[str, Any],
    description: str,
    example: Any,
    *,
    always: bool = False,
) -> Component:
    content = {"description": description, "schema": schema, "example": example}
    return Component("headers", component, content | ({"required": True} if always else {}))


_TEXT: Final = {"type": "string"}
_COUNT: Final = {"type": "integer", "minimum": 0}
_COMMAND_URL: Final = f"/v1/commands/{example_id('command')}"

LOCATION: Final = _header(
    "Location",
    {"type": "string", "format": "uri-reference"},
    "Where the row, or the command, is.",
    _COMMAND_URL,
    always=True,
)
CONTENT_LOCATION: Final = _header(
    "ContentLocation",
    {"type": "string", "format": "uri-reference"},
    "Where that which the answer shows can be read again.",
    _COMMAND_URL,
)
MONITOR: Final = _header(
    "Monitor",
    _TEXT,
    "Where to see what becomes of the command.",
    f'<{_COMMAND_URL}>; rel="monitor"',
    always=True,
)
NEXT: Final = _header(
    "Next",
    _TEXT,
    "Where the next page is; absent on the last one.",
    '</v1/topics?limit=50&after=AZmfbjpS>; rel="next"',
)
RETRY_AFTER: Final = _header(
    "RetryAfter", _COUNT, "Seconds after which to ask again.", 1, always=True
)
UNDECIDED: Final = _header(
    "RetryWhileUndecided", _COUNT, "While it is undecided: seconds after which to ask again.", 1
)
ETAG: Final = _header(
    "ETag", {"type": "string", "pattern": '^"v[0-9]+"$'}, "The row's version.", '"v3"'
)
AGE: Final = _header(
    "Age",
    _COUNT,
    "Seconds since the rows were read from PostgreSQL, which cannot be read now.",
    12,
)
REPLAYED: Final = _header(
    "IdempotencyReplayed",
    {"type": "string", "enum": ["true"]},
    "This answers an earlier request with the same Idempotency-Key.",
    "true",
)
APPLIED: Final = _header(
    "PreferenceApplied", _TEXT, "The preference that this answer follows.", "wait=5"
)
CACHE_CONTROL: Final = _header(
    "CacheControl", _TEXT, "Answers belong to their caller.", "private, no-store", always=True
)
TRACE: Final = _header(
    "Trace",
    _TEXT,
    "W3C trace context of the request: as it was sent, else a new one.",
    _EXAMPLE_TRACE,
    always=True,
)
LIMITS: Final = {
    "RateLimit-Policy": _header(
        "RateLimitPolicy",
        _TEXT,
        "Submissions that one author may make (`q`) in so many seconds (`w`).",
        '"default";q=600;w=60',
    ),
    "RateLimit": _header(
        "RateLimit",
        _TEXT,
        "How many are left (`r`), and when they are counted anew (`t`, seconds).",
        '"default";r=599;t=42',
    ),
}
"""Not there while they cannot be counted."""
_AUTHENTICATE: Final = _header("WwwAuthenticate", _TEXT, "What to send.", "Bearer", always=True)

# -- problems ---------------------------------------------------------------------------------

NAMES: Final = {
    400: "BadRequest",
    401: "Unauthenticated",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    408: "RequestTimeout",
    409: "Conflict",
    412: "VersionConflict",
    413: "BodyTooLarge",
    415: "UnsupportedMediaType",
    422: "Invalid",
    428: "VersionNeeded",
    429: "RateLimited",
    431: "HeadersTooLarge",
    500: "Internal",
    503: "NotNow",
}
"""What the answer of each status of the problem codes is called."""
_WAITED: Final = {"Preference-Applied": APPLIED, **LIMITS}
_HEADERS: Final = {
    400: LIMITS,
    403: _WAITED,
    404: _WAITED,
    409: _WAITED,
    412: _WAITED | {"ETag": ETAG},
    428: {"ETag": ETAG},
    422: _WAITED,
    401: {"WWW-Authenticate": _AUTHENTICATE},
    429: {"Retry-After": RETRY_AFTER, **LIMITS},
    503: {"Retry-After": RETRY_AFTER, **LIMITS},
}
ANY_REQUEST: Final = (400, 408, 413, 415, 431, 500, 503)
"""What may become of a request before anybody looks at what it wants."""


def problems(*statuses: int) -> dict[str, Component]:
    """The answers with these statuses, and those that any request may get."""
    return {str(status): _PROBLEMS[status] for status in sorted({*statuses, *ANY_REQUEST})}


def _problem_answers() -> dict[int, Component]:
    codes = defaultdict(list)
    for code in CODES.values():
        codes[code.status].append(code)
    return {
        status: Component(
            "responses",
            NAMES[status],
            {
                "description": "; ".join(code.title for code in found) + ".",
                "headers": {"traceparent": TRACE, **_HEADERS.get(status, {})},
                "content": {
                    MEDIA_TYPE: {
                        "schema": PROBLEM,
                        "examples": {
                            code.name: {"value": Problem(code.name, f"{code.title}.").to_json()}
                            for code in found
                        },
                    }
                },
            },
        )
        for status, found in codes.items()
    }


_PROBLEMS: Final = _problem_answers()


def answer(
    description: str,
    schema: Mapping[str, Any],
    example: Any,
    headers: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A good answer in JSON."""
    return {
        "description": description,
        "headers": {"Cache-Control": CACHE_CONTROL, "traceparent": TRACE, **(headers or {})},
        "content": {JSON: {"schema": schema, "examples": {"example": {"value": example}}}},
    }


def parameters(*lists: Iterable[Component]) -> list[Component]:
    return [one for each in lists for one in each]
