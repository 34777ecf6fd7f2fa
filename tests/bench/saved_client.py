"""How long it takes from a 202 to the event that says the post is saved, in a process of its own.

`python -m tests.bench.saved_client FILE` reads a plan (JSON: `port`, `tokens` and `topics` of the authors,
`seconds`, `warm_s`, `rate`, `first`) from its standard input. Each author has a stream of events
open. Without a rate one post is sent after the other, each when the one before is saved; with one,
posts fall due at equal distances. It writes the seconds and what was accepted to the file.
"""

import asyncio
import json
import re
import resource
import sys
import time
from pathlib import Path
from typing import Any

import uvloop

from tests.bench.http_client import body_of

_SAVED = re.compile(rb'event: command\.saved\n(?:id: [^\n]*\n)?data: \{"command":"([0-9a-f-]{36})"')
_CHARS = 240


class Author:
    """One author: a stream of events, and a connection to post on."""

    def __init__(self, port: int, token: str, topic: str) -> None:
        self._port, self._token, self._topic = port, token, topic
        self.told: dict[str, float] = {}
        """When the stream said that a command is saved."""
        self.waiting: dict[str, asyncio.Event] = {}
        self._posts: Any = None
        self._stream: Any = None
        self._reading: asyncio.Task[None] | None = None
        self._one = asyncio.Lock()

    async def open(self) -> None:
        self._posts = await asyncio.open_connection("127.0.0.1", self._port)
        self._stream = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._stream
        writer.write(self._head("GET", "/v1/events") + b"\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"no stream of events: {head[:100]!r}")
        self._reading = asyncio.create_task(self._read(reader))

    def _head(self, method: str, path: str) -> bytes:
        return (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n"
            f"Authorization: Bearer {self._token}\r\n"
        ).encode()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        text = b""
        while chunk := await reader.read(65_536):
            now = time.monotonic()
            text += chunk
            end = 0
            for match in _SAVED.finditer(text):
                command, end = match[1].decode(), match.end()
                self.told[command] = now
                if command in self.waiting:
                    self.waiting[command].set()
            text = text[end:][-4096:]

    async def post(self, number: int) -> tuple[str, str, float]:
        """Command, row, and when the 202 came."""
        body = json.dumps({"body": body_of(number, _CHARS)}).encode()
        async with self._one:
            reader, writer = self._posts
            writer.write(
                self._head("POST", f"/v1/topics/{self._topic}/posts")
                + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
                + body
            )
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head.lower())
            answer = await reader.readexactly(int(length[1]) if length else 0)
        accepted = time.monotonic()
        if not head.startswith(b"HTTP/1.1 202"):
            raise RuntimeError(f"{head[:30]!r} {answer[:300]!r}")
        row = json.loads(answer)
        return row["command"], row["id"], accepted

    async def saved(self, command: str) -> float:
        """When its author was told. Raises TimeoutError after 30 s."""
        event = self.waiting[command] = asyncio.Event()
        if command not in self.told:
            async with asyncio.timeout(30):
                await event.wait()
        del self.waiting[command]
        return self.told[command]

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        for _, writer in (self._posts, self._stream):
            writer.close()


async def run(plan: dict[str, Any]) -> dict[str, Any]:
    pairs = zip(plan["tokens"], plan["topics"], strict=True)
    authors = [Author(plan["port"], token, topic) for token, topic in pairs]
    for author in authors:
        await author.open()
    found: list[tuple[float, float]] = []
    accepted: list[tuple[int, str]] = []

    async def one(number: int) -> None:
        author = authors[number % len(authors)]
        command, row, at = await author.post(number)
        accepted.append((number, row))
        found.append((at, await author.saved(command) - at))

    start = time.monotonic()
    since = start + plan["warm_s"]
    until = since + plan["seconds"]
    number = plan["first"]
    if plan["rate"] is None:
        while time.monotonic() < until:
            await one(number)
            number += 1
    else:
        tasks = []
        due = start
        while due < until:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            tasks.append(asyncio.create_task(one(number)))
            number += 1
            due += 1 / plan["rate"]
        await asyncio.gather(*tasks)
    for author in authors:
        await author.close()
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": [seconds for at, seconds in found if since <= at],
        "accepted": accepted,
        "cpu_s": used.ru_utime + used.ru_stime,
    }


def main() -> None:
    told = uvloop.run(run(json.loads(sys.stdin.read())))
    Path(sys.argv[1]).write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main()
