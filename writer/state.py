"""How the lanes are doing: read by `afterwrite status` and `afterwrite doctor`."""

from dataclasses import asdict, dataclass
from typing import Any

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition

_LANES = """
SELECT lane, position, epoch, CASE WHEN leased_until > clock_timestamp() THEN owner END AS owner, halted,
       outcome_seq - settled_seq AS unsettled
FROM afterwrite.lane ORDER BY lane
"""


@dataclass(frozen=True)
class LaneState:
    """One lane. `end` is the end of its log, None when Kafka cannot be asked."""

    lane: int
    position: int
    end: int | None
    epoch: int
    owner: str | None
    halted: str | None
    unsettled: int


@dataclass(frozen=True)
class SystemState:
    """All lanes, and how many commands are pending, parked and dead; None where nobody knows."""

    lanes: list[LaneState]
    pending: int | None
    parked: int | None
    dead: int | None
    trouble: list[str]

    @property
    def healthy(self) -> bool:
        return not self.trouble

    def to_json(self) -> dict[str, Any]:
        return {
            "healthy": self.healthy,
            "lanes": [asdict(lane) for lane in self.lanes],
            "pending": self.pending,
            "parked": self.parked,
            "dead": self.dead,
            "trouble": self.trouble,
        }


async def system_state(database_url: str, bootstrap: str, topic: str, lanes: int) -> SystemState:
    """Ask PostgreSQL and Kafka. A server that does not answer is part of the answer."""
    trouble: list[str] = []
    ends: dict[int, int] = {}
    try:
        ends = await _ends(bootstrap, topic, lanes)
    except Exception as error:  # noqa: BLE001 - said in the answer
        trouble.append(f"Kafka cannot be asked: {error!r}")
    try:
        rows, parked, dead = await _database(database_url)
    except Exception as error:  # noqa: BLE001 - said in the answer
        trouble.append(f"PostgreSQL cannot be asked: {error!r}")
        return SystemState([], None, None, None, trouble)
    states = [
        LaneState(
            row["lane"],
            row["position"],
            ends.get(row["lane"]),
            row["epoch"],
            row["owner"],
            row["halted"],
            row["unsettled"],
        )
        for row in rows
    ]
    for state in states:
        if state.halted:
            trouble.append(f"lane {state.lane} is halted: {state.halted}")
        elif state.owner is None:
            trouble.append(f"lane {state.lane} has no writer")
    known = all(state.end is not None for state in states)
    pending = sum(max((s.end or 0) - s.position, 0) for s in states) + parked if known else None
    return SystemState(states, pending, parked, dead, trouble)


async def _ends(bootstrap: str, topic: str, lanes: int) -> dict[int, int]:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=None, request_timeout_ms=5000)
    try:
        await consumer.start()
        partitions = [TopicPartition(topic, lane) for lane in range(lanes)]
        ends = await consumer.end_offsets(partitions)
        return {partition.partition: end for partition, end in ends.items()}
    finally:
        await consumer.stop()


async def _database(url: str) -> tuple[list[asyncpg.Record], int, int]:
    connection = await asyncpg.connect(url, timeout=5, command_timeout=10)
    try:
        rows = await connection.fetch(_LANES)
        parked = await connection.fetchval("SELECT count(*) FROM afterwrite.parked")
        dead = await connection.fetchval("SELECT count(*) FROM afterwrite.dead_letter")
        return rows, parked, dead
    finally:
        await connection.close()


async def resume_lane(database_url: str, lane: int) -> str | None:
    """Let a halted lane go on; returns why it stood still, None if it did not."""
    connection = await asyncpg.connect(database_url, timeout=5, command_timeout=10)
    try:
        reason: str | None = await connection.fetchval(
            """
            WITH before AS (SELECT lane, halted FROM afterwrite.lane WHERE lane = $1 FOR UPDATE)
            UPDATE afterwrite.lane l SET halted = NULL, deaths = 0
            FROM before WHERE l.lane = before.lane RETURNING before.halted
            """,
            lane,
        )
        return reason
    finally:
        await connection.close()
