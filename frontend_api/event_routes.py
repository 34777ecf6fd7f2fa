"""The route of events: what becomes of the caller's commands, as it happens."""

import asyncio
import time

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from frontend_api import api_operation as describe
from frontend_api.direct import route
from frontend_api.event_stream import EventStream
from frontend_api.services import Services


def event_routes(services: Services) -> APIRouter:
    router = APIRouter()

    async def stream(request: Request) -> Response:
        author, expires_at = await services.session(request)
        last = request.headers.get("last-event-id", request.query_params.get("last_event_id"))
        subscription = services.events.subscribe(author.id, last)
        until = asyncio.get_running_loop().time() + expires_at - time.time()
        return EventStream(subscription, until)

    route(
        router, "GET", "/v1/events", stream, name="stream_events", tag="events",
        summary="What becomes of the caller's commands, as it happens (server-sent events)",
        operation=describe.streaming(),
    )  # fmt: skip
    return router
