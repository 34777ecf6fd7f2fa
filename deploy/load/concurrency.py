"""Work on many things, a bounded number at a time."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


async def concurrently(
    items: Iterable[T], work: Callable[[T], Awaitable[None]], in_flight: int
) -> None:
    """Does the work for all items, `in_flight` at a time. An item is taken when its turn comes, so
    `items` may be endless or change its mind. The first error ends all work and is raised."""
    shared = iter(items)

    async def worker() -> None:
        for item in shared:
            await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(in_flight):
                group.create_task(worker())
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
