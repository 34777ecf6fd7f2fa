"""Looks into the command log: its ends, what waits at its head, and single records."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from frontend_api.rebuild_log import CommandLog, LogUnavailable, OpenLog

T = TypeVar("T")
_LIMIT_S: Final = 4.0
MOST_READ: Final = 2000
"""Records that one look reads at most, of all lanes together."""


@dataclass(frozen=True)
class Found:
    """One record of the log. `at` is when the broker took it."""

    lane: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    at: datetime

    @property
    def command(self) -> uuid.UUID | None:
        """The command's id as its header says; whether it is genuine is for the writer to say."""
        for name, content in self.headers:
            if name == "ce_id" and content is not None:
                try:
                    return uuid.UUID(content.decode("ascii", "replace"))
                except ValueError:
                    return None
        return None


class LogLook:
    """Every method takes a bounded time and raises `LogUnavailable`."""

    def __init__(self, log: CommandLog) -> None:
        self._log = log

    @asynccontextmanager
    async def open(self) -> AsyncIterator[OpenLog]:
        """For one who looks again and again."""
        async with self._log.open() as opened:
            yield opened

    async def hint(self) -> Mapping[int, int]:
        return await bounded(self._log.hint(), _LIMIT_S)

    async def bounds(self) -> Mapping[int, tuple[int, int]]:
        """Of each lane the first offset that it still has, and its end."""

        async def work(opened: OpenLog) -> Mapping[int, tuple[int, int]]:
            return await opened.bounds()

        return await self._within(work)

    async def record(self, lane: int, offset: int) -> Found | None:
        """The record at an offset; None if it is not in the log (any more)."""

        async def work(opened: OpenLog) -> Found | None:
            begin, end = (await opened.bounds()).get(lane, (0, 0))
            if not begin <= offset < end:
                return None
            return await first_of(opened, lane, offset, offset + 1)

        return await self._within(work)

    async def waiting(
        self, positions: Mapping[int, int], wanted: Callable[[Found], bool], most: int
    ) -> tuple[list[Found], bool]:
        """Records from the writer's positions on, oldest first in each lane, and whether that is all.

        `positions` of lanes that are not named: their beginning.
        """

        async def work(opened: OpenLog) -> tuple[list[Found], bool]:
            found: list[Found] = []
            read = 0
            for lane, (begin, end) in sorted((await opened.bounds()).items()):
                async for batch in opened.records(lane, max(begin, positions.get(lane, 0)), end):
                    some = [found_of(lane, record) for record in batch]
                    found += [one for one in some if wanted(one)]
                    read += len(batch)
                    if len(found) > most or read >= MOST_READ:
                        return found[:most], False
            return found, True

        return await self._within(work)

    async def _within(self, work: Callable[[OpenLog], Awaitable[T]]) -> T:
        async def opened() -> T:
            async with self._log.open() as log:
                return await work(log)

        return await bounded(opened(), _LIMIT_S)


async def bounded(work: Awaitable[T], limit_s: float) -> T:
    """The result, within a limit. In a task of its own: the client lets cancellations of its own out."""
    attempt = asyncio.ensure_future(work)
    try:
        await asyncio.wait({attempt}, timeout=limit_s)
    finally:
        attempt.cancel()
    if not attempt.done() or attempt.cancelled():
        raise LogUnavailable("no answer in time")
    return attempt.result()


async def first_of(opened: OpenLog, lane: int, from_: int, to: int) -> Found | None:
    """The first record with `from_ <= offset < to`."""
    async for batch in opened.records(lane, from_, to):
        return found_of(lane, batch[0])
    return None


def found_of(lane: int, record: Any) -> Found:
    at = datetime.fromtimestamp(record.timestamp / 1000, UTC)
    return Found(lane, record.offset, record.key, record.value, tuple(record.headers), at)
