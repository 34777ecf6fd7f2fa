"""Alerts by mail, `mailto://` and `mailtos://`: straight to an SMTP server, needing nothing else of ours.

Not by the mail workers: they need Kafka, and may be what the alert is about.
"""

import re
import ssl
import uuid
from dataclasses import dataclass
from email.headerregistry import Address as MailAddress
from email.message import EmailMessage
from email.parser import BytesHeaderParser
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from typing import Final
from urllib.parse import parse_qs, unquote

import aiosmtplib

from schema.alerts import Alert
from schema.settings import LOOPBACK
from writer.alerting.addresses import Address
from writer.alerting.message import body, subject
from writer.alerting.sending import SendFailed

_STEP_S: Final = 10.0
_BARE: Final = re.compile(r"^[^\s@<>,;:\"\\\x00-\x1f]+@[^\s@<>,;:\"\\\x00-\x1f]+$")
_MODES: Final = ("insecure", "starttls", "ssl")
_KNOWN: Final = frozenset({"to", "from", "name", "smtp", "mode"})


@dataclass(frozen=True)
class Mailbox:
    """What a URL says: `mailto://[USER:PASSWORD@]HOST[:PORT][/TO…]?to=TO,…&from=…&smtp=…&mode=…`.

    `mode` is `insecure`, `starttls`, `ssl`, or None: STARTTLS if the server offers it, with whatever
    certificate. With a password it has to be offered, with a good one, unless it is on this machine.
    """

    host: str
    port: int
    user: str | None
    password: str | None
    sender: MailAddress
    recipients: tuple[str, ...]
    mode: str | None

    @classmethod
    def of(cls, address: Address) -> "Mailbox":
        """Raises `ChannelRefused`."""
        parts = address.split()
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        if unknown := sorted(query.keys() - _KNOWN):
            raise address.refused(f"nothing is known of {len(unknown)} of the names behind its `?`")
        secure = address.scheme == "mailtos"
        mode = query.get("mode") or (
            ("ssl" if parts.port == 465 else "starttls") if secure else None
        )
        if mode is not None and mode not in _MODES:
            raise address.refused(f"mode is one of {', '.join(_MODES)}")
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        host = parts.hostname or ""
        server = query.get("smtp") or host
        own = user if "@" in user else f"{user}@{host}" if user else ""
        named = [unquote(part) for part in parts.path.split("/")] + query.get("to", "").split(",")
        recipients = [name.strip() for name in named if name.strip()] or ([own] if own else [])
        if not recipients:
            raise address.refused("it names nobody to write to; add ?to=ADDRESS")
        name, sender = parseaddr(query.get("from") or own or f"afterwrite@{host}")
        if not all(_BARE.match(one) for one in [sender, *recipients]):
            raise address.refused("a mail address in it is malformed")
        port = parts.port or {"ssl": 465, "starttls": 587}.get(mode or "", 25)
        if mode is None and password and server not in LOOPBACK:
            mode = "starttls"
        return cls(
            server,
            port,
            user or None,
            password or None,
            _named(query.get("name") or name or "Afterwrite", sender),
            tuple(dict.fromkeys(recipients)),
            mode,
        )


class MailChannel:
    """One mail an alert, to all recipients at once. The Message-ID is the alert's, so that a mail
    program shows a repetition once; the mails of one incident are one thread."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    async def send(self, alert: Alert) -> str | None:
        box = self._mailbox
        message = compose(alert, box)
        try:
            refused, _ = await aiosmtplib.send(
                message,
                sender=box.sender.addr_spec,
                recipients=list(box.recipients),
                hostname=box.host,
                port=box.port,
                username=box.user if box.password else None,
                password=box.password,
                use_tls=box.mode == "ssl",
                start_tls={"starttls": True, "insecure": False, "ssl": False}.get(box.mode or ""),
                tls_context=self._context(),
                timeout=_STEP_S,
            )
        except (aiosmtplib.SMTPException, OSError) as error:
            raise SendFailed(_short(error)) from error
        if refused:
            first = next(iter(refused.values()))
            return f"refused for {len(refused)} of {len(box.recipients)} recipients: {first.code}"
        return None

    async def close(self) -> None:
        pass

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if self._mailbox.mode is None:
            context.check_hostname = False  # better than none, and nothing secret goes there
            context.verify_mode = ssl.CERT_NONE
        return context


def compose(alert: Alert, box: Mailbox) -> bytes:
    """The mail, whole. Raises `SendFailed` if it has other headers than those that were set."""
    message = EmailMessage(policy=SMTP)
    domain = box.sender.domain
    thread = uuid.uuid5(uuid.NAMESPACE_URL, f"{alert.incident} {alert.since.isoformat()}")
    headers = {
        "From": box.sender,
        "To": ", ".join(box.recipients),
        "Subject": subject(alert),
        "Date": format_datetime(alert.at),
        "Message-ID": f"<{alert.alert_id}@{domain}>",
        "References": f"<{thread}@{domain}>",
        "Auto-Submitted": "auto-generated",
    }
    for name, value in headers.items():
        message[name] = value
    message.set_content(body(alert), cte="quoted-printable")
    raw = message.as_bytes()
    found = BytesHeaderParser().parsebytes(raw).keys()
    content = ["Content-Type", "Content-Transfer-Encoding", "MIME-Version"]
    if sorted(found) != sorted([*headers, *content]):
        raise SendFailed("the mail came out with other headers than it was given")
    return raw


def _named(name: str, address: str) -> MailAddress:
    return MailAddress("".join(c for c in name if c.isprintable()), addr_spec=address)


def _short(error: Exception) -> str:
    """The server's answer, without the addresses it may repeat."""
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused) and error.recipients:
        error = error.recipients[0]
    if isinstance(error, aiosmtplib.SMTPResponseException):
        return f"SMTP {error.code} {error.message}"
    return f"{type(error).__name__}: {error}"
