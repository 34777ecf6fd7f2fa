"""Kafka: publishes commands, and knows what may be said of one that was not confirmed.

    NotAccepted        it is certain that the record is not and will not be in the log
    OutcomeUnknown     it may be in the log, or come into it later

An idempotent producer keeps undelivered batches for ever and never gives back a sequence number. So
a timeout is never a failure; a producer whose numbers no longer fit is replaced and the same record
sent again, which is safe because the writer takes each command id once.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import (
    InvalidProducerEpoch,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumber,
    ProducerClosed,
    ProducerFenced,
    RecordTooLargeError,
    UnknownProducerId,
)
from prometheus_client import Counter, Histogram

from schema.envelope import Record
from schema.telemetry import Log
from schema.topics import MAX_REQUEST_BYTES

_REQUEST_TIMEOUT_MS: Final = 5000
_PROBE_LIMIT_S: Final = 1.0
_STOP_LIMIT_S: Final = 5.0
_START_LIMIT_S: Final = 10.0
_BACKOFF_MIN_S: Final = 0.1
_BACKOFF_MAX_S: Final = 2.0
_MAX_UNCONFIRMED: Final = 1000
"""Records sent and not confirmed; with more, Kafka is stuck and nothing is added to the heap."""

_BURNED = (
    OutOfOrderSequenceNumber,
    UnknownProducerId,
    InvalidProducerEpoch,
    ProducerFenced,
    ProducerClosed,
)
_TOO_LARGE = (MessageSizeTooLargeError, RecordTooLargeError)

_log = Log("frontend_api")


class NotAccepted(Exception):
    """The record is not in the log and will not come into it."""


class OutcomeUnknown(Exception):
    """It is not known whether the record is, or will be, in the log."""


@dataclass(frozen=True)
class Published:
    """Where Kafka put a record. `offset` is None if an earlier attempt may be in the log too."""

    lane: int
    offset: int | None


class CommandPublisher:
    """`start()` connects in the background and keeps connected; `close()` takes a bounded time."""

    def __init__(
        self, bootstrap: str, topic: str, *, seconds: Histogram, replacements: Counter
    ) -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        self._seconds = seconds
        self._replacements = replacements
        self._producer: AIOKafkaProducer | None = None
        self._wanted = asyncio.Event()
        self._wanted.set()
        self._ready = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._unconfirmed: set[asyncio.Future[Any]] = set()
        self._stopping: set[asyncio.Task[None]] = set()
        self._stuck = False

    async def reachable(self) -> bool:
        """Whether Kafka answers, found out by asking it; takes at most a second."""
        producer = self._producer
        if producer is None or (self._stuck and self._unconfirmed):
            return False
        try:
            async with asyncio.timeout(_PROBE_LIMIT_S):
                known = await producer.client.fetch_all_metadata()
        except (KafkaError, OSError):
            return False
        return bool(known.partitions_for_topic(self._topic))

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep_producer(), name="command-publisher")

    async def publish(
        self,
        record: Record,
        lane: int,
        timeout_s: float,
        on_late: Callable[[Published], None],
    ) -> Published:
        """Append the record to its lane and wait for all replicas. Raises as the module says.

        If it is confirmed after this has raised `OutcomeUnknown`, `on_late` is called.
        """
        until = asyncio.get_running_loop().time() + timeout_s
        with self._seconds.time():
            try:
                return await self._attempt(record, lane, until, on_late, again=False)
            except _BURNED as error:
                self._replace(error)
            except _DeadSender as error:
                self._replace(error)
            try:
                return await self._attempt(record, lane, until, on_late, again=True)
            except (*_BURNED, _DeadSender, NotAccepted) as error:
                # The first attempt was refused by sequence number: it may have been written under
                # an earlier one, so that not even this is a definite failure.
                raise OutcomeUnknown(type(error).__name__) from error

    async def close(self) -> None:
        """Stop, within the time limit; what is unconfirmed then stays unknown."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        producer, self._producer = self._producer, None
        if producer is not None:
            await self._stop(producer)
        await asyncio.gather(*self._stopping, return_exceptions=True)

    async def _attempt(
        self,
        record: Record,
        lane: int,
        until: float,
        on_late: Callable[[Published], None],
        *,
        again: bool,
    ) -> Published:
        future = await self._queue(record, lane, until)
        self._unconfirmed.add(future)
        future.add_done_callback(self._unconfirmed.discard)
        loop = asyncio.get_running_loop()
        done, _ = await asyncio.wait({future}, timeout=max(0.0, until - loop.time()))
        if not done:
            self._stuck = True
            future.add_done_callback(lambda f: self._late(f, lane, on_late))
            raise OutcomeUnknown("no confirmation in time")
        try:
            metadata = future.result()
        except _TOO_LARGE as error:
            self._replace(error)  # the refusal burned a sequence number
            raise NotAccepted("too large for the broker") from error
        except _BURNED:
            raise
        except (KafkaError, OSError) as error:
            if self._sender_died():
                raise _DeadSender from error
            raise OutcomeUnknown(type(error).__name__) from error
        self._stuck = False
        return Published(lane, None if again else metadata.offset)

    async def _queue(self, record: Record, lane: int, until: float) -> "asyncio.Future[Any]":
        """Hand the record to the producer. Until this returns, nothing was sent."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(until):
                await self._ready.wait()
                producer = self._producer
                if producer is None:
                    raise NotAccepted("not connected")
                await self._must_be_reachable(producer, lane)
                future: asyncio.Future[Any] = await producer.send(
                    self._topic,
                    record.value,
                    record.key,
                    partition=lane,
                    headers=list(record.headers),
                )
                return future
        except TimeoutError as error:
            raise NotAccepted(f"no broker within {max(0.0, until - loop.time()):.1f} s") from error
        except _TOO_LARGE as error:
            raise NotAccepted("too large") from error
        except KafkaTimeoutError as error:
            raise NotAccepted("the queue is full") from error
        except _BURNED:
            raise
        except (KafkaError, OSError, AssertionError) as error:
            if self._sender_died():
                raise _DeadSender from error
            raise NotAccepted(type(error).__name__) from error

    async def _must_be_reachable(self, producer: AIOKafkaProducer, lane: int) -> None:
        """Raises `NotAccepted` if the lane's broker is known to be away: then nothing is queued."""
        if self._stuck and self._unconfirmed:
            raise NotAccepted("earlier records are still unconfirmed")
        if len(self._unconfirmed) >= _MAX_UNCONFIRMED:
            raise NotAccepted("too many records are unconfirmed")
        await producer.partitions_for(self._topic)
        leader = producer.client.cluster.leader_for_partition(TopicPartition(self._topic, lane))
        if leader is None or leader < 0 or not await producer.client.ready(leader):
            raise NotAccepted("the lane's broker cannot be reached")

    def _late(
        self, future: "asyncio.Future[Any]", lane: int, on_late: Callable[[Published], None]
    ) -> None:
        if not any(not f.done() for f in self._unconfirmed):
            self._stuck = False
        if not future.cancelled() and future.exception() is None:
            on_late(Published(lane, None))

    def _sender_died(self) -> bool:
        """aiokafka fails every later send once its sender task has died of a surprise."""
        producer = self._producer
        task = producer._sender.sender_task if producer is not None else None
        return task is not None and task.done()

    def _replace(self, error: BaseException) -> None:
        """Let the supervisor build a new producer; the old one is stopped within its limit."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        self._replacements.inc()
        self._stuck = False
        _log.warning("producer_replaced", error=type(error).__name__)
        self._ready.clear()
        self._wanted.set()
        task = asyncio.create_task(self._stop(producer))
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    async def _keep_producer(self) -> None:
        backoff_s = _BACKOFF_MIN_S
        while True:
            await self._wanted.wait()
            producer = self._new_producer()
            try:
                async with asyncio.timeout(_START_LIMIT_S):
                    await producer.start()
                    await producer.partitions_for(self._topic)
            except (KafkaError, OSError) as error:
                _log.info("not_accepted", what="connecting", error=type(error).__name__)
                await self._stop(producer)
                await asyncio.sleep(backoff_s * random.uniform(0.5, 1))  # noqa: S311 - no secret
                backoff_s = min(backoff_s * 2, _BACKOFF_MAX_S)
                continue
            backoff_s = _BACKOFF_MIN_S
            self._producer = producer
            self._wanted.clear()
            self._ready.set()

    def _new_producer(self) -> AIOKafkaProducer:
        return AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            acks="all",
            enable_idempotence=True,
            linger_ms=0,
            request_timeout_ms=_REQUEST_TIMEOUT_MS,
            retry_backoff_ms=100,
            max_request_size=MAX_REQUEST_BYTES,
            metadata_max_age_ms=60_000,
        )

    @staticmethod
    async def _stop(producer: AIOKafkaProducer) -> None:
        """`stop()` hangs while no broker answers: bounded, then its connections are cut."""
        try:
            await asyncio.wait_for(producer.stop(), _STOP_LIMIT_S)
        except (TimeoutError, KafkaError, OSError):
            sender = producer._sender.sender_task
            if sender is not None:
                sender.cancel()
            try:
                await asyncio.wait_for(producer.client.close(), 1.0)
            except (TimeoutError, KafkaError, OSError):
                return


class _DeadSender(Exception):
    """The producer's sender task is gone."""
