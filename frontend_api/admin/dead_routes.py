"""Dead letters: in groups, as rows, one of them whole, as a CSV file."""

import csv
import io
from collections.abc import Iterable
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from frontend_api.admin.facts import Row
from frontend_api.admin.filters import LetterFilter
from frontend_api.admin.frame import AT, Frame, Page, asked_place, cursor_time, read_cursor
from frontend_api.admin.payloads import payload_of
from frontend_api.admin.statements import CLOSED, MOST_GROUPED
from frontend_api.admin.store import Cursor
from frontend_api.pages.rendering import GUARD
from frontend_api.pages.session import Visitor
from frontend_api.problems import fail
from frontend_api.rebuild_log import LogUnavailable
from frontend_api.view import DatabaseUnavailable
from schema.fields import render_time

MOST_EXPORTED: Final = 10_000
_COLUMNS: Final = (
    "lane", "offset", "died_at", "code", "type", "command_id", "author_id", "detail", "sqlstate",
    "constraint_name", "attempts", "closed", "closed_at", "replay_id",
)  # fmt: skip
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


class DeadRoutes:
    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._store = frame.parts.store

    def add_to(self, router: APIRouter) -> None:
        for path, work in [
            ("/dead", self.groups),
            ("/dead/rows", self.rows),
            ("/dead.csv", self.export),
            ("/dead/{lane}/{offset}", self.letter),
        ]:
            router.add_api_route(
                AT + path, self._frame.handler(work), methods=["GET"], include_in_schema=False
            )

    async def groups(self, request: Request, visitor: Visitor) -> Response:
        filter_ = LetterFilter.of(request.query_params)
        groups = await self._store.groups(filter_)
        number = sum(group["number"] for group in groups)
        context = self._filtered(filter_) | {
            "groups": groups,
            "number": number,
            "partial": number >= MOST_GROUPED,
            "most": MOST_GROUPED,
        }
        return self._frame.respond(request, visitor, Page("Dead letters", "dead.html", context))

    async def rows(self, request: Request, visitor: Visitor) -> Response:
        filter_ = LetterFilter.of(request.query_params)
        after = _cursor(request)
        found = await self._store.letters(filter_, after)
        next_ = None
        if found.more:
            last = found.rows[-1]
            at = f"{last['died_at'].isoformat()}~{last['lane']}~{last['offset']}"
            next_ = filter_.query(after=at)
        context = self._filtered(filter_) | {"rows": found.rows, "next": next_, "after": after}
        return self._frame.respond(request, visitor, Page("Dead letters", "rows.html", context))

    def _filtered(self, filter_: LetterFilter) -> dict[str, Any]:
        types = sorted(kind.name for kind in self._frame.services.catalog)
        return {"filter": filter_, "which": tuple(CLOSED), "types": [*types, "-"]}

    async def export(self, request: Request, visitor: Visitor) -> Response:
        filter_ = LetterFilter.of(request.query_params)
        found = await self._store.letters(filter_, None, MOST_EXPORTED)
        text = written(found.rows)
        name = "dead-letters.csv"
        if found.more:
            name = "dead-letters-partial.csv"
            text += f"# partial: the newest {MOST_EXPORTED} of more\r\n"
        headers = {
            **GUARD,
            "Cache-Control": "private, no-store",
            "Content-Disposition": f'attachment; filename="{name}"',
        }
        return Response(text, 200, headers, "text/csv; charset=utf-8")

    async def letter(self, request: Request, visitor: Visitor) -> Response:
        """One dead letter: why it died, its bytes decoded or raw, and what became of it."""
        place = letter_place(request)
        row = await self._store.letter(place)
        if row is None:
            raise fail("not_found", "There is no dead letter at this place.")
        payload = payload_of(row["key"], row["value"], row["headers"])
        raw = request.query_params.get("view") == "raw" or payload.decoded is None
        context = {
            "letter": row,
            "payload": payload,
            "raw": raw,
            "name": await self._name(row),
            "record": await self._record(place),
        }
        return self._frame.respond(request, visitor, Page("Dead letter", "letter.html", context))

    async def _name(self, row: Row) -> str | None:
        try:
            author = row["author_id"]
            return (await self._store.names([author])).get(author) if author else None
        except DatabaseUnavailable:
            return None

    async def _record(self, place: tuple[int, int]) -> bool | None:
        """Whether the log still has it; None if that cannot be known."""
        try:
            return await self._frame.parts.look.record(*place) is not None
        except LogUnavailable:
            return None


def letter_place(request: Request) -> tuple[int, int]:
    """The place in the address. Raises `ProblemError` 404."""
    return asked_place(f"{request.path_params['lane']}:{request.path_params['offset']}")


def _cursor(request: Request) -> Cursor | None:
    found = read_cursor(request.query_params.get("after"), 3)
    if found is None:
        return None
    return (cursor_time(found[0]), *asked_place(f"{found[1]}:{found[2]}"))


def written(rows: Iterable[Row]) -> str:
    """The rows as CSV (RFC 4180). What a spreadsheet would take for a formula begins with a `'`."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(_COLUMNS)
    for row in rows:
        writer.writerow([_cell(row[name]) for name in _COLUMNS])
    return out.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = render_time(value) if hasattr(value, "isoformat") else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
