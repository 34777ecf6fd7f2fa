"""Tasks that have to end, whatever happens to the first cancellation."""

import asyncio

import pytest

from schema.tasks import end_tasks

pytestmark = pytest.mark.unit


async def test_a_task_that_swallows_a_cancellation_is_ended() -> None:
    swallowed = 0

    async def loops() -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1
                if swallowed > 2:
                    raise

    task = asyncio.create_task(loops())
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await end_tasks(task, None)
    assert task.cancelled()
    assert swallowed == 3


async def test_what_a_task_raised_is_nobodys_business_any_more() -> None:
    async def fails() -> None:
        raise ValueError("seen by nobody")

    task = asyncio.create_task(fails())
    await end_tasks(task)
    assert task.done()
    await end_tasks()
