"""What the notifier remembers: a compacted topic, so that it outlives PostgreSQL and Redis.

One notifier leads, the others follow and stand by. The leader shows by a heartbeat that it lives; when
that is silent, another one takes over: it opens the transactional producer, which fences the former
one, and then reads to its own first heartbeat. What it knows then is all that was ever remembered.

While Kafka is away, a leader stays one and keeps in mind what it could not write down. One that has
just started, and cannot learn whether there is another, leads after a while: somebody must tell.
"""

import asyncio
import json
import os
import socket
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import InvalidProducerEpoch, ProducerFenced

from schema.fields import parse_time, render_time
from schema.tasks import end_tasks
from schema.telemetry import Log
from writer.failures import LogUnavailable
from writer.kafka_errors import given_time, stop_client, translated

LEADER: Final = "leader"
SILENT_S: Final = 15.0
"""How long a leader shows no sign of life until another one takes over."""
_BEAT_S: Final = 3.0
_LIMIT_S: Final = 10.0
_AGAIN_S: Final = 1.0
_BATCH: Final = 1000
_QUIET_S: Final = 5.0
"""When nothing more comes for so long, what is behind it is a transaction that nobody will end."""


class Role(StrEnum):
    LEARNING = "learning"
    """It is not known yet whether there is another notifier."""
    STANDBY = "standby"
    LEADING = "leading"


class OutOfDate(Exception):
    """Another notifier has taken over."""


def process_owner() -> str:
    """This process: machine, process namespace, process, and a random part."""
    try:
        space = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - it names no file
    except OSError:
        space = ""
    return f"{socket.gethostname()}|{space}|{os.getpid()}|{uuid.uuid4().hex[:8]}"


@dataclass
class Memory:
    """Kafka adapter. `values` may be read at any time; it is written to by `put` alone."""

    bootstrap: str
    topic: str
    transactional_id: str
    log: Log
    owner: str = field(default_factory=process_owner)
    silent_s: float = SILENT_S
    role: Role = Role.LEARNING
    values: dict[str, Any] = field(default_factory=dict)
    generation: int = 0
    """How often it took the lead: `values` may have been read anew."""
    reachable: bool = False
    """Whether it could be written to when that was last tried."""
    _dirty: dict[str, Any] = field(default_factory=dict)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _written: asyncio.Event = field(default_factory=asyncio.Event)
    _started: float = field(default_factory=time.monotonic)
    _task: "asyncio.Task[None] | None" = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="memory")

    @property
    def leading(self) -> bool:
        return self.role is Role.LEADING

    def put(self, records: Mapping[str, Any]) -> None:
        """Remember these; None forgets. They are written together, soon."""
        if self.role is Role.STANDBY:
            return  # what was begun before another one took over is his
        for key, value in records.items():
            if value is None:
                self.values.pop(key, None)
            else:
                self.values[key] = value
            self._dirty[key] = value
        if records:
            self._written.clear()
            self._news.set()

    async def written(self, within_s: float) -> bool:
        """Wait until everything that was put is written down, at most so long."""
        if not self._dirty:
            return self.reachable
        try:
            async with asyncio.timeout(within_s):
                await self._written.wait()
        except TimeoutError:
            return False
        return True

    def recall(self, key: str) -> Any:
        """What is remembered under a key; None if nothing is."""
        return self.values.get(key)

    def below(self, prefix: str) -> dict[str, Any]:
        """All that is remembered under a prefix."""
        return {key: value for key, value in self.values.items() if key.startswith(prefix)}

    async def close(self) -> None:
        """Write down what is left, if Kafka takes it, and give way to another notifier."""
        if self.leading and self.reachable:
            self.put({LEADER: self._beat(released=True)})
            await self.written(2.0)
        await end_tasks(self._task)

    # -- the way of one notifier ------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            try:
                remembered = await self._follow()
                await self._lead(remembered)
            except OutOfDate as error:
                self._stand_by(str(error))
            except (LogUnavailable, OSError, TimeoutError) as error:
                if self.reachable:
                    self.log.warning("memory_unavailable", error=repr(error))
                self.reachable = False
                self._lead_blindly()
            await asyncio.sleep(_AGAIN_S)

    def _lead_blindly(self) -> None:
        if self.role is Role.LEARNING and time.monotonic() - self._started > self.silent_s:
            self.log.info("leading", blind=True)
            self.role = Role.LEADING

    def _stand_by(self, why: str) -> None:
        self.log.warning("standing_by", why=why)
        self.role = Role.STANDBY
        self.values, self._dirty = {}, {}
        self._written.set()

    async def _follow(self) -> dict[str, Any]:
        """Read until nobody else leads; returns what is remembered so far."""
        remembered: dict[str, Any] = {}
        consumer, place = await self._consumer()
        try:
            seen_at, read_at, caught_up = time.monotonic(), time.monotonic(), False
            while True:
                records, at_end = await self._fetch(consumer, place)
                for key, value in records:
                    _take(remembered, key, value)
                    if key == LEADER:
                        seen_at = time.monotonic()
                if records:
                    read_at = time.monotonic()
                if records or not (at_end or time.monotonic() - read_at > _QUIET_S):
                    continue
                leader = remembered.get(LEADER)
                if not caught_up and self._is_gone(leader):
                    return remembered
                caught_up = True
                if self._gave_way(leader) or time.monotonic() - seen_at > self.silent_s:
                    return remembered
                if self.leading:
                    raise OutOfDate("another notifier leads")
                if self.role is not Role.STANDBY:
                    self._stand_by("another notifier leads")
        finally:
            await stop_client(consumer)

    def _gave_way(self, leader: Mapping[str, Any] | None) -> bool:
        return leader is None or leader["owner"] == self.owner or bool(leader.get("released"))

    def _is_gone(self, leader: Mapping[str, Any] | None) -> bool:
        """Whether the leader that was read at the start can be no more."""
        if leader is None or self._gave_way(leader):
            return True
        silent = datetime.now(UTC) - parse_time(leader["at"])
        if silent.total_seconds() > self.silent_s:
            return True
        machine, space, pid, _ = leader["owner"].split("|")
        ours = self.owner.split("|")
        if not space or [machine, space] != ours[:2]:
            return False
        return bool(pid == ours[2]) or not Path(f"/proc/{pid}").exists()

    async def _lead(self, remembered: dict[str, Any]) -> None:
        """Take over, and write down what is put, until Kafka goes away or somebody else leads."""
        producer = await self._producer()
        try:
            beat = self._beat()
            await self._write(producer, {LEADER: beat})
            remembered = await self._read_to(beat)
            for key, value in self._dirty.items():
                if value is None:
                    remembered.pop(key, None)
                else:
                    remembered[key] = value
            self.values = remembered
            self.log.info("leading", remembered=len(remembered))
            self.role, self.reachable = Role.LEADING, True
            self.generation += 1
            await self._write_on(producer)
        finally:
            await _stop_producer(producer)

    async def _write_on(self, producer: AIOKafkaProducer) -> None:
        beaten = time.monotonic()
        while True:
            self._news.clear()
            if time.monotonic() - beaten >= _BEAT_S:
                self._dirty.setdefault(LEADER, self._beat())
                beaten = time.monotonic()
            batch = dict(list(self._dirty.items())[:_BATCH])
            if batch:
                await self._write(producer, batch)
                for key, value in batch.items():
                    if key in self._dirty and self._dirty[key] is value:
                        del self._dirty[key]
            if not self._dirty:
                self._written.set()
                try:
                    async with asyncio.timeout(_BEAT_S / 3):
                        await self._news.wait()
                except TimeoutError:
                    continue

    def _beat(self, *, released: bool = False) -> dict[str, Any]:
        return {
            "owner": self.owner,
            "at": render_time(datetime.now(UTC)),
            "beat": uuid.uuid4().hex,
            "released": released,
        }

    # -- Kafka ------------------------------------------------------------------------------------

    async def _producer(self) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            bootstrap_servers=self.bootstrap,
            client_id="afterwrite-notifier",
            transactional_id=self.transactional_id,
            acks="all",
            request_timeout_ms=5000,
            transaction_timeout_ms=30_000,
        )
        try:
            async with asyncio.timeout(_LIMIT_S):
                with translated():
                    await producer.start()
        except BaseException:
            await _stop_producer(producer)
            raise
        return producer

    async def _write(self, producer: AIOKafkaProducer, records: Mapping[str, Any]) -> None:
        """All of them or none. Raises `OutOfDate` when another producer has been opened."""
        try:
            async with asyncio.timeout(_LIMIT_S):
                with translated():
                    try:
                        async with producer.transaction():
                            for key, value in records.items():
                                sent = await producer.send(
                                    self.topic,
                                    key=key.encode(),
                                    value=None if value is None else _encoded(value),
                                    partition=0,
                                )
                                sent.add_done_callback(_seen)
                    except (ProducerFenced, InvalidProducerEpoch) as error:
                        raise OutOfDate("another notifier has taken over") from error
        except (AssertionError, RuntimeError, ValueError) as error:
            # What the client raises when it was upset in the middle of a transaction.
            raise LogUnavailable(repr(error)) from error

    async def _consumer(self) -> tuple[AIOKafkaConsumer, TopicPartition]:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap,
            client_id="afterwrite-notifier",
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            request_timeout_ms=5000,
            fetch_max_wait_ms=250,
        )
        place = TopicPartition(self.topic, 0)
        try:
            async with asyncio.timeout(_LIMIT_S):
                with translated():
                    await consumer.start()
                    consumer.assign([place])
                    await consumer.seek_to_beginning(place)
        except BaseException:
            await stop_client(consumer)
            raise
        return consumer, place

    async def _fetch(
        self, consumer: AIOKafkaConsumer, place: TopicPartition
    ) -> tuple[list[tuple[str, Any]], bool]:
        """Some records, and whether the end was reached. Raises `LogUnavailable`."""
        at_end = False
        with translated():
            found = await consumer.getmany(place, timeout_ms=1000, max_records=5000)
            if not found:
                async with asyncio.timeout(_LIMIT_S):  # a broker that is away is silent, too
                    ends = await consumer.end_offsets([place])
                    at_end = await consumer.position(place) >= ends[place]
        records = [
            (record.key.decode(), _decoded(record.value))
            for record in found.get(place, ())
            if record.key is not None
        ]
        return records, at_end

    async def _read_to(self, beat: Mapping[str, Any]) -> dict[str, Any]:
        """Everything that is remembered up to this heartbeat of ours."""
        remembered: dict[str, Any] = {}
        consumer, place = await self._consumer()
        try:
            async with asyncio.timeout(60):
                while True:
                    records, _ = await self._fetch(consumer, place)
                    for key, value in records:
                        _take(remembered, key, value)
                        if key == LEADER and value is not None and value["beat"] == beat["beat"]:
                            return remembered
        finally:
            await stop_client(consumer)


async def _stop_producer(producer: AIOKafkaProducer) -> None:
    """One that was fenced leaves its connections open when it is stopped, and an error unseen."""
    await stop_client(producer)
    await given_time(producer.client.close())
    ended = producer._txn_manager.wait_for_transaction_end()
    if ended is not None and ended.done():
        _seen(ended)


def _seen(sent: "asyncio.Future[Any]") -> None:
    """The call that failed said what went wrong; of this nobody asks."""
    if not sent.cancelled():
        sent.exception()


def _take(remembered: dict[str, Any], key: str, value: Any) -> None:
    if value is None:
        remembered.pop(key, None)
    else:
        remembered[key] = value


def _encoded(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _decoded(value: bytes | None) -> Any:
    return None if value is None else json.loads(value)
