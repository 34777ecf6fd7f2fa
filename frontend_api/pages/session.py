"""Who uses the pages: the session cookie, and that a change comes from a page of ours."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from pydantic_core import PydanticCustomError
from starlette.requests import Request
from starlette.responses import Response

from frontend_api.authentication import mint_token
from frontend_api.problems import ProblemError, fail, invalid
from frontend_api.services import Services
from schema.commands import Author
from schema.contact import bare_address
from schema.fields import Text

SESSION_S: Final = 7 * 24 * 3600
_NAME: Final = Text(max_bytes=160, max_chars=40, one_line=True)
_MAY_MODERATE: Final = frozenset({"moderator", "admin"})


@dataclass(frozen=True)
class Visitor:
    """Who looks at a page. `expires_at` is when his token does (seconds since 1970)."""

    author: Author
    expires_at: float

    @property
    def id(self) -> uuid.UUID:
        return self.author.id

    @property
    def name(self) -> str:
        return self.author.name

    @property
    def moderates(self) -> bool:
        return not _MAY_MODERATE.isdisjoint(self.author.roles)

    def may_change(self, author_id: uuid.UUID) -> bool:
        """Whether to offer it; the rules of the content types decide when it is sent."""
        return self.moderates or author_id == self.id


class SignedOut(Exception):
    """The cookie is missing, has expired or is not valid."""


class Sessions:
    """Reads and sets the session cookie. It holds a token as the API takes it, in a place that
    scripts cannot read and other sites' forms do not send along."""

    def __init__(self, services: Services) -> None:
        self._authentication = services.authentication
        self._settings = services.settings

    @property
    def demo(self) -> bool:
        """Whether visitors may choose who they are."""
        return self._settings.demo_sign_in

    async def visitor(self, request: Request) -> Visitor:
        """Raises `SignedOut`, or `ProblemError` 503 while tokens cannot be verified."""
        token = request.cookies.get(self._settings.session_cookie)
        if not token:
            raise SignedOut
        try:
            return Visitor(*await self._authentication.session(f"Bearer {token}"))
        except ProblemError as error:
            if error.problem.status != 401:
                raise
            raise SignedOut from None

    def begin(
        self,
        request: Request,
        response: Response,
        name: str,
        roles: Sequence[str] = (),
        email: str = "",
    ) -> None:
        """Demo only: a session for whoever says this name. Raises `ProblemError` 422.

        `email` is where he would have mail sent to; empty: nowhere.
        """
        secret = self._settings.jwt_secret
        if not self.demo or secret is None:
            raise fail("not_found", "There is no sign-in here.")
        try:
            _NAME.check(name)
        except PydanticCustomError as error:
            raise invalid(error.message(), "/name", error.type) from None
        if email and bare_address(email) is None:
            raise invalid("is not one e-mail address", "/email", "email")
        token = mint_token(
            secret.get_secret_value(),
            name,
            roles,
            SESSION_S,
            self._settings.jwt_audience,
            email or None,
        )
        response.set_cookie(
            self._settings.session_cookie,
            token,
            max_age=SESSION_S,
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
        )

    def end(self, response: Response) -> None:
        response.delete_cookie(self._settings.session_cookie, httponly=True, samesite="lax")


def must_be_ours(request: Request) -> None:
    """Refuse a POST that another site made the browser send. Raises `ProblemError` 403.

    Browsers say where a request comes from, and pages cannot make them lie; a client that says
    nothing is not a browser of this decade.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        ours = site in ("same-origin", "none")
    else:
        origin = request.headers.get("origin", "")
        ours = bool(origin) and urlsplit(origin).netloc == request.headers.get("host")
    if not ours:
        raise fail("forbidden", "This came from another site.")
