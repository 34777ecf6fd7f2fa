"""The SMTP server: one connection, used again for the next mail. The only user of the SMTP client.

What a failure asks for:

    SmtpError
    ├── ServerAway    nothing was tried with this mail: the server is asked again later, by one probe
    ├── PutOff        the server put this mail off, or broke off before it had the mail: again later
    ├── Ambiguous     broke off while it was being handed over: it may have the mail
    └── Refused       the server will never take this mail for this address
"""

import re
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import aiosmtplib

from writer.mail.smtp_url import SmtpServer

Claim = Callable[[], Awaitable[None]]
"""Called when the server is ready to take the message; what it raises breaks the mail off."""

_IDLE_S: Final = 5.0
_MAX_REPLY: Final = 500
_CLOSING: Final = 421


class SmtpError(Exception):
    """`reply` is what the server said, without control characters, or what went wrong."""

    def __init__(self, code: int | None, reply: str) -> None:
        self.code = code
        self.reply = re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", reply)[:_MAX_REPLY]
        super().__init__(f"{code or ''} {self.reply}".strip())


class ServerAway(SmtpError):
    """Not reachable, not willing to talk, or not to us."""


class PutOff(SmtpError):
    """Try this mail again later. `server`: whether the server itself seems to be in trouble."""

    def __init__(self, code: int | None, reply: str, *, server: bool = False) -> None:
        super().__init__(code, reply)
        self.server = server


class Ambiguous(SmtpError):
    """Nobody knows whether the server has it."""


class Refused(SmtpError):
    """A 5xx for the recipient, or for the message."""


class Smtp:
    """Not for use by two tasks at once."""

    def __init__(self, server: SmtpServer, timeout_s: float) -> None:
        self._server = server
        self._timeout_s = timeout_s
        self._client: aiosmtplib.SMTP | None = None
        self._used_at = 0.0

    async def send(self, sender: str, to: str, message: bytes, claim: Claim) -> None:
        """Hand one message over; returns when the server has taken it. Raises `SmtpError`.

        `claim` is awaited after the recipient was accepted and before the message is sent.
        """
        client = await self._begun(sender)
        try:
            await self._to(client, to)
            await claim()
            await self._data(client, message)
        except BaseException as error:
            await self._after(error)
            raise
        self._used_at = time.monotonic()

    async def close(self) -> None:
        """Say goodbye, if the server listens."""
        client, self._client = self._client, None
        if client is not None:
            with suppress(aiosmtplib.SMTPException, OSError):
                await client.quit(timeout=min(self._timeout_s, 2.0))
            client.close()

    async def _begun(self, sender: str) -> aiosmtplib.SMTP:
        """A connection on which this sender was accepted. An old one that is gone is made anew."""
        client = self._client
        if client is not None and time.monotonic() - self._used_at < _IDLE_S:
            try:
                await client.mail(sender)
            except (aiosmtplib.SMTPException, OSError):
                client.close()
            else:
                return client
        await self.close()
        self._client = await self._connected()
        try:
            await self._client.mail(sender)
        except (aiosmtplib.SMTPException, OSError) as error:
            await self.close()
            raise _away(error) from error
        return self._client

    async def _connected(self) -> aiosmtplib.SMTP:
        server = self._server
        try:
            context = server.context()
            client = aiosmtplib.SMTP(
                hostname=server.host,
                port=server.port,
                use_tls=server.tls,
                start_tls=False,
                tls_context=context,
                timeout=self._timeout_s,
                local_hostname=_own_name(),
            )
        except (OSError, ValueError) as error:
            raise _away(error) from error
        try:
            await client.connect()
            await client.ehlo()
            if not server.tls and server.starttls != "never":
                await self._encrypt(client, context)
            if server.user is not None:
                await client.login(server.user, server.password or "")
        except ServerAway:
            client.close()
            raise
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            client.close()
            raise _away(error) from error
        except BaseException:
            client.close()
            raise
        return client

    async def _encrypt(self, client: aiosmtplib.SMTP, context: ssl.SSLContext) -> None:
        if client.supports_extension("starttls"):
            await client.starttls(tls_context=context)
            await client.ehlo()
        elif self._server.must_encrypt:
            raise ServerAway(None, "the server offers no STARTTLS, and it is required")

    async def _to(self, client: aiosmtplib.SMTP, to: str) -> None:
        try:
            await client.rcpt(to)
        except aiosmtplib.SMTPResponseException as error:
            raise _answered(error) from error
        except (aiosmtplib.SMTPException, OSError) as error:
            raise PutOff(None, _said(error), server=True) from error

    async def _data(self, client: aiosmtplib.SMTP, message: bytes) -> None:
        try:
            await client.data(message)
        except aiosmtplib.SMTPResponseException as error:
            raise _answered(error) from error
        except (aiosmtplib.SMTPException, OSError) as error:
            raise Ambiguous(None, _said(error)) from error

    async def _after(self, error: BaseException) -> None:
        """The connection is kept only if the server answered in order and can be told to forget."""
        client = self._client
        if client is None:
            return
        if isinstance(error, Refused | PutOff) and error.code not in (None, _CLOSING):
            try:
                await client.rset()
            except (aiosmtplib.SMTPException, OSError):
                pass
            else:
                self._used_at = time.monotonic()
                return
        self._client = None
        client.close()


def _answered(error: aiosmtplib.SMTPResponseException) -> SmtpError:
    """An answer to RCPT or DATA, by its first digit. 421 is the server's goodbye, whoever asked."""
    if 500 <= error.code < 600:
        return Refused(error.code, error.message)
    if 400 <= error.code < 500:
        return PutOff(error.code, error.message, server=error.code == _CLOSING)
    return Ambiguous(error.code, error.message)


def _away(error: Exception) -> ServerAway:
    code = error.code if isinstance(error, aiosmtplib.SMTPResponseException) else None
    return ServerAway(code, _said(error))


def _said(error: Exception) -> str:
    told = error.message if isinstance(error, aiosmtplib.SMTPException) else str(error)
    return told or type(error).__name__


def _own_name() -> str:
    """For EHLO. Not the full name: finding that asks a name server, which may not answer."""
    name = re.sub(r"[^A-Za-z0-9.-]", "", socket.gethostname()).strip(".-")
    return name or "localhost"
