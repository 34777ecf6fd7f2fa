"""Clients that do not read what they asked for: they are cut, cost little, and harm nobody."""

import asyncio
import json
import socket
import time
import uuid
from datetime import UTC, datetime
from typing import Any

import psutil
import pytest

from frontend_api.authentication import mint_token
from schema.identifiers import user_id_for
from tests.fakes import SECRET, FakeBackends
from tests.installation import eventually
from tests.listening import TIMEOUT_S, listening

pytestmark = pytest.mark.contract

MANY = 50
TOKEN = mint_token(SECRET, "ada")


class SlowReader:
    """A client that sends its request and then reads nothing."""

    def __init__(self, port: int, path: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
        )

    def __enter__(self) -> "SlowReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def tell(backends: FakeBackends, at: int) -> None:
    outcome = {
        "command_id": str(uuid.uuid4()),
        "author_id": str(user_id_for("ada")),
        "outcome": "rejected",
        "seq": at,
        "problem": {"detail": "x" * 5_000},
    }
    backends.events.take(0, at, json.dumps(outcome).encode())


async def livez(port: int) -> float:
    """How long a small request of somebody else takes."""
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 200")
    writer.close()
    return time.perf_counter() - began


async def test_slow_readers_of_events_are_cut_and_the_fast_one_misses_nothing() -> None:
    async with listening(streams_per_author=MANY + 1) as (port, backends):
        slow = [SlowReader(port, "/v1/events") for _ in range(MANY)]
        await eventually(lambda: backends.events.count == MANY, 10, "the slow streams")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"GET /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
        writer.write(head.encode())
        await reader.readuntil(b"id: 0-\n\n")
        before = psutil.Process().memory_info().rss
        slowest, rss, seen = 0.0, before, 0
        events = 1000
        for at in range(events):  # 5 MB for each stream, 250 MB for all of them
            tell(backends, at)
            async with asyncio.timeout(10):
                text = await reader.readuntil(b'"}}\n\n')
            assert f"id: 0-{at}\n".encode() in text
            seen += 1
            if at % 100 == 0:
                slowest = max(slowest, await livez(port))
                rss = max(rss, psutil.Process().memory_info().rss)
        assert seen == events
        await eventually(lambda: backends.events.count == 1, TIMEOUT_S + 5, "the slow to be cut")
        await eventually(lambda: len(backends.connections) == 1, 5, "their connections to go")
        assert slowest < 2
        assert rss - before < 25_000_000, "what a slow reader does not read is not kept for him"
        for one in slow:
            one.socket.close()
        writer.close()


async def test_who_does_not_read_his_answer_is_cut() -> None:
    async with listening() as (port, backends):
        _large_list(backends)
        with SlowReader(port, "/v1/topics?limit=100"):
            began = time.perf_counter()
            await eventually(lambda: len(backends.connections) == 1, 5, "the connection")
            await eventually(lambda: not backends.connections, 10, "the slow reader to be cut")
            assert TIMEOUT_S <= time.perf_counter() - began < TIMEOUT_S + 3


async def test_who_reads_slowly_but_steadily_gets_his_answer() -> None:
    async with listening() as (port, backends):
        _large_list(backends)
        with SlowReader(port, "/v1/topics?limit=100") as client:
            client.socket.setblocking(False)
            loop = asyncio.get_running_loop()
            began = time.perf_counter()
            size, wanted = 0, 1
            while size < wanted:
                part = await loop.sock_recv(client.socket, 200_000)
                assert part, "cut"
                if not size:
                    head = part.partition(b"\r\n\r\n")[0].lower()
                    length = head.partition(b"content-length: ")[2].split()[0]
                    wanted = len(head) + 4 + int(length)
                size += len(part)
                await asyncio.sleep(0.1)
            assert size == wanted > 6_000_000
            assert time.perf_counter() - began > 3 * TIMEOUT_S


def _large_list(backends: FakeBackends) -> None:
    kind = backends.catalog["topic"]
    table: dict[uuid.UUID, Any] = backends.database.tables.table("topic")
    for _ in range(100):
        row: dict[str, Any] = dict.fromkeys(kind.columns, 1) | {
            "id": uuid.uuid4(), "title": "x" * 65_000, "locked": False, "author_id": uuid.uuid4(),
            "created_at": datetime.now(tz=UTC), "updated_at": datetime.now(tz=UTC),
        }  # fmt: skip
        table[row["id"]] = row
