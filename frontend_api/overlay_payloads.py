"""Payloads of the overlay's entries, decoded, for those that are read again."""

from collections import OrderedDict
from typing import Final

from schema.commands import Command
from schema.overlay import unpack

_PAYLOAD_CHARS: Final = 8192
"""Longer payloads are not kept decoded."""
_PAYLOADS_CHARS: Final = 2_097_152
"""How much is kept decoded, counted as it is written; decoded it takes several times as much."""


class Payloads:
    """Commands by their payloads, which never change: a page that is read again is not decoded again."""

    def __init__(self) -> None:
        self._commands: OrderedDict[str, Command] = OrderedDict()
        self._chars = 0

    def get(self, payload: str) -> Command:
        """Raises what `Command.from_json` and `unpack` raise."""
        known = self._commands.get(payload)
        if known is not None:
            return known
        command = Command.from_json(unpack(payload))
        if len(payload) <= _PAYLOAD_CHARS:
            self._commands[payload] = command
            self._chars += len(payload)
            while self._chars > _PAYLOADS_CHARS:
                self._chars -= len(self._commands.popitem(last=False)[0])
        return command
