"""Routes for those who run it: alive, ready, metrics."""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import Response

from frontend_api import api_operation as describe
from frontend_api.presentation import json_response
from frontend_api.problems import for_framework
from frontend_api.redis_access import RedisUnavailable


@dataclass(frozen=True)
class Checks:
    """How to find out what works. `ping_redis` raises `RedisUnavailable`."""

    kafka: Callable[[], Awaitable[bool]]
    log_known: Callable[[], bool]
    log_full: Callable[[], bool]
    database: Callable[[], bool]
    overlay: Callable[[], bool]
    ping_redis: Callable[[], Awaitable[None]]


def operation_routes(checks: Checks, registry: CollectorRegistry) -> APIRouter:
    router = APIRouter(tags=["operation"])

    @router.get(
        "/livez", operation_id="livez", summary="The process runs", response_model=None,
        openapi_extra=describe.alive(),
    )  # fmt: skip
    async def livez(_: Request) -> Response:
        return _json({"status": "ok"})

    @router.get(
        "/readyz", operation_id="readyz", summary="Whether commands are accepted",
        response_model=None, openapi_extra=describe.ready(),
    )  # fmt: skip
    async def readyz(_: Request) -> Response:
        """Ready means: commands are accepted. PostgreSQL and Redis may be away, or the overlay
        may be in the making; that is said. So is a full disk: who were not ready for that would be
        asked for nothing any more, and could not answer those who only read."""
        found = await _look(checks)
        ready = found["kafka"]["ok"] and found["log"]["ok"]
        degraded = [name for name, check in found.items() if not check["ok"]]
        status = ("degraded" if degraded else "ok") if ready else "not ready"
        body = {"status": status, "degraded": degraded, "checks": found}
        return _json(body, 200 if ready else 503)

    @router.get(
        "/metrics", operation_id="metrics", summary="Prometheus metrics", response_model=None,
        openapi_extra=describe.measured(CONTENT_TYPE_LATEST),
    )  # fmt: skip
    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return router


def description_routes(
    openapi_document: Callable[[], Mapping[str, Any]], asyncapi_document: Mapping[str, Any]
) -> APIRouter:
    """What there is to build upon: over HTTP, and in Kafka."""
    router = APIRouter(tags=["operation"])

    @router.get(
        "/openapi.json", operation_id="openapi", summary="The OpenAPI description",
        response_model=None, openapi_extra=describe.openapi(),
    )  # fmt: skip
    async def openapi(_: Request) -> Response:
        return _json(openapi_document())

    @router.get(
        "/asyncapi.json", operation_id="asyncapi", summary="The AsyncAPI description",
        response_model=None, openapi_extra=describe.asyncapi(),
    )  # fmt: skip
    async def asyncapi(_: Request) -> Response:
        return _json(asyncapi_document)

    return router


def _json(body: Any, status: int = 200) -> Response:
    return for_framework(json_response(body, status))


async def _look(checks: Checks) -> Mapping[str, Any]:
    before = time.perf_counter()
    try:
        await checks.ping_redis()
        redis = True
    except (TimeoutError, RedisUnavailable):
        redis = False
    return {
        "kafka": {"ok": await checks.kafka()},
        "log": {"ok": checks.log_known()},
        "disk": {"ok": not checks.log_full()},
        "database": {"ok": checks.database()},
        "overlay": {"ok": redis and checks.overlay()},
        "redis": {"ok": redis, "seconds": round(time.perf_counter() - before, 4)},
    }
