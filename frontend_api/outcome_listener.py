"""Follows the outcomes topic: for requests that wait for theirs, and for streams of events."""

import asyncio
import random
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.partitioner import murmur2

from frontend_api.event_hub import EventHub, LogChanged
from schema.outcomes import Outcome
from schema.tasks import end_tasks
from schema.telemetry import Log

_BACKOFF_MIN_S: Final = 0.2
_BACKOFF_MAX_S: Final = 5.0
_START_LIMIT_S: Final = 10.0
_STOP_LIMIT_S: Final = 3.0
_IN_ONE_TURN: Final = 50
"""Outcomes handed out before requests have their turn: about a millisecond. A fetch brings thousands
of them while a backlog is drained, just when those who wait longest should not wait any more."""
_FINAL: Final = frozenset({Outcome.SAVED, Outcome.REJECTED, Outcome.DUPLICATE})

_log = Log("frontend_api")


def partition_of(author: uuid.UUID, partitions: int) -> int:
    """The partition of an author's outcomes: as Kafka's default partitioner has it for this key."""
    return int(murmur2(str(author).encode()) & 0x7FFFFFFF) % partitions


class OutcomeListener:
    """No group: every process reads all outcomes and hands them to its hub.

    It begins with the latest outcomes that are in the log already, so that a stream can come back
    to another process than the one it was broken from.
    """

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        hub: EventHub,
        on_act: Callable[[dict[str, Any]], None] = lambda message: None,
    ) -> None:
        """`on_act` is given what became of what operators ordered."""
        self._on_act = on_act
        self._bootstrap = bootstrap
        self._topic = topic
        self._hub = hub
        self._waiting: dict[uuid.UUID, asyncio.Future[dict[str, Any]]] = {}
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def start(self) -> None:
        self._task = asyncio.create_task(self._follow(), name="outcome-listener")

    async def close(self) -> None:
        await end_tasks(self._task)
        self.let_go()

    def let_go(self) -> None:
        """Nobody waits any longer; who begins to wait is not kept either."""
        self._closed = True
        for future in self._waiting.values():
            future.cancel()

    @contextmanager
    def expecting(self, command: uuid.UUID) -> Iterator["asyncio.Future[dict[str, Any]]"]:
        """A future of the command's outcome. Take it before the command is published."""
        future = self._waiting.get(command)
        if future is None:
            future = self._waiting[command] = asyncio.get_running_loop().create_future()
        if self._closed:
            future.cancel()
        try:
            yield future
        finally:
            self._waiting.pop(command, None)

    def tell(self, outcome: dict[str, Any]) -> None:
        """Give an outcome to who waits for it; parked is not final."""
        if outcome.get("kind") == "act":
            self._on_act(outcome)
        if outcome.get("outcome") not in _FINAL:
            return
        try:
            future = self._waiting.get(uuid.UUID(outcome["command_id"]))
        except (KeyError, ValueError, TypeError, AttributeError):
            return
        if future is not None and not future.done():
            future.set_result(outcome)

    async def _follow(self) -> None:
        backoff_s = _BACKOFF_MIN_S
        while True:
            consumer = AIOKafkaConsumer(
                bootstrap_servers=self._bootstrap,
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="none",
                request_timeout_ms=10_000,
            )
            try:
                async with asyncio.timeout(_START_LIMIT_S):
                    await consumer.start()
                    places = await self._find_places(consumer)
                backoff_s = _BACKOFF_MIN_S
                await self._read(consumer, places)
            except (KafkaError, OSError, LogChanged) as error:
                _log.info("recovering", what="outcomes", error=type(error).__name__)
            finally:
                await stop_consumer(consumer)
            await asyncio.sleep(backoff_s * random.uniform(0.5, 1))  # noqa: S311 - no secret
            backoff_s = min(backoff_s * 2, _BACKOFF_MAX_S)

    async def _find_places(self, consumer: AIOKafkaConsumer) -> list[TopicPartition]:
        cluster = await consumer._client.fetch_all_metadata()
        lanes = cluster.partitions_for_topic(self._topic)
        if not lanes:
            raise KafkaError(f"no topic {self._topic}")
        places = [TopicPartition(self._topic, lane) for lane in sorted(lanes)]
        consumer.assign(places)
        begins = await consumer.beginning_offsets(places)
        ends = await consumer.end_offsets(places)
        start = self._hub.places(_by_partition(begins), _by_partition(ends))
        for place in places:
            consumer.seek(place, start[place.partition])
        return places

    async def _read(self, consumer: AIOKafkaConsumer, places: list[TopicPartition]) -> None:
        while True:
            if self._hub.asks_for_ends:
                self._hub.ends(_by_partition(await consumer.end_offsets(places)))
            found = await consumer.getmany(timeout_ms=1000, max_records=_IN_ONE_TURN)
            for place, records in found.items():
                for record in records:
                    value = record.value or b""
                    outcome = self._hub.take(place.partition, record.offset, value)
                    if outcome is not None:
                        self.tell(outcome)
            await asyncio.sleep(0)


def _by_partition(offsets: dict[TopicPartition, int]) -> dict[int, int]:
    return {place.partition: offset for place, offset in offsets.items()}


async def stop_consumer(consumer: AIOKafkaConsumer, limit_s: float = _STOP_LIMIT_S) -> None:
    """Stop within a limit. In a task of its own: aiokafka lets the cancellation of a fetch that
    waits to be repeated out of `stop()`, and it must not end the caller."""
    stopping = asyncio.ensure_future(consumer.stop())
    try:
        done, _ = await asyncio.wait({stopping}, timeout=limit_s)
    finally:
        stopping.cancel()
    if done and not stopping.cancelled():
        stopping.exception()  # seen: a consumer that could not be stopped well is gone all the same
