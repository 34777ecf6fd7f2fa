"""The HTTP server: uvicorn on h11, with deadlines for slow clients and problems for bad heads.

uvicorn waits for ever for a head that comes byte by byte; here a connection has a fixed time for
each head, from its first moment or from the first byte behind the previous request. It also waits
for ever for a client that does not read: here such a connection is cut, and what is written to it
waits in the response, not in memory.
"""

import asyncio
import socket
import sys
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import unquote

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from frontend_api import trace
from frontend_api.plain_http import Plain, PlainCycle, plain_request
from frontend_api.problems import MEDIA_TYPE, problem_body, problem_of_status

MAX_HEAD_BYTES: Final = 32_768
_KEEP_ALIVE_S: Final = 30
_SHUTDOWN_S: Final = 15
_BACKLOG: Final = 512
_STALLED_S: Final = 10.0
"""How long a client may leave unread what was written to it..."""
_LEAST_BYTES: Final = 65_536
"""...or take for this many bytes of it."""
_STALLED_AT_SHUTDOWN_S: Final = 2.0
_UNSENT_BYTES: Final = 16_384
"""How much the kernel may hold of what cannot be sent yet; else it takes megabytes per client."""
_NOTSENT_LOWAT: Final[int | None] = getattr(socket, "TCP_NOTSENT_LOWAT", None)


class BoundedProtocol(H11Protocol):
    """One connection. The times are set by `server()` on a subclass."""

    head_timeout_s: float = 10.0
    stalled_s: float = _STALLED_S
    _head_timer: asyncio.TimerHandle | None = None
    _stall_timer: asyncio.TimerHandle | None = None
    _held: bytes = b""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        # Writing is paused as long as anything waits for the client: then time runs for him.
        transport.set_write_buffer_limits(high=0)
        if _NOTSENT_LOWAT is not None:
            raw = transport.get_extra_info("socket")
            raw.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, _UNSENT_BYTES)
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        if isinstance(self.cycle, PlainCycle) and not self.cycle.response_complete:
            self._held += data  # it has come too early; h11 shall see it when it is its turn
            self.flow.pause_reading()
            return
        plain = plain_request(data) if self._between_requests else None
        if plain is not None:
            self._begin(plain)
            return
        super().data_received(data)
        self._watch_head()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._held and not self.transport.is_closing():
            data, self._held = self._held, b""
            super().data_received(data)
        self._watch_head()

    @property
    def _between_requests(self) -> bool:
        """Whether h11 waits for a request of which nothing has come yet."""
        idle = self.conn.their_state is h11.IDLE and self.conn.our_state is h11.IDLE
        return idle and not self.conn.trailing_data[0] and not self.transport.is_closing()

    def _begin(self, plain: Plain) -> None:
        """What uvicorn does with a request of h11, for a plain one."""
        self._unset_keepalive_if_required()
        self._stop_timer()
        method, target, headers, body = plain
        raw_path, _, query = target.partition(b"?")
        scope: Any = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": "1.1",
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "method": method.decode("ascii"),
            "root_path": "",
            "path": unquote(raw_path.decode("ascii")),
            "raw_path": raw_path,
            "query_string": query,
            "headers": headers,
            "state": self.app_state.copy(),
        }
        cycle = PlainCycle(
            scope=scope,
            conn=self.conn,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            on_response=self.on_response_complete,
        )
        cycle.body, cycle.more_body = bytearray(body), False
        cycle.message_event.set()
        self.cycle = cycle
        task = self.loop.create_task(cycle.run_asgi(self.app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._stop_stall_timer()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_stall(self.stalled_s)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_stall_timer()

    def shutdown(self) -> None:
        super().shutdown()
        self.stalled_s = min(self.stalled_s, _STALLED_AT_SHUTDOWN_S)
        if self._stall_timer is not None:
            self._watch_stall(self.stalled_s)

    def _watch_stall(self, seconds: float) -> None:
        self._stop_stall_timer()
        waits = self.transport.get_write_buffer_size()
        self._stall_timer = self.loop.call_later(seconds, self._look_at_stall, waits)

    def _stop_stall_timer(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _look_at_stall(self, waited: int) -> None:
        """Nothing is added while writing is paused: what is less was read."""
        self._stall_timer = None
        if waited - self.transport.get_write_buffer_size() >= _LEAST_BYTES:
            self._watch_stall(self.stalled_s)
        else:
            self.transport.abort()

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
        hint = getattr(error, "error_status_hint", 400)
        self._answer(hint if hint < 500 else 400)  # a coding that HTTP has and we have not

    def _answer(self, status: int) -> None:
        """A problem, and the end of the connection."""
        parent = trace.begin().parent
        problem = problem_of_status(status)
        body = problem_body(problem)
        headers = [
            ("traceparent", parent),
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


class Server(uvicorn.Server):
    """A server whose shutdown begins with `on_shutdown`: uvicorn tells the application only when
    all connections are closed, and open streams would never be."""

    def __init__(self, config: uvicorn.Config, on_shutdown: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_shutdown = on_shutdown

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_shutdown()
        await super().shutdown(sockets)


def server(
    app: Any,
    host: str,
    port: int,
    head_timeout_s: float,
    *,
    stalled_s: float = _STALLED_S,
    on_shutdown: Callable[[], None] = lambda: None,
) -> Server:
    """A server ready to run. It says no server name and logs no requests (addresses are personal)."""
    times = {"head_timeout_s": head_timeout_s, "stalled_s": stalled_s}
    protocol = type("Protocol", (BoundedProtocol,), times)
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
        log_level="error",  # what clients do wrong is answered, not logged
    )
    return Server(config, on_shutdown)
