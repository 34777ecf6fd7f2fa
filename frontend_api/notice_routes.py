"""The caller has read a notice: what a bell needs, without knowing versions."""

from frontend_api import api_description as describe
from frontend_api.answering import submit
from frontend_api.direct import Directory
from frontend_api.early_check import READ_LIMIT_S
from frontend_api.messages import Request, Response
from frontend_api.overlay_rows import readable
from frontend_api.planning import Planner
from frontend_api.presentation import etag, json_response, row_json
from frontend_api.services import Services
from frontend_api.validation import idempotency_key, path_id

FIELD = "read"


def notice_routes(services: Services, directory: Directory) -> None:
    """One route, if notices of this content have a mark that their reader may set."""
    kind = services.catalog.notice
    if FIELD not in kind.fields or kind.rules["update"] is None:
        return

    async def mark_read(request: Request) -> Response:
        author = await services.author(request)
        row_id = path_id(request.path_params["id"])
        idempotency_key(request.header(b"idempotency-key"))  # refused also where it is not used
        view = await services.reader.rows(author.id, [(kind, row_id)], READ_LIMIT_S, counted=False)
        shown = view.get(kind.name, row_id)
        if shown is not None and readable(kind, shown.row, author.id) and shown.row[FIELD]:
            return json_response(row_json(kind, shown), headers={"ETag": etag(shown)})
        planner = Planner(services.catalog, author)
        planner.change(kind, row_id, {FIELD: True}, None)
        return await submit(services, request, planner, None)

    directory.route(
        "PUT", f"/v1/{kind.plural}/{{id}}/{FIELD}", mark_read, name=f"read_by_{kind.name}",
        summary=f"Mark a {kind.name} as read", tag=kind.plural,
        operation=describe.marking_read(kind),
    )  # fmt: skip
