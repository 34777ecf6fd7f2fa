"""Changing what is there, in place: edit, delete and react. Without scripts, each on its own page."""

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from frontend_api.forum import views
from frontend_api.forum.frame import Frame, said
from frontend_api.forum.sending import send
from frontend_api.forum.views import EMOJI
from frontend_api.input_models import patch_input
from frontend_api.pages.forms import Form, new_key, read_form
from frontend_api.pages.rendering import html, is_htmx, see_other
from frontend_api.pages.session import Visitor
from frontend_api.planning import Planner
from frontend_api.problems import ProblemError, fail
from frontend_api.validation import check, path_id
from schema.content import Kind


class ChangeRoutes:
    """`…/edit` and `…/delete` of topics and posts, and reactions to posts."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._services = frame.services
        self._reading = frame.reading
        self._topic, self._post = self._reading.topic_kind, self._reading.post_kind
        self._models = {kind.name: patch_input(kind) for kind in (self._topic, self._post)}

    def add_to(self, router: APIRouter) -> None:
        def add(method: str, path: str, work: Any) -> None:
            endpoint = self._frame.handler(work)
            router.add_api_route(path, endpoint, methods=[method], include_in_schema=False)

        add("GET", "/posts/{id}", self.post)
        add("POST", "/posts/{id}/reactions", self.react)
        for kind, path in ((self._topic, "/topics/{id}"), (self._post, "/posts/{id}")):
            add("GET", f"{path}/edit", self._edit(kind))
            add("POST", f"{path}/edit", self._save(kind))
            add("GET", f"{path}/delete", self._ask_to_delete(kind))
            add("POST", f"{path}/delete", self._delete(kind))

    async def post(self, request: Request, visitor: Visitor) -> Response:
        """A post in its topic; to a script, the post alone."""
        found = await self._reading.post(visitor, path_id(request.path_params["id"]))
        if not is_htmx(request):
            return see_other(await self._reading.address(visitor, found))
        return self._shown(request, visitor, found)

    def _shown(self, request: Request, visitor: Visitor, found: views.Post) -> Response:
        """The post with its Edit link taking the focus back from the form that it replaces."""
        return html(self._frame.partial("one_post.html", request, visitor, p=found, focus=True))

    def _edit(self, kind: Kind) -> Any:
        async def edit(request: Request, visitor: Visitor) -> Response:
            row = await self._row(visitor, kind, request)
            form = Form({"key": new_key(), "version": str(row.version), "text": _text(row)})
            return self._form(request, visitor, kind, row, form)

        return edit

    async def _row(
        self, visitor: Visitor, kind: Kind, request: Request
    ) -> views.Post | views.Topic:
        row_id = path_id(request.path_params["id"])
        if kind is self._post:
            return await self._reading.post(visitor, row_id)
        return await self._reading.topic(visitor, row_id)

    def _form(
        self,
        request: Request,
        visitor: Visitor,
        kind: Kind,
        row: views.Post | views.Topic,
        form: Form,
        error: ProblemError | None = None,
    ) -> Response:
        """The form to change a row. After a conflict it shows both texts and would overwrite."""
        conflict = error is not None and error.problem.code == "version_conflict"
        return self._frame.in_place(
            request, visitor, f"Edit {kind.name}", f"edit_{kind.name}.html",
            row=row,
            text=form.text("text"),
            key=new_key() if conflict else form.fields.get("key", ""),
            version=row.version if conflict else form.version,
            theirs=_text(row) if conflict and _text(row) != form.text("text") else None,
            problem=said(error.problem) if error is not None else None,
            status=error.problem.status if error is not None else 200,
        )  # fmt: skip

    def _save(self, kind: Kind) -> Any:
        field = "body" if kind is self._post else "title"

        async def save(request: Request, visitor: Visitor) -> Response:
            row_id = path_id(request.path_params["id"])
            form = await read_form(request)
            data = {field: form.text("text")}
            try:
                check(self._models[kind.name], data)
                planner = Planner(self._services.catalog, visitor.author)
                planner.change(kind, row_id, data, form.version)
                await send(self._services, planner, form.key, request.url.path, data)
            except ProblemError as error:
                row = await self._row(visitor, kind, request)
                return self._form(request, visitor, kind, row, form, error)
            if kind is self._topic:
                return self._frame.done(request, f"/topics/{row_id}", leave=True)
            found = await self._reading.post(visitor, row_id)
            if not is_htmx(request):
                return see_other(await self._reading.address(visitor, found))
            return self._shown(request, visitor, found)

        return save

    def _ask_to_delete(self, kind: Kind) -> Any:
        async def ask(request: Request, visitor: Visitor) -> Response:
            row = await self._row(visitor, kind, request)
            return self._frame.in_place(
                request, visitor, f"Delete {kind.name}", f"delete_{kind.name}.html",
                row=row, key=new_key(),
            )  # fmt: skip

        return ask

    def _delete(self, kind: Kind) -> Any:
        async def delete(request: Request, visitor: Visitor) -> Response:
            row_id = path_id(request.path_params["id"])
            form = await read_form(request)
            planner = Planner(self._services.catalog, visitor.author)
            planner.delete(kind, row_id, form.version)
            await send(self._services, planner, form.key, request.url.path, None)
            if kind is self._topic:
                return self._frame.done(request, "/", leave=True)
            return self._frame.done(request, f"/topics/{path_id(form.fields.get('topic', ''))}")

        return delete

    async def react(self, request: Request, visitor: Visitor) -> Response:
        post = path_id(request.path_params["id"])
        form = await read_form(request)
        op, _, emoji = form.text("react").partition(" ")
        if emoji not in EMOJI or op not in ("put", "take_back"):
            raise fail("invalid", "There is no such reaction here.")
        kind = self._reading.reaction_kind
        values = {"post_id": str(post), "emoji": emoji}
        planner = Planner(self._services.catalog, visitor.author)
        if op == "put":
            planner.create(kind, values, parents_in_path=frozenset({"post_id"}))
        else:
            authored = values | {"author_id": str(visitor.id)}
            known = kind.from_json(authored)
            planner.delete(kind, kind.natural_id(authored), None, known=known)
        await send(self._services, planner, form.key, request.url.path, [emoji, op])
        found = await self._reading.post(visitor, post)
        if not is_htmx(request):
            return see_other(await self._reading.address(visitor, found))
        return html(self._frame.partial("one_post.html", request, visitor, p=found))


def _text(row: views.Post | views.Topic) -> str:
    return row.body if isinstance(row, views.Post) else row.title
