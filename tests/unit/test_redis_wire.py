"""A connection to Redis, byte by byte: which answers belong to what was asked."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from redis.exceptions import NoScriptError, OutOfMemoryError, ResponseError

from frontend_api.redis_wire import Wire

pytestmark = pytest.mark.unit


class Transport:
    """Remembers what was written."""

    def __init__(self) -> None:
        self.sent = b""
        self.closed = False
        self.protocol: asyncio.Protocol | None = None

    def set_protocol(self, protocol: asyncio.Protocol) -> None:
        self.protocol = protocol

    def write(self, data: bytes) -> None:
        self.sent += data

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True


class World:
    """One wire, and what it called back with."""

    def __init__(self) -> None:
        self.transport = Transport()
        self.said: list[Any] = []
        writer = SimpleNamespace(transport=self.transport)
        self.wire = Wire(SimpleNamespace(_writer=writer, _close=lambda: None))
        assert self.transport.protocol is self.wire

    def ask(self, wanted: int) -> None:
        self.wire.exchange(b"ask", wanted, self.said.append)


def test_answers_may_come_in_pieces_and_all_of_them_together() -> None:
    world = World()
    world.ask(3)
    data = b"$5\r\nh\xc3\xa9ll\r\n*2\r\n:1\r\n$-1\r\n$-1\r\n"
    for at in range(len(data)):
        assert world.said == []
        world.wire.data_received(data[at : at + 1])
    assert world.said == [["h\u00e9ll", [1, None], None]]
    world.ask(1)
    world.wire.data_received(b">2\r\n+news\r\n+nobody asked for\r\n+PONG\r\n")
    assert world.said[1:] == [["PONG"]]
    assert world.wire.open


def test_a_refusal_is_an_answer() -> None:
    world = World()
    world.ask(3)
    world.wire.data_received(b"-NOSCRIPT No matching script.\r\n-OOM command\r\n-ERR else\r\n")
    [answers] = world.said
    assert [type(answer) for answer in answers] == [NoScriptError, OutOfMemoryError, ResponseError]


def test_who_waits_is_told_once_that_no_answers_come() -> None:
    ends: list[Callable[[Wire], None]] = [
        lambda wire: wire.eof_received(),
        lambda wire: wire.connection_lost(None),
        lambda wire: wire.data_received(b"no answer of Redis\r\n"),
        lambda wire: wire.data_received(b"$1\r\n\xff\r\n"),
        lambda wire: wire.data_received(b"+one\r\n+two\r\n+one too many\r\n"),
    ]
    for end in ends:
        world = World()
        world.ask(2)
        end(world.wire)
        world.wire.connection_lost(None)
        assert len(world.said) == 1
        assert isinstance(world.said[0], Exception)
        assert not world.wire.open


def test_what_nobody_asked_for_is_never_taken_for_the_next_answer() -> None:
    world = World()
    world.wire.data_received(b"+late\r\n")
    assert not world.wire.open


def test_after_its_end_nobody_is_called() -> None:
    world = World()
    world.ask(1)
    world.wire.close()
    world.wire.data_received(b"+late\r\n")
    assert world.said == []
