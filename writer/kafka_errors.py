"""What comes out of the Kafka client, in the writer's own errors.

aiokafka cancels its own tasks when a connection is lost, and lets such a cancellation out of calls that
wait for them. Nobody cancelled the caller: it must not end the writer.
"""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from writer.failures import LogMismatch, LogUnavailable

_STOP_S = 5.0


class Client(Protocol):
    """A consumer or a producer."""

    def stop(self) -> Coroutine[Any, Any, None]: ...


@contextmanager
def translated() -> Iterator[None]:
    """Raises `LogMismatch` for a position that is not in the log, `LogUnavailable` for all else."""
    try:
        yield
    except OffsetOutOfRangeError as error:
        raise LogMismatch(f"the position is not in the log: {error}") from error
    except KafkaError as error:
        raise LogUnavailable(repr(error)) from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise  # somebody wants us to stop
        raise LogUnavailable("cancelled inside the client") from error


async def stop_client(client: Client) -> None:
    """Stop a client. It can hang while no broker answers; it is given up after 5 s then."""
    await given_time(client.stop())


async def given_time(end: Coroutine[Any, Any, None]) -> None:
    """Await the end of a client for 5 s at most; what it raises is dropped.

    In a task of its own, so that a cancellation which the client lets out of it ends only that.
    """
    stopping = asyncio.ensure_future(end)
    try:
        done, _ = await asyncio.wait({stopping}, timeout=_STOP_S)
    finally:
        stopping.cancel()
    if done and not stopping.cancelled():
        stopping.exception()  # seen: a client that could not be stopped well is gone all the same
