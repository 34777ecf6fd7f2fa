"""The measuring client against a small server, and the checks that tell a wrong run from a fast one."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from tests.bench.http_client import Answers, Plan, Sender, body_of
from tests.bench.http_load import bodies, load, must_agree, must_be_clean, nearest_rank
from tests.bench.result import WrongRun

pytestmark = [pytest.mark.unit, pytest.mark.timeout(30)]

Answer = Callable[[int, str], tuple[int, dict[str, object]]]
"""Status and body of the answer to the nth post, which has this text."""


class Server:
    """Answers posts on keep-alive connections, in pieces, and remembers what it was sent."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.port = 0
        self.bodies: list[str] = []
        self.heads: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not reader.at_eof():
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                break
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
            body = json.loads(await reader.readexactly(length))["body"]
            number = len(self.bodies)
            self.bodies.append(body)
            self.heads.append(head)
            status, answer = self.answer(number, body)
            if status == 0:
                break
            out = json.dumps(answer).encode()
            writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n" % (status, len(out)))
            await writer.drain()
            await asyncio.sleep(0)
            writer.write(b"\r\n" + out)
        writer.close()


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[Server]:
    server = Server(answer)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    async with listening:
        yield server


def accept(number: int, body: str) -> tuple[int, dict[str, object]]:
    return 202, {"id": str(uuid.uuid4())}


def plan(server: Server, **more: object) -> Plan:
    senders = [Sender(f"/v1/topics/{n}/posts", f"token-{n}") for n in range(3)]
    made = Plan(server.port, senders, connections=4, seconds=0.3, last_answer_s=0.3)
    return replace(made, **more)  # type: ignore[arg-type]


async def test_each_request_is_a_post_of_its_own_and_all_that_were_accepted_are_told() -> None:
    async with serving(accept) as server:
        answers = must_be_clean(await load(plan(server)), "the server")
    assert len(set(server.bodies)) == len(server.bodies) == len(answers.accepted)
    assert sorted(bodies(answers.accepted).values()) == sorted(server.bodies)
    assert {len(body) for body in server.bodies} == {240}
    assert {b"Bearer token-%d" % n in b"".join(server.heads) for n in range(3)} == {True}
    assert 0 < answers.cpu_s < 1
    assert answers.rate == pytest.approx(len(answers.seconds) / 0.3)


async def test_an_open_loop_sends_at_its_rate_and_no_more() -> None:
    async with serving(accept) as server:
        answers = must_be_clean(await load(plan(server, rate=100)), "the server")
    assert len(answers.accepted) == 30
    assert all(0 < seconds < 0.3 for seconds in answers.seconds)


async def test_several_clients_have_their_part_each() -> None:
    async with serving(accept) as server:
        answers = must_be_clean(await load(plan(server, rate=100), clients=2), "the server")
    assert len(bodies(answers.accepted)) == len(set(server.bodies)) == 30


async def test_another_status_is_a_wrong_run() -> None:
    async with serving(lambda n, b: (500, {}) if n == 7 else accept(n, b)) as server:
        answers = await load(plan(server))
        assert answers.statuses["500"] == 1
        with pytest.raises(WrongRun, match="500"):
            must_be_clean(answers, "the server")


async def test_a_status_that_may_come_is_none_and_is_not_counted_as_accepted() -> None:
    async with serving(lambda n, b: (503, {}) if n % 2 else accept(n, b)) as server:
        answers = must_be_clean(await load(plan(server, also=(503,))), "the server")
    assert len(answers.accepted) == answers.statuses["202"] < len(server.bodies)


async def test_a_connection_that_is_cut_is_a_wrong_run() -> None:
    async with serving(lambda n, b: (0, {}) if n == 7 else accept(n, b)) as server:
        with pytest.raises(WrongRun, match="lost 1"):
            must_be_clean(await load(plan(server)), "the server")


async def test_what_waits_for_a_connection_has_waited_since_it_was_due() -> None:
    class Slow(Server):
        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(0.5)  # nothing of what falls due in this time is answered
            await super().serve(reader, writer)

    server = Slow(accept)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    async with listening:
        wanted = plan(server, rate=50, connections=1, seconds=1.0)
        answers = must_be_clean(await load(wanted), "the server")
    assert len(answers.accepted) == 50
    assert all(0 < seconds < 1 for seconds in answers.seconds)
    # Fifteen fell due in its first 0.3 s. Only the first of them was under way for so long.
    assert sum(seconds > 0.2 for seconds in answers.seconds) >= 15


async def test_what_is_never_answered_is_a_wrong_run() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    listening = await asyncio.start_server(silent, "127.0.0.1", 0)
    server = Server(accept)
    server.port = listening.sockets[0].getsockname()[1]
    async with listening:
        with pytest.raises(WrongRun, match="unanswered 4"):
            must_be_clean(await load(plan(server)), "the server")


def test_nothing_answered_is_a_wrong_run() -> None:
    with pytest.raises(WrongRun, match="nothing"):
        must_be_clean(Answers(), "the server")


def test_an_id_given_twice_is_a_wrong_run() -> None:
    id_ = str(uuid.uuid4())
    with pytest.raises(WrongRun, match="twice"):
        bodies([(1, id_), (2, id_)])


def test_counts_and_contents_must_agree() -> None:
    one, other, third = uuid.uuid4(), uuid.uuid4(), uuid.uuid4()
    wanted = {one: body_of(1, 240), other: body_of(2, 240)}
    must_agree(wanted.items(), wanted)
    for found in (
        [(one, wanted[one])],
        [*wanted.items(), (third, body_of(3, 240))],
        [*wanted.items(), (one, wanted[one])],
        [(one, wanted[one]), (other, wanted[one])],
        [(one, wanted[one]), (third, wanted[other])],
    ):
        with pytest.raises(WrongRun):
            must_agree(found, wanted)


@pytest.mark.parametrize(("percent", "wanted"), [(50, 5), (99, 10), (100, 10), (1, 1), (10, 1)])
def test_percentiles_are_figures_that_were_measured(percent: float, wanted: float) -> None:
    assert nearest_rank([10, 1, 9, 2, 8, 3, 7, 4, 6, 5], percent) == wanted
