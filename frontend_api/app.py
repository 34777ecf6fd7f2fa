"""The front end's composition root: what is built here is handed down, nothing is built elsewhere."""

import asyncio
import functools
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from frontend_api.admin.backends import AdminBackends, AdminParts
from frontend_api.admin.routes import admin_routes
from frontend_api.api_document import openapi_document
from frontend_api.authentication import mint_token
from frontend_api.command_publisher import CommandPublisher
from frontend_api.content_reader import ContentReader
from frontend_api.content_routes import content_routes
from frontend_api.cross_origin import cors
from frontend_api.direct import Directory
from frontend_api.disk_watch import DiskWatch
from frontend_api.event_hub import EventHub
from frontend_api.event_routes import event_routes
from frontend_api.forum.routes import forum_routes
from frontend_api.front import Front
from frontend_api.garbage import collect_seldom
from frontend_api.ghosts import Ghosts
from frontend_api.http_server import behind_proxies, server
from frontend_api.idempotency import Idempotency
from frontend_api.limits import Limits
from frontend_api.log_identity import LogIdentity
from frontend_api.metrics import Metrics, build_metrics
from frontend_api.notice_routes import notice_routes
from frontend_api.operation import Checks, description_routes, operation_routes
from frontend_api.outcome_listener import OutcomeListener, partition_of
from frontend_api.overlay import Overlay
from frontend_api.overlay_marker import Marker
from frontend_api.problems import install
from frontend_api.rate_limit import RateLimit
from frontend_api.read_cache import ReadCache
from frontend_api.rebuild_backends import open_rebuilder
from frontend_api.redis_access import RedisAccess
from frontend_api.routes import command_routes
from frontend_api.services import Ports, Services, build_services
from frontend_api.stream_cache import StreamCache
from frontend_api.tracing import Unexpected
from schema.asyncapi import asyncapi_document
from schema.catalog import Catalog, load_catalog
from schema.envelope import Keyring
from schema.redis_keys import RedisKeys
from schema.settings import FrontendSettings
from schema.telemetry import Log, configure_logging
from schema.topics import topics

EXIT_ROLE_CAN_WRITE = 78
"""Exit status (EX_CONFIG) when the database role could write."""
_LATE_LIMIT_S = 2.0
_CLAIM_MARGIN_S = 2.0
"""How long after its deadline the holder of an Idempotency-Key is taken for dead."""

_log = Log("frontend_api")


class BackendsPort(Protocol):
    """What an application is built upon; tests put fakes here."""

    services: Services
    checks: Checks
    admin: AdminParts | None
    """Only where the operators' pages are wanted."""

    def start(self) -> None: ...

    def end_streams(self) -> None: ...

    async def close(self) -> None: ...


class Backends:
    """The adapters of one process, and everything built upon them.

    `start()` returns at once: each adapter connects in the background. `close()` takes a bounded
    time. Must be made inside a running event loop.
    """

    def __init__(
        self,
        settings: FrontendSettings,
        catalog: Catalog,
        metrics: Metrics,
        on_writable_role: Callable[[str], None],
    ) -> None:
        keys = RedisKeys(settings.prefix)
        names = topics(settings)
        keyring = Keyring.parse(settings.signing_keys.get_secret_value())
        self.redis = RedisAccess(
            settings.redis_url, settings.redis_timeout_s, metrics.overlay_failures
        )
        self.database = ContentReader(
            settings.frontend_database_url.get_secret_value(),
            catalog,
            pool_size=settings.database_pool,
            timeout_s=settings.read_timeout_s,
            gauge=metrics.database_available,
            on_writable_role=on_writable_role,
        )
        self.publisher = CommandPublisher(
            settings.kafka_bootstrap,
            names.commands.name,
            seconds=metrics.publish_seconds,
            replacements=metrics.producer_replacements,
        )
        self.disks = DiskWatch(
            settings.kafka_bootstrap, settings.disk_shed_percent, metrics.disk_used
        )
        self.log_identity = LogIdentity(
            settings.kafka_bootstrap, names.commands.name, keyring, self.database.log_id
        )
        self.events = EventHub(
            partition_of,
            per_author=settings.streams_per_author,
            most=settings.max_streams,
            notice_type=catalog.notice.name,
        )
        metrics.event_streams.set_function(lambda: self.events.count)
        self.admin_backends = (
            AdminBackends(
                settings,
                catalog,
                self.database,
                self.redis.ping,
                lambda: self.marker.whole,
                lambda: self.disks.disks,
            )
            if settings.admin
            else None
        )
        self.admin = self.admin_backends.parts if self.admin_backends is not None else None
        self.outcomes = OutcomeListener(
            settings.kafka_bootstrap,
            names.outcomes.name,
            self.events,
            self.admin.desk.tell if self.admin is not None else lambda message: None,
        )
        self.streams = StreamCache(self.redis, keys)
        self.cache = ReadCache(
            self.redis,
            keys,
            metrics.read_cache,
            entries=settings.read_cache_entries,
            ttl_s=settings.read_cache_ttl_s,
        )
        self.late: set[asyncio.Task[None]] = set()
        self.marker = Marker(
            self.redis, keys, metrics.overlay_complete, lambda: bool(self.services.submissions.owed)
        )
        overlay = Overlay(
            self.redis, keys, self.marker, catalog=catalog, grace_s=settings.settled_grace_s
        )
        self.ghosts = Ghosts(
            overlay,
            self.database,
            self.log_identity.ends,
            settings.lanes,
            grace_s=settings.settled_grace_s,
        )
        stale_ms = int((settings.accept_deadline_s + _CLAIM_MARGIN_S) * 1000)
        ports = Ports(
            overlay=overlay,
            claims=Idempotency(self.redis, keys, stale_ms, settings.idempotency_ttl_s, self.marker),
            database=self.database,
            cache=self.cache,
            publisher=self.publisher,
            streams=self.streams,
            rate_limit=RateLimit(self.redis, keys, settings.writes_per_minute),
            outcomes=self.outcomes,
            events=self.events,
            log_id=lambda: self.log_identity.value,
            log_full=lambda: self.disks.full,
            on_unconfirmed=self.ghosts.suspect,
            late=self.late,
        )
        self.services = build_services(settings, catalog, metrics, ports)
        self.rebuilder = open_rebuilder(
            settings,
            catalog,
            metrics,
            self.marker,
            self.database,
            self.services.submissions.owed,
            self.ghosts.suspect,
        )
        self.checks = Checks(
            kafka=self.publisher.reachable,
            log_known=lambda: self.log_identity.value is not None,
            log_full=lambda: self.disks.full,
            database=lambda: self.database.available,
            overlay=lambda: self.marker.whole,
            ping_redis=self.redis.ping,
        )

    def start(self) -> None:
        self.database.start()
        self.publisher.start()
        self.log_identity.start()
        self.disks.start()
        self.outcomes.start()
        self.ghosts.start()
        self.rebuilder.start()
        if self.admin_backends is not None:
            self.admin_backends.start()

    def end_streams(self) -> None:
        """No request may wait for what comes later: it would keep its connection open."""
        self.events.close()
        self.outcomes.let_go()

    async def close(self) -> None:
        """Intake has ended: confirm what is still to be confirmed, then let everything go."""
        await asyncio.gather(
            self.publisher.close(),
            self.outcomes.close(),
            self.log_identity.close(),
            self.disks.close(),
            self.ghosts.close(),
        )
        if self.admin_backends is not None:
            await self.admin_backends.close()
        if self.late:
            await asyncio.wait(self.late, timeout=_LATE_LIMIT_S)
        for task in self.late:
            task.cancel()
        await self.rebuilder.close()
        await self.streams.close()
        await self.cache.close()
        await self.database.close()
        await self.redis.close()


class Application(FastAPI):
    """The framework behind our own front: what that answers never enters it.

    Every request would pass some ten layers of the framework that have nothing to do for it.
    """

    front: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        within = self.front if scope["type"] == "http" else self.framework
        await within(scope, receive, send)

    async def framework(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What is asked for by an address that only the framework knows, and the lifespan."""
        await super().__call__(scope, receive, send)


Opener = Callable[[FrontendSettings, Catalog, Metrics, Callable[[str], None]], BackendsPort]


def create_app(settings: FrontendSettings, open_backends: Opener = Backends) -> FastAPI:
    """The application. Connects to nothing before its lifespan begins, and waits for nothing then."""
    catalog = load_catalog(settings.content)
    directory = Directory()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        def refuse(why: str) -> None:
            # A process that could write breaks the promise it is trusted for: it must not run.
            app.state.fatal = f"the front end's database role can write: {why}"
            _log.error("stopping", why=app.state.fatal)
            app.state.stop()

        metrics = build_metrics()
        backends = open_backends(settings, catalog, metrics, refuse)
        app.state.backends = backends
        _add_routes(app, backends, metrics, directory)
        backends.start()
        app.state.started()
        _log.info("started", content=settings.content, lanes=settings.lanes)
        try:
            yield
        finally:
            _log.info("stopping")
            await backends.close()
            _log.info("stopped")

    app = Application(
        lifespan=lifespan,
        openapi_url=None,  # the description is served by a route like the others
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.fatal = None
    app.state.started = lambda: None
    app.state.stop = lambda: os.kill(os.getpid(), signal.SIGTERM)
    app.openapi = functools.cache(lambda: openapi_document(app.routes, catalog))  # type: ignore[method-assign]
    install(app)
    app.add_middleware(Unexpected)  # or else the framework would answer as it likes
    app.front = Front(
        directory,
        behind_proxies(app.framework),
        Limits(
            max_body_bytes=settings.max_body_bytes,
            body_timeout_s=settings.body_timeout_s,
            max_in_flight=settings.max_in_flight,
        ),
        cors(settings.cors_origins) if settings.cors_origins else None,
    )
    return app


def _add_routes(
    app: FastAPI, backends: BackendsPort, metrics: Metrics, directory: Directory
) -> None:
    for routes in (content_routes, command_routes, notice_routes):
        routes(backends.services, directory)
    app.include_router(directory.described)
    app.include_router(event_routes(backends.services))
    app.include_router(operation_routes(backends.checks, metrics.registry))
    services = backends.services
    if services.settings.site == "forum":
        app.include_router(forum_routes(services))
    if backends.admin is not None:
        app.include_router(admin_routes(services, backends.admin))
    described = asyncapi_document(services.catalog, topics(services.settings))
    app.include_router(description_routes(app.openapi, described))


async def describe(settings: FrontendSettings) -> dict[str, Any]:
    """The OpenAPI document. Needs no server: the adapters are made, and never started."""
    app, metrics = create_app(settings), build_metrics()
    backends = Backends(settings, load_catalog(settings.content), metrics, lambda why: None)
    _add_routes(app, backends, metrics, Directory())
    return app.openapi()


def serve(settings: FrontendSettings) -> None:
    """Run until SIGTERM or SIGINT. Exits with `EXIT_ROLE_CAN_WRITE` if the role could write."""
    configure_logging(settings.log_level, settings.log_format)
    app = create_app(settings)
    http = server(
        app,
        settings.host,
        settings.port,
        settings.body_timeout_s,
        on_shutdown=lambda: app.state.backends.end_streams(),
    )

    def stop() -> None:
        http.should_exit = True

    app.state.stop = stop
    app.state.started = collect_seldom
    # uvicorn raises the signal that stopped it once more at the end; a clean stop should exit with 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    http.run()
    if app.state.fatal is not None:
        sys.stderr.write(f"afterwrite: {app.state.fatal}\n")
        sys.exit(EXIT_ROLE_CAN_WRITE)


__all__ = ["create_app", "describe", "mint_token", "serve"]
