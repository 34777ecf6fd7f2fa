"""The frame around every page: who may look, what is kept fresh of it, and what goes wrong in words."""

import hashlib
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from frontend_api.admin import views
from frontend_api.admin.backends import AdminParts
from frontend_api.admin.facts import Picture
from frontend_api.admin.verdict import Verdict, verdict
from frontend_api.kafka_producer import NotAccepted, OutcomeUnknown
from frontend_api.pages.rendering import Rendering, Site, html, is_htmx, load_static, see_other
from frontend_api.pages.session import Sessions, SignedOut, Visitor, must_be_ours
from frontend_api.problems import ProblemError, fail
from frontend_api.rebuild_log import LogUnavailable
from frontend_api.services import Services
from frontend_api.view import DatabaseUnavailable
from schema.acts import MAY_ACT
from schema.outcomes import Problem

AT: Final = "/admin"
ROLES: Final = ("viewer", "operator", "admin")
_SITE: Final = Site("admin", "operation", Path(__file__).parent, home=AT, at=f"{AT}/static")
_LIVE_S: Final = 2
_REFRESH_S: Final = 5
"""How often a page without scripts looks again, where it matters."""
_PLACE: Final = re.compile(r"^([0-9]{1,4}):([0-9]{1,18})$")

Handler = Callable[[Request, Visitor], Awaitable[Response]]


@dataclass(frozen=True)
class Page:
    """One page. `here` is its own address, by which it is kept fresh while `live`."""

    title: str
    part: str
    context: Mapping[str, Any]
    here: str = ""
    live: bool = False
    status: int = 200
    banners: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)


class Frame:
    """What all routes of the admin page share."""

    def __init__(self, services: Services, parts: AdminParts) -> None:
        self.services = services
        self.parts = parts
        self.static = load_static(_SITE)
        self.sessions = Sessions(services)
        self.rendering = Rendering(_SITE, self.static)
        self.rendering.add_filters(**views.FILTERS)

    def handler(self, work: Handler, *, acts: bool = False) -> Callable[..., Awaitable[Response]]:
        """An endpoint for those who have a role here; for all others there is nothing. `acts`: for
        those who may act."""

        async def endpoint(request: Request) -> Response:
            try:
                visitor = await self.sessions.visitor(request)
            except SignedOut:
                return self._to_sign_in(request)
            except ProblemError as error:
                return self.outside("Not possible", "problem.html", 503, told=said(error.problem))
            if not may_look(visitor):
                return self.nothing()
            try:
                if request.method == "POST":
                    must_be_ours(request)
                if acts and not may_act(visitor):
                    raise fail("forbidden", "A viewer only looks.")
                return await work(request, visitor)
            except ProblemError as error:
                return self.problem(request, visitor, error.problem)
            except tuple(_UNABLE) as error:
                code, told = _UNABLE[type(error)]
                return self.problem(request, visitor, fail(code, told).problem)

        return endpoint

    def verdict(self, picture: Picture) -> Verdict:
        tail, settings = self.parts.tail, self.services.settings
        return verdict(
            picture,
            tail.alerts.open,
            settings.delay_notice_after,
            settings.disk_shed_percent,
            tail.reading,
        )

    def respond(self, request: Request, visitor: Visitor, page: Page) -> Response:
        """The whole page, or to a script only what is kept fresh of it, if that has changed."""
        picture = self.parts.picture()
        context = self._context(request, visitor, page, picture)
        part = self.rendering.text(page.part, context | dict(page.context))
        around = self.rendering.text("around.html", context)
        seen = hashlib.sha256(f"{part}{around}".encode(errors="replace")).hexdigest()[:16]
        if is_htmx(request) and request.query_params.get("seen") == seen:
            return html("", 204)
        context |= {"part": part, "seen": seen}
        template = "fragment.html" if is_htmx(request) else "base.html"
        return html(self.rendering.text(template, context), page.status, page.headers)

    def around(self, request: Request, visitor: Visitor, path: str) -> Response:
        """What stands around a page, for one that is not kept fresh itself."""
        context = self._context(request, visitor, Page("", "", {}), self.parts.picture())
        return html(self.rendering.text("around.html", context | {"path": path}))

    def problem(self, request: Request, visitor: Visitor, problem: Problem) -> Response:
        """What went wrong, in words: to a script as a banner, else as a page."""
        told = said(problem)
        if is_htmx(request):
            text = self.rendering.text("trouble.html", {"told": told})
            return html(text, problem.status, {"HX-Reswap": "none"})
        context = {"told": told, "retry": problem.status == 503}
        page = Page("Not possible", "problem.html", context, status=problem.status)
        return self.respond(request, visitor, page)

    def outside(self, title: str, template: str, status: int = 200, **context: Any) -> Response:
        """A page for somebody who is not signed in."""
        shown = {"title": title, "inner": template, "demo": self.sessions.demo} | context
        return html(self.rendering.text("outside.html", shown), status)

    def nothing(self) -> Response:
        """The same for everything that is not there, and for all who have no role here."""
        return self.outside("Not found", "nothing.html", 404)

    def _to_sign_in(self, request: Request) -> Response:
        if not self.sessions.demo:
            return self.nothing()
        back = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        if is_htmx(request) or request.method != "GET":
            back = AT
        to = f"{AT}/sign-in?next={quote(back, safe='')}"
        return html("", 200, {"HX-Redirect": to}) if is_htmx(request) else see_other(to)

    def _context(
        self, request: Request, visitor: Visitor, page: Page, picture: Picture
    ) -> dict[str, Any]:
        return {
            "title": page.title,
            "here": page.here,
            "live": _LIVE_S if page.live and page.here else None,
            "again": _REFRESH_S if page.live else None,
            "path": request.url.path,
            "visitor": visitor,
            "role": role_of(visitor),
            "may_act": may_act(visitor),
            "demo": self.sessions.demo,
            "picture": picture,
            "now": picture.now,
            "incidents": len(self.parts.tail.alerts.open),
            "banners": page.banners,
            "problem": None,
        }


def may_look(visitor: Visitor) -> bool:
    return not set(ROLES).isdisjoint(visitor.author.roles)


def may_act(visitor: Visitor) -> bool:
    return not MAY_ACT.isdisjoint(visitor.author.roles)


def role_of(visitor: Visitor) -> str:
    """The role that lets him do most."""
    return next(role for role in reversed(ROLES) if role in visitor.author.roles)


def said(problem: Problem) -> str:
    """A problem in plain words."""
    if problem.code == "invalid" and problem.errors:
        return " ".join(f"{e['pointer'].lstrip('/')}: {e['detail']}." for e in problem.errors)
    return _SAID.get(problem.code, problem.detail)


def asked_id(request: Request, name: str = "id") -> uuid.UUID:
    """The id in the path. Raises `ProblemError` 404."""
    try:
        return uuid.UUID(request.path_params[name])
    except ValueError:
        raise fail("not_found", "There is no such thing.") from None


def asked_place(text: str) -> tuple[int, int]:
    """`lane:offset`. Raises `ProblemError` 404."""
    match = _PLACE.match(text)
    if match is None:
        raise fail("not_found", "There is no such place in the log.")
    return int(match[1]), int(match[2])


def read_cursor(text: str | None, parts: int) -> list[str] | None:
    """The texts of a cursor. Raises `ProblemError` 404."""
    if not text:
        return None
    found = text.split("~")
    if len(found) != parts:
        raise fail("not_found", "There is no such page.")
    return found


def cursor_time(text: str) -> datetime:
    """Raises `ProblemError` 404."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise fail("not_found", "There is no such page.") from None
    if at.tzinfo is None:
        raise fail("not_found", "There is no such page.")
    return at


_AWAY: Final = (
    "PostgreSQL cannot be asked at the moment, or took too long. Nothing is lost by that. "
    "If it is there, ask for less: a shorter time, or one state."
)
_NO_LOG: Final = "Kafka cannot be asked at the moment."
_NOT_ORDERED: Final = "Kafka could not take the order: nothing was done. Try again in a moment."
_UNKNOWN: Final = (
    "It is not known whether the order arrived. Go back and send the same form again: "
    "it will be done once."
)
_UNABLE: Final[Mapping[type[Exception], tuple[str, str]]] = {
    DatabaseUnavailable: ("database_unavailable", _AWAY),
    LogUnavailable: ("not_accepted", _NO_LOG),
    NotAccepted: ("not_accepted", _NOT_ORDERED),
    OutcomeUnknown: ("outcome_unknown", _UNKNOWN),
}
_SAID: Final = {"database_unavailable": _AWAY, "version_conflict": "It was changed meanwhile."}
