"""The latest outcomes of one partition, in memory, for streams that come back."""

import uuid
from collections import deque
from dataclasses import dataclass
from typing import Any, Final

RING_OUTCOMES: Final = 10_000
"""Outcomes kept for replays, in all partitions together."""
RING_BYTES: Final = 16_777_216
"""Most bytes of them, in all partitions together."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One outcome as it is in the log. `known_by`: the same outcome published again has the same."""

    offset: int
    author: uuid.UUID
    value: bytes
    known_by: tuple[Any, ...]


class Ring:
    """Everything from offset `start` on, without `next`; at most `most` outcomes."""

    def __init__(self, start: int, most: int, partitions: int) -> None:
        self.start = start
        self.next = start
        self.most = most
        self._most_bytes = RING_BYTES // partitions
        self._kept: deque[Kept] = deque()
        self._known: set[tuple[Any, ...]] = set()
        self._bytes = 0

    def add(self, kept: Kept) -> bool:
        """False if it is there already: the writer publishes at least once."""
        if kept.known_by in self._known:
            return False
        self._kept.append(kept)
        self._known.add(kept.known_by)
        self._bytes += len(kept.value)
        while len(self._kept) > self.most or self._bytes > self._most_bytes:
            gone = self._kept.popleft()
            self._known.discard(gone.known_by)
            self._bytes -= len(gone.value)
            self.start = gone.offset + 1
        return True

    def clear(self, start: int) -> None:
        """Begin again at an offset."""
        self._kept.clear()
        self._known.clear()
        self._bytes = 0
        self.start = self.next = start

    def behind(self, offset: int, author: uuid.UUID) -> list[Kept]:
        """What an author has missed who has seen everything up to an offset."""
        return [k for k in self._kept if k.offset > offset and k.author == author]

    def agrees(self, offset: int, value: bytes) -> bool:
        """False if the log has something else at an offset than it had when it was read."""
        if self._kept and self._kept[-1].offset == offset:
            return self._kept[-1].value == value
        return True
