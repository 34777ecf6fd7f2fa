"""The HTTP server: uvicorn on h11, with a deadline for request heads and problems for bad ones.

uvicorn waits for ever for a head that comes byte by byte; here a connection has a fixed time for
each head, from its first moment or from the first byte behind the previous request.
"""

import asyncio
import sys
from typing import Any, Final

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from frontend_api.problems import MEDIA_TYPE, problem_body, problem_of_status

MAX_HEAD_BYTES: Final = 32_768
_KEEP_ALIVE_S: Final = 30
_SHUTDOWN_S: Final = 15
_BACKLOG: Final = 512


class BoundedProtocol(H11Protocol):
    """One connection. `head_timeout_s` is set by `server()` on a subclass."""

    head_timeout_s: float = 10.0
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_head()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def _watch_head(self) -> None:
        """Time runs while a head has begun and is not complete."""
        if self.conn.their_state is not h11.IDLE:
            self._stop_timer()
        elif self.conn.trailing_data[0] and self._head_timer is None:
            self._start_timer()

    def _start_timer(self) -> None:
        self._head_timer = self.loop.call_later(self.head_timeout_s, self._head_is_late)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self._answer(408)

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn while it handles h11's refusal, which says which status fits."""
        error = sys.exc_info()[1]
        self._answer(getattr(error, "error_status_hint", 400))

    def _answer(self, status: int) -> None:
        """A problem, and the end of the connection."""
        problem = problem_of_status(status)
        body = problem_body(problem)
        headers = [
            ("content-type", MEDIA_TYPE),
            ("content-length", str(len(body))),
            ("connection", "close"),
        ]
        try:
            head = self.conn.send(h11.Response(status_code=problem.status, headers=headers))
            data = self.conn.send(h11.Data(data=body))
            end = self.conn.send(h11.EndOfMessage())
        except h11.LocalProtocolError:
            pass  # an answer is under way already: there is no room for another
        else:
            self.transport.write((head or b"") + (data or b"") + (end or b""))
        self.transport.close()


def server(app: Any, host: str, port: int, head_timeout_s: float) -> uvicorn.Server:
    """A server ready to run. It says no server name and logs no requests (addresses are personal)."""
    protocol = type("Protocol", (BoundedProtocol,), {"head_timeout_s": head_timeout_s})
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=protocol,
        ws="none",
        loop="uvloop" if sys.platform != "win32" else "asyncio",
        lifespan="on",
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_SHUTDOWN_S,
        backlog=_BACKLOG,
        server_header=False,
        access_log=False,
        log_config=None,
    )
    return uvicorn.Server(config)
