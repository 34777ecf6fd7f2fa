"""The HTTP server: uvicorn on httptools, with deadlines for slow clients and problems for bad heads.

uvicorn waits for ever for a head that comes byte by byte; here a connection has a fixed time for
each head, from its first moment or from the first byte behind the previous request. It also waits
for ever for a client that does not read: here such a connection is cut, and what is written to it
waits in the response, not in memory. What the parser lets pass and proxies may read in another way is
refused: more than one Host or none, a coding that is not chunked.
"""

import asyncio
import os
import socket
import sys
from collections.abc import Callable
from typing import Any, Final, cast

import uvicorn
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from frontend_api import trace
from frontend_api.messages import EXCHANGE, Response
from frontend_api.problems import MEDIA_TYPE, problem_body, problem_of_status

MAX_HEAD_BYTES: Final = 98_304
"""A token or an address may hold the longest text that a field refuses with better words than 431."""
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


class InOnePiece:
    """What answers are written to: a head leaves together with the first part of its body.

    Whatever is written here is sent right away, for it shall be known whether it can be. Sending
    costs more than most else, and a head alone wakes a client who has nothing to read yet.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""
        self._in_body = False

    def write(self, data: bytes) -> None:
        if self._in_body:
            self._transport.write(self._held + data if self._held else data)
            self._held = b""
            return
        self._in_body = True
        self._held = data
        self._loop.call_soon(self.flush)  # a body that comes later is not waited for

    def flush(self) -> None:
        if self._held and not self._transport.is_closing():
            self._transport.write(self._held)
        self._held = b""

    def write_whole(self, answer: bytes) -> None:
        """A head with its body: nothing of this answer was written before, or will be."""
        self._transport.write(answer)

    def end(self) -> None:
        """What is written now belongs to the next answer."""
        self.flush()
        self._in_body = False

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        self.flush()
        self._transport.close()


class WholeExchange:
    """One request and its answer, past the messages of ASGI: each is in one piece, as it mostly is."""

    __slots__ = ("_answers", "_cycle")

    def __init__(self, cycle: RequestResponseCycle, answers: InOnePiece) -> None:
        self._cycle = cycle
        self._answers = answers

    def body(self) -> bytes | None:
        """The whole body; None if it is not there yet."""
        cycle = self._cycle
        return None if cycle.more_body or cycle.disconnected else bytes(cycle.body)

    async def answer(self, response: Response) -> None:
        """Waits while the client does not read; then nothing of it is in memory but this."""
        cycle = self._cycle
        if cycle.flow.write_paused and not cycle.disconnected:
            await cycle.flow.drain()
        if cycle.disconnected:
            return
        head = response.head()
        if "Connection" in response.headers:
            cycle.keep_alive = False
        elif not cycle.keep_alive:
            head += "connection: close\r\n"
        general = b"".join([b"%b: %b\r\n" % header for header in cycle.default_headers])
        whole = [STATUS_LINE[response.status], general, head.encode("ascii"), b"\r\n"]
        if cycle.scope["method"] != "HEAD":
            whole.append(response.body)
        cycle.response_started = cycle.response_complete = True
        self._answers.write_whole(b"".join(whole))
        cycle.message_event.set()
        if not cycle.keep_alive:
            self._answers.close()
        cycle.on_response()


class BoundedProtocol(HttpToolsProtocol):
    """One connection. The times are set by `server()` on a subclass."""

    head_timeout_s: float = 10.0
    stalled_s: float = _STALLED_S
    _head_timer: asyncio.TimerHandle | None = None
    _stall_timer: asyncio.TimerHandle | None = None
    _in_head = True
    """Whether what comes now belongs to a head."""
    _waiting_bytes = 0
    _head_bytes = 0
    _status = 400
    """What a request that cannot be read is answered with."""
    _deaf = False
    """It could not be read where the next one begins."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._answers = InOnePiece(transport, self.loop)
        # Writing is paused as long as anything waits for the client: then time runs for him.
        transport.set_write_buffer_limits(high=0)
        if _NOTSENT_LOWAT is not None:
            raw = transport.get_extra_info("socket")
            raw.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, _UNSENT_BYTES)
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        if self._in_head:
            self._waiting_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._waiting_bytes and not self._deaf:
            # Only now: mostly a head is there in one piece, and needs no timer.
            self._start_timer()
            if self._waiting_bytes > MAX_HEAD_BYTES:
                self._refuse(431)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes = 0
        self._waiting_bytes = max(1, self._waiting_bytes)  # what begins here has to end in time

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # else it is a trailer: nobody asked for it
            self._count(len(name) + len(value))
            super().on_header(name, value.rstrip(b" \t"))

    def on_headers_complete(self) -> None:
        names = [name for name, _ in self.headers]
        hosts = names.count(b"host")
        codings: list[bytes] = []
        if b"transfer-encoding" in names:
            codings = [v.lower() for name, v in self.headers if name == b"transfer-encoding"]
        version = self.parser.get_http_version()
        if hosts > 1 or (version == "1.1" and not hosts):
            raise ValueError("one Host is needed")
        if codings and (version != "1.1" or codings != [b"chunked"]):
            raise ValueError("nothing but chunked is understood")
        other_protocol = self.parser.should_upgrade()
        if other_protocol and (codings or self._announces_body()):
            raise ValueError("the parser does not read a body behind a wish for another protocol")
        self._in_head = False
        self._stop_timer()
        super().on_headers_complete()
        self.cycle.transport = cast(asyncio.Transport, self._answers)
        scope = cast(dict[str, Any], self.cycle.scope)
        scope[EXCHANGE] = WholeExchange(self.cycle, self._answers)
        if other_protocol:  # it is not granted; but the parser takes what follows for it
            self._deaf = True
            self.cycle.keep_alive = False

    def _announces_body(self) -> bool:
        return any(name == b"content-length" and value != b"0" for name, value in self.headers)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_head = True
        self._waiting_bytes = 0

    def on_response_complete(self) -> None:
        self._answers.end()
        if self.cycle.response_complete and self.cycle.more_body:
            self.transport.close()  # the rest of its body is not waited for
        super().on_response_complete()

    def _count(self, length: int) -> None:
        self._head_bytes += length
        if self._head_bytes > MAX_HEAD_BYTES:
            self._status = 431
            raise ValueError("the head is too large")

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

    def _start_timer(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_timeout_s, self._head_is_late)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        self._refuse(408)

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn when the parser, or what is asked of a head here, refuses what came."""
        self._refuse(self._status)

    def _refuse(self, status: int) -> None:
        """A problem, and the end of the connection; what was asked before it is answered first."""
        self._deaf = True
        self._stop_timer()
        cycle: RequestResponseCycle | None = getattr(self, "cycle", None)  # None before the first
        if cycle is not None and not cycle.response_complete:
            if not cycle.more_body:
                cycle.keep_alive = False
                return
            if cycle.response_started:
                self.transport.close()  # there is no room for another answer
                return
        if self.transport.is_closing():
            return
        parent = trace.begin().parent
        problem = problem_of_status(status)
        body = problem_body(problem)
        head = (
            f"traceparent: {parent}\r\ncontent-type: {MEDIA_TYPE}\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(STATUS_LINE[problem.status] + head.encode("ascii") + body)
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


def behind_proxies(app: Any) -> Any:
    """For what has to know whether the browser came by https: a proxy of this machine says it.

    Others are named by FORWARDED_ALLOW_IPS, as uvicorn knows it.
    """
    return ProxyHeadersMiddleware(app, os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1,::1"))


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
        proxy_headers=False,  # see `behind_proxies`
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_SHUTDOWN_S,
        backlog=_BACKLOG,
        server_header=False,
        access_log=False,
        log_config=None,
        log_level="error",  # what clients do wrong is answered, not logged
    )
    return Server(config, on_shutdown)
