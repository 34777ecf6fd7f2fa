"""`AFTERWRITE_SMTP_URL`, read: which server, how it is encrypted, who we are there. Pure."""

import ssl
from dataclasses import dataclass, field
from typing import Final, Literal, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from schema.settings import LOOPBACK

StartTls = Literal["auto", "required", "never"]
_PORTS: Final = {"smtp": 25, "smtps": 465}


class BadSmtpUrl(ValueError):
    """The setting cannot be used. The message never shows the password."""


@dataclass(frozen=True)
class SmtpServer:
    """`starttls`: `auto` encrypts if the server can, `required` or `never` say so themselves.

    With a password, or when required, the connection is encrypted and the certificate is checked,
    against `ca` (a file) if given. Otherwise encryption is taken as it comes, without a check, as mail
    servers do among each other.
    """

    host: str
    port: int
    tls: bool
    starttls: StartTls
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    ca: str | None = None

    @property
    def must_encrypt(self) -> bool:
        wanted = self.starttls == "required" or self.user is not None
        return wanted and not self.tls and self.starttls != "never"

    def context(self) -> ssl.SSLContext:
        """How certificates are checked."""
        made = ssl.create_default_context(cafile=self.ca)
        if not (self.tls or self.must_encrypt):
            made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
        return made

    @classmethod
    def parse(cls, url: str) -> "SmtpServer":
        """Raises `BadSmtpUrl`."""
        try:
            parts = urlsplit(url.strip())
            port = parts.port
        except ValueError:
            raise BadSmtpUrl("it is no URL") from None
        if parts.scheme not in _PORTS or not parts.hostname or parts.path not in ("", "/"):
            raise BadSmtpUrl("wants smtp://[USER:PASSWORD@]HOST[:PORT], or smtps://…")
        options = dict(parse_qsl(parts.query))
        starttls = options.pop("starttls", "auto")
        ca = options.pop("ca", None)
        if options or starttls not in ("auto", "required", "never"):
            raise BadSmtpUrl("after the ? it knows starttls=auto|required|never, and ca=FILE")
        user = unquote(parts.username) if parts.username else None
        if user and starttls == "never" and parts.scheme == "smtp":
            _only_at_home(parts.hostname)
        return cls(
            host=parts.hostname,
            port=port or _PORTS[parts.scheme],
            tls=parts.scheme == "smtps",
            starttls=cast(StartTls, starttls),
            user=user,
            password=unquote(parts.password or "") if user else None,
            ca=ca,
        )


def _only_at_home(host: str) -> None:
    if host not in LOOPBACK:
        raise BadSmtpUrl("a password is sent to another machine only over an encrypted connection")
