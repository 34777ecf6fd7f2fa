"""What the routes work with; built by the composition root, replaced by fakes in tests."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request

from frontend_api.authentication import Authentication
from frontend_api.commands_view import CommandsView
from frontend_api.merge import Shown
from frontend_api.metrics import Metrics
from frontend_api.outcome_listener import OutcomeListener
from frontend_api.presentation import Presenter
from frontend_api.rate_limit import RateLimit
from frontend_api.reading import Reader
from frontend_api.stream_cache import StreamCache
from frontend_api.submission import Submissions
from schema.catalog import Catalog
from schema.commands import Author
from schema.content import Kind
from schema.settings import FrontendSettings


@dataclass(frozen=True)
class Services:
    settings: FrontendSettings
    catalog: Catalog
    authentication: Authentication
    rate_limit: RateLimit
    reader: Reader
    commands: CommandsView
    submissions: Submissions
    outcomes: OutcomeListener
    streams: StreamCache
    presenter: Presenter
    metrics: Metrics

    async def author(self, request: Request) -> Author:
        """Who asks. Raises `ProblemError` 401."""
        return await self.authentication.author(request.headers.get("authorization"))

    def remember_streams(self, kind: Kind, shown: list[Shown]) -> None:
        """Keep the streams of rows that were served: an edit then needs no database.

        Only where the row itself tells its stream; deeper ones are found by way of their parents.
        """
        path = self.catalog.stream_path(kind)
        if len(path) == 1:
            self.streams.remember({s.row["id"]: s.row[path[0]] for s in shown})


def route(
    router: APIRouter,
    method: str,
    path: str,
    endpoint: Any,
    *,
    name: str,
    summary: str,
    tag: str,
    operation: Mapping[str, Any],
) -> None:
    """Add a route whose handler reads the request itself: FastAPI's own validation echoes input."""
    router.add_api_route(
        path,
        endpoint,
        methods=[method],
        name=name,
        operation_id=name,
        summary=summary,
        tags=[tag],
        response_model=None,
        responses={},
        status_code=202 if method != "GET" else 200,
        openapi_extra=dict(operation),
    )
