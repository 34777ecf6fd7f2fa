"""Limits of size, time and number, over real sockets: slow and oversized clients, and the others."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from frontend_api.authentication import mint_token
from tests.fakes import SECRET
from tests.listening import TIMEOUT_S, listening

pytestmark = pytest.mark.contract

TOKEN = mint_token(SECRET, "ada")
HEAD = f"Host: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with listening() as (port, _):
        yield port


async def exchange(port: int, *parts: bytes, pause_s: float = 0) -> tuple[bytes, float]:
    """Send the parts; all that comes back until the server closes, and after how long."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    begun = time.perf_counter()
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause_s)
        answer = await asyncio.wait_for(reader.read(), 10)
    except ConnectionError:
        answer = b""
    finally:
        writer.close()
    return answer, time.perf_counter() - begun


def problem(answer: bytes) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head, answer
    assert b"server:" not in head.lower()
    found: dict[str, Any] = json.loads(body)
    assert int(head.split()[1]) == found["status"]
    return found


def assert_cut(answer: bytes) -> None:
    """A client that still sends when the connection is closed may lose the answer."""
    assert not answer or problem(answer)["code"] == "request_timeout"


async def test_a_head_that_never_ends_is_cut(port: int) -> None:
    drip = [b"GET /livez HTTP/1.1\r\n", *(b"X-%d: 1\r\n" % n for n in range(40))]
    answer, seconds = await exchange(port, *drip, pause_s=0.02)
    assert_cut(answer)
    assert seconds < TIMEOUT_S + 2


async def test_a_connection_that_says_nothing_is_cut(port: int) -> None:
    answer, seconds = await exchange(port)
    assert problem(answer)["code"] == "request_timeout"
    assert seconds < TIMEOUT_S + 2


async def test_a_second_head_that_never_ends_is_cut(port: int) -> None:
    good = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    answer, seconds = await exchange(port, good, b"GET /livez HTTP/1.1\r\nX", pause_s=0.1)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"request_timeout" in answer
    assert seconds < TIMEOUT_S + 2


async def test_a_body_that_stalls_is_cut(port: int) -> None:
    head = f"POST /v1/topics HTTP/1.1\r\n{HEAD}Content-Length: 100\r\n\r\n{{".encode()
    answer, seconds = await exchange(port, head)
    assert problem(answer)["code"] == "request_timeout"
    assert seconds < TIMEOUT_S + 2


async def test_a_body_that_drips_is_cut(port: int) -> None:
    head = f"POST /v1/topics HTTP/1.1\r\n{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode()
    answer, seconds = await exchange(port, head, *[b"1\r\n \r\n"] * 40, pause_s=0.02)
    assert_cut(answer)
    assert seconds < TIMEOUT_S + 2


async def test_large_heads_are_refused(port: int) -> None:
    head = b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Large: " + b"a" * 200_000 + b"\r\n\r\n"
    answer, _ = await exchange(port, head)
    if answer:  # the answer may be lost when the server closes on unread bytes
        assert problem(answer)["code"] == "header_too_large"
    async with asyncio.timeout(5):
        good, _ = await exchange(
            port, b"GET /livez HTTP/1.1\r\nConnection: close\r\nHost: x\r\n\r\n"
        )
    assert good.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("framing", ["Content-Length: 50000000", "Transfer-Encoding: chunked"])
async def test_large_bodies_are_refused_early(port: int, framing: str) -> None:
    head = f"POST /v1/topics HTTP/1.1\r\n{HEAD}{framing}\r\n\r\n".encode()
    chunks = [b"10000\r\n" + b"x" * 65_536 + b"\r\n"] * 3 if "chunked" in framing else []
    answer, seconds = await exchange(port, head, *chunks)
    assert problem(answer)["code"] == "body_too_large"
    assert seconds < TIMEOUT_S + 1
    assert b"xxxx" not in answer


@pytest.mark.parametrize(
    "raw",
    [
        b"garbage\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: zq7echo\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nBad Name: 1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\n1",
        b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\nContent-Length: 1\r\n\r\n1",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzq7echo\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 1\r\n\r\n1",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_a_problem(port: int, raw: bytes) -> None:
    answer, _ = await exchange(port, raw)
    assert problem(answer)["code"] == "bad_request"
    assert b"zq7echo" not in answer


async def test_a_client_that_asks_first_is_told_before_it_sends(port: int) -> None:
    head = f"POST /v1/topics HTTP/1.1\r\n{HEAD}Expect: 100-continue\r\n"
    answer, _ = await exchange(port, f"{head}Content-Length: 5000000\r\n\r\n".encode())
    assert problem(answer)["code"] == "body_too_large"
    body = b'{"title":"T","body":"B"}'
    sent = f"{head}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    answer, _ = await exchange(port, sent, body, pause_s=0.05)
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202")


async def test_others_are_served_while_many_are_slow(port: int) -> None:
    slow = [await asyncio.open_connection("127.0.0.1", port) for _ in range(500)]
    for _, writer in slow:
        writer.write(b"GET /livez HTTP/1.1\r\nX: ")
    good = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer, seconds = await exchange(port, good)
    assert answer.startswith(b"HTTP/1.1 200")
    assert seconds < 2
    async with asyncio.timeout(TIMEOUT_S + 5):
        for reader, writer in slow:
            assert b"request_timeout" in await reader.read()
            writer.close()


async def test_too_many_submissions_at_once_are_turned_away() -> None:
    async with listening(max_in_flight=1) as (port, backends):
        entered, go_on = asyncio.Event(), asyncio.Event()
        publish = backends.log.publish

        async def slow(*args: Any) -> Any:
            entered.set()
            await go_on.wait()
            return await publish(*args)

        backends.log.publish = slow  # type: ignore[method-assign, assignment]
        body = b'{"title":"T","body":"B"}'
        request = (
            f"POST /v1/topics HTTP/1.1\r\n{HEAD}Connection: close\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode() + body
        first = asyncio.create_task(exchange(port, request))
        await entered.wait()
        second, _ = await exchange(port, request)
        assert problem(second)["code"] == "overloaded"
        assert b"retry-after" in second
        go_on.set()
        assert (await first)[0].startswith(b"HTTP/1.1 202")
