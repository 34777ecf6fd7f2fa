"""The mails of one partition that were taken and are not finished: pure.

Only they are kept, so that memory is bounded: when too many are unfinished, no more are taken. What is
finished is remembered in the state topic; the group's offset never passes one that is not.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

MAX_MAILS: Final = 1000
MAX_BYTES: Final = 8 * 1024 * 1024


@dataclass(frozen=True)
class MailRecord:
    """A record of the mail topic, as it is there."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()

    @property
    def size_bytes(self) -> int:
        return len(self.key or b"") + len(self.value or b"") + 200


@dataclass
class Waiting:
    """One that is not finished. `due` is when it is tried (next)."""

    record: MailRecord
    due: datetime
    attempts: int = 0
    maybe_sent: bool = False
    """An earlier attempt broke off where nobody can know whether the server had taken it."""
    known: bool = False
    """Whether the state topic was asked about it."""
    horizon: datetime | None = None
    """When it is given up; `None` for bytes that are no mail."""


@dataclass
class Window:
    """`next_offset` is the first that was not taken yet; `committed` what the group was told."""

    next_offset: int
    max_mails: int = MAX_MAILS
    max_bytes: int = MAX_BYTES
    _waiting: dict[int, Waiting] = field(default_factory=dict)
    _bytes: int = 0
    committed: int = -1

    def __post_init__(self) -> None:
        self.committed = self.next_offset

    def take(self, record: MailRecord, now: datetime, horizon: datetime | None) -> None:
        """One more; one that was taken already is ignored."""
        if record.offset < self.next_offset:
            return
        self._waiting[record.offset] = Waiting(record, now, horizon=horizon)
        self._bytes += record.size_bytes
        self.next_offset = record.offset + 1

    @property
    def full(self) -> bool:
        return len(self._waiting) >= self.max_mails or self._bytes >= self.max_bytes

    def __len__(self) -> int:
        return len(self._waiting)

    def next_due(self, now: datetime) -> Waiting | None:
        """The one that has been due for longest."""
        due = [mail for mail in self._waiting.values() if mail.due <= now]
        return min(due, key=lambda mail: (mail.due, mail.record.offset), default=None)

    def given_up(self, now: datetime) -> Waiting | None:
        """One whose horizon has passed, due or not."""
        return next(
            (m for m in self._waiting.values() if m.horizon is not None and m.horizon <= now), None
        )

    def put(self, waiting: Waiting) -> None:
        """One that is here, with what is known of it now."""
        if waiting.record.offset in self._waiting:
            self._waiting[waiting.record.offset] = waiting

    def finish(self, offset: int) -> None:
        done = self._waiting.pop(offset, None)
        if done is not None:
            self._bytes -= done.record.size_bytes

    @property
    def committable(self) -> int:
        """What the group's offset may be: up to the oldest that is not finished."""
        return next(iter(self._waiting), self.next_offset)
