"""Conditional requests: which version of a row a change is meant for (RFC 9110, If-Match)."""

import uuid

from frontend_api.messages import Request
from frontend_api.problems import ProblemError, fail
from frontend_api.seen import OverlayIncomplete
from frontend_api.services import Services
from frontend_api.validation import versions_of
from frontend_api.view import DatabaseUnavailable
from schema.commands import Author
from schema.content import Kind


async def wanted_version(
    services: Services,
    request: Request,
    author: Author,
    kind: Kind,
    row_id: uuid.UUID,
    *,
    needed: bool = True,
) -> int | None:
    """The version that the row must have for this change, None if any will do.

    The early check and the writer compare it; here it is only found out. Raises `ProblemError`: 428
    for a change that does not say, 412 for tags that no version has, 404.
    """
    tags = request.headers(b"if-match")
    if not tags:
        if needed and services.settings.require_if_match:
            raise await _needed(services, author, kind, row_id)
        return None
    versions = versions_of(", ".join(tags))
    if versions is None or len(versions) == 1:
        return min(versions) if versions else None
    # Any of them will do, and a change is meant for one: for the present one, if it is among them.
    current = await _current(services, author, kind, row_id)
    return current if current in versions else max(versions)


async def _needed(
    services: Services, author: Author, kind: Kind, row_id: uuid.UUID
) -> ProblemError:
    current = await _current(services, author, kind, row_id)
    if current is None:
        detail = "Send If-Match with the ETag that you have seen, or * for any version."
        return fail("precondition_required", detail)
    tag = f'"v{current}"'
    error = fail(
        "precondition_required",
        f"Send If-Match with the ETag that you have seen ({tag} is the present one), or * for any.",
        current_version=current,
    )
    return ProblemError(error.problem, {"ETag": tag})


async def _current(services: Services, author: Author, kind: Kind, row_id: uuid.UUID) -> int | None:
    """The row's version as its author sees it; None if that cannot be told. Raises 404."""
    try:
        shown, _ = await services.reader.row(author.id, kind, row_id, counted=False)
    except (DatabaseUnavailable, OverlayIncomplete):
        return None
    if shown is not None:
        return shown.version
    if kind is services.catalog.actor and row_id == author.id:
        return None  # the author's own row, which his first command makes
    raise fail("not_found", "There is no such row.")
