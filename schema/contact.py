"""How somebody can be reached: a mail address and a language, as texts that are safe to pass on."""

import re
from typing import Any, Final

MAX_ADDRESS: Final = 254
"""Characters of a mail address: what SMTP takes between its angle brackets."""
_MAX_LOCAL: Final = 64
_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ADDRESS = re.compile(rf"{_ATEXT}(?:\.{_ATEXT})*@{_LABEL}(?:\.{_LABEL})*")

MAX_LANGUAGE: Final = 35
"""Characters of a language tag (RFC 5646, section 4.4.1)."""
LANGUAGE: Final = r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$"
"""A language tag (BCP 47), such as `de` or `en-GB`."""
_LANGUAGE = re.compile(LANGUAGE.removesuffix("$"))


def bare_address(value: Any) -> str | None:
    """The value if it is one mail address and nothing else; None if not.

    No name, no angle brackets, no quotes, no list, nothing that could end a line of a header:
    only what is written without any quoting (dot-atom, host name), in ASCII.
    """
    if not isinstance(value, str) or len(value) > MAX_ADDRESS or not _ADDRESS.fullmatch(value):
        return None
    return value if value.index("@") <= _MAX_LOCAL else None


def language_tag(value: Any) -> str | None:
    """The value if it is a language tag; None if not. An underscore between its parts is mended."""
    if not isinstance(value, str) or len(value) > MAX_LANGUAGE:
        return None
    tag = value.replace("_", "-")
    return tag if _LANGUAGE.fullmatch(tag) else None
