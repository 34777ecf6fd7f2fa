"""Views that only look: overview, parked streams, incidents, mail, and what operators did."""

from datetime import timedelta

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from frontend_api.admin.filters import AuditFilter
from frontend_api.admin.frame import AT, Frame, Page, cursor_time, read_cursor
from frontend_api.admin.tail import MOST_MAILS
from frontend_api.pages.session import Visitor
from frontend_api.rebuild_log import LogUnavailable
from frontend_api.validation import path_id


class LookRoutes:
    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._parts = frame.parts

    def add_to(self, router: APIRouter) -> None:
        for path, work in [
            ("", self.overview),
            ("/parked", self.parked),
            ("/incidents", self.incidents),
            ("/mail", self.mail),
            ("/audit", self.audit),
            ("/around", self.around),
        ]:
            router.add_api_route(
                AT + path, self._frame.handler(work), methods=["GET"], include_in_schema=False
            )

    async def overview(self, request: Request, visitor: Visitor) -> Response:
        picture, alerts = self._parts.picture(), self._parts.tail.alerts
        context = {
            "verdict": self._frame.verdict(picture),
            "alerts": alerts,
            "reading": self._parts.tail.reading,
            "delayed_after_s": self._frame.services.settings.delay_notice_after,
        }
        page = Page("Overview", "overview.html", context, here=AT, live=True)
        return self._frame.respond(request, visitor, page)

    async def parked(self, request: Request, visitor: Visitor) -> Response:
        heads = await self._parts.store.parked()
        horizon = timedelta(seconds=self._frame.services.settings.horizon_s)
        rows = [
            dict(row)
            | {"horizon": row["accepted_at"] + horizon if row["accepted_at"] is not None else None}
            for row in heads
        ]
        page = Page("Parked streams", "parked.html", {"rows": rows}, here=f"{AT}/parked", live=True)
        return self._frame.respond(request, visitor, page)

    async def incidents(self, request: Request, visitor: Visitor) -> Response:
        tail = self._parts.tail
        context = {"alerts": tail.alerts, "reading": tail.reading}
        page = Page("Incidents", "incidents.html", context, here=f"{AT}/incidents", live=True)
        return self._frame.respond(request, visitor, page)

    async def mail(self, request: Request, visitor: Visitor) -> Response:
        tail = self._parts.tail
        context = {
            "mails": tail.mails,
            "most": MOST_MAILS,
            "states": tail.states,
            "reading": tail.reading,
            "waiting": await self._mail_that_waits(),
        }
        page = Page("Mail", "mail.html", context, here=f"{AT}/mail")
        return self._frame.respond(request, visitor, page)

    async def _mail_that_waits(self) -> int | None:
        """Mails that no worker has taken yet; None if that cannot be known."""
        try:
            taken = await self._parts.mail.hint()
            bounds = await self._parts.mail.bounds()
        except LogUnavailable:
            return None
        return sum(max(0, end - max(begin, taken.get(n, 0))) for n, (begin, end) in bounds.items())

    async def audit(self, request: Request, visitor: Visitor) -> Response:
        filter_ = AuditFilter.of(request.query_params)
        cursor = read_cursor(request.query_params.get("after"), 2)
        after = (cursor_time(cursor[0]), path_id(cursor[1])) if cursor is not None else None
        found = await self._parts.store.audit(filter_, after)
        next_ = None
        if found.more:
            last = found.rows[-1]
            next_ = filter_.query(after=f"{last['at'].isoformat()}~{last['act_id']}")
        context = {"rows": found.rows, "filter": filter_, "next": next_, "after": after}
        page = Page("Audit log", "audit.html", context)
        return self._frame.respond(request, visitor, page)

    async def around(self, request: Request, visitor: Visitor) -> Response:
        """What stands on every page: where one can go, and whether a lane is paused."""
        return self._frame.around(request, visitor, request.query_params.get("path", AT))
