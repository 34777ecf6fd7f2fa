"""The admin page's routes: its views, its sign-in, its files."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from frontend_api.admin.act_routes import ActRoutes
from frontend_api.admin.backends import AdminParts
from frontend_api.admin.command_routes import CommandRoutes
from frontend_api.admin.dead_routes import DeadRoutes
from frontend_api.admin.frame import AT, ROLES, Frame, said
from frontend_api.admin.look_routes import LookRoutes
from frontend_api.pages.forms import read_form
from frontend_api.pages.rendering import see_other, serve_static
from frontend_api.pages.session import must_be_ours
from frontend_api.problems import ProblemError, invalid
from frontend_api.services import Services
from schema.telemetry import Log

_log = Log("frontend_api")


def admin_routes(services: Services, parts: AdminParts) -> APIRouter:
    """All pages under /admin. None of them is in the API description."""
    router = APIRouter()
    frame = Frame(services, parts)
    if frame.sessions.demo:
        _log.warning("demo_sign_in", host=services.settings.host, pages="admin")
    for routes in (
        DoorRoutes(frame),
        LookRoutes(frame),
        CommandRoutes(frame),
        DeadRoutes(frame),
        ActRoutes(frame),
    ):
        routes.add_to(router)
    return router


class DoorRoutes:
    """The demo's sign-in, with a role to choose; sign-out; files."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._sessions = frame.sessions

    def add_to(self, router: APIRouter) -> None:
        for method, path, endpoint in [
            ("GET", "/sign-in", self.sign_in),
            ("POST", "/sign-in", self.begin),
            ("POST", "/sign-out", self.sign_out),
            ("GET", "/static/{name}", self.static),
        ]:
            router.add_api_route(AT + path, endpoint, methods=[method], include_in_schema=False)

    async def sign_in(self, request: Request) -> Response:
        if not self._sessions.demo:
            return self._frame.nothing()
        return self._form(_own_address(request.query_params.get("next", AT)))

    def _form(
        self, to: str, name: str = "", role: str = "", error: ProblemError | None = None
    ) -> Response:
        return self._frame.outside(
            "Sign in",
            "sign_in.html",
            error.problem.status if error is not None else 200,
            to=to,
            name=name,
            role=role,
            roles=ROLES,
            problem=said(error.problem) if error is not None else None,
        )

    async def begin(self, request: Request) -> Response:
        if not self._sessions.demo:
            return self._frame.nothing()
        to, name, role = AT, "", ""
        try:
            must_be_ours(request)
            form = await read_form(request)
            to, name = _own_address(form.text("next")), form.text("name").strip()
            role = form.text("role")
            if role not in ROLES:
                raise invalid("choose one", "/role")
            response = see_other(to)
            self._sessions.begin(request, response, name, (role,))
        except ProblemError as error:
            return self._form(to, name, role, error)
        return response

    async def sign_out(self, request: Request) -> Response:
        try:
            must_be_ours(request)
        except ProblemError:
            return self._frame.nothing()
        response = see_other(f"{AT}/sign-in" if self._sessions.demo else "/")
        self._sessions.end(response)
        return response

    async def static(self, request: Request) -> Response:
        return serve_static(request, self._frame.static)


def _own_address(text: str) -> str:
    """An address of these pages; anything else is their first page."""
    ours = text == AT or text.startswith((f"{AT}/", f"{AT}?"))
    return text if ours and text.isprintable() and "\\" not in text else AT
