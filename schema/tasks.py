"""Ending tasks for certain.

Python 3.11's `asyncio.wait_for`, which our clients use inside, swallows a cancellation that comes in
the moment in which its future is done (python/cpython#86296). A task that loops then goes on, and who
has cancelled it once and waits for its end waits for ever.
"""

import asyncio
from typing import Any, Final

_AGAIN_S: Final = 0.25


async def end_tasks(*tasks: "asyncio.Task[Any] | None") -> None:
    """Cancel tasks, as often as it takes, and wait until they have ended. What they raised is dropped."""
    there = [task for task in tasks if task is not None]
    while running := [task for task in there if not task.done()]:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=_AGAIN_S)
    await asyncio.gather(*there, return_exceptions=True)
