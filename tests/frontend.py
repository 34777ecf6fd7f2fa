"""A front end over fakes, for tests that speak HTTP to it without any server."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from frontend_api.app import create_app
from frontend_api.authentication import mint_token
from frontend_api.metrics import Metrics
from schema.catalog import Catalog
from schema.settings import FrontendSettings
from schema.telemetry import configure_logging
from tests.conformance import Conformance
from tests.fakes import SECRET, FakeBackends, frontend_settings
from tests.installation import any_version

_DESCRIBED: dict[str, Conformance] = {}
"""By the settings, which alone decide what is described: to write it down takes as long as a test."""


class FrontEnd:
    """The application and its fakes."""

    def __init__(self, app: Any, backends: FakeBackends, conformance: Conformance) -> None:
        self.app = app
        self.backends = backends
        self.conformance = conformance
        """Every answer to every client is held against the API description."""

    def client(self, user: str | None = "ada", *roles: str) -> httpx2.AsyncClient:
        """A client that speaks for a user; for nobody if None. It changes whatever version is there."""
        headers = {"Authorization": f"Bearer {mint_token(SECRET, user, roles)}"} if user else {}
        transport = httpx2.ASGITransport(app=self.app, raise_app_exceptions=False)
        return httpx2.AsyncClient(
            transport=transport,
            base_url="http://test",
            headers=headers,
            event_hooks={"request": [any_version], "response": [self.conformance.hook]},
        )


@asynccontextmanager
async def front_end(**settings: Any) -> AsyncIterator[FrontEnd]:
    """Runs the application's lifespan around the test."""
    configure_logging("error", "json")
    made: list[FakeBackends] = []

    def open_backends(
        settings: FrontendSettings,
        catalog: Catalog,
        metrics: Metrics,
        on_writable_role: Callable[[str], None],
    ) -> FakeBackends:
        made.append(FakeBackends(settings, catalog, metrics))
        return made[0]

    app = create_app(frontend_settings(**settings), open_backends)
    async with app.router.lifespan_context(app):
        same = repr(sorted(settings.items()))
        if same not in _DESCRIBED:
            _DESCRIBED[same] = Conformance(app.openapi())
        yield FrontEnd(app, made[0], _DESCRIBED[same])
