"""What waits in one lane, by author: added in the order of the log, gone when it is decided.

Pure and bounded: of each author the places and times of his first commands are kept, of those behind
them only how many they are and where the last one is. 16 bytes for each command that is kept.
"""

import uuid
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from schema.commands import Author, Command

MAX_AUTHORS: Final = 100_000
"""Authors of one lane. Of more than that, those who came last are not told."""
MAX_PLACES: Final = 2000
MAX_ITEMS: Final = 20
_ITEM_CHARS: Final = 80


@dataclass(frozen=True)
class Item:
    """One command that waits. `text` is a line of what it says."""

    command: uuid.UUID
    text: str


@dataclass
class OfAuthor:
    """What waits of one author in one lane. Offsets are of the lane, times in microseconds."""

    author: Author
    offsets: "array[int]" = field(default_factory=lambda: array("q"))
    accepted: "array[int]" = field(default_factory=lambda: array("q"))
    more: int = 0
    """Commands behind those whose places are kept."""
    last: int = -1
    last_accepted: int = 0
    last_id: uuid.UUID | None = None
    items: "list[Item]" = field(default_factory=list)
    """The first ones of them."""

    def add(self, offset: int, command: Command) -> None:
        at = int(command.accepted_at.timestamp() * 1_000_000)
        if len(self.offsets) < MAX_PLACES and not self.more:
            self.offsets.append(offset)
            self.accepted.append(at)
        else:
            self.more += 1
        if len(self.items) < MAX_ITEMS:
            self.items.append(Item(command.command_id, line_of(command)))
        self.last, self.last_accepted, self.last_id = offset, at, command.command_id
        self.author = command.author

    def drop_before(self, position: int) -> bool:
        """Forget what is decided; False if nothing is left."""
        if self.last < position:
            return False
        gone = bisect_left(self.offsets, position)
        if gone:
            del self.offsets[:gone], self.accepted[:gone], self.items[:gone]
        return True

    @property
    def count(self) -> int:
        """How many wait. Where the places are not known any more, at most so many."""
        return len(self.offsets) + self.more

    @property
    def first(self) -> int:
        return self.offsets[0] if self.offsets else self.last

    @property
    def first_id(self) -> uuid.UUID:
        found = self.items[0].command if self.items else self.last_id
        assert found is not None
        return found

    @property
    def oldest(self) -> datetime:
        """When the oldest was accepted. Where that is not known any more, the last one."""
        at = self.accepted[0] if self.accepted else self.last_accepted
        return datetime.fromtimestamp(at / 1_000_000, UTC)


@dataclass
class LaneWaiting:
    """What waits in one lane from `position` on, as far as it was read: up to `read_to`."""

    position: int
    read_to: int
    authors: dict[uuid.UUID, OfAuthor] = field(default_factory=dict)
    oldest: datetime | None = None
    """When the command at the position was accepted, if it was read."""
    untold: int = 0
    """Commands of authors for whom there was no room."""

    def add(self, offset: int, command: Command | None) -> None:
        """The next record of the lane. `None` for what is no command, or one of the system's own."""
        self.read_to = offset + 1
        if command is None or command.system:
            return
        of_author = self.authors.get(command.author.id)
        if of_author is None:
            if len(self.authors) >= MAX_AUTHORS:
                self.untold += 1
                return
            of_author = OfAuthor(command.author)
            self.authors[command.author.id] = of_author
        of_author.add(offset, command)
        if self.oldest is None:
            self.oldest = command.accepted_at

    def move_to(self, position: int) -> None:
        """The lane is decided up to here."""
        if position <= self.position:
            return
        self.position = position
        self.read_to = max(self.read_to, position)
        self.authors = {
            author: waiting
            for author, waiting in self.authors.items()
            if waiting.drop_before(position)
        }
        oldest = [waiting.oldest for waiting in self.authors.values()]
        self.oldest = min(oldest) if oldest else None

    def older_than(self, moment: datetime) -> Iterator[OfAuthor]:
        """Authors whose oldest command was accepted before this moment."""
        return (waiting for waiting in self.authors.values() if waiting.oldest <= moment)


def line_of(command: Command) -> str:
    """The beginning of the first text in a command, on one line; else what it does."""
    for mutation in command.mutations:
        for value in mutation.values.values():
            if isinstance(value, str) and not _is_id(value):
                flat = " ".join(value[: 4 * _ITEM_CHARS].split())
                return flat if len(flat) <= _ITEM_CHARS else f"{flat[:_ITEM_CHARS]}…"
    first = command.mutations[0]
    return f"{first.op} {first.type}"


def _is_id(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
