"""How the system is doing: read by `afterwrite status`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition

from schema.alerts import Alert
from schema.fields import render_time
from schema.pace import Pace
from writer.alerting.history import open_incidents, recent_alerts
from writer.kafka_errors import stop_client, translated

_MOST_ALERTS = 1000
_LANES = """
SELECT lane, position, epoch, CASE WHEN leased_until > clock_timestamp() THEN owner END AS owner, halted,
       paused, outcome_seq - settled_seq AS unsettled, settled_seq AS settled
FROM afterwrite.lane ORDER BY lane
"""
_COUNTS = """
SELECT (SELECT count(*) FROM afterwrite.parked) AS parked,
    (SELECT min(parked_at) FROM afterwrite.parked) AS oldest,
    (SELECT count(*) FROM afterwrite.dead_letter WHERE closed IS NULL) AS dead
"""


@dataclass(frozen=True)
class LaneState:
    """One lane. `begin` and `end` are those of its log, `oldest` is when what stands at the position was
    appended; None when Kafka cannot be asked, or nothing waits."""

    lane: int
    position: int
    begin: int | None
    end: int | None
    epoch: int
    owner: str | None
    halted: str | None
    paused: str | None
    unsettled: int
    oldest: datetime | None = None
    settled: int = 0
    """The last outcome sequence that is settled."""

    @property
    def behind(self) -> int | None:
        return None if self.end is None else max(self.end - self.position, 0)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"oldest": render_time(self.oldest) if self.oldest else None}


@dataclass(frozen=True)
class SystemState:
    """All lanes, and how many commands are pending, parked and dead; None where nobody knows.

    `oldest` is when the oldest of the pending was accepted. `incidents` are the open ones, as
    administrators were told.
    """

    at: datetime
    lanes: list[LaneState]
    pending: int | None
    parked: int | None
    dead: int | None
    oldest: datetime | None = None
    incidents: list[Alert] | None = None
    trouble: list[str] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        return not self.trouble

    @property
    def oldest_s(self) -> float | None:
        """How long the oldest of the pending has waited, in seconds."""
        return None if self.oldest is None else max((self.at - self.oldest).total_seconds(), 0.0)

    def to_json(self) -> dict[str, Any]:
        incidents = self.incidents
        return {
            "healthy": self.healthy,
            "at": render_time(self.at),
            "lanes": [lane.to_json() for lane in self.lanes],
            "pending": self.pending,
            "parked": self.parked,
            "dead": self.dead,
            "oldest_pending_s": self.oldest_s,
            "incidents": None if incidents is None else [alert.to_json() for alert in incidents],
            "trouble": self.trouble,
        }


def pace(before: SystemState, after: SystemState) -> Pace | None:
    """What happened between two looks; None where one of them does not know."""
    seconds = (after.at - before.at).total_seconds()
    then, now = ({lane.lane: lane for lane in s.lanes} for s in (before, after))
    if seconds <= 0 or not now or then.keys() != now.keys():
        return None
    ends = [(then[n].end, now[n].end) for n in now]
    if any(a is None or b is None for a, b in ends):
        return None
    return Pace.of(
        accepted=sum((b or 0) - (a or 0) for a, b in ends) / seconds,
        applied=sum(now[n].position - then[n].position for n in now) / seconds,
        settled=sum(now[n].settled - then[n].settled for n in now) / seconds,
        behind=sum(lane.behind or 0 for lane in after.lanes),
    )


async def system_state(
    database_url: str, bootstrap: str, topic: str, lanes: int, alerts: str | None = None
) -> SystemState:
    """Ask PostgreSQL and Kafka. A server that does not answer is part of the answer.

    `alerts`: the alerts topic, if open incidents are wanted.
    """
    trouble: list[str] = []
    rows: list[asyncpg.Record] = []
    counts: dict[str, Any] = {}
    log: dict[int, _LogOf] = {}
    incidents: list[Alert] | None = None
    try:
        rows, counted = await _database(database_url)
        counts.update(counted)
    except Exception as error:  # noqa: BLE001 - said in the answer
        trouble.append(f"PostgreSQL cannot be asked: {error!r}")
    positions = {row["lane"]: row["position"] for row in rows}
    try:
        log = await _log(bootstrap, topic, positions or dict.fromkeys(range(lanes), 0))
    except Exception as error:  # noqa: BLE001 - said in the answer
        trouble.append(f"Kafka cannot be asked: {error!r}")
    if alerts is not None and log:
        try:
            incidents = open_incidents(await recent_alerts(bootstrap, alerts, _MOST_ALERTS))
        except Exception:  # noqa: BLE001 - then nobody knows of any; lanes tell their own trouble
            incidents = None
    states = [_lane(row, log.get(row["lane"])) for row in rows]
    for state in states:
        trouble += _trouble(state)
    behind = [state.behind for state in states]
    known = bool(states) and None not in behind
    waiting = [counts.get("oldest"), *(state.oldest for state in states)]
    return SystemState(
        at=datetime.now(UTC),
        lanes=states,
        pending=sum(n or 0 for n in behind) + counts["parked"] if known else None,
        parked=counts.get("parked"),
        dead=counts.get("dead"),
        oldest=min((at for at in waiting if at is not None), default=None),
        incidents=incidents,
        trouble=trouble,
    )


def _lane(row: asyncpg.Record, log: "_LogOf | None") -> LaneState:
    begin, end, oldest = (log.begin, log.end, log.oldest) if log else (None, None, None)
    return LaneState(
        lane=row["lane"],
        position=row["position"],
        begin=begin,
        end=end,
        epoch=row["epoch"],
        owner=row["owner"],
        halted=row["halted"],
        paused=row["paused"],
        unsettled=row["unsettled"],
        oldest=oldest,
        settled=row["settled"],
    )


def _trouble(state: LaneState) -> list[str]:
    found = []
    if state.halted:
        found.append(f"lane {state.lane} is halted: {state.halted}")
    elif state.owner is None:
        found.append(f"lane {state.lane} has no writer")
    if state.paused:
        found.append(f"lane {state.lane} is paused: {state.paused}")
    return found


@dataclass(frozen=True)
class _LogOf:
    begin: int
    end: int
    oldest: datetime | None


async def _log(bootstrap: str, topic: str, positions: Mapping[int, int]) -> dict[int, _LogOf]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        request_timeout_ms=5000,
    )
    places = {lane: TopicPartition(topic, lane) for lane in positions}
    try:
        with translated():
            await consumer.start()
            begins = await consumer.beginning_offsets(list(places.values()))
            ends = await consumer.end_offsets(list(places.values()))
            found = {}
            for lane, place in places.items():
                waits = begins[place] <= positions[lane] < ends[place]
                oldest = await _appended_at(consumer, place, positions[lane]) if waits else None
                found[lane] = _LogOf(begins[place], ends[place], oldest)
            return found
    finally:
        await stop_client(consumer)


async def _appended_at(
    consumer: AIOKafkaConsumer, place: TopicPartition, position: int
) -> datetime | None:
    consumer.assign([place])
    consumer.seek(place, position)
    batch = await consumer.getmany(place, timeout_ms=2000, max_records=1)
    for record in batch.get(place, ()):
        return datetime.fromtimestamp(record.timestamp / 1000, tz=UTC)
    return None


async def _database(url: str) -> tuple[list[asyncpg.Record], Mapping[str, Any]]:
    connection = await asyncpg.connect(url, timeout=5, command_timeout=10)
    try:
        (counted,) = await connection.fetch(_COUNTS)
        return await connection.fetch(_LANES), dict(counted)
    finally:
        await connection.close()
