"""The stream of events over HTTP: what is sent, to whom, until when, and how it ends."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from frontend_api import event_stream
from frontend_api.authentication import mint_token
from schema.identifiers import user_id_for
from tests.fakes import SECRET, FakeBackends
from tests.installation import eventually
from tests.listening import listening

pytestmark = pytest.mark.contract


class Stream:
    """One open stream, as a browser has it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.head = b""

    async def text(self) -> str:
        """The next chunk; empty at the end."""
        async with asyncio.timeout(5):
            size = int(await self.reader.readline(), 16)
            return (await self.reader.readexactly(size + 2)).decode().removesuffix("\r\n")

    async def block(self) -> dict[str, str]:
        """The fields of the next chunk."""
        lines = (line.partition(": ") for line in (await self.text()).splitlines() if line)
        return {name: value for name, _, value in lines}

    async def event(self) -> tuple[str, str | None, Any]:
        block = await self.block()
        return block["event"], block.get("id"), json.loads(block["data"])


@asynccontextmanager
async def stream(
    port: int, user: str = "ada", last: str | None = None, ttl_s: float = 60, query: str = ""
) -> AsyncIterator[Stream]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    token = mint_token(SECRET, user, ttl_s=ttl_s)
    head = f"GET /v1/events{query} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
    if last is not None:
        head += f"Last-Event-ID: {last}\r\n"
    writer.write(f"{head}\r\n".encode())
    made = Stream(reader, writer)
    made.head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    try:
        yield made
    finally:
        writer.close()


def tell(backends: FakeBackends, at: int, user: str = "ada", **more: Any) -> str:
    """Let the outcomes topic have an outcome of a user. Returns the id of its command."""
    command = str(uuid.uuid4())
    outcome = {
        "command_id": command,
        "author_id": str(user_id_for(user)),
        "outcome": "saved",
        "seq": at,
    }
    backends.events.take(0, at, json.dumps(outcome | more).encode())
    return command


async def test_a_stream_says_how_it_is_to_be_read() -> None:
    async with listening() as (port, backends), stream(port) as ada:
        assert ada.head.startswith(b"HTTP/1.1 200")
        head = ada.head.lower()
        assert b"content-type: text/event-stream" in head
        assert b"cache-control: no-store" in head
        assert b"x-accel-buffering: no" in head
        assert b"content-length" not in head
        assert await ada.block() == {"retry": "2000", "id": "0-"}
        command = tell(backends, 0, rows=[{"type": "post"}])
        data = {
            "command": command,
            "state": "saved",
            "outcome": "saved",
            "rows": [{"type": "post"}],
        }
        assert await ada.event() == ("command.saved", "0-0", data)


async def test_a_rejection_comes_with_its_notice() -> None:
    async with listening() as (port, backends), stream(port) as ada:
        await ada.block()
        problem = {"code": "forbidden", "status": 403}
        command = tell(backends, 0, outcome="rejected", problem=problem, notice="n1")
        name, id_, data = await ada.event()
        assert (name, id_, data["problem"], data["notice"]) == (
            "command.rejected", None, problem, "n1",
        )  # fmt: skip
        assert await ada.event() == ("notice", "0-0", {"notice": "n1", "command": command})


async def test_nobody_is_told_of_what_is_anothers() -> None:
    async with listening() as (port, backends):
        for at in range(3):
            tell(backends, at, "ada", problem={"detail": "private"})
        async with (
            stream(port, "ben") as live,
            stream(port, "ben", last="0-0") as replayed,
            stream(port, "ben", last="nonsense") as reset,
        ):
            for at in range(3, 6):
                tell(backends, at, "ada")
            mine = tell(backends, 6, "ben")
            for open_ in (live, replayed, reset):
                await open_.block()
            assert await reset.event() == ("reset", "0-2", {})
            for open_ in (live, replayed, reset):
                name, id_, data = await open_.event()
                assert (name, id_, data["command"]) == ("command.saved", "0-6", mine)


@pytest.mark.parametrize("by_header", [True, False])
async def test_a_stream_goes_on_where_it_was_broken(by_header: bool) -> None:
    async with listening() as (port, backends):
        for at in range(4):
            tell(backends, at)
        how: dict[str, Any] = {"last": "0-1"} if by_header else {"query": "?last_event_id=0-1"}
        async with stream(port, **how) as ada:
            assert "id" not in await ada.block()
            tell(backends, 4)
            assert [(await ada.event())[1] for _ in range(3)] == ["0-2", "0-3", "0-4"]


async def test_a_stream_needs_a_token_and_ends_with_it() -> None:
    async with listening() as (port, _):
        async with stream(port, ttl_s=-1) as refused:
            assert refused.head.startswith(b"HTTP/1.1 401")
        async with stream(port, ttl_s=1.2) as ada:
            assert "retry" in await ada.block()
            assert await ada.block() == {"retry": "2000"}
            assert await ada.block() == {}


async def test_streams_are_limited_and_a_client_that_goes_gives_its_place_back() -> None:
    async with listening(streams_per_author=2, max_streams=3) as (port, backends):
        async with stream(port), stream(port), stream(port, "ben"):
            async with stream(port) as third:
                assert third.head.startswith(b"HTTP/1.1 429")
                assert b"retry-after" in third.head.lower()
            async with stream(port, "eve") as fourth:
                assert fourth.head.startswith(b"HTTP/1.1 503")
            assert backends.events.count == 3
        await eventually(lambda: backends.events.count == 0, 5, "the streams to be closed")
        async with stream(port) as ada:
            assert ada.head.startswith(b"HTTP/1.1 200")


async def test_a_quiet_stream_is_kept_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "PING_S", 0.05)
    async with listening() as (port, _), stream(port) as ada:
        await ada.block()
        assert await ada.text() == await ada.text() == ": ping\n\n"


async def test_a_shutdown_ends_open_streams_at_once() -> None:
    async with listening() as (port, backends):
        opened = [stream(port, f"user{n}") for n in range(20)]
        streams = [await o.__aenter__() for o in opened]
        for one in streams:
            await one.block()
        began = asyncio.get_running_loop().time()
        # Leaving the block shuts the server down; see below.
    took = asyncio.get_running_loop().time() - began
    for one in streams:
        assert await one.block() == {"retry": "2000"}
        assert await one.block() == {}
        one.writer.close()
    assert took < 2
    assert backends.events.count == 0
