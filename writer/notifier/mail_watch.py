"""Whether mail goes out: how much waits in its topic, and when the last one was sent or given up."""

import asyncio
import json
from datetime import datetime, timedelta
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from schema import clock
from schema.telemetry import Log
from schema.topics import MAIL_PARTITIONS, Topics
from writer.kafka_errors import given_time, stop_client, translated
from writer.notifier.observing import Watch

_EVERY_S: Final = 10.0
_LIMIT_S: Final = 5.0
QUIET: Final = timedelta(minutes=20)
"""How long mail waits, with none sent, until something is wrong: longer than a first mail is put off."""


class MailWatch:
    """Kafka adapter. `group` is the workers' consumer group."""

    def __init__(self, bootstrap: str, names: Topics, group: str, log: Log) -> None:
        self._bootstrap = bootstrap
        self._group = group
        self._mail = [TopicPartition(names.mail.name, n) for n in range(MAIL_PARTITIONS)]
        self._state = [TopicPartition(names.mail_state.name, n) for n in range(MAIL_PARTITIONS)]
        self._consumer: AIOKafkaConsumer | None = None
        self._since: datetime | None = None
        self.waiting = 0
        """Mails that are neither sent nor given up, or stand behind one that is not."""
        self.watch = Watch(self._look, "mail", log, _EVERY_S)

    async def close(self) -> None:
        await self.watch.close()
        await self._drop()

    def stuck(self, now: datetime) -> str | None:
        """What is wrong; None if mail goes out, or none waits."""
        if not self.waiting or self._since is None or now - self._since < QUIET:
            return None
        mails = "1 mail waits" if self.waiting == 1 else f"{self.waiting} mails wait"
        return (
            f"{mails}, and none was sent for {int((now - self._since).total_seconds()) // 60} min"
        )

    def note(self, waiting: int, done: bool, now: datetime) -> None:
        """What was found: how many wait, and whether one was sent or given up since the last look."""
        if done or not self.waiting or self._since is None:
            self._since = now
        self.waiting = waiting

    async def _look(self) -> None:
        try:
            with translated():
                async with asyncio.timeout(2 * _LIMIT_S):
                    consumer = await self._started()
                    done = await self._done(consumer)
                    ends = await consumer.end_offsets(self._mail)
                    begins = await consumer.beginning_offsets(self._mail)
                    committed = await self._committed()
        except BaseException:
            await self._drop()
            raise
        waiting = sum(
            max(0, ends[place] - max(begins[place], committed.get(place, 0)))
            for place in self._mail
        )
        self.note(waiting, done, clock.now())

    async def _done(self, consumer: AIOKafkaConsumer) -> bool:
        done = False
        while batches := await consumer.getmany(timeout_ms=100, max_records=1000):
            for records in batches.values():
                done = any(_is_done(record.value) for record in records) or done
        return done

    async def _committed(self) -> dict[TopicPartition, int]:
        admin = AIOKafkaAdminClient(
            bootstrap_servers=self._bootstrap, client_id="afterwrite-notifier"
        )
        try:
            await admin.start()
            found = await admin.list_consumer_group_offsets(self._group)
        finally:
            await given_time(admin.close())
        return {place: max(0, committed.offset) for place, committed in found.items()}

    async def _started(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            self._consumer = AIOKafkaConsumer(
                bootstrap_servers=self._bootstrap,
                client_id="afterwrite-notifier",
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="latest",
                request_timeout_ms=5000,
                fetch_max_wait_ms=100,
            )
            await self._consumer.start()
            self._consumer.assign(self._state)
            await self._consumer.seek_to_end(*self._state)
        return self._consumer

    async def _drop(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await stop_client(consumer)


def _is_done(value: bytes | None) -> bool:
    try:
        state: Any = json.loads(value or b"null")
    except ValueError:
        return False
    return isinstance(state, dict) and state.get("state") in ("sent", "failed")
