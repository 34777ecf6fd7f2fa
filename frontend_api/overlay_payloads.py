"""Payloads of the overlay's entries, decoded, for those that are read again."""

import uuid
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

from frontend_api.ids import read_id
from schema.commands import Command
from schema.overlay import unpack

_PAYLOAD_CHARS: Final = 8192
"""Longer payloads are not kept decoded."""
_PAYLOADS_CHARS: Final = 2_097_152
"""How much is kept decoded, counted as it is written; decoded it takes several times as much."""


@dataclass(slots=True)
class Decoded:
    """The command of a payload. For who reads it: `entry` is what he made of it last, and `place` where
    it was, in whose overlay, under which id and in which state."""

    command: Command
    place: tuple[uuid.UUID, str, str] | None = None
    entry: Any = None


class Payloads:
    """Commands by their payloads, which never change: a page that is read again is not decoded again."""

    def __init__(self) -> None:
        self._commands: OrderedDict[str, Decoded] = OrderedDict()
        self._chars = 0

    def get(self, payload: str) -> Decoded:
        """Raises what `Command.from_json` and `unpack` raise."""
        known = self._commands.get(payload)
        if known is not None:
            return known
        decoded = Decoded(Command.from_json(unpack(payload), read_id))
        if len(payload) <= _PAYLOAD_CHARS:
            self._commands[payload] = decoded
            self._chars += len(payload)
            while self._chars > _PAYLOADS_CHARS:
                self._chars -= len(self._commands.popitem(last=False)[0])
        return decoded
