"""Trimming: what was applied long ago is deleted from the log, and nothing else ever is.

The command topic has no retention: a broker that deletes by age or size deletes commands that wait
for a database. Instead, whoever holds a lane deletes behind its position, some time later:

- only what is applied and settled, up to where both have come;
- only what the broker took longer ago than the window: a standby of PostgreSQL that is promoted with
  an older position reads on from there, and operators can look back;
- never what a rebuild of the overlay reads again, which is the grace period of settled entries;
- never the last records, although they are applied: an API that starts while PostgreSQL is away
  learns from them which log this is, and a writer recognises a log that was made anew.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from schema import clock
from schema.telemetry import Log
from writer.kafka_errors import given_time, stop_client, translated
from writer.lane import Lane
from writer.metrics import Metrics

KEPT: Final = 100
"""Records that always stay behind the position."""
_FIRST_S: Final = 5.0
_MOST_S: Final = 300.0
_LEAST_S: Final = 1.0
_LIMIT_S: Final = 20.0


def trim_to(applied: int, not_older: int | None) -> int:
    """The first offset that stays. `not_older` is the first one that is younger than what is to be
    kept, None where all records are older."""
    behind = applied - KEPT
    return max(0, behind if not_older is None else min(behind, not_older))


@dataclass(frozen=True)
class Trimmer:
    """Trims the lanes that this process holds. One for the process."""

    bootstrap: str
    topic: str
    window_s: float
    grace_s: float
    metrics: Metrics
    log: Log

    async def run(self, lane: Lane) -> None:
        """While we hold the lane; cancel to stop. What fails is logged, and tried again."""
        pause_s = _FIRST_S
        while True:
            applied, told = lane.position, lane.outcome_seq
            await asyncio.sleep(min(pause_s, self._pause_s))
            pause_s = self._pause_s
            if lane.settled_seq < told:
                continue  # not everything before `applied` is settled yet
            try:
                await self.trim(lane.number, applied)
            except Exception as error:  # noqa: BLE001 - nothing depends on it
                self.log.warning("trim_failed", lane=lane.number, error=repr(error))

    @property
    def _pause_s(self) -> float:
        return min(_MOST_S, max(_LEAST_S, self.window_s / 10, self.grace_s / 10))

    async def trim(self, lane: int, applied: int) -> int:
        """Delete what may go; everything before `applied` must be applied and settled. Returns the
        first offset that is left. Raises what Kafka's client does, translated."""
        place = TopicPartition(self.topic, lane)
        with translated():
            async with asyncio.timeout(_LIMIT_S):
                begin, not_older = await self._look(place)
                to = trim_to(applied, not_older)
                if to > begin:
                    begin = await self._delete(place, to)
                    self.log.info("log_trimmed", lane=lane, begin=begin)
        self.metrics.begin.labels(lane).set(begin)
        return begin

    async def _look(self, place: TopicPartition) -> tuple[int, int | None]:
        """Where the log begins, and the first offset that is not old enough, by the broker's time."""
        # The window follows the clock that tests move; the grace period is Redis' own.
        since = min(clock.now().timestamp() - self.window_s, time.time() - self.grace_s)
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap, client_id="afterwrite-trimming", group_id=None
        )
        try:
            await consumer.start()
            begin: int = (await consumer.beginning_offsets([place]))[place]
            found = (await consumer.offsets_for_times({place: int(since * 1000)}))[place]
        finally:
            await stop_client(consumer)
        return begin, None if found is None else found.offset

    async def _delete(self, place: TopicPartition, to: int) -> int:
        admin = AIOKafkaAdminClient(
            bootstrap_servers=self.bootstrap, client_id="afterwrite-trimming"
        )
        try:
            await admin.start()
            left = await admin.delete_records({place: RecordsToDelete(before_offset=to)})
        finally:
            await given_time(admin.close())
        return int(left[place])
