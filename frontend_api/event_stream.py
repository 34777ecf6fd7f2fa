"""A stream of events as an HTTP answer (server-sent events), for every page and route that has one."""

import asyncio
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from frontend_api.event_hub import Subscription
from frontend_api.events import PING, RETRY, position, written

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
        self, subscription: Subscription, until: float | None, ping_s: float = PING_S
    ) -> None:
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._subscription = subscription
        self._until = until
        self._ping_s = ping_s

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
        await write(RETRY + (position(begins) if begins is not None else PING))
        clock = asyncio.get_running_loop().time
        while self._until is None or clock() < self._until:
            pause_at = clock() + self._ping_s
            if self._until is not None:
                pause_at = min(pause_at, self._until)
            try:
                async with asyncio.timeout_at(pause_at):
                    chunk = written(await anext(self._subscription))
            except TimeoutError:
                chunk = PING
            except StopAsyncIteration:
                break
            await write(chunk)
        await write(RETRY, more=False)
