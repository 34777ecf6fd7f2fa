"""What the routes work with; built by the composition root, replaced by fakes in tests."""

import asyncio
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.requests import Request as FrameworkRequest

from frontend_api import early_check, reading_ports, submission
from frontend_api.authentication import Authentication
from frontend_api.commands_view import CommandsView, LookPort, Patience
from frontend_api.early_check import EarlyCheck
from frontend_api.event_hub import EventHub
from frontend_api.merge import Entry, Shown
from frontend_api.messages import Request
from frontend_api.metrics import Metrics
from frontend_api.presentation import Presenter
from frontend_api.reading import Reader
from frontend_api.submission import Submissions
from schema import clock
from schema.catalog import Catalog
from schema.commands import Author
from schema.content import Kind
from schema.envelope import Keyring
from schema.redis_keys import RedisKeys
from schema.settings import FrontendSettings


class OverlayPort(submission.OverlayPort, reading_ports.OverlayPort, LookPort, Protocol):
    """The author's pending overlay."""


class StreamPort(early_check.StreamPort, Protocol):
    def remember(self, streams: Mapping[uuid.UUID, uuid.UUID]) -> None: ...


class RatePort(Protocol):
    async def count(self, author: uuid.UUID) -> dict[str, str]: ...


class OutcomePort(Protocol):
    def expecting(
        self, command: uuid.UUID
    ) -> AbstractContextManager["asyncio.Future[dict[str, Any]]"]: ...


@dataclass(frozen=True)
class Ports:
    """What services are built upon: adapters, or in tests fakes."""

    overlay: OverlayPort
    claims: submission.ClaimPort
    database: reading_ports.DatabasePort
    cache: reading_ports.CachePort
    publisher: submission.PublisherPort
    streams: StreamPort
    rate_limit: RatePort
    outcomes: OutcomePort
    events: EventHub
    log_id: Callable[[], uuid.UUID | None]
    log_full: Callable[[], bool]
    on_unconfirmed: Callable[[Entry], None]
    late: "set[asyncio.Task[None]]"


def build_services(
    settings: FrontendSettings, catalog: Catalog, metrics: Metrics, ports: Ports
) -> "Services":
    """Put the ports together. Connects to nothing."""
    keys = RedisKeys(settings.prefix)
    reader = Reader(catalog, keys, ports.overlay, ports.database, ports.cache, ports.on_unconfirmed)
    submissions = Submissions(
        catalog=catalog,
        keys=keys,
        keyring=Keyring.parse(settings.signing_keys.get_secret_value()),
        lanes=settings.lanes,
        deadline_s=settings.accept_deadline_s,
        claims=ports.claims,
        checker=EarlyCheck(catalog, reader, ports.streams, settings.lanes),
        overlay=ports.overlay,
        publisher=ports.publisher,
        log_id=ports.log_id,
        log_full=ports.log_full,
        late=ports.late,
    )
    patience = Patience(settings.delay_notice_after, settings.horizon_s, clock.now)
    secret = settings.jwt_secret.get_secret_value() if settings.jwt_secret else None
    return Services(
        settings=settings,
        catalog=catalog,
        authentication=Authentication(secret, settings.jwks, settings.jwt_audience),
        rate_limit=ports.rate_limit,
        reader=reader,
        commands=CommandsView(
            ports.overlay, ports.database, patience, catalog.notice.name, ports.events.problem_of
        ),
        submissions=submissions,
        outcomes=ports.outcomes,
        events=ports.events,
        streams=ports.streams,
        presenter=Presenter(catalog),
        metrics=metrics,
        patience=patience,
    )


@dataclass(frozen=True)
class Services:
    settings: FrontendSettings
    catalog: Catalog
    authentication: Authentication
    rate_limit: RatePort
    reader: Reader
    commands: CommandsView
    submissions: Submissions
    outcomes: OutcomePort
    events: EventHub
    streams: StreamPort
    presenter: Presenter
    metrics: Metrics
    patience: Patience

    async def author(self, request: Request) -> Author:
        """Who asks. Raises `ProblemError` 401."""
        return await self.authentication.author(request.header(b"authorization"))

    async def session(self, request: FrameworkRequest) -> tuple[Author, float]:
        """Who asks, and until when he may (seconds since 1970). Raises `ProblemError` 401."""
        return await self.authentication.session(request.headers.get("authorization"))

    def remember_streams(self, kind: Kind, shown: list[Shown]) -> None:
        """Keep the streams of rows that were served: an edit then needs no database.

        Only where the row itself tells its stream; deeper ones are found by way of their parents.
        """
        path = self.catalog.stream_path(kind)
        if len(path) == 1:
            self.streams.remember({s.row["id"]: s.row[path[0]] for s in shown})
