"""The frame around every page: who looks at it, what it is made of, and what goes wrong in words."""

import hashlib
import json
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from frontend_api.forum import views
from frontend_api.forum.notices import Notices
from frontend_api.forum.reading import UNREADABLE, Reading
from frontend_api.pages.rendering import Rendering, Site, html, is_htmx, load_static, see_other
from frontend_api.pages.session import Sessions, SignedOut, Visitor, must_be_ours
from frontend_api.problems import ProblemError, fail
from frontend_api.services import Services
from frontend_api.validation import path_id
from schema.outcomes import Problem

_SITE: Final = Site("forum", "forum", Path(__file__).parent, home="/", at="/static")

Handler = Callable[[Request, Visitor], Awaitable[Response]]
_REFRESHES: Final = 5
"""How often a page without scripts looks by itself what became of what was just sent."""


@dataclass(frozen=True)
class Page:
    """One page: `part` is what is kept fresh while it is open, `foot` is what stays (a form)."""

    title: str
    part: str
    context: Mapping[str, Any]
    here: str
    """Its own address, by which it is kept fresh."""
    state: tuple[object, ...] = ()
    """All that `part` shows; as long as it looks the same, so does the page."""
    foot: str | None = None
    notices: Notices | None = None
    banners: tuple[str, ...] = ()
    waits: bool = False
    """Something in it is not saved yet."""
    status: int = 200
    extra: Mapping[str, Any] = field(default_factory=dict)


class Frame:
    """What all routes of the forum share."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.static = load_static(_SITE)
        self.sessions = Sessions(services)
        self.reading = Reading(services)
        self.rendering = Rendering(_SITE, self.static)

    def handler(self, work: Handler) -> Callable[[Request], Awaitable[Response]]:
        """An endpoint: for visitors who are signed in, and never without an answer in words."""

        async def endpoint(request: Request) -> Response:
            visitor: Visitor | None = None
            try:
                if request.method == "POST":
                    must_be_ours(request)
                visitor = await self.sessions.visitor(request)
                return await work(request, visitor)
            except SignedOut:
                return self._to_sign_in(request)
            except ProblemError as error:
                return self.problem(request, visitor, error.problem, error.headers)
            except UNREADABLE:
                away = fail("database_unavailable", "This cannot be read now.")
                # What is going on just now, the bell tells all the same.
                notices = await self.reading.notices(visitor) if visitor is not None else None
                return self.problem(request, visitor, away.problem, notices=notices)

        return endpoint

    def respond(
        self,
        request: Request,
        visitor: Visitor,
        page: Page,
        headers: Mapping[str, str] | None = None,
        partials: tuple[Markup, ...] = (),
    ) -> Response:
        """The whole page, or to a script only what is kept fresh of it, if that has changed."""
        bell = page.notices.bell if page.notices is not None else None
        seen = _digest(repr((page.state, page.banners, bell)))
        if is_htmx(request) and not partials and request.query_params.get("seen") == seen:
            return html("", 204)
        context = self._context(request, visitor, page)
        part = self.rendering.text(page.part, context | dict(page.context))
        context |= {"part": part, "seen": seen}
        if not is_htmx(request):
            foot = self.rendering.text(page.foot, context | dict(page.context)) if page.foot else ""
            context |= {"foot": foot, "again": _again(request, page)}
            return html(self.rendering.text("base.html", context), page.status, headers)
        text = self.rendering.text("fragment.html", context) + Markup("").join(partials)
        return html(text, page.status, headers)

    def partial(self, template: str, request: Request, visitor: Visitor, **context: Any) -> Markup:
        """A part of a page, rendered as the page does."""
        page = Page("", template, {}, request.url.path)
        return self.rendering.text(template, self._context(request, visitor, page) | context)

    def in_place(
        self, request: Request, visitor: Visitor, title: str, template: str, **context: Any
    ) -> Response:
        """Something that a script puts in the place of an element; else a page of its own."""
        status = context.pop("status", 200)
        if is_htmx(request):
            return html(self.partial(template, request, visitor, **context), status)
        page = Page(title, "alone.html", context | {"inner": template}, "", status=status)
        return self.respond(request, visitor, page)

    def done(self, request: Request, to: str, *, leave: bool = False) -> Response:
        """After a change: a script freshens the page it is on, or leaves it; else go to `to`."""
        if not is_htmx(request):
            return see_other(to)
        if leave:
            return html("", 200, {"HX-Redirect": to})
        return html("", 200, {"HX-Reswap": "none", "HX-Trigger": "fresh"})

    def problem(
        self,
        request: Request,
        visitor: Visitor | None,
        problem: Problem,
        headers: Mapping[str, str] | None = None,
        notices: Notices | None = None,
    ) -> Response:
        """What went wrong, in plain words: as a banner to a script, else as a page."""
        told = said(problem)
        if is_htmx(request):
            template = "trouble.html"
            where = "#banners" if request.method == "GET" else "#trouble"
            shown = {"told": told, "where": where, "notices": notices, "path": request.url.path}
            text = self.rendering.text(template, shown)
            return html(text, problem.status, {"HX-Reswap": "none", **(headers or {})})
        context = {"told": told, "problem": problem, "retry": problem.status == 503}
        page = Page(
            "Not possible", "problem.html", context, "", notices=notices, status=problem.status
        )
        if visitor is None:
            return html(
                self.rendering.text(
                    "outside.html", context | {"title": page.title, "inner": page.part}
                ),
                problem.status,
                headers,
            )
        return self.respond(request, visitor, page, headers)

    def outside(self, title: str, template: str, status: int = 200, **context: Any) -> Response:
        """A page for somebody who is not signed in."""
        shown = {"title": title, "inner": template} | context
        return html(self.rendering.text("outside.html", shown), status)

    def _to_sign_in(self, request: Request) -> Response:
        back = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        if is_htmx(request) or request.method != "GET":
            back = "/"
        to = f"/sign-in?next={quote(back, safe='')}"
        if is_htmx(request):
            return html("", 200, {"HX-Redirect": to})
        if not self.sessions.demo:
            told = "Sign in to the site first. Its sign-in is not part of these pages."
            return self.outside("Sign in", "problem.html", 401, told=told, retry=False)
        return see_other(to)

    def _context(self, request: Request, visitor: Visitor, page: Page) -> dict[str, Any]:
        return {
            "title": page.title,
            "here": page.here,
            "path": request.url.path,
            "visitor": visitor,
            "demo": self.sessions.demo,
            "notices": page.notices,
            "banners": page.banners,
            "emoji": views.EMOJI_NAMES,
            "focus": False,
            "problem": None,
        } | dict(page.extra)


def after_of(request: Request) -> uuid.UUID | None:
    """Where the page begins: behind the row `after`, or at the row `from`. Raises 404."""
    if "from" in request.query_params:
        return just_before(path_id(request.query_params["from"]))
    after = request.query_params.get("after")
    return path_id(after) if after is not None else None


def just_before(row_id: uuid.UUID) -> uuid.UUID:
    return uuid.UUID(int=max(0, row_id.int - 1))


def trigger(**events: Any) -> str:
    """The header that makes a script's events of an answer. ASCII, as headers are."""
    return json.dumps(events, ensure_ascii=True)


def said(problem: Problem) -> str:
    """A problem in the words of somebody who reads and writes here."""
    if problem.code == "invalid" and problem.errors:
        return " ".join(_field(error) for error in problem.errors)
    return _SAID.get(problem.code, problem.detail)


def _field(error: Mapping[str, str]) -> str:
    return (
        f"{_FIELDS.get(error['pointer']) or 'Something in the form'} {error['detail'].rstrip('.')}."
    )


_FIELDS: Final = {
    "/body": "The text",
    "/title": "The title",
    "/name": "The name",
    "/email": "What is written as e-mail address",
}
_SAID: Final = {
    "forbidden": "You may not do this.",
    "not_found": "This is not there (any more).",
    "version_conflict": "It was changed in the meantime.",
    "not_accepted": (
        "It could not be taken at the moment: nothing was stored. Your text is still here. "
        "Try again in a moment."
    ),
    "outcome_unknown": (
        "It is not known whether this arrived. Your text is still here: send it again, it will "
        "be there only once."
    ),
    "log_full": (
        "There is no room for new posts at the moment: nothing was stored. Reading goes on, and "
        "your text is still here. Try again later."
    ),
    "overloaded": "There is too much to do at the moment. Try again in a moment.",
    "database_unavailable": (
        "The database cannot be reached, and this page was not read lately. "
        "Nothing that you sent is lost. Try again in a moment."
    ),
    "rate_limited": "That was very much in a short time. Wait a minute.",
    "body_too_large": "The text is too long.",
    "in_flight": "It is being sent already.",
    "idempotency_key_reused": "This form was sent before with another text. Reload the page.",
}


def _again(request: Request, page: Page) -> tuple[int, str] | None:
    """Seconds after which a page without scripts should look again, and where. It gives up soon:
    somebody may be writing in it by then."""
    sent = request.query_params.get("sent")
    tries = request.query_params.get("tries", "0")
    if sent is None or not page.waits or not tries.isdigit() or int(tries) >= _REFRESHES:
        return None
    row_id = path_id(sent)
    joint = "&" if "?" in page.here else "?"
    to = f"{page.here}{joint}sent={row_id}&tries={int(tries) + 1}#post-{row_id}"
    return int(2 ** int(tries)), to


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:16]
