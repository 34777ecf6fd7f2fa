"""The identity of the command log, which every command names, so that a writer knows a foreign log.

The newest genuine record of the log tells it; of an empty log, the table of lanes does.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from frontend_api.outcome_listener import stop_consumer
from frontend_api.view import DatabaseUnavailable
from schema.envelope import EnvelopeError, Keyring, open_record
from schema.tasks import end_tasks
from schema.telemetry import Log

_LOOK_BACK: Final = 100
_LIMIT_S: Final = 5.0
_PAUSE_S: Final = 0.5

_log = Log("frontend_api")


@asynccontextmanager
async def log_consumer(bootstrap: str) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer of no group, which reads what it is told to and leaves no trace."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        request_timeout_ms=4000,
        # A broker answers one request after the other: where it waits for news, others wait, too.
        fetch_max_wait_ms=20,
    )
    try:
        await consumer.start()
        yield consumer
    finally:
        await stop_consumer(consumer, _LIMIT_S)


async def lanes_of(consumer: AIOKafkaConsumer, topic: str) -> list[TopicPartition]:
    """The lanes that the topic has; none if it is not there."""
    # Of a topic that is not there a client asks for metadata for ever: look first.
    known = await consumer._client.fetch_all_metadata()
    return [TopicPartition(topic, n) for n in sorted(known.partitions_for_topic(topic) or ())]


class LogIdentity:
    """`value` is None until it is known; then it stays."""

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        keyring: Keyring,
        from_database: Callable[[], Awaitable[uuid.UUID | None]],
    ) -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        self._keyring = keyring
        self._from_database = from_database
        self._task: asyncio.Task[None] | None = None
        self.value: uuid.UUID | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._learn(), name="log-identity")

    async def close(self) -> None:
        await end_tasks(self._task)

    async def _learn(self) -> None:
        while self.value is None:
            try:
                async with asyncio.timeout(_LIMIT_S):
                    self.value = await self._from_log() or await self._from_database()
            except (KafkaError, OSError, DatabaseUnavailable) as error:
                _log.info("not_accepted", what="learning the log's identity", error=str(error))
            if self.value is None:
                await asyncio.sleep(_PAUSE_S)

    async def ends(self) -> dict[int, int]:
        """The end of each lane now; empty while Kafka does not answer."""
        try:
            async with asyncio.timeout(_LIMIT_S), log_consumer(self._bootstrap) as consumer:
                ends = await consumer.end_offsets(await lanes_of(consumer, self._topic))
                return {place.partition: end for place, end in ends.items()}
        except (KafkaError, OSError):
            return {}

    async def _from_log(self) -> uuid.UUID | None:
        async with log_consumer(self._bootstrap) as consumer:
            return await self._newest(consumer)

    async def _newest(self, consumer: AIOKafkaConsumer) -> uuid.UUID | None:
        places = await lanes_of(consumer, self._topic)
        if not places:
            return None
        ends = await consumer.end_offsets(places)
        starts = await consumer.beginning_offsets(places)
        for place in places:
            end = ends[place]
            start = max(starts[place], end - _LOOK_BACK)
            if end == start:
                continue
            consumer.assign([place])
            consumer.seek(place, start)
            found = await self._last_genuine(consumer, place, end)
            if found is not None:
                return found
        return None

    async def _last_genuine(
        self, consumer: AIOKafkaConsumer, place: TopicPartition, end: int
    ) -> uuid.UUID | None:
        found, position = None, 0
        while position < end:
            records = (await consumer.getmany(place, timeout_ms=1000)).get(place, [])
            for record in records:
                try:
                    found = open_record(
                        record.key, record.value, record.headers, self._keyring
                    ).log_id
                except EnvelopeError:
                    continue
            position = await consumer.position(place)
        return found
