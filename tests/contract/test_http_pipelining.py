"""Requests take turns on one connection, whatever comes when; what cannot be read ends it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import h11
import pytest

from frontend_api.http_server import server

pytestmark = pytest.mark.contract

PLAIN = b"GET /%b HTTP/1.1\r\nHost: here\r\n\r\n"
CHUNKED = (
    b"POST /%b HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nLate: x\r\n\r\n"
)
"""One with a trailer."""


class Application:
    """Answers with the path, `/1` only once `go` is set. `/stream` comes in parts of unknown number."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.asked: asyncio.Queue[str] = asyncio.Queue()
        self.more: list[tuple[bytes, bytes]] = []
        self.port = 0
        self.on_scope: Callable[[list[tuple[bytes, bytes]]], None] = lambda headers: None

    async def has_read(self) -> None:
        """Wait until the server must have read what was sent before this."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        answers = Answers(reader)
        for _ in range(3):
            writer.write(PLAIN % b"other")
            await answers.next()
            assert await self.asked.get() == "/other"
        writer.close()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        body = (await receive())["body"]
        self.on_scope(scope["headers"])
        self.asked.put_nowait(scope["path"])
        if scope["path"] == "/1":
            await self.go.wait()
        parts = [scope["path"].encode(), body]
        headers = list(self.more)
        if scope["path"] != "/stream":
            headers.append((b"content-length", str(sum(map(len, parts))).encode()))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body"})


@asynccontextmanager
async def connected(
    head_timeout_s: float = 5.0,
) -> AsyncIterator[tuple[Application, asyncio.StreamReader, Any]]:
    app = Application()
    http = server(app, "127.0.0.1", 0, head_timeout_s)
    task = asyncio.create_task(http._serve())
    while not http.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    app.port = http.servers[0].sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", app.port)
    try:
        yield app, reader, writer
    finally:
        app.go.set()
        writer.close()
        http.should_exit = True
        await task


class Answers:
    """What a client of the standard makes of the bytes that come."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self.reader = reader
        self.connection = h11.Connection(h11.CLIENT)

    async def next(self) -> tuple[h11.Response, bytes]:
        if self.connection.our_state is h11.DONE:
            self.connection.start_next_cycle()
        self.connection.send(h11.Request(method="GET", target="/", headers=[("host", "here")]))
        self.connection.send(h11.EndOfMessage())
        head, body = None, b""
        while True:
            event = self.connection.next_event()
            if event is h11.NEED_DATA:
                self.connection.receive_data(await asyncio.wait_for(self.reader.read(65536), 5))
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            else:
                assert isinstance(event, h11.EndOfMessage)
                assert head is not None
                return head, body


@pytest.mark.parametrize("first", [PLAIN, CHUNKED], ids=["plain", "chunked"])
@pytest.mark.parametrize("second", [PLAIN, CHUNKED], ids=["plain", "chunked"])
@pytest.mark.parametrize("together", [True, False])
async def test_what_comes_early_waits_for_its_turn(
    first: bytes, second: bytes, together: bool
) -> None:
    async with connected() as (app, reader, writer):
        answers = Answers(reader)
        if together:
            writer.write(first % b"1" + second % b"2")
            assert await app.asked.get() == "/1"
        else:
            writer.write(first % b"1")
            assert await app.asked.get() == "/1"
            writer.write(second % b"2")
        await app.has_read()
        assert app.asked.empty()
        app.go.set()
        assert (await answers.next())[1] == b"/1"
        assert (await answers.next())[1] == b"/2"
        writer.write(PLAIN % b"3")
        assert (await answers.next())[1] == b"/3"


async def test_what_looks_like_a_request_may_be_the_rest_of_another() -> None:
    async with connected() as (app, reader, writer):
        writer.write(b"GET /x HTTP/1.1\r\nX-Note: ")
        await app.has_read()
        writer.write(PLAIN % b"smuggled")
        assert (await Answers(reader).next())[1] == b"/x"
        assert await app.asked.get() == "/x"
        assert app.asked.empty()


async def test_an_answer_of_unknown_length_comes_in_chunks() -> None:
    async with connected() as (app, reader, writer):
        app.go.set()
        answers = Answers(reader)
        for _ in range(2):
            writer.write(b"POST /stream HTTP/1.1\r\nHost: here\r\nContent-Length: 3\r\n\r\nabc")
            head, body = await answers.next()
            assert body == b"/streamabc"
            assert (b"transfer-encoding", b"chunked") in head.headers


async def test_who_wants_to_close_is_closed_on() -> None:
    async with connected() as (app, reader, writer):
        app.go.set()
        writer.write(b"GET /last HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        head, _ = await Answers(reader).next()
        assert (b"connection", b"close") in head.headers
        assert await asyncio.wait_for(reader.read(), 5) == b""


async def test_a_header_of_the_answer_cannot_begin_another() -> None:
    async with connected() as (app, reader, writer):
        app.go.set()
        app.more = [(b"location", b"/a\r\nset-cookie: b")]
        writer.write(PLAIN % b"x")
        found = await asyncio.wait_for(reader.read(), 5)
        assert b"set-cookie" not in found


async def test_what_cannot_be_read_does_not_take_the_answer_before_it() -> None:
    async with connected() as (app, reader, writer):
        writer.write(PLAIN % b"1" + b"garbage\r\n\r\n")
        assert await app.asked.get() == "/1"
        await app.has_read()
        app.go.set()
        found = await asyncio.wait_for(reader.read(), 5)
        assert found.startswith(b"HTTP/1.1 200")
        assert found.endswith(b"/1")


async def test_headers_are_what_stands_in_the_head() -> None:
    seen: list[list[tuple[bytes, bytes]]] = []
    async with connected() as (app, reader, writer):
        app.go.set()
        app.on_scope = seen.append
        writer.write(
            b"POST /x HTTP/1.1\r\nHost: here\r\nX-Note:   a b \t \r\n"
            b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nAuthorization: late\r\n\r\n"
        )
        assert (await Answers(reader).next())[1] == b"/xhi"
        names = {name for name, _ in seen[0]}
        assert names == {b"host", b"x-note", b"transfer-encoding"}
        assert (b"x-note", b"a b") in seen[0]


async def test_another_protocol_is_not_granted() -> None:
    async with connected() as (app, reader, writer):
        app.go.set()
        wish = b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
        writer.write(b"GET /x HTTP/1.1\r\nHost: here\r\n" + wish)
        head, body = await Answers(reader).next()
        assert body == b"/x"
        assert (b"connection", b"close") in head.headers
        assert await asyncio.wait_for(reader.read(), 5) == b""


@pytest.mark.parametrize("drip", [b"\r\n", b"G"], ids=["empty lines", "a head"])
async def test_a_connection_is_not_kept_by_what_is_no_request(drip: bytes) -> None:
    async with connected(head_timeout_s=0.5) as (app, reader, writer):
        app.go.set()
        writer.write(PLAIN % b"x")
        assert (await Answers(reader).next())[1] == b"/x"
        writer.write(drip)
        found = await asyncio.wait_for(reader.read(), 5)
        assert found.startswith(b"HTTP/1.1 408")
