"""From what a mail says to the bytes that are sent, and the proof that its headers are ours alone.

Python's mail package can be tricked into making headers out of text (CVE-2024-6923), so that no header
ever holds text of users; headers are written here, in ASCII, and what was written is read again and
compared before it goes anywhere. Bodies are base64: whatever is in them cannot look like a header, a
boundary, or the end of the message.
"""

import base64
import email
import email.policy
import re
from dataclasses import dataclass
from datetime import UTC
from email.errors import MessageError
from email.header import Header
from email.utils import format_datetime, formataddr, getaddresses
from typing import Final

from schema.mail import Mail
from writer.mail.addresses import BadAddress, checked
from writer.mail.rendering import Rendered

HEADERS: Final = (
    "From",
    "To",
    "Subject",
    "Date",
    "Message-ID",
    "Auto-Submitted",
    "List-Unsubscribe",
    "MIME-Version",
    "Content-Type",
)
"""The headers of every mail, each once, in this order. No `Precedence`: RFC 3834 advises against it."""
_PART_HEADERS: Final = ("Content-Type", "Content-Language", "Content-Transfer-Encoding")
_LINE: Final = 76
_HEADER_LINE: Final = re.compile(rb"[A-Za-z-]+: [\x21-\x7e][\x20-\x7e]*(?:\r\n [\x20-\x7e]+)*")
_MAX_LINE: Final = 998


class Unsendable(ValueError):
    """The message that was made is not the one that was meant. Nothing of it is sent."""


@dataclass(frozen=True)
class Sender:
    """Who all mail is from. `header` is the value of From, in ASCII."""

    address: str
    header: str

    @classmethod
    def parse(cls, text: str) -> "Sender":
        """From `Name <address>` or a bare address. Raises `BadAddress`."""
        if any(ord(char) < 32 or ord(char) == 127 for char in text):
            raise BadAddress("a control character in the sender")
        (name, address), *more = getaddresses([text]) or [("", "")]
        if more:
            raise BadAddress("more than one sender")
        address = checked(address)
        return cls(address, formataddr((name, address), charset="utf-8"))

    @property
    def domain(self) -> str:
        return self.address.rpartition("@")[2]


def compose(mail: Mail, said: Rendered, sender: Sender, public_url: str) -> bytes:
    """The whole message, CRLF line ends; the same bytes each time. Raises `Unsendable`.

    `mail.to` must have been checked.
    """
    boundary = f"=_{mail.mail_id.hex}"
    values = (
        sender.header,
        mail.to,
        _encoded(said.subject),
        format_datetime(mail.created_at.astimezone(UTC)),
        f"<{mail.mail_id}@{sender.domain}>",
        "auto-generated",
        f"<{public_url.rstrip('/')}/preferences>",
        "1.0",
        f'multipart/alternative;\r\n boundary="{boundary}"',
    )
    head = "\r\n".join(f"{n}: {v}" for n, v in zip(HEADERS, values, strict=True))
    lines = [head, ""]
    for kind, body in (("plain", said.text), ("html", said.html)):
        lines += [f"--{boundary}", *_part(kind, body, said.locale)]
    lines += [f"--{boundary}--", ""]
    try:
        message = "\r\n".join(lines).encode("ascii")
    except UnicodeEncodeError as error:
        raise Unsendable("a header is not ASCII") from error
    _prove(message, mail, said)
    return message


def _encoded(subject: str) -> str:
    if subject.isascii():
        return subject
    return Header(subject, "utf-8", maxlinelen=_LINE, header_name="Subject").encode(linesep="\r\n")


def _part(kind: str, body: str, locale: str) -> list[str]:
    try:
        content = _with_crlf(body).encode("utf-8")
    except UnicodeEncodeError as error:
        raise Unsendable("the text is not Unicode") from error
    coded = base64.b64encode(content).decode("ascii")
    return [
        f"Content-Type: text/{kind}; charset=utf-8",
        f"Content-Language: {locale}",
        "Content-Transfer-Encoding: base64",
        "",
        *(coded[i : i + _LINE] for i in range(0, len(coded), _LINE)),
    ]


def _with_crlf(text: str) -> str:
    """Line ends as mail has them; a carriage return that ends no line stays what it is."""
    return text.replace("\r\n", "\n").replace("\n", "\r\n")


def _prove(message: bytes, mail: Mail, said: Rendered) -> None:
    """Read the bytes again, line by line and as a mail program would, and compare with what was meant."""
    head = message.partition(b"\r\n\r\n")[0]
    if any(len(line) > _MAX_LINE for line in head.split(b"\r\n")):
        raise Unsendable("a header line is too long")
    lines = re.split(rb"\r\n(?! )", head)
    if not all(_HEADER_LINE.fullmatch(line) for line in lines):
        raise Unsendable("a header line is malformed")
    if [line.partition(b":")[0].decode() for line in lines] != list(HEADERS):
        raise Unsendable("the headers are not the ones that were meant")
    try:
        _read_again(message, mail, said)
    except Unsendable:
        raise
    except (ValueError, LookupError, AttributeError, TypeError, MessageError) as error:
        raise Unsendable("the message cannot be read") from error


def _read_again(message: bytes, mail: Mail, said: Rendered) -> None:
    read = email.message_from_bytes(message, policy=email.policy.default)
    if read.keys() != list(HEADERS) or read["To"] != mail.to or read["Subject"] != said.subject:
        raise Unsendable("the headers would be read otherwise")
    parts = [part for part in read.walk() if part is not read]
    if [part.keys() for part in parts] != [list(_PART_HEADERS)] * 2:
        raise Unsendable("the parts would be read otherwise")
    if read.defects or any(part.defects for part in parts):
        raise Unsendable("the message has defects")
    for part, meant in zip(parts, (said.text, said.html), strict=True):
        content = part.get_payload(decode=True)
        if content != _with_crlf(meant).encode("utf-8"):
            raise Unsendable("the text would be read otherwise")
