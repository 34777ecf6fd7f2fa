"""A small HTTP/1.1 client that measures, in a process of its own: it must cost less than the servers.

`python -m tests.bench.http_client FILE` reads a plan (JSON, see `Plan`) from its standard input, sends
what it says over keep-alive connections, and writes what came back (see `Answers`) to the file.
tests/bench/http_load.py starts it. The parts of a request that stay the same are made before the
first one is sent; each post has a number, which makes it a post of its own.
"""

import asyncio
import json
import resource
import sys
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import uvloop

_END_OF_HEAD = b"\r\n\r\n"
_LENGTH = b"content-length:"
_TICK_S = 0.002
_NUMBER_CHARS = 12
KEPT_ERRORS = 5


@dataclass(frozen=True)
class Sender:
    """Who sends, and to where: `path` and the bearer `token`."""

    path: str
    token: str


@dataclass(frozen=True)
class Plan:
    """What to send.

    Without a `rate` each connection sends its next request when it has the answer to the one before
    (closed loop). With one, requests fall due at equal distances, whatever the server does, and
    their time counts from then (open loop); what finds all connections busy waits, `most_waiting` at
    most, and beyond that is given up and counted.

    Posts have `chars` characters and are numbered from `first` on; with `chars` 0 pages are read.
    What happens in the first `warm_s` seconds is sent and kept, but not measured. `expected` is the
    only status that is no mistake, `also` may come besides it.
    """

    port: int
    senders: list[Sender]
    connections: int
    seconds: float
    warm_s: float = 0.0
    rate: float | None = None
    most_waiting: int = 20_000
    chars: int = 240
    first: int = 0
    expected: int = 202
    also: tuple[int, ...] = ()
    headers: str = ""
    last_answer_s: float = 30.0

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        data = json.loads(text)
        senders = [Sender(**sender) for sender in data.pop("senders")]
        return cls(senders=senders, also=tuple(data.pop("also")), **data)


@dataclass
class Answers:
    """What came back. Times are seconds; `ended` by the monotonic clock, which processes share.

    `seconds` are how long the requests took that ended in the measured time, in the order of `ended`.
    `accepted` are the numbers and ids of all posts with the expected status, measured or not.
    `began` and `until` are the measured time. `cpu_s` is what this process took in it. `last` is
    the page that came last.
    """

    began: float = 0.0
    until: float = 0.0
    seconds: list[float] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)
    accepted: list[tuple[int, str]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    lost: int = 0
    given_up: int = 0
    unanswered: int = 0
    cpu_s: float = 0.0
    last: str = ""

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.seconds) / (self.until - self.began)

    @classmethod
    def from_json(cls, text: str) -> "Answers":
        data = json.loads(text)
        accepted = [(number, id_) for number, id_ in data.pop("accepted")]
        return cls(accepted=accepted, **data)


def body_of(number: int, chars: int) -> str:
    """The text of a post: its number, and words up to its length."""
    words = "grind finer and let it run longer; "
    return (
        f"{number:0{_NUMBER_CHARS}d} "
        + (words * (chars // len(words) + 1))[: chars - _NUMBER_CHARS - 1]
    )


class _Connection(asyncio.Protocol):
    """One keep-alive connection with one request under way at most."""

    def __init__(self, run: "_Run") -> None:
        self.run = run
        self.transport: Any = None
        self.number = 0
        self.due = 0.0
        self.busy = False
        self.buffer = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def send(self, number: int, request: bytes, due: float) -> None:
        self.number, self.due, self.busy = number, due, True
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        buffer = self.buffer = self.buffer + data if self.buffer else data
        end = buffer.find(_END_OF_HEAD)
        if end < 0:
            return
        head = buffer[:end].lower()
        at = head.find(_LENGTH)
        if at < 0:
            raise ValueError(f"an answer without its length: {head[:200]!r}")
        line_end = head.find(b"\r", at)
        length = int(head[at + len(_LENGTH) : line_end if line_end >= 0 else None])
        if len(buffer) < end + 4 + length:
            return
        self.buffer = b""
        self.busy = False
        self.run.answered(self, int(buffer[9:12]), buffer[end + 4 :])

    def connection_lost(self, exc: Exception | None) -> None:
        self.run.connection_lost(self)


class _Run:
    """One run of a plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.connections: list[_Connection] = []
        self.idle: deque[_Connection] = deque()
        self.waiting: deque[float] = deque()
        self.answers = Answers()
        self.statuses: Counter[int] = Counter()
        self.kept: list[tuple[int, bytes]] = []
        self.page = b""
        self.sent = 0
        self.ending = False
        self.done = asyncio.Event()
        self._heads = [self._head(sender) for sender in plan.senders]
        filler = body_of(0, plan.chars)[_NUMBER_CHARS:] if plan.chars else ""
        self._tail = f'{filler}"}}'.encode()

    def _head(self, sender: Sender) -> bytes:
        method = "POST" if self.plan.chars else "GET"
        lines = [
            f"{method} {sender.path} HTTP/1.1",
            f"Host: 127.0.0.1:{self.plan.port}",
            f"Authorization: Bearer {sender.token}",
        ]
        start = ""
        if self.plan.chars:
            start = '{"body":"'
            length = len(start) + self.plan.chars + 2
            lines += ["Content-Type: application/json", f"Content-Length: {length}"]
        if self.plan.headers:
            lines.append(self.plan.headers)
        return ("\r\n".join(lines) + "\r\n\r\n" + start).encode()

    def _request(self, number: int) -> bytes:
        head = self._heads[number % len(self._heads)]
        if not self.plan.chars:
            return head
        return head + b"%0*d" % (_NUMBER_CHARS, number) + self._tail

    async def run(self) -> Answers:
        loop, plan = asyncio.get_running_loop(), self.plan
        for _ in range(plan.connections):
            _, connection = await loop.create_connection(
                lambda: _Connection(self), "127.0.0.1", plan.port
            )
            self.connections.append(connection)
        self.idle.extend(self.connections)
        start = time.monotonic()
        self.answers.began = start + plan.warm_s
        self.answers.until = self.answers.began + plan.seconds
        loop.call_later(plan.warm_s, self._count_cpu, -1)
        if plan.rate is None:
            for connection in self.connections:
                self._next(connection, time.monotonic())
        else:
            await self._fall_due(start, plan.rate)
        await asyncio.sleep(max(0.0, self.answers.until - time.monotonic()))
        self._count_cpu(1)
        self.ending = True
        if any(c.busy for c in self.connections) or self.waiting:
            try:
                async with asyncio.timeout(plan.last_answer_s):
                    await self.done.wait()
            except TimeoutError:
                self.answers.unanswered = sum(c.busy for c in self.connections)
                self.answers.given_up += len(self.waiting)
        return self._result()

    def _count_cpu(self, sign: int) -> None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        self.answers.cpu_s += sign * (used.ru_utime + used.ru_stime)

    async def _fall_due(self, start: float, rate: float) -> None:
        until, due, fallen = self.answers.until, start, 0
        while due < until:
            now = time.monotonic()
            while due <= now and due < until:
                self._due(due)
                fallen += 1
                due = start + fallen / rate
            await asyncio.sleep(max(_TICK_S / 4, min(_TICK_S, due - time.monotonic())))

    def _due(self, due: float) -> None:
        if self.idle:
            self._next(self.idle.popleft(), due)
        elif len(self.waiting) < self.plan.most_waiting:
            self.waiting.append(due)
        else:
            self.answers.given_up += 1

    def _next(self, connection: _Connection, due: float) -> None:
        number = self.plan.first + self.sent
        self.sent += 1
        connection.send(number, self._request(number), due)

    def answered(self, connection: _Connection, status: int, body: bytes) -> None:
        now = time.monotonic()
        answers, plan = self.answers, self.plan
        self.statuses[status] += 1
        if status == plan.expected:
            if plan.chars:
                self.kept.append((connection.number, body))
            else:
                self.page = body
            if answers.began <= now <= answers.until:
                answers.seconds.append(now - connection.due)
                answers.ended.append(now)
        elif len(answers.errors) < KEPT_ERRORS and status not in plan.also:
            answers.errors.append(f"{status}: {body[:300].decode(errors='replace')}")
        if plan.rate is None:
            if not self.ending:
                self._next(connection, now)
        elif self.waiting:
            self._next(connection, self.waiting.popleft())
        else:
            self.idle.append(connection)
        if self.ending and not self.waiting and not any(c.busy for c in self.connections):
            self.done.set()

    def connection_lost(self, connection: _Connection) -> None:
        """Not opened again: a server that drops its clients has failed the measurement."""
        self.connections.remove(connection)
        if connection.busy:
            self.answers.lost += 1
        if connection in self.idle:
            self.idle.remove(connection)
        if not any(c.busy for c in self.connections):
            self.done.set()

    def _result(self) -> Answers:
        answers = self.answers
        answers.statuses = {str(status): n for status, n in self.statuses.items()}
        if self.plan.chars:
            answers.accepted = [(number, str(json.loads(body)["id"])) for number, body in self.kept]
        answers.last = self.page.decode()
        return answers


def main() -> None:
    plan = Plan.from_json(sys.stdin.read())
    answers = uvloop.run(_Run(plan).run())
    # Not to standard output: after uvloop has run, a pipe may be cut short without an error.
    Path(sys.argv[1]).write_text(json.dumps(asdict(answers)), encoding="utf-8")


if __name__ == "__main__":
    main()
