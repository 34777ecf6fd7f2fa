"""How the visitor wants to be told what became of his changes: by mail or not, in which language."""

from dataclasses import dataclass, field
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from frontend_api.forum.frame import Frame, Page, said
from frontend_api.forum.sending import send
from frontend_api.forum.views import banners
from frontend_api.forum.waiting import Waiting, waiting
from frontend_api.input_models import create_input
from frontend_api.pages.forms import Form, new_key, read_form
from frontend_api.pages.rendering import see_other
from frontend_api.pages.session import Visitor
from frontend_api.planning import Planner
from frontend_api.problems import ProblemError
from frontend_api.seen import Freshness
from frontend_api.validation import check
from schema.content import Kind
from schema.mail_templates import LOCALES

PATH: Final = "/preferences"
_NAMES: Final = {"en": "English", "de": "Deutsch"}
_UNKNOWN: Final = (
    "The database cannot be reached: what you have chosen before cannot be shown. What you choose here "
    "counts all the same."
)


@dataclass(frozen=True)
class Chosen:
    """What the visitor has chosen; `known` is False if that cannot be read now."""

    mail: bool = True
    locale: str | None = None
    waiting: Waiting | None = None
    known: bool = True
    freshness: Freshness = field(default_factory=Freshness)


class PreferenceRoutes:
    """One page, if this content has preferences. Mail leads here: it works while PostgreSQL is away."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._services = frame.services

    def add_to(self, router: APIRouter) -> None:
        if self._services.catalog.preference is None:
            return
        for method, work in (("GET", self.show), ("POST", self.choose)):
            router.add_api_route(
                PATH, self._frame.handler(work), methods=[method], include_in_schema=False
            )

    @property
    def _kind(self) -> Kind:
        kind = self._services.catalog.preference
        assert kind is not None
        return kind

    async def show(self, request: Request, visitor: Visitor) -> Response:
        return await self._page(request, visitor, await self._chosen(visitor))

    async def choose(self, request: Request, visitor: Visitor) -> Response:
        form = await read_form(request)
        values = {"mail": form.text("mail") == "yes", "locale": form.text("locale") or None}
        try:
            check(create_input(self._kind), values)
            planner = Planner(self._services.catalog, visitor.author)
            planner.put(self._kind, values)
            await send(self._services, planner, form.key, PATH, values)
        except ProblemError as error:
            chosen = Chosen(bool(values["mail"]), form.text("locale") or None)
            return await self._page(request, visitor, chosen, form, error)
        return see_other(PATH)

    async def _chosen(self, visitor: Visitor) -> Chosen:
        kind = self._kind
        row_id = kind.natural_id({"user_id": str(visitor.id)})
        view = await self._services.reader.rows(visitor.id, [(kind, row_id)], counted=False)
        shown = view.get(kind.name, row_id)
        if shown is None:
            known = (kind.name, row_id) in view and view.freshness.whole
            return Chosen(known=known, freshness=view.freshness)
        return Chosen(
            shown.row["mail"],
            shown.row["locale"],
            waiting(shown, self._services.patience),
            freshness=view.freshness,
        )

    async def _page(
        self,
        request: Request,
        visitor: Visitor,
        chosen: Chosen,
        form: Form | None = None,
        error: ProblemError | None = None,
    ) -> Response:
        languages = {tag: _NAMES.get(tag, tag) for tag in LOCALES}
        if chosen.locale is not None:
            languages.setdefault(chosen.locale, chosen.locale)  # as chosen by way of the API
        told = [*banners(chosen.freshness), *([] if chosen.known else [_UNKNOWN])]
        page = Page(
            "How you are told",
            "preferences.html",
            {
                "chosen": chosen,
                "languages": languages,
                # The address itself is shown to nobody, also not here.
                "address": visitor.author.email is not None,
                "key": form.fields.get("key", "") if form is not None else new_key(),
            },
            here=PATH if error is None else "",
            state=(chosen,),
            foot="preference_form.html",
            notices=await self._frame.reading.notices(visitor),
            banners=tuple(told),
            waits=chosen.waiting is not None,
            status=error.problem.status if error is not None else 200,
            extra={"problem": said(error.problem) if error is not None else None},
        )
        return self._frame.respond(request, visitor, page)
