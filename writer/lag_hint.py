"""A hint for lag tools: the positions, committed as offsets of a consumer group that nobody joins.

Nothing reads it back: positions are PostgreSQL's. It is late by a few seconds, and when Kafka does
not take it, it is left out.
"""

import asyncio

from aiokafka import AIOKafkaConsumer, TopicPartition

from schema.telemetry import Log as EventLog
from writer.failures import LogUnavailable
from writer.kafka_errors import stop_client, translated

_LIMIT_S = 10.0


class LagHint:
    """Commits the positions that lanes note; one for the process."""

    def __init__(self, bootstrap: str, topic: str, group: str, log: EventLog) -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        self.group = group
        self._log = log
        self._noted: dict[int, int] = {}

    def note(self, lane: int, position: int) -> None:
        self._noted[lane] = position

    async def commit_forever(self, every_s: float = 5.0) -> None:
        """Cancel to stop."""
        while True:
            await asyncio.sleep(every_s)
            noted, self._noted = self._noted, {}
            if noted:
                await self._commit(noted)

    async def _commit(self, positions: dict[int, int]) -> None:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            client_id="afterwrite-lag-hint",
            group_id=self.group,
            enable_auto_commit=False,
            auto_offset_reset="none",
        )
        offsets = {TopicPartition(self._topic, lane): (p, "") for lane, p in positions.items()}
        try:
            async with asyncio.timeout(_LIMIT_S):
                with translated():
                    await consumer.start()
                    consumer.assign(list(offsets))
                    await consumer.commit(offsets)
        except (LogUnavailable, OSError, TimeoutError) as error:
            self._log.info("lag_hint_failed", error=repr(error))
        finally:
            await stop_client(consumer)
