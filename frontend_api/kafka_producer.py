"""One idempotent producer: hands records to Kafka, and says what is certain when that fails.

Records of one turn of the event loop go to their lane in one batch, which is filled here: sent one by
one, each costs aiokafka a future and more. While a batch is under way, what comes gathers for the next;
until a batch is handed over, its records are certain not to be in the log.
"""

import asyncio
import functools
from collections.abc import Callable, Iterable
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
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from frontend_api.kafka_records import (
    Lane,
    NotAccepted,
    OutcomeUnknown,
    ProducerBurned,
    Published,
    Sending,
    Why,
)
from schema.envelope import Record
from schema.topics import MAX_REQUEST_BYTES

__all__ = ["NotAccepted", "OutcomeUnknown", "Producer", "ProducerBurned", "Published"]

_REQUEST_TIMEOUT_MS: Final = 5000
_PROBE_LIMIT_S: Final = 1.0
_STOP_LIMIT_S: Final = 5.0
_STUCK_LIMIT_S: Final = 15.0
_MAX_UNCONFIRMED: Final = 1000
"""Records that wait or are not confirmed; with more, Kafka is stuck and nothing is added to the heap."""
_HAND_OVER_LIMIT_S: Final = 5.0
"""For how long a lane's broker is tried to be reached before what waits is refused."""
_EARLY_S: Final = 0.001
"""By how much a timer may ring too early."""
_BATCH_BYTES: Final = 16_384
"""A batch takes no more records when it has so many bytes; one record alone may be larger."""

_BURNED = (
    OutOfOrderSequenceNumber,
    UnknownProducerId,
    InvalidProducerEpoch,
    ProducerFenced,
    ProducerClosed,
)
_TOO_LARGE = (MessageSizeTooLargeError, RecordTooLargeError)


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
            max_batch_size=_BATCH_BYTES,
            max_request_size=MAX_REQUEST_BYTES,
            metadata_max_age_ms=60_000,
        )
        self._lanes: dict[int, Lane] = {}
        self._timer: asyncio.TimerHandle | None = None
        """One for all records: it rings no later than the time of the first of them is up."""
        self._held = 0
        """Records that wait or are unconfirmed."""
        self._unconfirmed = 0
        """Records that are in batches and not confirmed."""
        self._stuck_since: float | None = None
        self._burned: str | None = None
        """Why it is of no more use."""
        self.refused_by_size = False
        """The broker has refused a batch: a sequence number is gone, the next send would fail."""

    async def start(self, limit_s: float) -> None:
        """Raises `KafkaError` or `OSError`."""
        async with asyncio.timeout(limit_s):
            await self._kafka.start()
            await self._kafka.partitions_for(self._topic)

    async def stop(self) -> None:
        """aiokafka's `stop()` hangs while no broker answers: bounded, then connections are cut."""
        self._burn("it is stopped")
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
        await self._must_be_of_use(until)
        size = DefaultRecordBatchBuilder.estimate_size_in_bytes(
            record.key, record.value, list(record.headers)
        )
        if size > MAX_REQUEST_BYTES:
            raise NotAccepted("too large")
        if self._held >= _MAX_UNCONFIRMED:
            raise NotAccepted("too many records are unconfirmed")
        loop = asyncio.get_running_loop()
        if until <= loop.time():
            raise NotAccepted("no time is left")
        one = Sending(record, until, on_late, loop.create_future())
        place = self._lanes.get(lane)
        if place is None:
            place = self._lanes[lane] = Lane(lane)
        place.waiting.append(one)
        self._held += 1
        self._send_waiting(place)
        self._ring_by(until)
        return await one.published

    async def _must_be_of_use(self, until: float) -> None:
        if self._sender_died:
            self._burn("its sender died")
        if self._stuck_since is not None and self._burned is None:
            # A producer that stays stuck although Kafka answers is of no more use.
            try:
                async with asyncio.timeout_at(until):
                    stuck_s = asyncio.get_running_loop().time() - self._stuck_since
                    if stuck_s <= _STUCK_LIMIT_S or not await self.answers():
                        raise NotAccepted("earlier records are still unconfirmed")
            except TimeoutError:
                raise NotAccepted("no broker in time") from None
            self._burn("it is stuck although Kafka answers")
        if self._burned is not None:
            raise ProducerBurned(self._burned, queued=False)

    def _ring_by(self, until: float) -> None:
        if self._timer is not None:
            if self._timer.when() <= until:
                return
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(until, self._ring)

    def _ring(self) -> None:
        """See whose time is up. A timer of its own for each record would cost 2 µs."""
        self._timer = None
        now = asyncio.get_running_loop().time() + _EARLY_S
        left: list[float] = []
        why = functools.partial(NotAccepted, "no broker in time")
        for lane in self._lanes.values():
            for one in (*lane.batch, *lane.waiting):
                if one.published.done():
                    continue
                if one.until > now:
                    left.append(one.until)
                elif one.sent:
                    self._overdue(one)
                else:
                    lane.waiting.remove(one)
                    self._refuse([one], why)
            nobody = not lane.waiting and not lane.batch
            if lane.handing_over and (nobody or now - lane.begun > _HAND_OVER_LIMIT_S):
                lane.handing_over.cancel()
        if left:
            self._ring_by(min(left))

    def _overdue(self, one: Sending) -> None:
        one.overdue = True
        one.fail(functools.partial(OutcomeUnknown, "no confirmation in time"))
        self._stuck_since = self._stuck_since or asyncio.get_running_loop().time()
        why = functools.partial(NotAccepted, "earlier records are still unconfirmed")
        self._refuse_waiting(self._lanes.values(), why)

    def _send_waiting(self, lane: Lane) -> None:
        """What has come by the end of this turn goes together."""
        if lane.waiting and not lane.busy:
            lane.busy = True
            loop = asyncio.get_running_loop()
            lane.begun = loop.time()
            lane.handing_over = loop.create_task(self._hand_over(lane))
            lane.handing_over.add_done_callback(functools.partial(self._handed_over, lane))

    def _handed_over(self, lane: Lane, task: "asyncio.Task[None]") -> None:
        if lane.handing_over is task:
            lane.handing_over = None
        if task.cancelled():
            self._lay_down(lane, functools.partial(NotAccepted, "no broker in time"))

    async def _hand_over(self, lane: Lane) -> None:
        """Give aiokafka a batch of what waits. What it does not take, was not sent."""
        try:
            await self._must_be_reachable(lane.number)
            batch = self._kafka.create_batch()
            self._held -= lane.fill(batch)
            if not lane.batch:  # all of it was refused meanwhile
                lane.busy = False
                return
            future = await self._kafka.send_batch(batch, self._topic, partition=lane.number)
        except asyncio.CancelledError:
            raise  # aiokafka has not taken it
        except (NotAccepted, KafkaError, OSError, AssertionError) as error:
            self._lay_down(lane, self._not_taken(error))
        except BaseException:
            # Nobody foresaw this: whether it was sent cannot be told.
            for one in lane.batch:
                one.fail(functools.partial(OutcomeUnknown, "it was cut off"))
            self._lay_down(lane, functools.partial(NotAccepted, "it was cut off"))
            raise
        else:
            self._unconfirmed += len(lane.batch)
            future.add_done_callback(functools.partial(self._answered, lane))

    def _not_taken(self, error: Exception) -> Why:
        """What aiokafka has not taken is certain not to be in the log."""
        if isinstance(error, NotAccepted):
            return functools.partial(NotAccepted, str(error))
        if isinstance(error, TimeoutError):
            return functools.partial(NotAccepted, "no broker in time")
        if isinstance(error, KafkaTimeoutError):
            return functools.partial(NotAccepted, "the queue is full")
        name = type(error).__name__
        if isinstance(error, _BURNED) or self._sender_died:
            self._burn(name)
            return functools.partial(ProducerBurned, name, queued=False)
        return functools.partial(NotAccepted, name)

    def _lay_down(self, lane: Lane, why: Why) -> None:
        """Nothing of this batch was sent, and nothing that waits behind it."""
        if not self._unconfirmed:
            self._stuck_since = None
        self._refuse(lane.take_batch(), why)
        self._refuse_waiting([lane], why)

    def _refuse_waiting(self, lanes: Iterable[Lane], why: Why) -> None:
        for lane in lanes:
            self._refuse(lane.take_waiting(), why)

    def _refuse(self, those: Iterable[Sending], why: Why) -> None:
        for one in those:
            self._held -= 1
            one.fail(why)

    def _burn(self, why: str) -> None:
        """It takes nothing any more; what waits was not sent, and may go by another."""
        self._burned = self._burned or why
        why_not = functools.partial(ProducerBurned, self._burned, queued=False)
        self._refuse_waiting(self._lanes.values(), why_not)

    def _answered(self, lane: Lane, future: "asyncio.Future[Any]") -> None:
        """Kafka has a batch, or has refused it. The next one may go."""
        batch = lane.take_batch()
        self._held -= len(batch)
        self._unconfirmed -= len(batch)
        if not self._unconfirmed:
            self._stuck_since = None
        why = self._refusal(future)
        if why is not None:
            for one in batch:
                one.fail(why)
        else:
            # Of a batch that was written before, when only the answer was lost, the place is not told.
            first = future.result().offset
            for at, one in enumerate(batch):
                if one.overdue:
                    one.on_late(Published(lane.number, None))
                elif not one.published.done():
                    offset = first + at if first >= 0 else None
                    one.published.set_result(Published(lane.number, offset))
        self._send_waiting(lane)

    def _refusal(self, future: "asyncio.Future[Any]") -> Why | None:
        """What a batch failed of; None if it did not."""
        if future.cancelled():
            return functools.partial(OutcomeUnknown, "the producer was stopped")
        error = future.exception()
        if error is None:
            return None
        name = type(error).__name__
        if isinstance(error, _TOO_LARGE):
            self.refused_by_size = True
            self._burn("a batch was refused by size")
            return functools.partial(NotAccepted, "too large for the broker")
        if isinstance(error, _BURNED) or self._sender_died:
            self._burn(name)
            return functools.partial(ProducerBurned, name, queued=True)
        return functools.partial(OutcomeUnknown, name)

    async def _must_be_reachable(self, lane: int) -> None:
        """Raises `NotAccepted` if the lane's broker is known to be away: then nothing is queued."""
        if self.stuck:
            raise NotAccepted("earlier records are still unconfirmed")
        await self._kafka.partitions_for(self._topic)
        client = self._kafka.client
        leader = client.cluster.leader_for_partition(TopicPartition(self._topic, lane))
        if leader is None or leader < 0 or not await client.ready(leader):
            raise NotAccepted("the lane's broker cannot be reached")

    @property
    def _sender_task(self) -> "asyncio.Task[None] | None":
        task: asyncio.Task[None] | None = self._kafka._sender.sender_task
        return task

    @property
    def _sender_died(self) -> bool:
        """aiokafka fails every later send once its sender task has died of a surprise."""
        task = self._sender_task
        return task is not None and task.done()
