"""A TCP proxy for PostgreSQL that knows what a COMMIT is, for fault tests.

A connection that breaks at COMMIT leaves the client not knowing whether it is saved. Which of the
two it was is decided here, by the test:

    async with PostgresProxy(database_url) as proxy:
        connection = await asyncpg.connect(proxy.url)
        proxy.arm("cut_reply")        # the next COMMIT succeeds, and nobody is told
        ...
        await proxy.fired.wait()
"""

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Literal, Self
from urllib.parse import urlsplit

Action = Literal["cut_request", "cut_reply", "blackhole"]
"""What to do to a COMMIT.

`cut_request`: reset the connection instead of passing it on; the server rolls back.
`cut_reply`: pass it on, wait for the server's answer COMMIT, reset the connection without it.
`blackhole`: from here on swallow everything on every connection, and keep them all open.
"""

_SSL_REQUEST, _GSS_REQUEST = 80_877_103, 80_877_104
_COMMIT = re.compile(rb"(?:^|;)\s*(?:commit|end)\s*(?:work|transaction)?\s*;?\s*\Z", re.IGNORECASE)
_CHUNK_BYTES = 1 << 20
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(eq=False)
class _Link:
    """One client's connection and the one to the server that belongs to it."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    statements: dict[bytes, bool] = field(default_factory=dict)
    """Prepared statement name → whether it is a COMMIT."""
    portals: dict[bytes, bool] = field(default_factory=dict)
    """The same of portals."""

    def reset(self) -> None:
        """Drop both sides at once, with a TCP reset and without what is still in buffers."""
        for writer in (self.client, self.server):
            connection: socket.socket = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):  # closed already
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            writer.transport.abort()

    def sends_commit(self, kind: bytes, body: bytes) -> bool:
        """Whether this message of the client makes the server commit."""
        match kind:
            case b"Q":
                return is_commit(body.rstrip(b"\0"))
            case b"P":
                name, query, _ = body.split(b"\0", 2)
                self.statements[name] = is_commit(query)
            case b"B":
                portal, name, _ = body.split(b"\0", 2)
                self.portals[portal] = self.statements.get(name, False)
            case b"E":
                return self.portals.get(body.split(b"\0", 1)[0], False)
        return False


class PostgresProxy:
    """Forwards to the server of `upstream_url` from a free port on 127.0.0.1, without TLS.

    Its settings may be changed at any time and apply to open connections, too.
    """

    def __init__(self, upstream_url: str) -> None:
        self._upstream = urlsplit(upstream_url)
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._action: Action | None = None
        self._commits_to_pass = 0
        self._latency_s = 0.0
        self._swallowing = False
        self._knocking = 0
        self.attempts = 0
        """Connections that were asked for; `most_at_once`: so many before one of them was answered."""
        self.most_at_once = 0
        self.port = 0
        self.fired = asyncio.Event()
        """Set when the armed action has happened."""

    @property
    def url(self) -> str:
        """The upstream URL with this proxy's address in place of the server's."""
        account, at, _ = self._upstream.netloc.rpartition("@")
        return self._upstream._replace(netloc=f"{account}{at}127.0.0.1:{self.port}").geturl()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", self.port, limit=_CHUNK_BYTES
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_exc: object) -> None:
        if self._server is not None:
            self._server.close()
        self.reset_all()
        for task in self._tasks:
            task.cancel()
        for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome
        if self._server is not None:
            await self._server.wait_closed()

    def arm(self, action: Action, *, passing: int = 0) -> None:
        """Do `action`, once, to the COMMIT after the next `passing` ones. Clears `fired`."""
        self._action, self._commits_to_pass = action, passing
        self.fired.clear()

    def latency(self, seconds: float) -> None:
        """Hold everything back by `seconds`, in both directions; 0 ends it."""
        self._latency_s = seconds

    def blackhole(self) -> None:
        """Swallow everything from now on, as a network that is gone does, until `heal`."""
        self._swallowing = True

    def heal(self) -> None:
        """End a black hole. Connections that lived through it are reset: bytes are missing."""
        self._swallowing = False
        self.reset_all()

    def reset_all(self) -> None:
        """Reset every open connection, on both sides. New ones are accepted as before."""
        for link in self._links:
            link.reset()

    def _accept(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        self.attempts += 1
        self._knocking += 1
        self.most_at_once = max(self.most_at_once, self._knocking)
        try:
            from_server, server = await asyncio.open_connection(
                self._upstream.hostname, self._upstream.port or 5432, limit=_CHUNK_BYTES
            )
        except OSError:
            await asyncio.sleep(self._latency_s)
            client.transport.abort()
            return
        finally:
            self._knocking -= 1
        link = _Link(client, server)
        self._links.add(link)
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._requests(link, reader))
                pumps.create_task(self._replies(link, from_server))
        finally:
            for writer in (client, server):
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
            self._links.discard(link)

    async def _requests(self, link: _Link, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await self._start(link, reader)
            async for kind, message in self._messages(reader):
                if link.sends_commit(kind, message[5:]) and self._is_due("cut_request"):
                    link.reset()
                    return
                await self._forward(link.server, message)
        self._close(link.server)

    async def _start(self, link: _Link, reader: asyncio.StreamReader) -> None:
        """Pass on the first message, which has no type; encryption, asked for before, is declined."""
        while True:
            head = await reader.readexactly(8)
            size, code = struct.unpack("!ii", head)
            body = await reader.readexactly(size - 8)
            if code not in (_SSL_REQUEST, _GSS_REQUEST):
                return await self._forward(link.server, head + body)
            await self._forward(link.client, b"N")

    async def _replies(self, link: _Link, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            async for kind, message in self._messages(reader):
                committed = kind == b"C" and message[5:] == b"COMMIT\0"
                if committed and self._is_due("cut_reply"):
                    link.reset()
                    return
                await self._forward(link.client, message)
        self._close(link.client)

    async def _messages(self, reader: asyncio.StreamReader) -> AsyncIterator[tuple[bytes, bytes]]:
        """Each complete message with its type, until the sender closes."""
        buffer = bytearray()
        while chunk := await reader.read(_CHUNK_BYTES):
            await asyncio.sleep(self._latency_s)  # once for all that came together
            buffer += chunk
            while len(buffer) >= 5 and len(buffer) > (size := int.from_bytes(buffer[1:5], "big")):
                message = bytes(buffer[: size + 1])
                del buffer[: size + 1]
                yield message[:1], message

    def _is_due(self, at: Literal["cut_request", "cut_reply"]) -> bool:
        """Count a COMMIT on its way there or back; True if the connection has to be cut at it."""
        action = self._action
        if action is None or (action == "cut_reply") != (at == "cut_reply"):
            return False
        if self._commits_to_pass:
            self._commits_to_pass -= 1
            return False
        self._action = None
        self._swallowing = action == "blackhole"
        self.fired.set()
        return not self._swallowing

    async def _forward(self, writer: asyncio.StreamWriter, message: bytes) -> None:
        if not self._swallowing:
            writer.write(message)
            await writer.drain()

    def _close(self, writer: asyncio.StreamWriter) -> None:
        """Pass on the end of a connection; in a black hole the other side does not learn of it."""
        if not self._swallowing:
            writer.close()


def is_commit(query: bytes) -> bool:
    """Whether the last statement of `query` ends a transaction by committing it."""
    return _COMMIT.search(query) is not None
