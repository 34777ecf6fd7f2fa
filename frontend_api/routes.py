"""Routes of commands: several mutations as one, and what became of it."""

import uuid
from typing import Any

from frontend_api import api_description as describe
from frontend_api.answering import submit
from frontend_api.direct import Directory
from frontend_api.input_models import CommandInput, Model, create_input, patch_input
from frontend_api.messages import Request, Response
from frontend_api.planning import Planner
from frontend_api.presentation import json_response, mark, next_link
from frontend_api.problems import ProblemError, fail, invalid
from frontend_api.seen import OverlayIncomplete
from frontend_api.services import Services
from frontend_api.validation import (
    check,
    client_row_id,
    page_limit,
    path_id,
    read_cursor,
    read_json,
    write_cursor,
)
from frontend_api.view import DatabaseUnavailable
from schema.commands import MAX_MUTATIONS, Author
from schema.content import Kind
from schema.identifiers import CommandId
from schema.outcomes import Problem


def command_routes(services: Services, directory: Directory) -> None:
    create = {kind.name: create_input(kind) for kind in services.catalog}
    change = {kind.name: patch_input(kind) for kind in services.catalog}

    async def post(request: Request) -> Response:
        author = await services.author(request)
        data = read_json(request.body, request.header(b"content-type"))
        check(CommandInput, data)
        planner = Planner(services.catalog, author)
        for at, mutation in enumerate(data["mutations"]):
            _plan(services, planner, mutation, f"/mutations/{at}", create, change)
        if len(planner) > MAX_MUTATIONS:
            raise invalid(f"makes more than {MAX_MUTATIONS} mutations", "/mutations", "too_long")
        return await submit(services, request, planner, data, as_command=True)

    async def get_all(request: Request) -> Response:
        return await _page(services, request, await services.author(request))

    async def get(request: Request) -> Response:
        author = await services.author(request)
        command = CommandId(path_id(request.path_params["id"]))
        try:
            found = await services.commands.command(author.id, command)
        except DatabaseUnavailable:
            raise fail("database_unavailable", "It cannot be looked up now.") from None
        except OverlayIncomplete:
            raise fail(
                "overlay_incomplete", "It cannot be told yet whether this is there."
            ) from None
        if found is None:
            raise fail("not_found", "You have sent no such command.")
        waits = found["state"] in ("pending", "parked", "delayed")
        return json_response(found, headers={"Retry-After": "1"} if waits else {})

    path = "/v1/commands"
    directory.route(
        "POST", path, post, name="send_command", tag="commands",
        summary="Several mutations, applied all or not at all",
        operation=describe.sending(services.catalog),
    )  # fmt: skip
    directory.route(
        "GET", path, get_all, name="list_commands", tag="commands",
        summary="What the caller has sent, page by page",
        operation=describe.listing_commands(services.catalog),
    )  # fmt: skip
    path = "/v1/commands/{id}"
    directory.route(
        "GET", path, get, name="read_command", tag="commands",
        summary="What became of a command", operation=describe.looking_up(services.catalog),
    )  # fmt: skip


async def _page(services: Services, request: Request, author: Author) -> Response:
    limit = page_limit(request.query("limit"))
    after = read_cursor("commands", author.id, request.query("after"))
    try:
        page = await services.commands.page(
            author.id, CommandId(after) if after is not None else None, limit
        )
    except DatabaseUnavailable:
        raise fail("database_unavailable", "They cannot be looked up now.") from None
    body: dict[str, Any] = {"items": page.items, "next": None}
    headers: dict[str, str] = {}
    if page.next_after is not None:
        body["next"] = write_cursor("commands", author.id, page.next_after)
        headers["Link"] = next_link(request.path, body["next"], limit)
    if not page.ledger_read:
        body["ledger"] = "unavailable"
    mark(body, headers, page.freshness)
    return json_response(body, headers=headers)


def _plan(
    services: Services,
    planner: Planner,
    mutation: dict[str, Any],
    at: str,
    create: dict[str, Model],
    change: dict[str, Model],
) -> None:
    if mutation["type"] not in services.catalog:
        raise invalid("is not a content type", f"{at}/type", "unknown_type")
    kind = services.catalog[mutation["type"]]
    op, values, version = mutation["op"], mutation.get("values"), mutation.get("expected_version")
    if op not in ("create", "update", "delete"):
        raise invalid("is not create, update or delete", f"{at}/op", "unknown_op")
    if kind.rules[op] is None:
        raise ProblemError(Problem("forbidden", "Nobody may do this.", ()))
    if op == "create":
        check(create[kind.name], values if values is not None else {}, f"{at}/values")
        planner.create(kind, values or {}, row_id=_new_id(kind, mutation, at), at=f"{at}/values")
        return
    if mutation.get("id") is None:
        raise invalid("is needed", f"{at}/id", "missing")
    row_id = path_id(mutation["id"])
    if op == "update":
        check(change[kind.name], values if values is not None else {}, f"{at}/values")
        if not values:
            raise invalid("changes nothing", f"{at}/values", "missing")
        planner.change(kind, row_id, values, version, at=f"{at}/values")
        return
    if values:
        raise invalid("a deletion has no values", f"{at}/values", "unexpected")
    planner.delete(kind, row_id, version, at=at)


def _new_id(kind: Kind, mutation: dict[str, Any], at: str) -> uuid.UUID | None:
    """The id that the client chose for a new row, if it did."""
    if mutation.get("expected_version") is not None:
        raise invalid("a creation has no version yet", f"{at}/expected_version", "unexpected")
    if mutation.get("id") is None:
        return None
    if kind.model.natural_key:
        raise invalid("follows from the values", f"{at}/id", "unexpected")
    return client_row_id(mutation["id"], f"{at}/id")
