"""Which addresses mail is sent to: one bare address, in ASCII, with nothing that a header or a server
could read otherwise than we do."""

import re
from typing import Final

MAX_ADDRESS: Final = 254
MAX_LOCAL: Final = 64
_ATOM: Final = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ADDRESS: Final = re.compile(
    rf"(?P<local>{_ATOM}(?:\.{_ATOM})*)@(?P<domain>{_LABEL}(?:\.{_LABEL})*)", re.ASCII
)


class BadAddress(ValueError):
    """It is not one bare address. The message never repeats it."""


def checked(address: str) -> str:
    """The address, its domain in lower case. Raises `BadAddress`.

    Refused: display names, several addresses, comments, quoted parts, address literals such as
    `a@[127.0.0.1]`, control characters, anything but ASCII, and local parts that a mail program might
    decode as an encoded word. An international domain is to be given in its ASCII form (`xn--…`).
    """
    if len(address) > MAX_ADDRESS:
        raise BadAddress(f"longer than {MAX_ADDRESS} characters")
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise BadAddress("not one bare address in ASCII")
    local, domain = found["local"], found["domain"].lower()
    if len(local) > MAX_LOCAL:
        raise BadAddress(f"more than {MAX_LOCAL} characters before the @")
    if "=?" in local or "?=" in local:
        raise BadAddress("looks like an encoded word")
    if domain.rpartition(".")[2].isdigit():
        raise BadAddress("an IP address instead of a domain")
    return f"{local}@{domain}"
