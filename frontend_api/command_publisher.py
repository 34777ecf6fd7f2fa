"""Kafka: publishes commands, by one producer at a time, and replaces it when it is of no more use.

An idempotent producer keeps undelivered batches for ever and never gives back a sequence number. So
a timeout is never a failure; and a producer whose numbers no longer fit is replaced and the same
record sent again, which is safe because the writer takes each command id once.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Final

from aiokafka.errors import KafkaError
from prometheus_client import Counter, Histogram

from frontend_api.kafka_producer import (
    NotAccepted,
    OutcomeUnknown,
    Producer,
    ProducerBurned,
    Published,
)
from schema.envelope import Record
from schema.tasks import end_tasks
from schema.telemetry import Log

_START_LIMIT_S: Final = 10.0
_BACKOFF_MIN_S: Final = 0.1
_BACKOFF_MAX_S: Final = 2.0

_log = Log("frontend_api")


class CommandPublisher:
    """`start()` connects in the background and keeps connected; `close()` takes a bounded time."""

    def __init__(
        self, bootstrap: str, topic: str, *, seconds: Histogram, replacements: Counter
    ) -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        self._seconds = seconds
        self._replacements = replacements
        self._producer: Producer | None = None
        self._wanted = asyncio.Event()
        self._wanted.set()
        self._ready = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopping: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep_producer(), name="command-publisher")

    async def reachable(self) -> bool:
        """Whether Kafka answers, found out by asking it; takes at most a second."""
        producer = self._producer
        return producer is not None and not producer.stuck and await producer.answers()

    async def publish(
        self,
        record: Record,
        lane: int,
        timeout_s: float,
        on_late: Callable[[Published], None],
    ) -> Published:
        """Append the record to its lane and wait for all replicas.

        Raises `NotAccepted` or `OutcomeUnknown`. If it is confirmed after the latter, `on_late` is
        called.
        """
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            return await self._twice_at_most(record, lane, begun + timeout_s, on_late)
        finally:
            self._seconds.observe(loop.time() - begun)

    async def _twice_at_most(
        self, record: Record, lane: int, until: float, on_late: Callable[[Published], None]
    ) -> Published:
        try:
            return await self._attempt(record, lane, until, on_late)
        except ProducerBurned as error:
            queued = error.queued
        try:
            published = await self._attempt(record, lane, until, on_late)
        except (ProducerBurned, NotAccepted) as error:
            if queued or (isinstance(error, ProducerBurned) and error.queued):
                # The first attempt may have been written before it was refused.
                raise OutcomeUnknown(str(error)) from error
            raise NotAccepted(str(error)) from error
        return Published(published.lane, None) if queued else published

    async def close(self) -> None:
        """Stop, within the time limit; what is unconfirmed then stays unknown."""
        await end_tasks(self._task)
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()
        await asyncio.gather(*self._stopping, return_exceptions=True)

    async def _attempt(
        self, record: Record, lane: int, until: float, on_late: Callable[[Published], None]
    ) -> Published:
        if not self._ready.is_set():
            try:
                async with asyncio.timeout_at(until):
                    await self._ready.wait()
            except TimeoutError:
                raise NotAccepted("not connected") from None
        producer = self._producer
        if producer is None:
            raise NotAccepted("not connected")
        try:
            return await producer.send(record, lane, until, on_late)
        except ProducerBurned as error:
            self._replace(producer, str(error))
            raise
        except NotAccepted:
            if producer.refused_by_size:
                self._replace(producer, "a batch was refused by size")
            raise

    def _replace(self, producer: Producer, why: str) -> None:
        """Have a new producer built; the old one is stopped within its limit."""
        if producer is not self._producer:
            return  # somebody else has replaced it already
        self._producer = None
        self._replacements.inc()
        _log.warning("producer_replaced", why=why)
        self._ready.clear()
        self._wanted.set()
        task = asyncio.create_task(producer.stop())
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    async def _keep_producer(self) -> None:
        backoff_s = _BACKOFF_MIN_S
        while True:
            await self._wanted.wait()
            producer = Producer(self._bootstrap, self._topic)
            try:
                await producer.start(_START_LIMIT_S)
            except (KafkaError, OSError) as error:
                _log.info("not_accepted", what="connecting", error=type(error).__name__)
                await producer.stop()
                await asyncio.sleep(backoff_s * random.uniform(0.5, 1))  # noqa: S311 - no secret
                backoff_s = min(backoff_s * 2, _BACKOFF_MAX_S)
                continue
            except BaseException:
                await producer.stop()  # cancelled while connecting: leave nothing open
                raise
            backoff_s = _BACKOFF_MIN_S
            self._producer = producer
            self._wanted.clear()
            self._ready.set()
