"""Reads ahead: while a batch is applied, the next one is ready and the one after it is being decoded.

Only of a backlog: behind a batch that was not full nothing is read before it is taken, so that what comes
meanwhile makes one batch and not many small ones.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from schema.tasks import end_tasks

T = TypeVar("T")


class ReadAhead(Generic[T]):
    """Batches in order, and at the end the error that ended reading. Made in a running loop."""

    def __init__(self, fetch: Callable[[], Awaitable[list[T]]], full: int) -> None:
        """`full` is how many make a batch that has more behind it."""
        self._fetch = fetch
        self._full = full
        self._ready: asyncio.Queue[list[T] | Exception] = asyncio.Queue(1)
        self._reading = asyncio.create_task(self._read())

    async def next(self) -> list[T]:
        """The next batch; empty when none came in time. Raises what fetching it raised."""
        found = await self._ready.get()
        self._ready.task_done()
        if isinstance(found, Exception):
            raise found
        return found

    async def close(self) -> None:
        await end_tasks(self._reading)

    async def _read(self) -> None:
        try:
            while True:
                records = await self._fetch()
                await self._ready.put(records)
                if len(records) < self._full:
                    await self._ready.join()
        except Exception as error:  # noqa: BLE001 - whoever takes the next batch is told
            await self._ready.put(error)
