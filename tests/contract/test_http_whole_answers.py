"""Requests that come in one piece and answers that leave in one: over real sockets, past ASGI's messages."""

import asyncio
import re
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from frontend_api.authentication import mint_token
from frontend_api.http_server import WholeExchange
from frontend_api.messages import Response
from tests.fakes import SECRET
from tests.listening import listening

pytestmark = pytest.mark.contract

MOST = 2_000
HEAD = f"Host: x\r\nAuthorization: Bearer {mint_token(SECRET, 'ada')}\r\nContent-Type: application/json\r\n"
BODY = '{"title": "A title", "body": "A body"}'
POST = f"POST /v1/topics HTTP/1.1\r\n{HEAD}Content-Length: {len(BODY)}\r\n\r\n{BODY}".encode()


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with listening(max_in_flight=1, max_body_bytes=MOST) as (port, _):
        yield port


async def until_closed(port: int, sent: bytes) -> bytes:
    """All that comes until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    try:
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


async def test_answers_come_one_after_the_other_and_each_has_its_date(port: int) -> None:
    closing = POST.replace(b"Host: x\r\n", b"Host: x\r\nConnection: close\r\n")
    answer = await until_closed(port, POST + POST + closing)
    heads = re.findall(rb"HTTP/1.1 202 .+?\r\n\r\n", answer, re.DOTALL)
    assert len(heads) == 3
    for head in heads:
        assert head.count(b"\r\ndate: ") == head.count(b"\r\ntraceparent: ") == 1
    assert [b"connection: close" in head for head in heads] == [False, False, True]


async def test_the_half_of_a_head_behind_a_request_has_its_time_too(port: int) -> None:
    answer = await until_closed(port, POST + b"GET /v1/topics HTTP/1.1\r\nX")
    assert answer.startswith(b"HTTP/1.1 202")
    assert b"request_timeout" in answer


async def test_a_body_in_chunks_is_measured_even_if_it_is_there_at_once(port: int) -> None:
    chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (MOST + 1, b" " * (MOST + 1))
    head = f"POST /v1/topics HTTP/1.1\r\n{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode()
    answer = await until_closed(port, head + chunk)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"\r\nconnection: close\r\n" in answer


async def test_who_is_refused_for_his_head_is_closed_on(port: int) -> None:
    answer = await until_closed(port, POST.replace(b"Host: x", b"Host: x\r\nContent-Encoding: br"))
    assert answer.startswith(b"HTTP/1.1 415")
    assert b"\r\nconnection: close\r\n" in answer


async def test_an_old_client_is_told_that_it_is_closed_on(port: int) -> None:
    answer = await until_closed(port, POST.replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert answer.startswith(b"HTTP/1.1 202")
    assert b"\r\nconnection: close\r\n" in answer


async def test_who_asks_for_a_head_only_gets_no_body(port: int) -> None:
    head = f"HEAD /v1/topics HTTP/1.1\r\n{HEAD}Content-Encoding: br\r\n\r\n".encode()
    answer = await until_closed(port, head)
    assert answer.startswith(b"HTTP/1.1 415")
    assert answer.endswith(b"\r\n\r\n")


class Flow:
    """A client who reads again when the test says so."""

    def __init__(self) -> None:
        self.write_paused = True
        self.reads = asyncio.Event()

    async def drain(self) -> None:
        await self.reads.wait()


@pytest.mark.parametrize("gone", [False, True])
async def test_an_answer_waits_until_the_one_before_is_read(gone: bool) -> None:
    flow, written = Flow(), list[bytes]()
    cycle: Any = SimpleNamespace(
        flow=flow, disconnected=False, keep_alive=True, default_headers=[], scope={"method": "GET"},
        message_event=asyncio.Event(), on_response=lambda: None, response_complete=False,
    )  # fmt: skip
    answers: Any = SimpleNamespace(write_whole=written.append)
    exchange = WholeExchange(cycle, cast(Any, answers))
    task = asyncio.create_task(exchange.answer(Response(b"body", 200, {})))
    await asyncio.sleep(0)
    assert (written, cycle.response_complete) == ([], False)
    cycle.disconnected = gone
    flow.reads.set()
    await task
    assert written == ([] if gone else [b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody"])
    assert cycle.response_complete is not gone
