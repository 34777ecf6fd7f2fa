"""The command log, read once more: from where on, up to where, and the records between."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from frontend_api.log_identity import lanes_of, log_consumer

_LIMIT_S: Final = 10.0
_BATCH: Final = 100
"""Most records at once; their bytes are bounded by what the client fetches ahead, 1 MiB a lane."""

Records = list[Any]
"""Of the Kafka client: each has `key`, `value`, `headers`, `offset`."""


class LogUnavailable(Exception):
    """Kafka did not answer, or the log is not there."""


@dataclass(frozen=True)
class OpenLog:
    """A log that is being read. Every method raises `LogUnavailable`."""

    consumer: AIOKafkaConsumer
    places: list[TopicPartition]

    async def bounds(self) -> dict[int, tuple[int, int]]:
        """Of each lane the first offset that it still has, and its end."""
        with _translated():
            starts = await self.consumer.beginning_offsets(self.places)
            ends = await self.consumer.end_offsets(self.places)
        return {place.partition: (starts[place], ends[place]) for place in self.places}

    async def since(self, ago_s: float) -> dict[int, int]:
        """Of each lane the first offset that is not older; left out where all are older."""
        at_ms = int((time.time() - ago_s) * 1000)
        with _translated():
            found = await self.consumer.offsets_for_times(dict.fromkeys(self.places, at_ms))
        return {place.partition: at.offset for place, at in found.items() if at is not None}

    async def records(self, lane: int, from_: int, to: int) -> AsyncIterator[Records]:
        """The records with `from_ <= offset < to`, in batches."""
        place = next(p for p in self.places if p.partition == lane)
        position = from_
        if from_ >= to:
            return
        self.consumer.assign([place])
        self.consumer.seek(place, from_)
        while position < to:
            with _translated():
                async with asyncio.timeout(_LIMIT_S):
                    found = await self.consumer.getmany(place, timeout_ms=1000, max_records=_BATCH)
                    position = await self.consumer.position(place)
            batch = [record for record in found.get(place, []) if record.offset < to]
            if batch:
                yield batch


class CommandLog:
    """Kafka adapter. `hint_group`: the group under which the writer shows its positions."""

    def __init__(self, bootstrap: str, topic: str, hint_group: str) -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        self._hint_group = hint_group

    @asynccontextmanager
    async def open(self) -> AsyncIterator[OpenLog]:
        """Raises `LogUnavailable`."""
        with _translated():
            async with log_consumer(self._bootstrap) as consumer:
                async with asyncio.timeout(_LIMIT_S):
                    places = await lanes_of(consumer, self._topic)
                if not places:
                    raise LogUnavailable(f"no topic {self._topic}")
                yield OpenLog(consumer, places)

    async def hint(self) -> Mapping[int, int]:
        """Positions that are never ahead of the writer's; of lanes that nobody wrote yet, none.

        Raises `LogUnavailable`.
        """
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap, request_timeout_ms=4000)
        try:
            with _translated():
                async with asyncio.timeout(_LIMIT_S):
                    await admin.start()
                    found = await admin.list_consumer_group_offsets(self._hint_group)
        finally:
            await admin.close()
        return {
            place.partition: at.offset
            for place, at in found.items()
            if place.topic == self._topic and at.offset >= 0
        }


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (KafkaError, OSError, TimeoutError) as error:
        raise LogUnavailable(type(error).__name__) from error
