"""What is the visitor's own: his submissions, his notices, and what was returned to him."""

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from frontend_api.forum import views
from frontend_api.forum.frame import Frame, Page, after_of, said
from frontend_api.forum.notices import Rejected
from frontend_api.forum.reading import UNREADABLE
from frontend_api.forum.sending import send
from frontend_api.input_models import create_input, patch_input
from frontend_api.pages.forms import Form, new_key, read_form
from frontend_api.pages.session import Visitor
from frontend_api.planning import Planner
from frontend_api.problems import ProblemError, fail
from frontend_api.validation import check, path_id


class OwnRoutes:
    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._services = frame.services
        self._reading = frame.reading
        topic, post = self._reading.topic_kind, self._reading.post_kind
        self._models = {
            ("create", "topic"): create_input(topic, opening=post),
            ("create", "post"): create_input(post),
            ("update", "topic"): patch_input(topic),
            ("update", "post"): patch_input(post),
        }

    def add_to(self, router: APIRouter) -> None:
        for method, path, work in [
            ("GET", "/submissions", self.submissions),
            ("GET", "/notices", self.notices),
            ("POST", "/notices/{id}/read", self.put_aside),
            ("GET", "/notices/{id}/resend", self.resend_form),
            ("POST", "/notices/{id}/resend", self.resend),
        ]:
            router.add_api_route(
                path, self._frame.handler(work), methods=[method], include_in_schema=False
            )

    async def submissions(self, request: Request, visitor: Visitor) -> Response:
        after = after_of(request)
        found = await self._reading.submissions(visitor, after)
        banners = views.banners(found.freshness)
        if not found.ledger_read:
            banners.append(
                "The database cannot be reached: only what is not saved yet is listed here."
            )
        page = Page(
            "My submissions",
            "submissions.html",
            {"items": found.items, "next_after": found.next_after, "after": after},
            here=request.url.path + (f"?after={after}" if after else ""),
            state=(found,),
            notices=await self._reading.notices(visitor),
            banners=tuple(banners),
            waits=any(item.waiting for item in found.items),
        )
        return self._frame.respond(request, visitor, page)

    async def notices(self, request: Request, visitor: Visitor) -> Response:
        after = after_of(request)
        newest = await self._reading.notices(visitor)
        found = newest if after is None else await self._reading.notices(visitor, after)
        if not found.known:
            raise fail("database_unavailable", "Notices cannot be read now.")
        page = Page(
            "Notices",
            "notices.html",
            {
                "items": found.items,
                "next_after": found.next_after,
                "after": after,
                "preferences": self._services.catalog.preference is not None,
            },
            here=request.url.path + (f"?after={after}" if after else ""),
            state=(found,),
            notices=newest,
            banners=tuple(views.banners(found.freshness)),
        )
        return self._frame.respond(request, visitor, page)

    async def put_aside(self, request: Request, visitor: Visitor) -> Response:
        """Mark a notice as read; with that, what it returned is discarded from the pages."""
        form = await read_form(request)
        await self._mark_read(visitor, request, form)
        return self._frame.done(request, _back(form))

    async def _mark_read(self, visitor: Visitor, request: Request, form: Form) -> None:
        notice, kind = path_id(request.path_params["id"]), self._reading.notice_kind
        planner = Planner(self._services.catalog, visitor.author)
        planner.change(kind, notice, {"read": True}, None)
        await send(self._services, planner, None, request.url.path, None)

    async def resend_form(self, request: Request, visitor: Visitor) -> Response:
        refused = await self._reading.rejected(visitor, path_id(request.path_params["id"]))
        if not refused.may_resend:
            raise fail("not_found", "This cannot be sent again from here.")
        form = Form({"key": new_key(), "title": refused.title or "", "body": refused.text or ""})
        return await self._form(request, visitor, refused, form)

    async def _form(
        self,
        request: Request,
        visitor: Visitor,
        refused: Rejected,
        form: Form,
        error: ProblemError | None = None,
    ) -> Response:
        theirs, version = await self._theirs(visitor, refused)
        return self._frame.in_place(
            request, visitor, "Edit and send again", "resend.html",
            refused=refused,
            subject=form.text("title"),
            text=form.text("body"),
            key=form.fields.get("key", ""),
            version=version,
            theirs=theirs if theirs != refused.written else None,
            problem=said(error.problem) if error is not None else None,
            status=error.problem.status if error is not None else 200,
        )  # fmt: skip

    async def _theirs(self, visitor: Visitor, refused: Rejected) -> tuple[str | None, int | None]:
        """Of a change that was refused: what is there now, and its version."""
        if refused.first.op != "update":
            return None, None
        try:
            if refused.first.type == "post":
                post = await self._reading.post(visitor, refused.first.id)
                return post.body, post.version
            topic = await self._reading.topic(visitor, refused.first.id)
            return topic.title, topic.version
        except (*UNREADABLE, ProblemError):
            return None, None

    async def resend(self, request: Request, visitor: Visitor) -> Response:
        refused = await self._reading.rejected(visitor, path_id(request.path_params["id"]))
        form = await read_form(request)
        if not refused.may_resend:
            raise fail("not_found", "This cannot be sent again from here.")
        first = refused.first
        kind = self._services.catalog[first.type]
        data = self._values(refused, form)
        planner = Planner(self._services.catalog, visitor.author)
        try:
            check(self._models[first.op, first.type], data)
            if first.op == "create":
                planner.create(kind, data)
            else:
                planner.change(kind, first.id, data, form.version)
            sent = await send(self._services, planner, form.key, request.url.path, data)
        except ProblemError as error:
            return await self._form(request, visitor, refused, form, error)
        await self._mark_read(visitor, request, form)
        to = f"/topics/{sent.row_id}" if first.type == "topic" else f"/posts/{sent.row_id}"
        return self._frame.done(request, to, leave=True)

    def _values(self, refused: Rejected, form: Form) -> dict[str, Any]:
        """What the form says, with what it does not ask for as it was sent before."""
        written = {"title": form.text("title"), "body": form.text("body")}
        names = {name for m in refused.mutations for name in m.values} & set(written)
        data: dict[str, Any] = {name: written[name] for name in sorted(names)}
        if (refused.first.op, refused.first.type) == ("create", "post"):
            data |= {k: v for k, v in refused.first.values.items() if k != "body"}
        return data


def _back(form: Form) -> str:
    """Where the form was: one of our own pages."""
    here = form.fields.get("here", "/notices")
    return here if here.startswith("/") and not here.startswith(("//", "/\\")) else "/notices"
