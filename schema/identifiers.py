"""Identifiers: UUIDv7 for what is made anew, a derived UUIDv8 for rows with a natural key.

Ids give identity and index locality. They never give order: order is the log offset.
"""

import hashlib
import secrets
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import NewType

import uuid6

CommandId = NewType("CommandId", uuid.UUID)
RowId = NewType("RowId", uuid.UUID)
UserId = NewType("UserId", uuid.UUID)

IdReader = Callable[[str], uuid.UUID]
"""Reads an id, as `uuid.UUID` does; the writer has a faster one, of its driver.

Raises ValueError, TypeError or AttributeError for what is none."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RANDOM_BITS = 74
_STEP_BITS = 40
_MS_A_DAY = 86_400_000
_LAST_MS = 253_402_300_799_999  # the last of the year 9999; 48 bits reach beyond it
_VARIANT_AT = 62
_VERSION_AND_VARIANT = 0xF << 14 | 0b11
_UUID7 = 7 << 14 | 0b10
_USER_NAMESPACE = uuid.UUID("5a0e3fcb-2d0a-5f4e-9a45-0b6f6f0d9d11")


class IdFactory:
    """Makes UUIDv7 ids that rise within a process and are never ahead of its clock.

    Within one millisecond the 74 random bits are raised by a random step (RFC 9562, section 6.2,
    method 2), so the timestamp stays the clock's. They are seeded in their lower half and a step
    is below 2**40, which leaves room for 2**33 ids a millisecond. When the clock is set back, ids
    keep the last timestamp until the clock has caught up: rising matters more than telling the time.
    """

    def __init__(self, clock_ms: Callable[[], int] | None = None) -> None:
        self._clock_ms = clock_ms or (lambda: time.time_ns() // 1_000_000)
        self._lock = threading.Lock()
        self._last_ms = -1
        self._last_random = 0

    def __call__(self) -> uuid6.UUID:
        with self._lock:
            now_ms = self._clock_ms()
            if now_ms > self._last_ms:
                self._last_ms = now_ms
                self._last_random = secrets.randbits(_RANDOM_BITS - 1)
            else:
                self._last_random += 1 + secrets.randbits(_STEP_BITS)
            return _uuid7(self._last_ms, self._last_random)


def _uuid7(ms: int, random: int) -> uuid6.UUID:
    rand_a, rand_b = random >> 62, random & ((1 << 62) - 1)
    return uuid6.UUID(int=(ms << 80) | (0x7 << 76) | (rand_a << 64) | (0b10 << 62) | rand_b)


_factory = IdFactory()


def new_id() -> uuid6.UUID:
    """A new UUIDv7: the one place where ids are made."""
    return _factory()


def new_command_id() -> CommandId:
    return CommandId(_factory())


def new_row_id() -> RowId:
    return RowId(_factory())


def is_uuid7(value: uuid.UUID) -> bool:
    return (value.int >> _VARIANT_AT) & _VERSION_AND_VARIANT == _UUID7


def time_of(value: uuid.UUID) -> datetime:
    """The millisecond in which a UUIDv7 was made, in UTC. For housekeeping, never for order.

    A time beyond the calendar, which only a made-up id can have, is the calendar's last.
    """
    if not is_uuid7(value):
        raise ValueError("only a UUIDv7 carries a time")
    return _EPOCH + timedelta(milliseconds=min(value.int >> 80, _LAST_MS))


def month_of(value: uuid.UUID) -> date:
    """The first day of the month in which a UUIDv7 was made, in UTC."""
    number = value.int
    if (number >> _VARIANT_AT) & _VERSION_AND_VARIANT != _UUID7:
        raise ValueError("only a UUIDv7 carries a time")
    return _month_of_day(min(number >> 80, _LAST_MS) // _MS_A_DAY)


@lru_cache(maxsize=64)
def _month_of_day(day: int) -> date:
    """By days since 1970: a batch has thousands of ids of the same one."""
    return (_EPOCH + timedelta(days=day)).date().replace(day=1)


def derived_id(*parts: str) -> RowId:
    """The id of a row that its natural key names, such as one author's reaction to one post.

    The same key gives the same id, on every machine: a UUIDv8 (RFC 9562, section 5.8) over SHA-256.
    """
    digest = hashlib.sha256("\x1f".join(parts).encode()).digest()
    bits = int.from_bytes(digest[:16], "big")
    bits = bits & ~(0xF << 76) | (0x8 << 76)
    bits = bits & ~(0b11 << 62) | (0b10 << 62)
    return RowId(uuid.UUID(int=bits))


def user_id_for(name: str) -> UserId:
    """The user id that trial tokens and imports give to a name."""
    return UserId(uuid.uuid5(_USER_NAMESPACE, name))
