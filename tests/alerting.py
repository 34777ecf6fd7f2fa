"""Channels to administrators, and real HTTP servers at their other end: good and bad ones."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope

from schema.alerts import Alert, Phase
from schema.settings import AlertSettings
from writer.alerting.channels import Channels
from writer.alerting.pauses import Timing

SECRET = "s" * 32
FAST = Timing(timeout_s=0.3, first_s=0.02, limit_s=0.05, probe_s=0.1)


@dataclass
class Request:
    head: str
    body: bytes

    @property
    def line(self) -> str:
        return self.head.splitlines()[0]

    def header(self, name: str) -> str:
        for line in self.head.splitlines()[1:]:
            key, _, value = line.partition(":")
            if key.lower() == name:
                return value.strip()
        return ""


def answers(status: int) -> "Answering":
    async def answer(_: "Server", out: asyncio.StreamWriter) -> None:
        out.write(f"HTTP/1.1 {status} -\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await out.drain()

    return answer


async def hangs(server: "Server", out: asyncio.StreamWriter) -> None:
    """Until it is told to go on."""
    await server.go_on.wait()
    await answers(200)(server, out)


async def drips(_: "Server", out: asyncio.StreamWriter) -> None:
    for byte in b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 10_000:
        out.write(bytes([byte]))
        await out.drain()
        await asyncio.sleep(0.01)


@dataclass
class Server:
    """A real server on a free port; `answering` can be changed while it runs."""

    answering: "Answering"
    port: int = 0
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    requests: list[Request] = field(default_factory=list)

    async def handle(self, incoming: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
        try:
            head = (await incoming.readuntil(b"\r\n\r\n")).decode()
            request = Request(head, b"")
            request.body = await incoming.readexactly(int(request.header("content-length") or 0))
            self.requests.append(request)
            await self.answering(self, out)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client gave up, as it should
        finally:
            out.close()

    def bodies(self) -> list[Any]:
        return [json.loads(request.body) for request in self.requests]


Answering = Callable[[Server, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(answering: Answering) -> AsyncIterator[Server]:
    server = Server(answering)
    tasks: set[asyncio.Task[None]] = set()

    def connected(incoming: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(server.handle(incoming, out)))

    listening = await asyncio.start_server(connected, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def alert(phase: Phase = "opened", incident: str = "database_down") -> Alert:
    at = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
    return Alert(
        uuid.uuid4(), incident, phase, "critical", "PostgreSQL is away", "Since 12:00 …", at, at, 3
    )


def settings(*urls: str, secret: str = SECRET) -> AlertSettings:
    return AlertSettings.model_validate({"alert_urls": ", ".join(urls), "alert_secret": secret})


@asynccontextmanager
async def channels(*urls: str, timing: Timing = FAST) -> AsyncIterator[Channels]:
    made = Channels.of(settings(*urls), timing=timing)
    await made.start()
    try:
        yield made
    finally:
        await made.close()


async def until(check: Callable[[], bool], timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not check():
        assert time.monotonic() < deadline, "waited too long"
        await asyncio.sleep(0.01)


@dataclass
class Mails:
    """A real SMTP server on a free port. `reply` is what it answers to a mail; `refuses` are
    recipients it does not know."""

    port: int = 0
    reply: str = "250 OK"
    refuses: set[str] = field(default_factory=set)
    recipients: list[list[str]] = field(default_factory=list)
    received: list[EmailMessage] = field(default_factory=list)

    async def handle_RCPT(
        self, _server: SMTP, _session: Any, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if address in self.refuses:
            return "550 5.1.1 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, _session: Any, envelope: Envelope) -> str:
        if self.reply.startswith("250"):
            content = envelope.content
            assert isinstance(content, bytes)
            self.recipients.append([str(address) for address in envelope.rcpt_tos])
            self.received.append(message_from_bytes(content, policy=policy.default))
        return self.reply


@asynccontextmanager
async def mail_server() -> AsyncIterator[Mails]:
    loop = asyncio.get_running_loop()
    mails = Mails()
    made: list[SMTP] = []

    def connected() -> SMTP:
        made.append(SMTP(mails, hostname="mail.test", loop=loop))
        return made[-1]

    server = await loop.create_server(connected, "127.0.0.1", 0)
    mails.port = server.sockets[0].getsockname()[1]
    try:
        yield mails
    finally:
        server.close()
        for protocol in made:
            if isinstance(protocol.transport, asyncio.Transport):
                protocol.transport.abort()
