"""What OpenAPI is told of each operation: parameters, bodies, answers. Follows the catalog."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from frontend_api import api_bodies as bodies
from frontend_api import api_schemas as schemas
from frontend_api.api_parts import (
    AFTER,
    AGE,
    APPLIED,
    COMMAND_ID,
    CONTENT_LOCATION,
    ETAG,
    IDEMPOTENCY_KEY,
    IF_MATCH,
    JSON,
    LIMIT,
    LIMITS,
    LOCATION,
    MONITOR,
    NEXT,
    PREFER,
    REPLAYED,
    RETRY_AFTER,
    TRACEPARENT,
    UNDECIDED,
    answer,
    id_of,
    problems,
)
from frontend_api.validation import MERGE_PATCH
from schema.catalog import Catalog, ListOf
from schema.content import Kind
from schema.json_schema import (
    Schema,
    changed_fields,
    created_fields,
    input_schema,
)
from schema.outcomes import State

Operation = dict[str, Any]
_WRITE: Final = [IDEMPOTENCY_KEY, PREFER, TRACEPARENT]
_REFUSALS: Final = (401, 403, 404, 409, 412, 422, 429)
"""What a submission may be answered with besides what any request may."""


# -- reading ----------------------------------------------------------------------------------


def reading(kind: Kind) -> Operation:
    """GET of one row."""
    good = answer(
        f"The {kind.name} as its reader sees it: own pending changes are in it.",
        schemas.read_row(kind),
        schemas.row_example(kind),
        {"ETag": ETAG, "Age": AGE},
    )
    return {
        "description": f"{_sees(kind)} Its ETag goes into `If-Match` of a change.",
        "parameters": [id_of(kind)],
        "responses": {"200": good, **problems(401, 404)},
    }


def listing(lst: ListOf) -> Operation:
    """GET of a list, page by page."""
    kind = lst.kind
    order = "newest first" if lst.listing.newest_first else "oldest first"
    example = {"items": [schemas.row_example(kind)], "next": None}
    page = schemas.page(kind, pending_alone=kind.model.is_notice)
    good = answer("A page.", page, example, {"Link": NEXT, "Age": AGE})
    told = (
        " While PostgreSQL is away and nothing is known of the list, it has those that are not saved "
        "yet, and says so by `older`."
    )
    return {
        "description": f"{_sees(kind)} In the order of their ids, {order}."
        f"{told if kind.model.is_notice else ''}",
        "parameters": [*([id_of(lst.parent)] if lst.parent else []), LIMIT, AFTER],
        "responses": {"200": good, **problems(401, 404, 422)},
    }


def _sees(kind: Kind) -> str:
    private = f" Only its `{kind.model.private_to}` may read it." if kind.model.private_to else ""
    return f"What is saved, with the caller's own pending changes laid over it.{private}"


# -- writing ----------------------------------------------------------------------------------


def creating(
    kind: Kind, parent: Kind | None = None, given: Sequence[str] = (), opening: Kind | None = None
) -> Operation:
    """POST of a row. `given` are the fields that the address says, ids of `parent`."""
    schema = schemas.created(kind, opening)
    return _writing(
        kind,
        "create",
        [id_of(parent)] if parent is not None else [],
        _body(
            JSON,
            bodies.creation(kind, given, opening),
            bodies.creation_example(kind, given, opening),
        ),
        schema,
        schemas.created_example(kind, opening),
        created=True,
    )


def changing(kind: Kind) -> Operation:
    """PATCH of a row."""
    return _writing(
        kind,
        "update",
        [id_of(kind), IF_MATCH],
        _body(MERGE_PATCH, bodies.change(kind), bodies.change_example(kind)),
        schemas.changed(kind),
        schemas.row_example(kind, state="pending", command=schemas.EXAMPLE_COMMAND),
        versioned=True,
    )


def marking_read(kind: Kind) -> Operation:
    """PUT that a notice was read."""
    example = schemas.row_example(kind, state="pending", command=schemas.EXAMPLE_COMMAND)
    return _writing(kind, "update", [id_of(kind)], None, schemas.changed(kind), example)


def deleting(kind: Kind) -> Operation:
    """DELETE of a row."""
    example = schemas.deleted_example(kind)
    return _writing(
        kind, "delete", [id_of(kind), IF_MATCH], None, schemas.DELETED, example, versioned=True
    )


def putting(kind: Kind, parent: Kind, last: str) -> Operation:
    """PUT of the caller's own row with a natural key."""
    schema, example = schemas.created(kind, None), schemas.created_example(kind, None)
    named_by = _named_by(kind, parent, last)
    return _writing(kind, "create", named_by, None, schema, example, created=True)


def putting_own(kind: Kind) -> Operation:
    """PUT of the caller's only row of a kind."""
    return _writing(
        kind,
        "create",
        [],
        _body(JSON, bodies.creation(kind, (), None), bodies.creation_example(kind, (), None)),
        schemas.created(kind, None),
        schemas.created_example(kind, None),
        created=True,
    )


def taking_back(kind: Kind, parent: Kind, last: str) -> Operation:
    """DELETE of the caller's own row with a natural key."""
    named_by = [*_named_by(kind, parent, last), IF_MATCH]
    example = schemas.deleted_example(kind)
    return _writing(kind, "delete", named_by, None, schemas.DELETED, example)


def _named_by(kind: Kind, parent: Kind, last: str) -> list[Any]:
    field = kind.fields[last]
    schema = input_schema(kind, field)
    example = schemas.row_example(kind)[last]
    return [
        id_of(parent),
        {
            "name": last,
            "in": "path",
            "required": True,
            "description": f"The {last} of the {kind.name}.",
            "schema": schema,
            "example": example,
        },
    ]


def _writing(
    kind: Kind,
    op: str,
    named_by: Sequence[Any],
    body: Schema | None,
    schema: Mapping[str, Any],
    example: Mapping[str, Any],
    *,
    created: bool = False,
    versioned: bool = False,
) -> Operation:
    """`versioned`: it must say which version it is meant for."""
    accepted = {"Location": LOCATION, "Link": MONITOR, "Retry-After": RETRY_AFTER, "ETag": ETAG}
    settled = {"ETag": ETAG}
    saved = {name: value for name, value in example.items() if name != "command"}
    saved = {k: _saved(v) for k, v in saved.items()} | {"state": "saved"}
    good = {
        "202": _good("Accepted; the row as it will look.", schema, example, accepted),
        "200": _good(
            "Saved while the request waited (`Prefer`), or an earlier answer again.",
            schema, saved, settled,
        ),
    }  # fmt: skip
    if created:
        good["201"] = _good(
            "Created and saved while the request waited (`Prefer`).",
            schema, saved, settled | {"Location": LOCATION},
        )  # fmt: skip
        del good["200"]
    described: Operation = {
        "description": _rules(kind, op),
        "parameters": [*named_by, *_WRITE],
        "responses": dict(sorted(good.items()))
        | problems(*_REFUSALS, *([428] if versioned else [])),
    }
    if body is not None:
        described["requestBody"] = body
    return described


def _saved(value: Any) -> Any:
    if not isinstance(value, dict) or "state" not in value:
        return value
    return {k: v for k, v in value.items() if k != "command"} | {"state": "saved"}


def _rules(kind: Kind, op: str) -> str:
    """Who may do it, in the words of the declaration."""
    rule = {
        "create": kind.model.may_create,
        "update": kind.model.may_change,
        "delete": kind.model.may_delete,
    }[op]
    told = [
        "Accepted at once and shown to its author at once; saved a moment later, exactly once.",
        f"Permitted when `{rule}`.",
    ]
    if op != "delete":
        fields = changed_fields(kind) if op == "update" else created_fields(kind)
        told += [f"Another `{f.name}` than the default: `{f.rule}`." for f in fields if f.rule]
    return " ".join(told)


def _good(
    description: str, schema: Mapping[str, Any], example: Any, headers: Mapping[str, Any]
) -> dict[str, Any]:
    return answer(
        description,
        {"anyOf": [schema, schemas.MINIMAL]},
        example,
        {
            **headers,
            **LIMITS,
            "Content-Location": CONTENT_LOCATION,
            "Preference-Applied": APPLIED,
            "Idempotency-Replayed": REPLAYED,
        },
    )


def _body(media_type: str, schema: Mapping[str, Any], example: Any) -> Schema:
    content = {"schema": schema, "examples": {"example": {"value": example}}}
    return {"required": True, "content": {media_type: content}}


# -- commands ---------------------------------------------------------------------------------


def sending(catalog: Catalog) -> Operation:
    """POST of a command: several mutations at once."""
    kind = next(kind for kind in catalog if kind.rules["create"] is not None)
    schema = schemas.command(catalog)
    accepted = {"Location": LOCATION, "Link": MONITOR, "Retry-After": RETRY_AFTER}
    return {
        "description": "Several mutations of one stream, applied in one transaction: all or none.",
        "parameters": _WRITE,
        "requestBody": _body(
            JSON, bodies.command_input(catalog), bodies.command_input_example(catalog)
        ),
        "responses": {
            "200": _good(
                "Saved while the request waited (`Prefer`), or an earlier answer again.",
                schema,
                schemas.command_example(kind, State.SAVED),
                {},
            ),
            "202": _good(
                "Accepted.", schema, schemas.command_example(kind, State.PENDING), accepted
            ),
            **problems(*_REFUSALS),
        },
    }


def listing_commands(catalog: Catalog) -> Operation:
    """GET of the caller's commands, page by page."""
    kind = next(kind for kind in catalog if kind.rules["create"] is not None)
    example = {"items": [schemas.command_example(kind, State.SAVED)], "next": None}
    good = answer("A page.", schemas.command_page(catalog), example, {"Link": NEXT})
    return {
        "description": "What the caller has sent, newest first. A command that repeats another is "
        "not there; the other one is. Nor are those that only make notices to him.",
        "parameters": [LIMIT, AFTER],
        "responses": {"200": good, **problems(401, 422)},
    }


def looking_up(catalog: Catalog) -> Operation:
    """GET of a command of the caller."""
    kind = next(kind for kind in catalog if kind.rules["create"] is not None)
    good = answer(
        "The command.",
        schemas.command(catalog),
        schemas.command_example(kind, State.SAVED),
        {"Retry-After": UNDECIDED},
    )
    return {
        "description": "While it is undecided, `Retry-After` says when to ask again. One that waits "
        "for longer than is usual is `delayed`, until it is decided; it is safe. Commands of others are "
        "not there.",
        "parameters": [COMMAND_ID],
        "responses": {"200": good, **problems(401, 404)},
    }
