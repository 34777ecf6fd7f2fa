"""Routes of the content types: what the catalog declares is what there is."""

from typing import Any

from frontend_api import api_description as describe
from frontend_api.answering import read_row, submit
from frontend_api.conditions import wanted_version
from frontend_api.direct import Directory
from frontend_api.input_models import create_input, patch_input
from frontend_api.messages import Handler, Request, Response
from frontend_api.planning import Planner
from frontend_api.presentation import json_response, mark, next_link, row_listed
from frontend_api.problems import fail, invalid
from frontend_api.seen import OverlayIncomplete
from frontend_api.services import Services
from frontend_api.validation import (
    JSON,
    MERGE_PATCH,
    check,
    page_limit,
    path_id,
    read_cursor,
    read_json,
    write_cursor,
)
from frontend_api.view import DatabaseUnavailable
from schema.catalog import ListOf
from schema.content import Kind


def content_routes(services: Services, directory: Directory) -> None:
    """All routes of all content types; only operations that a rule permits to somebody exist."""
    for kind in services.catalog:
        _row_routes(directory, services, kind)
        if len(_natural_parts(kind)) == 2:
            _natural_routes(directory, services, kind)
        if named_by_author(kind) and kind.rules["create"] and kind.rules["update"]:
            _own_route(directory, services, kind)
    listed: set[str] = set()
    for lst in services.catalog.lists.values():
        path = _list_path(lst)
        if path not in listed:
            listed.add(path)
            _list_routes(directory, services, lst, path)
    for kind in services.catalog:
        path = f"/v1/{kind.plural}"
        if path not in listed and _is_root(services, kind):
            _create_route(directory, services, kind, path, parent=None)


def _is_root(services: Services, kind: Kind) -> bool:
    return not services.catalog.stream_path(kind)


def _list_path(lst: ListOf) -> str:
    if lst.parent is None:
        return f"/v1/{lst.kind.plural}"
    return f"/v1/{lst.parent.plural}/{{id}}/{lst.kind.plural}"


def _list_routes(directory: Directory, services: Services, lst: ListOf, path: str) -> None:
    kind = lst.kind
    where = f" of a {lst.parent.name}" if lst.parent is not None else ""
    directory.route(
        "GET", path, _list_handler(services, lst),
        name=f"list_{lst.name}", summary=f"The {kind.plural}{where}, page by page",
        tag=kind.plural, operation=describe.listing(lst),
    )  # fmt: skip
    if lst.parent is not None or _is_root(services, kind):
        _create_route(directory, services, kind, path, parent=lst.listing.by)


def _create_route(
    directory: Directory, services: Services, kind: Kind, path: str, parent: str | None
) -> None:
    if kind.rules["create"] is None or kind.model.natural_key:
        return
    opens = kind.model.opens_with
    opening = services.catalog[opens.type] if opens is not None else None
    given = (parent,) if parent is not None else ()
    above = services.catalog.parent(kind, parent) if parent is not None else None
    model = create_input(kind, given=given, opening=opening)

    async def create(request: Request) -> Response:
        author = await services.author(request)
        data = read_json(request.body, request.header(b"content-type"))
        values = dict(check(model, data))
        if parent is not None:
            values[parent] = request.path_params["id"]
            path_id(values[parent])
        planner = Planner(services.catalog, author)
        planner.create(kind, values, parents_in_path=frozenset(given))
        return await submit(services, request, planner, data)

    name = f"create_{kind.name}" + (f"_by_{parent}" if parent is not None else "")
    directory.route(
        "POST", path, create, name=name, summary=f"Create a {kind.name}",
        tag=kind.plural, operation=describe.creating(kind, above, given, opening),
    )  # fmt: skip


def _row_routes(directory: Directory, services: Services, kind: Kind) -> None:
    path = f"/v1/{kind.plural}/{{id}}"

    async def read(request: Request) -> Response:
        author = await services.author(request)
        return await read_row(services, author, kind, path_id(request.path_params["id"]))

    directory.route(
        "GET", path, read, name=f"read_{kind.name}", summary=f"Read a {kind.name}",
        tag=kind.plural, operation=describe.reading(kind),
    )  # fmt: skip
    if kind.rules["update"] is not None:
        _change_route(directory, services, kind, path)
    if kind.rules["delete"] is not None:
        _delete_route(directory, services, kind, path)


def _change_route(directory: Directory, services: Services, kind: Kind, path: str) -> None:
    model = patch_input(kind)

    async def change(request: Request) -> Response:
        author = await services.author(request)
        row_id = path_id(request.path_params["id"])
        content_type = request.header(b"content-type")
        data = read_json(request.body, content_type, (MERGE_PATCH, JSON))
        values = check(model, data)
        if not values:
            raise invalid("changes nothing", "", "missing")
        planner = Planner(services.catalog, author)
        version = await wanted_version(services, request, author, kind, row_id)
        planner.change(kind, row_id, values, version)
        return await submit(services, request, planner, data)

    directory.route(
        "PATCH", path, change, name=f"change_{kind.name}",
        summary=f"Change a {kind.name} (JSON Merge Patch)", tag=kind.plural,
        operation=describe.changing(kind),
    )  # fmt: skip


def _delete_route(directory: Directory, services: Services, kind: Kind, path: str) -> None:
    async def delete(request: Request) -> Response:
        author = await services.author(request)
        row_id = path_id(request.path_params["id"])
        planner = Planner(services.catalog, author)
        version = await wanted_version(services, request, author, kind, row_id)
        planner.delete(kind, row_id, version)
        return await submit(services, request, planner, None)

    directory.route(
        "DELETE", path, delete, name=f"delete_{kind.name}",
        summary=f"Delete a {kind.name}", tag=kind.plural,
        operation=describe.deleting(kind),
    )  # fmt: skip


def _natural_parts(kind: Kind) -> tuple[str, ...]:
    """The reference and the field that an address names the author's own row by, if it can."""
    parts = tuple(name for name in kind.model.natural_key if name != kind.author_field)
    if len(parts) == 2 and kind.fields[parts[0]].ref is not None:
        return parts
    return ()


def _natural_routes(directory: Directory, services: Services, kind: Kind) -> None:
    """PUT and DELETE of the caller's own row with a natural key, such as his reaction to a post."""
    ref, last = _natural_parts(kind)
    parent = services.catalog.parent(kind, ref)
    path = f"/v1/{parent.plural}/{{id}}/{kind.plural}/{{{last}}}"
    model = create_input(kind)

    def values_of(request: Request) -> dict[str, Any]:
        values = {ref: str(path_id(request.path_params["id"])), last: request.path_params[last]}
        return dict(check(model, values))

    async def put(request: Request) -> Response:
        author = await services.author(request)
        planner = Planner(services.catalog, author)
        planner.create(kind, values_of(request), parents_in_path=frozenset({ref}))
        return await submit(services, request, planner, None)

    async def take_back(request: Request) -> Response:
        author = await services.author(request)
        values = values_of(request)
        if kind.author_field is not None:
            values[kind.author_field] = str(author.id)
        planner = Planner(services.catalog, author)
        row_id = kind.natural_id(values)
        # Its address says all there is to it: nothing can be lost by mistake.
        version = await wanted_version(services, request, author, kind, row_id, needed=False)
        planner.delete(kind, row_id, version, known=kind.from_json(values))
        return await submit(services, request, planner, None)

    if kind.rules["create"] is not None:
        directory.route(
            "PUT", path, put, name=f"put_{kind.name}",
            summary=f"Put a {kind.name} of your own", tag=kind.plural,
            operation=describe.putting(kind, parent, last),
        )  # fmt: skip
    if kind.rules["delete"] is not None:
        directory.route(
            "DELETE", path, take_back, name=f"take_back_{kind.name}",
            summary=f"Take back a {kind.name} of your own", tag=kind.plural,
            operation=describe.taking_back(kind, parent, last),
        )  # fmt: skip


def named_by_author(kind: Kind) -> bool:
    """Whether each user has at most one row of this kind, his own."""
    return kind.author_field is not None and kind.model.natural_key == (kind.author_field,)


def _own_route(directory: Directory, services: Services, kind: Kind) -> None:
    """PUT of the caller's only row of a kind, such as his preference. It needs no id and no version."""
    model = create_input(kind)

    async def put(request: Request) -> Response:
        author = await services.author(request)
        data = read_json(request.body, request.header(b"content-type"))
        planner = Planner(services.catalog, author)
        planner.put(kind, check(model, data))
        return await submit(services, request, planner, data)

    directory.route(
        "PUT", f"/v1/{kind.plural}", put, name=f"put_{kind.name}",
        summary=f"Say what your own {kind.name} is", tag=kind.plural,
        operation=describe.putting_own(kind),
    )  # fmt: skip


def _list_handler(services: Services, lst: ListOf) -> Handler:
    async def read(request: Request) -> Response:
        author = await services.author(request)
        parent = path_id(request.path_params["id"]) if lst.parent is not None else None
        limit = page_limit(request.query("limit"))
        after = read_cursor(lst.name, parent, request.query("after"))
        try:
            found = await services.reader.page(author.id, lst, parent, after, limit)
        except DatabaseUnavailable:
            raise fail("database_unavailable", "This list cannot be read now.") from None
        except OverlayIncomplete:
            raise fail(
                "overlay_incomplete", "It cannot be told yet whether this is there."
            ) from None
        if found is None:
            raise fail("not_found", "There is no such row.")
        services.remember_streams(lst.kind, list(found.page.items))
        body: dict[str, Any] = {
            "items": [row_listed(lst.kind, shown) for shown in found.page.items],
            "next": None,
        }
        headers: dict[str, str] = {}
        if found.page.next_after is not None:
            cursor = write_cursor(lst.name, parent, found.page.next_after)
            body["next"] = cursor
            headers["Link"] = next_link(request.path, cursor, limit)
        mark(body, headers, found.freshness)
        return json_response(body, headers=headers)

    return read
