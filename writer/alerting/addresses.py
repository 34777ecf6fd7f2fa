"""The channels as the setting names them: URLs with commas between, told apart without their secrets."""

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, urlsplit

# A comma may be inside a URL (mail to two people): one that begins the next URL has a scheme behind it.
_BETWEEN: Final = re.compile(
    r"\s*,\s*(?=[A-Za-z][A-Za-z0-9+.-]*://)|\s+(?=[A-Za-z][A-Za-z0-9+.-]*://)"
)
_SCHEME: Final = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")


class ChannelRefused(ValueError):
    """A URL among AFTERWRITE_ALERT_URLS cannot be used. Says which, by its number and scheme; a URL
    may hold passwords anywhere, so nothing else of it is in the message."""

    def __init__(self, number: int, scheme: str, why: str) -> None:
        which = f"{scheme}://" if scheme else "without a scheme"
        super().__init__(f"AFTERWRITE_ALERT_URLS, number {number} ({which}): {why}")
        self.number = number


@dataclass(frozen=True)
class Address:
    """One URL. `number` counts from 1, in the order of the setting."""

    number: int
    scheme: str
    url: str = field(repr=False)

    @property
    def name(self) -> str:
        """What the channel is called in logs, alerts and metrics: `json-1`."""
        return f"{self.scheme}-{self.number}"

    def refused(self, why: str) -> ChannelRefused:
        return ChannelRefused(self.number, self.scheme, why)

    def split(self) -> SplitResult:
        """The parts of a URL with a host. Raises `ChannelRefused` when it has none."""
        try:
            parts = urlsplit(self.url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            raise self.refused("host or port is malformed") from None
        if not host or re.search(r"[\s,]", host):
            raise self.refused("it names no host")
        return parts


def addresses(setting: str) -> list[Address]:
    """The URLs of the setting, in its order. Raises `ChannelRefused`."""
    found = []
    texts = [text for text in _BETWEEN.split(setting.strip().strip(",").strip()) if text]
    for number, text in enumerate(texts, 1):
        url = text.strip().rstrip(",").strip()
        scheme = _SCHEME.match(url)
        if scheme is None:
            raise ChannelRefused(number, "", "a channel is SCHEME://…")
        found.append(Address(number, scheme[1].lower(), url))
    return found
