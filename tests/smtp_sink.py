"""A real SMTP server on loopback, which takes mail, puts it off, refuses it, hangs or breaks off, as told."""

import asyncio
import datetime
import email
import email.policy
import ipaddress
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Final

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from schema.tasks import end_tasks

HANG: Final = "hang"
"""Instead of an answer: none, until the connection is closed."""
DROP: Final = "drop"
"""Instead of an answer: the connection is closed. After DATA: what came is kept all the same."""
_TAKEN: Final = "250 OK"


@dataclass(frozen=True)
class Received:
    """One message that was taken, with its envelope."""

    sender: str
    to: str
    content: bytes
    encrypted: bool
    user: str | None

    @property
    def message(self) -> EmailMessage:
        read = email.message_from_bytes(self.content, policy=email.policy.default)
        assert isinstance(read, EmailMessage)
        return read

    def text(self, kind: str = "plain") -> str:
        """What a reader sees of one of the two bodies; line ends are `\\n`."""
        part = self.message.get_body((kind,))
        assert part is not None
        payload = part.get_payload(decode=True)
        assert isinstance(payload, bytes)
        return payload.decode().replace("\r\n", "\n")


@dataclass
class SmtpSink:
    """Use `smtp_sink`. Answers are given in their order, then everything is taken."""

    users: dict[str, str] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None
    received: list[Received] = field(default_factory=list)
    at_mail: list[str] = field(default_factory=list)
    at_rcpt: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    at_data: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    slow_s: float = 0.0
    """How long taking a message lasts."""
    connections: int = 0
    commands: int = 0
    """How often a recipient was named."""
    port: int = 0
    _server: asyncio.Server | None = None
    _sessions: set[SMTP] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    @property
    def recipients(self) -> list[str]:
        return [one.to for one in self.received]

    async def start(self) -> None:
        """Listen; after a `stop`, at the same port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._session, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse connections, and break off those that are there."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        sessions, self._sessions = self._sessions, set()
        for session in sessions:
            _break_off(session)
        working = [session._handler_coroutine for session in sessions]
        await end_tasks(*working)

    def _session(self) -> SMTP:
        self.connections += 1
        session = SMTP(
            _Handler(self),
            hostname="sink.test",
            ident="sink",
            tls_context=self.tls,
            require_starttls=False,
            auth_required=bool(self.users),
            auth_require_tls=self.tls is not None,
            authenticator=self._authenticate if self.users else None,
            data_size_limit=32 * 1024 * 1024,
            timeout=60,
        )
        self._sessions.add(session)
        return session

    def _authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        good = isinstance(data, LoginPassword) and (
            self.users.get(data.login.decode()) == data.password.decode()
        )
        return AuthResult(
            success=good, handled=False, auth_data=data.login.decode() if good else None
        )


class _Handler:
    """The hooks that aiosmtpd calls; their names are its."""

    def __init__(self, sink: SmtpSink) -> None:
        self._sink = sink

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        answer = await self._answer(server, self._sink.at_mail)
        if answer == _TAKEN:
            envelope.mail_from = address
        return answer

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        self._sink.commands += 1
        answer = await self._answer(server, self._sink.at_rcpt[address])
        if answer == _TAKEN:
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        (to,) = envelope.rcpt_tos
        script = self._sink.at_data[to]
        taken = not script or script[0] == DROP
        if self._sink.slow_s:
            await asyncio.sleep(self._sink.slow_s)
        if taken:
            content = envelope.content
            assert isinstance(content, bytes)
            self._sink.received.append(
                Received(
                    envelope.mail_from or "",
                    to,
                    content,
                    session.ssl is not None,
                    session.auth_data,
                )
            )
        return await self._answer(server, script)

    async def _answer(self, server: SMTP, script: list[str]) -> str:
        answer = script.pop(0) if script else _TAKEN
        if answer == HANG:
            await asyncio.Event().wait()
        if answer == DROP:
            _break_off(server)
        return answer


def _break_off(session: SMTP) -> None:
    if isinstance(session.transport, asyncio.WriteTransport):
        session.transport.abort()


@asynccontextmanager
async def smtp_sink(
    users: dict[str, str] | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[SmtpSink]:
    """A server that listens until the block ends."""
    sink = SmtpSink(users or {}, tls)
    await sink.start()
    try:
        yield sink
    finally:
        await sink.stop()


def throw_away_certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's context for 127.0.0.1 and localhost, and the file that a client must trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    names = [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ]
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    trusted, secret = folder / "certificate.pem", folder / "key.pem"
    trusted.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(trusted, secret)
    return context, trusted
