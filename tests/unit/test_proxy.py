"""The proxy of the fault tests, against a server that speaks just enough of PostgreSQL's protocol."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator

import pytest

from tests.proxy import Action, PostgresProxy, is_commit

pytestmark = pytest.mark.unit

STARTUP = struct.pack("!ii", 8 + 11, 196_608) + b"user\0anna\0\0"
SSL_REQUEST = struct.pack("!ii", 8, 80_877_103)
COMMIT = b"Q\0\0\0\x0bCOMMIT\0"
COMMITTED = b"C\0\0\0\x0bCOMMIT\0"
READY = b"Z\0\0\0\x05I"


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


class FakeServer:
    """Answers COMMIT to a COMMIT and a data row to all else; remembers what reached it."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.lost = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            self.received.append(await reader.readexactly(len(STARTUP)))
            writer.write(READY)
            while True:
                head = await reader.readexactly(5)
                body = await reader.readexactly(int.from_bytes(head[1:], "big") - 4)
                self.received.append(head + body)
                commits = head + body in (COMMIT, message(b"E", b"\0\0\0\0\0"))
                writer.write((COMMITTED if commits else message(b"D", body)) + READY)
        self.lost.set()
        writer.close()


@pytest.fixture
async def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
async def proxy(server: FakeServer) -> AsyncIterator[PostgresProxy]:
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with PostgresProxy(f"postgresql://anna:s%40lt@localhost:{port}/forum?x=1") as proxy:
        yield proxy
    listener.close()
    await listener.wait_closed()


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, *messages: bytes) -> bytes:
        """What comes back up to the next ReadyForQuery. Raises when the connection ends first."""
        self.writer.write(b"".join(messages))
        return (await self.reader.readuntil(READY)).removesuffix(READY)


@contextlib.asynccontextmanager
async def connected(proxy: PostgresProxy) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(SSL_REQUEST)
    assert await reader.readexactly(1) == b"N"
    client = Client(reader, writer)
    assert await client.ask(STARTUP) == b""
    yield client
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


LOST = (ConnectionError, asyncio.IncompleteReadError)


def test_url_names_the_proxy_and_keeps_the_rest() -> None:
    proxy = PostgresProxy("postgresql://anna:s%40lt@db.example:6432/forum?x=1")
    proxy.port = 1234
    assert proxy.url == "postgresql://anna:s%40lt@127.0.0.1:1234/forum?x=1"


@pytest.mark.parametrize(
    "query", [b"COMMIT", b"commit;", b" END ", b"UPDATE t SET a = 1; COMMIT WORK ;", b"\nEND;\n"]
)
def test_what_commits(query: bytes) -> None:
    assert is_commit(query)


@pytest.mark.parametrize(
    "query", [b"", b"COMMIT PREPARED 'x'", b"SELECT 'commit'", b"SELECT weekend", b"commit; BEGIN"]
)
def test_what_does_not_commit(query: bytes) -> None:
    assert not is_commit(query)


async def test_forwards_both_ways_and_passes_on_the_end(
    proxy: PostgresProxy, server: FakeServer
) -> None:
    big = message(b"Q", b"x" * 3_000_000 + b"\0")
    async with connected(proxy) as client:
        assert await client.ask(COMMIT) == COMMITTED
        client.writer.write(big)
        assert await client.reader.readexactly(len(big)) == b"D" + big[1:]
    await server.lost.wait()
    assert server.received == [STARTUP, COMMIT, big]


async def test_cut_request_keeps_the_commit_from_the_server(
    proxy: PostgresProxy, server: FakeServer
) -> None:
    proxy.arm("cut_request")
    async with connected(proxy) as client:
        query = message(b"Q", b"UPDATE\0")
        assert await client.ask(query) == b"D" + query[1:]
        assert not proxy.fired.is_set()
        with pytest.raises(LOST):
            await client.ask(COMMIT)
    await server.lost.wait()
    assert proxy.fired.is_set()
    assert COMMIT not in server.received


async def test_cut_reply_lets_the_server_commit_and_tells_nobody(
    proxy: PostgresProxy, server: FakeServer
) -> None:
    proxy.arm("cut_reply")
    async with connected(proxy) as client:
        with pytest.raises(LOST) as lost:
            await client.ask(COMMIT)
        assert getattr(lost.value, "partial", b"") == b""
    await server.lost.wait()
    assert proxy.fired.is_set()
    assert server.received[-1] == COMMIT


async def test_an_action_happens_once_and_can_let_some_pass(proxy: PostgresProxy) -> None:
    actions: list[Action] = ["cut_request", "cut_reply"]
    for action in actions:
        proxy.arm(action, passing=2)
        async with connected(proxy) as client:
            assert await client.ask(COMMIT) == COMMITTED
            assert await client.ask(COMMIT) == COMMITTED
            with pytest.raises(LOST):
                await client.ask(COMMIT)
        async with connected(proxy) as client:
            assert await client.ask(COMMIT) == COMMITTED


async def test_finds_a_prepared_commit(proxy: PostgresProxy, server: FakeServer) -> None:
    async with connected(proxy) as client:
        await client.ask(message(b"P", b"s1\0COMMIT\0\0\0"))
        await client.ask(message(b"P", b"s2\0SELECT 1\0\0\0"))
        proxy.arm("cut_request")
        await client.ask(message(b"B", b"\0s2\0\0\0\0\0\0\0"))
        execute = message(b"E", b"\0\0\0\0\0")
        assert await client.ask(execute) == COMMITTED
        await client.ask(message(b"B", b"\0s1\0\0\0\0\0\0\0"))
        with pytest.raises(LOST):
            await client.ask(execute)
    await server.lost.wait()
    assert server.received.count(execute) == 1


async def test_blackhole_swallows_and_keeps_open_until_healed(
    proxy: PostgresProxy, server: FakeServer
) -> None:
    proxy.arm("blackhole")
    async with connected(proxy) as client:
        asking = asyncio.create_task(client.ask(COMMIT))
        await proxy.fired.wait()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(asking), 0.1)
        assert COMMIT not in server.received
        assert not server.lost.is_set()
        proxy.heal()
        with pytest.raises(LOST):
            await asking
    async with connected(proxy) as client:
        assert await client.ask(COMMIT) == COMMITTED


async def test_the_server_does_not_learn_that_a_client_in_a_blackhole_is_gone(
    proxy: PostgresProxy, server: FakeServer
) -> None:
    async with connected(proxy):
        proxy.blackhole()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(server.lost.wait(), 0.1)
    proxy.heal()
    await server.lost.wait()


async def test_reset_all_breaks_open_connections_only(
    proxy: PostgresProxy, server: FakeServer
) -> None:
    async with connected(proxy) as first:
        proxy.reset_all()
        with pytest.raises(LOST):
            await first.reader.readexactly(1)
        await server.lost.wait()
    async with connected(proxy) as second:
        assert await second.ask(COMMIT) == COMMITTED


async def test_latency_delays_each_direction(proxy: PostgresProxy) -> None:
    async with connected(proxy) as client:
        clock = asyncio.get_running_loop().time
        proxy.latency(0.05)
        before = clock()
        await client.ask(COMMIT, COMMIT)
        assert clock() - before >= 0.1


async def test_a_server_that_is_gone_ends_the_connection() -> None:
    listener = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    listener.close()
    await listener.wait_closed()
    async with PostgresProxy(f"postgresql://127.0.0.1:{port}/x") as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
