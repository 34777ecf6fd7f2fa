"""One idempotent producer: hands a record to Kafka, and says what is certain when that fails.

NotAccepted        it is certain that the record is not and will not be in the log
OutcomeUnknown     it may be in the log, or come into it later
ProducerBurned     this producer is of no more use; `queued` says whether it had the record
"""

import asyncio
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

from schema.envelope import Record
from schema.topics import MAX_REQUEST_BYTES

_REQUEST_TIMEOUT_MS: Final = 5000
_PROBE_LIMIT_S: Final = 1.0
_STOP_LIMIT_S: Final = 5.0
_STUCK_LIMIT_S: Final = 15.0
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


class NotAccepted(Exception):
    """The record is not in the log and will not come into it."""


class OutcomeUnknown(Exception):
    """It is not known whether the record is, or will be, in the log."""


class ProducerBurned(Exception):
    """The producer has to be replaced. `queued`: the record may have been sent."""

    def __init__(self, why: str, *, queued: bool) -> None:
        super().__init__(why)
        self.queued = queued


@dataclass(frozen=True)
class Published:
    """Where Kafka put a record. `offset` is None if an earlier attempt may be in the log too."""

    lane: int
    offset: int | None


class Producer:
    """One aiokafka producer for one topic, with what it has not had confirmed yet."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._topic = topic
        self._kafka = AIOKafkaProducer(
            bootstrap_servers=bootstrap,
            acks="all",
            enable_idempotence=True,
            linger_ms=0,
            request_timeout_ms=_REQUEST_TIMEOUT_MS,
            retry_backoff_ms=100,
            max_request_size=MAX_REQUEST_BYTES,
            metadata_max_age_ms=60_000,
        )
        self._unconfirmed: set[asyncio.Future[Any]] = set()
        self._stuck_since: float | None = None
        self.refused_by_size = False
        """The broker has refused a batch: a sequence number is gone, the next send would fail."""

    async def start(self, limit_s: float) -> None:
        """Raises `KafkaError` or `OSError`."""
        async with asyncio.timeout(limit_s):
            await self._kafka.start()
            await self._kafka.partitions_for(self._topic)

    async def stop(self) -> None:
        """aiokafka's `stop()` hangs while no broker answers: bounded, then connections are cut."""
        try:
            await asyncio.wait_for(self._kafka.stop(), _STOP_LIMIT_S)
        except (TimeoutError, KafkaError, OSError):
            sender = self._sender_task
            if sender is not None:
                sender.cancel()
            try:
                await asyncio.wait_for(self._kafka.client.close(), 1.0)
            except (TimeoutError, KafkaError, OSError):
                return

    async def answers(self) -> bool:
        """Whether Kafka answers and has the topic; asks it, and takes at most a second."""
        try:
            async with asyncio.timeout(_PROBE_LIMIT_S):
                known = await self._kafka.client.fetch_all_metadata()
        except (KafkaError, OSError):
            return False
        return bool(known.partitions_for_topic(self._topic))

    @property
    def stuck(self) -> bool:
        """Whether something is unconfirmed that should have been confirmed long ago."""
        return self._stuck_since is not None

    async def send(
        self, record: Record, lane: int, until: float, on_late: Callable[[Published], None]
    ) -> Published:
        """Append and wait until the loop's clock says `until`. Raises as the module says.

        `on_late` is called if the record is confirmed after `OutcomeUnknown` was raised.
        """
        future = await self._queue(record, lane, until)
        self._unconfirmed.add(future)
        future.add_done_callback(self._resolved)
        loop = asyncio.get_running_loop()
        if not await _done_until(future, until):
            self._stuck_since = self._stuck_since or loop.time()
            future.add_done_callback(lambda f: _tell_late(f, lane, on_late))
            raise OutcomeUnknown("no confirmation in time")
        if future.cancelled():
            raise OutcomeUnknown("the producer was stopped")
        try:
            metadata = future.result()
        except _TOO_LARGE as error:
            self.refused_by_size = True
            raise NotAccepted("too large for the broker") from error
        except _BURNED as error:
            raise ProducerBurned(type(error).__name__, queued=True) from error
        except (KafkaError, OSError) as error:
            if self._sender_died:
                raise ProducerBurned("its sender died", queued=True) from error
            raise OutcomeUnknown(type(error).__name__) from error
        return Published(lane, metadata.offset)

    def _resolved(self, future: "asyncio.Future[Any]") -> None:
        self._unconfirmed.discard(future)
        if not self._unconfirmed:
            self._stuck_since = None

    async def _queue(self, record: Record, lane: int, until: float) -> "asyncio.Future[Any]":
        """Hand the record over. Until this returns, nothing was sent."""
        try:
            async with asyncio.timeout_at(until):
                if self._sender_died:
                    raise ProducerBurned("its sender died", queued=False)
                await self._must_be_reachable(lane)
                future: asyncio.Future[Any] = await self._kafka.send(
                    self._topic,
                    record.value,
                    record.key,
                    partition=lane,
                    headers=list(record.headers),
                )
                return future
        except TimeoutError as error:
            raise NotAccepted("no broker in time") from error
        except _TOO_LARGE as error:
            raise NotAccepted("too large") from error
        except KafkaTimeoutError as error:
            raise NotAccepted("the queue is full") from error
        except _BURNED as error:
            raise ProducerBurned(type(error).__name__, queued=False) from error
        except (KafkaError, OSError, AssertionError) as error:
            if self._sender_died:
                raise ProducerBurned("its sender died", queued=False) from error
            raise NotAccepted(type(error).__name__) from error

    async def _must_be_reachable(self, lane: int) -> None:
        """Raises `NotAccepted` if the lane's broker is known to be away: then nothing is queued."""
        if self.stuck:
            await self._give_up_if_hopeless()
            raise NotAccepted("earlier records are still unconfirmed")
        if len(self._unconfirmed) >= _MAX_UNCONFIRMED:
            raise NotAccepted("too many records are unconfirmed")
        await self._kafka.partitions_for(self._topic)
        client = self._kafka.client
        leader = client.cluster.leader_for_partition(TopicPartition(self._topic, lane))
        if leader is None or leader < 0 or not await client.ready(leader):
            raise NotAccepted("the lane's broker cannot be reached")

    async def _give_up_if_hopeless(self) -> None:
        """A producer that stays stuck although Kafka answers is of no more use."""
        stuck_s = asyncio.get_running_loop().time() - (self._stuck_since or 0.0)
        if stuck_s > _STUCK_LIMIT_S and await self.answers():
            raise ProducerBurned("it is stuck although Kafka answers", queued=False)

    @property
    def _sender_task(self) -> "asyncio.Task[None] | None":
        task: asyncio.Task[None] | None = self._kafka._sender.sender_task
        return task

    @property
    def _sender_died(self) -> bool:
        """aiokafka fails every later send once its sender task has died of a surprise."""
        task = self._sender_task
        return task is not None and task.done()


async def _done_until(future: "asyncio.Future[Any]", until: float) -> bool:
    """Whether it is done by then. It is not cancelled, and `asyncio.wait` would cost more."""
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def wake(_: object = None) -> None:
        if not waiter.done():
            waiter.set_result(None)

    timer = loop.call_at(until, wake)
    future.add_done_callback(wake)
    try:
        await waiter
    finally:
        timer.cancel()
        future.remove_done_callback(wake)
    return future.done()


def _tell_late(
    future: "asyncio.Future[Any]", lane: int, on_late: Callable[[Published], None]
) -> None:
    if not future.cancelled() and future.exception() is None:
        on_late(Published(lane, None))
