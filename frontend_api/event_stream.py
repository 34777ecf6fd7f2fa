"""A stream of events as an HTTP answer (server-sent events), for every page and route that has one."""

import asyncio
import math
from collections.abc import Callable
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from frontend_api.event_hub import Subscription
from frontend_api.events import PING, RETRY, Event, position, written

PING_S: Final = 15.0
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # a proxy that collects answers would hold events back
}


class EventStream(Response):
    """Sends the events of a subscription, and closes it, until it ends or the client is gone.

    `until` is when the client's right to it ends, by the clock of the event loop; None: never.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        subscription: Subscription,
        until: float | None,
        write: Callable[[Event], bytes] = written,
        opening: bytes = b"",
    ) -> None:
        """`write` puts an event into the stream's format, `opening` comes before the first one."""
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._subscription = subscription
        self._until = until
        self._written = write
        self._opening = opening

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._subscription:
            watching = asyncio.create_task(self._watch(receive))
            try:
                await self._send(send)
            finally:
                watching.cancel()

    async def _watch(self, receive: Receive) -> None:
        """A client that goes away is noticed at once: it gives its place back."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self._subscription.close()

    async def _send(self, send: Send) -> None:
        async def write(chunk: bytes, *, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": chunk, "more_body": more})

        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        begins = self._subscription.position
        first = position(begins) if begins is not None else PING
        await write(RETRY + first + self._opening)
        clock = asyncio.get_running_loop().time
        until = self._until if self._until is not None else math.inf
        while clock() < until:
            try:
                async with asyncio.timeout_at(min(clock() + PING_S, until)):
                    chunk = self._written(await anext(self._subscription))
            except TimeoutError:
                chunk = PING
            except StopAsyncIteration:
                break
            if clock() < until:
                await write(chunk)
        await write(RETRY, more=False)
