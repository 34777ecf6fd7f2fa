"""An answer's head and the first part of its body are one packet; neither waits for what comes late."""

import asyncio
from typing import cast

import pytest

from frontend_api.http_server import InOnePiece

pytestmark = pytest.mark.unit


class Wire:
    """A transport that keeps what was written, write by write."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.writes.append(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


@pytest.fixture
async def made() -> tuple[Wire, InOnePiece]:
    wire = Wire()
    return wire, InOnePiece(cast(asyncio.Transport, wire), asyncio.get_running_loop())


async def test_a_head_leaves_with_its_body(made: tuple[Wire, InOnePiece]) -> None:
    wire, answers = made
    for name in (b"1", b"2"):
        answers.write(b"head" + name)
        answers.write(b"body" + name)
        answers.write(b"more" + name)
        answers.end()
    await asyncio.sleep(0)
    assert wire.writes == [b"head1body1", b"more1", b"head2body2", b"more2"]


async def test_a_head_does_not_wait_for_a_body_that_comes_later(
    made: tuple[Wire, InOnePiece],
) -> None:
    wire, answers = made
    answers.write(b"head")
    assert wire.writes == []
    await asyncio.sleep(0)
    assert wire.writes == [b"head"]
    answers.write(b"event")
    assert wire.writes == [b"head", b"event"]


async def test_an_answer_without_a_body_is_sent_before_the_next(
    made: tuple[Wire, InOnePiece],
) -> None:
    wire, answers = made
    answers.write(b"head1")
    answers.end()
    answers.write(b"head2")
    answers.write(b"body2")
    await asyncio.sleep(0)
    assert wire.writes == [b"head1", b"head2body2"]


async def test_closing_sends_what_is_held_and_a_lost_connection_drops_it(
    made: tuple[Wire, InOnePiece],
) -> None:
    wire, answers = made
    answers.write(b"head")
    answers.close()
    assert wire.writes == [b"head"]
    assert answers.is_closing()
    answers.end()
    answers.write(b"late")
    await asyncio.sleep(0)
    assert wire.writes == [b"head"]
