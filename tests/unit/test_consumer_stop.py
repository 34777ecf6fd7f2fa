"""Stopping a Kafka consumer, whatever it does, ends nobody but the consumer."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from frontend_api.outcome_listener import stop_consumer
from writer.failures import LogUnavailable
from writer.kafka_errors import stop_client, translated

pytestmark = pytest.mark.unit


class Consumer:
    """As aiokafka's when a fetch waits to be repeated: its cancellation comes out of `stop()`."""

    async def stop(self) -> None:
        fetch = asyncio.create_task(asyncio.sleep(60))
        await asyncio.sleep(0)
        fetch.cancel()
        await fetch


class Failing:
    async def stop(self) -> None:
        raise OSError


@pytest.mark.parametrize("consumer", [Consumer(), Failing()], ids=["cancelled", "failed"])
@pytest.mark.parametrize("stop", [stop_consumer, stop_client], ids=["front end", "writer"])
async def test_what_comes_out_of_stop_does_not_end_the_caller(
    stop: Callable[[Any], Awaitable[None]], consumer: object
) -> None:
    await stop(consumer)
    await asyncio.sleep(0)


async def test_a_stop_that_hangs_is_given_up() -> None:
    class Hanging:
        async def stop(self) -> None:
            await asyncio.sleep(60)

    async with asyncio.timeout(5):
        await stop_consumer(Hanging(), 0.05)


async def _cancelled_inside() -> None:
    inner = asyncio.ensure_future(asyncio.sleep(60))
    asyncio.get_running_loop().call_soon(inner.cancel)
    await inner


async def test_a_cancellation_out_of_the_client_is_an_error_like_others() -> None:
    with pytest.raises(LogUnavailable), translated():
        await _cancelled_inside()


async def test_a_cancellation_of_the_caller_ends_the_caller() -> None:
    async def work() -> None:
        with translated():
            await asyncio.sleep(60)

    task = asyncio.ensure_future(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
