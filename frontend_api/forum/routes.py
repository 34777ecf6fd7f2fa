"""The forum's routes: pages, sign-in, static files, and the stream that keeps pages fresh."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Final
from urllib.parse import urlsplit

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from frontend_api.event_stream import EventStream
from frontend_api.events import Event
from frontend_api.forum.change_routes import ChangeRoutes
from frontend_api.forum.frame import Frame, said
from frontend_api.forum.notices import REASONS
from frontend_api.forum.own_routes import OwnRoutes
from frontend_api.forum.preference_routes import PreferenceRoutes
from frontend_api.forum.topic_routes import TopicRoutes
from frontend_api.pages.forms import Form, read_form
from frontend_api.pages.rendering import GUARD, Rendering, see_other, serve_static
from frontend_api.pages.session import Visitor, must_be_ours
from frontend_api.problems import ProblemError
from frontend_api.services import Services
from schema.catalog import CatalogError
from schema.identifiers import is_uuid7, time_of
from schema.outcomes import Problem
from schema.telemetry import Log

Endpoint = Callable[[Request], Awaitable[Response]]
_NEEDED: Final = ("topic", "post", "reaction")
_WORTH_SAYING_S: Final = 1.0
"""Who has seen the clock is told that it is saved; for all others that is as it should be."""

_log = Log("frontend_api")


def forum_routes(services: Services) -> APIRouter:
    """All pages. The content types must have topics, posts and reactions as `schema.forum` has."""
    missing = [name for name in _NEEDED if name not in services.catalog]
    if missing:
        raise CatalogError(f"AFTERWRITE_SITE=forum needs the content types {', '.join(missing)}")
    router = APIRouter()
    frame = Frame(services)
    if frame.sessions.demo:
        _log.warning("demo_sign_in", host=services.settings.host)
    for routes in (
        TopicRoutes(frame),
        ChangeRoutes(frame),
        OwnRoutes(frame),
        PreferenceRoutes(frame),
        DoorRoutes(frame),
    ):
        routes.add_to(router)
    return router


class DoorRoutes:
    """Sign-in and sign-out, static files, and the stream that keeps pages fresh."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._sessions = frame.sessions

    def add_to(self, router: APIRouter) -> None:
        endpoints: list[tuple[str, str, Endpoint]] = [
            ("GET", "/sign-in", self.sign_in),
            ("POST", "/sign-in", self._in_words(self.begin)),
            ("POST", "/sign-out", self._in_words(self.sign_out)),
            ("GET", "/static/{name}", self.static),
            ("GET", "/live", self._frame.handler(self.live)),
        ]
        for method, path, endpoint in endpoints:
            router.add_api_route(path, endpoint, methods=[method], include_in_schema=False)

    def _in_words(self, work: Endpoint) -> Endpoint:
        """For who is not signed in: a form of ours, or a problem in plain words."""

        async def endpoint(request: Request) -> Response:
            try:
                must_be_ours(request)
                return await work(request)
            except ProblemError as error:
                return self._frame.problem(request, None, error.problem, error.headers)

        return endpoint

    async def sign_in(self, request: Request) -> Response:
        if not self._sessions.demo:
            told = "Sign in to the site first. Its sign-in is not part of these pages."
            return self._frame.outside("Sign in", "problem.html", 404, told=told, retry=False)
        to = _own_address(request.query_params.get("next", "/"))
        return self._sign_in_form(Form(), to)

    async def begin(self, request: Request) -> Response:
        form = await read_form(request)
        to = _own_address(form.text("next"))
        name, email = form.text("name").strip(), form.text("email").strip()
        response = see_other(to)
        try:
            self._sessions.begin(request, response, name, email=email)
        except ProblemError as error:
            return self._sign_in_form(form, to, error.problem)
        return response

    def _sign_in_form(self, form: Form, to: str, problem: Problem | None = None) -> Response:
        errors = problem.errors if problem is not None else ()
        return self._frame.outside(
            "Sign in",
            "sign_in.html",
            problem.status if problem is not None else 200,
            to=to,
            name=form.text("name").strip(),
            email=form.text("email").strip(),
            problem=said(problem) if problem is not None else None,
            wrong=errors[0]["pointer"].removeprefix("/") if errors else "name",
        )

    async def sign_out(self, request: Request) -> Response:
        response = see_other("/sign-in")
        self._sessions.end(response)
        return response

    async def static(self, request: Request) -> Response:
        return serve_static(request, self._frame.static)

    async def live(self, request: Request, visitor: Visitor) -> Response:
        last_id = request.headers.get("last-event-id")
        try:
            subscription = self._frame.services.events.subscribe(visitor.id, last_id)
        except ProblemError:
            return Response(status_code=204, headers=GUARD)  # the page asks from time to time
        # It begins with a `fresh`: something may have happened since the page was made.
        until = asyncio.get_running_loop().time() + visitor.expires_at - time.time()
        written = partial(_written, self._frame)
        stream = EventStream(subscription, until, written, _fresh(None))
        stream.headers.update(GUARD)
        return stream


def _written(frame: Frame, event: Event) -> bytes:
    """`fresh` tells a page to look again at what it shows; before it, what is said aloud."""
    told = _told(event)
    return (_say(frame.rendering, told) if told else b"") + _fresh(event.id)


def _fresh(id_: str | None) -> bytes:
    return (f"id: {id_}\n" if id_ is not None else "").encode() + b"event: fresh\ndata: {}\n\n"


def _told(event: Event) -> str | None:
    """What is said aloud of an event; most are only seen."""
    if event.name == "command.rejected":
        problem = event.data.get("problem") or {}
        reason = REASONS.get(problem.get("code", ""), problem.get("detail", ""))
        return f"Not saved. {reason} Your text is kept."
    if event.name == "notice" and "row" in event.data:
        return str(event.data["row"].get("detail", ""))
    if event.name == "command.parked":
        return "It cannot be saved yet. It is kept and tried again."
    if event.name == "command.saved" and _age_s(event.data["command"]) >= _WORTH_SAYING_S:
        return "Saved."
    return None


def _age_s(command: str) -> float:
    command_id = uuid.UUID(command)
    if not is_uuid7(command_id):
        return 0.0
    return (datetime.now(tz=UTC) - time_of(command_id)).total_seconds()


def _say(rendering: Rendering, told: str) -> bytes:
    text = rendering.text("say.html", {"told": told})
    return b"".join(b"data: " + line.encode() + b"\n" for line in text.splitlines()) + b"\n"


def _own_address(text: str) -> str:
    """An address of these pages; anything else is their first page."""
    parts = urlsplit(text)
    ours = text.startswith("/") and not text.startswith(("//", "/\\"))
    return text if ours and not parts.netloc and text.isprintable() else "/"
