"""A real HTTP server in the test's own process, over fakes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from frontend_api.app import create_app
from frontend_api.http_server import server
from frontend_api.metrics import Metrics
from schema.catalog import Catalog
from schema.settings import FrontendSettings
from schema.telemetry import configure_logging
from tests.fakes import FakeBackends, frontend_settings

TIMEOUT_S = 0.5
"""How long a client may take to send its request, or to read its answer."""


@asynccontextmanager
async def listening(**changes: Any) -> AsyncIterator[tuple[int, FakeBackends]]:
    """Its port, and the other end. Ends as a process does that gets SIGTERM."""
    configure_logging("error", "json")
    made: list[FakeBackends] = []

    def open_backends(
        settings: FrontendSettings, catalog: Catalog, metrics: Metrics, _: object
    ) -> FakeBackends:
        made.append(FakeBackends(settings, catalog, metrics))
        return made[0]

    app = create_app(frontend_settings(body_timeout_s=TIMEOUT_S, **changes), open_backends)
    http = server(
        app, "127.0.0.1", 0, TIMEOUT_S,
        stalled_s=TIMEOUT_S, on_shutdown=lambda: made[0].end_streams(),
    )  # fmt: skip
    task = asyncio.create_task(http._serve())
    while not http.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    made[0].connections = http.server_state.connections
    try:
        yield http.servers[0].sockets[0].getsockname()[1], made[0]
    finally:
        http.should_exit = True
        await task
