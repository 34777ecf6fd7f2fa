"""Pages of topics: the list, one with its posts and the composer, new, change, delete."""

import uuid
from typing import Any

from fastapi import APIRouter
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from frontend_api.forum import views
from frontend_api.forum.frame import (
    Frame,
    Page,
    after_of,
    just_before,
    said,
    trigger,
)
from frontend_api.forum.reading import UNREADABLE, Thread
from frontend_api.forum.sending import Sent, send
from frontend_api.input_models import create_input
from frontend_api.pages.forms import Form, new_key, read_form
from frontend_api.pages.rendering import html, is_htmx, see_other
from frontend_api.pages.session import Visitor
from frontend_api.planning import Planner
from frontend_api.problems import ProblemError
from frontend_api.validation import check, path_id


class TopicRoutes:
    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._services = frame.services
        self._reading = frame.reading
        topic, post = self._reading.topic_kind, self._reading.post_kind
        self._new_topic = create_input(topic, opening=post)
        self._new_post = create_input(post, given=("topic_id",))

    def add_to(self, router: APIRouter) -> None:
        for method, path, work in [
            ("GET", "/", self.topics),
            ("GET", "/topics/new", self.new),
            ("POST", "/topics/new", self.create),
            ("GET", "/topics/{id}", self.topic),
            ("POST", "/topics/{id}/posts", self.add_post),
        ]:
            router.add_api_route(
                path, self._frame.handler(work), methods=[method], include_in_schema=False
            )

    async def topics(self, request: Request, visitor: Visitor) -> Response:
        after = after_of(request)
        found = await self._reading.topics(visitor, after)
        notices = await self._reading.notices(visitor)
        page = Page(
            "Topics",
            "topics.html",
            {"topics": found.topics, "next_after": found.next_after, "after": after},
            here=_with_after("/", after),
            state=(found,),
            notices=notices,
            banners=tuple(views.banners(found.freshness)),
            waits=any(t.waiting for t in found.topics),
        )
        return self._frame.respond(request, visitor, page)

    async def topic(self, request: Request, visitor: Visitor) -> Response:
        topic, after = path_id(request.path_params["id"]), after_of(request)
        try:
            thread = await self._reading.thread(visitor, topic, after)
        except ProblemError as error:
            if error.problem.status != 404:
                raise
            return await self._never_saved(request, visitor, topic, error)
        return self._frame.respond(request, visitor, self._page(thread, after))

    def _page(self, thread: Thread, after: uuid.UUID | None, **context: Any) -> Page:
        here = _with_after(f"/topics/{thread.topic.id}", after)
        shown = {
            "thread": thread,
            "topic": thread.topic,
            "after": after,
            "key": new_key(),
            "text": "",
        }
        return Page(
            thread.topic.title,
            "thread.html",
            shown | context,
            here=here,
            state=(thread,),
            foot="composer.html",
            notices=thread.notices,
            banners=tuple(views.banners(thread.freshness)),
            waits=any(p.waiting for p in thread.posts) or thread.topic.waiting is not None,
        )

    async def _never_saved(
        self, request: Request, visitor: Visitor, topic: uuid.UUID, error: ProblemError
    ) -> Response:
        """A topic that its author sent and that was not saved stays with him, at its address."""
        notices = await self._reading.notices(visitor)
        refused = [r for r in notices.rejected() if r.first.id == topic]
        if not refused:
            raise error
        page = Page(
            "Not saved",
            "refused_topic.html",
            {"refused": refused[0]},
            here=f"/topics/{topic}",
            state=(refused[0],),
            notices=notices,
        )
        return self._frame.respond(request, visitor, page)

    async def new(self, request: Request, visitor: Visitor) -> Response:
        return await self._topic_form(request, visitor, Form({"key": new_key()}))

    async def _topic_form(
        self, request: Request, visitor: Visitor, form: Form, error: ProblemError | None = None
    ) -> Response:
        told = said(error.problem) if error is not None else None
        status = error.problem.status if error is not None else 200
        if error is not None and is_htmx(request):
            text = self._frame.partial("form_problem.html", request, visitor, problem=told)
            return html(text, status)
        page = Page(
            "New topic",
            "new_topic.html",
            {
                "heading": "New topic",
                "action": "/topics/new",
                "subject": form.text("title"),
                "text": form.text("body"),
                "key": form.fields.get("key", ""),
            },
            here="",
            notices=await self._reading.notices(visitor),
            status=status,
            extra={"problem": told},
        )
        return self._frame.respond(request, visitor, page)

    async def create(self, request: Request, visitor: Visitor) -> Response:
        form = await read_form(request)
        data = {"title": form.text("title"), "body": form.text("body")}
        try:
            check(self._new_topic, data)
            planner = Planner(self._services.catalog, visitor.author)
            planner.create(self._reading.topic_kind, data)
            sent = await send(self._services, planner, form.key, "/topics/new", data)
        except ProblemError as error:
            return await self._topic_form(request, visitor, form, error)
        return self._frame.done(request, f"/topics/{sent.row_id}?sent={sent.row_id}", leave=True)

    async def add_post(self, request: Request, visitor: Visitor) -> Response:
        topic = path_id(request.path_params["id"])
        form = await read_form(request)
        data = {"body": form.text("body")}
        try:
            check(self._new_post, data)
            planner = Planner(self._services.catalog, visitor.author)
            values = data | {"topic_id": str(topic)}
            planner.create(self._reading.post_kind, values, parents_in_path=frozenset({"topic_id"}))
            sent = await send(self._services, planner, form.key, request.url.path, data)
        except ProblemError as error:
            return await self._composer_again(request, visitor, topic, form, error)
        return await self._show_post(request, visitor, topic, form, sent)

    async def _show_post(
        self, request: Request, visitor: Visitor, topic: uuid.UUID, form: Form, sent: Sent
    ) -> Response:
        after = _after_field(form)
        if form.fields.get("last") != "1":  # it is not on the page that it was written on
            after = just_before(sent.row_id)
        here = _with_after(f"/topics/{topic}", after)
        joint = "&" if "?" in here else "?"
        there = f"{here}{joint}sent={sent.row_id}#post-{sent.row_id}"
        if not is_htmx(request):
            return see_other(there)
        if form.fields.get("last") != "1":
            return html("", 200, {"HX-Redirect": there})
        headers = {"HX-Trigger": trigger(posted={"key": new_key()})}
        said_it = self._frame.partial("posted.html", request, visitor)
        placed = self._placed(request, visitor, sent)
        if placed is not None:
            return html(said_it + placed, 200, headers)
        thread = await self._reading.thread(visitor, topic, after)
        return self._frame.respond(request, visitor, self._page(thread, after), headers, (said_it,))

    def _placed(self, request: Request, visitor: Visitor, sent: Sent) -> Markup | None:
        """The post by itself, without reading anything: it is seen at once, also when nothing can
        be read. None if the form was sent before and its post is among the others already.

        What the pages that follow cannot show is put beside them, where it stays.
        """
        rows = [e.after for e in sent.effects if e.after is not None]
        if not rows:
            return None
        post = views.post_to_be(rows[0], visitor, sent.command, self._services.patience)
        where = "#posts" if sent.shown else "#aside"
        return self._frame.partial("placed.html", request, visitor, post=post, where=where)

    async def _composer_again(
        self, request: Request, visitor: Visitor, topic: uuid.UUID, form: Form, error: ProblemError
    ) -> Response:
        told, status = said(error.problem), error.problem.status
        if is_htmx(request):
            text = self._frame.partial("form_problem.html", request, visitor, problem=told)
            return html(text, status)
        kept = {"key": form.fields.get("key", new_key()), "text": form.text("body")}
        try:
            thread = await self._reading.thread(visitor, topic, _after_field(form))
        except (*UNREADABLE, ProblemError):
            context = {"topic": topic, "last": form.fields.get("last", ""), **kept}
            page = Page(
                "Not sent", "composer_alone.html", context, "", status=status,
                extra={"problem": told},
            )  # fmt: skip
            return self._frame.respond(request, visitor, page)
        page = self._page(thread, _after_field(form), **kept)
        page = Page(**(page.__dict__ | {"status": status, "extra": {"problem": told}}))
        return self._frame.respond(request, visitor, page)


def _with_after(path: str, after: uuid.UUID | None) -> str:
    return f"{path}?after={after}" if after is not None else path


def _after_field(form: Form) -> uuid.UUID | None:
    text = form.fields.get("after", "")
    return path_id(text) if text else None
