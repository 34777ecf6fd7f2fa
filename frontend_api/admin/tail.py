"""Follows what others tell in Kafka: alerts, mail that could not be sent, and what became of mail.

No group: every process keeps the latest of it in memory, bounded, and says so.
"""

import asyncio
import json
import random
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from frontend_api.admin.incidents import Alerts
from frontend_api.outcome_listener import stop_consumer
from schema.alerts import Alert
from schema.mail import Mail
from schema.tasks import end_tasks
from schema.telemetry import Log
from schema.topics import Topics

MOST_MAILS: Final = 200
MOST_STATES: Final = 5000
_LOOK_BACK: Final = 5000
"""How far before its end a topic is read at first, in all its partitions together."""
_BACKOFF_MIN_S: Final = 0.2
_BACKOFF_MAX_S: Final = 5.0
_START_LIMIT_S: Final = 10.0
_ADDRESS: Final = "address:"
_OWNER: Final = "owner:"

_log = Log("frontend_api")


@dataclass(frozen=True)
class DeadMail:
    """A mail that will not be sent. `mail` is None if it cannot be read; `why` are its headers."""

    offset: int
    at: datetime
    mail: Mail | None
    why: Mapping[str, str]


class MailStates:
    """The latest state of each of the latest mails, and the addresses that are marked."""

    def __init__(self) -> None:
        self._states: OrderedDict[str, Mapping[str, Any]] = OrderedDict()
        self.marked: OrderedDict[str, Mapping[str, Any]] = OrderedDict()
        self.forgotten = False
        """Whether there were more of them than are kept."""

    def take(self, key: str, state: Mapping[str, Any] | None) -> None:
        """One message of the compacted topic; None: it is not there any more."""
        if key.startswith(_OWNER):
            return  # which worker has a partition, nothing of mail
        kept, key = (
            (self.marked, key[len(_ADDRESS) :]) if key.startswith(_ADDRESS) else (self._states, key)
        )
        kept.pop(key, None)
        if state is not None:
            kept[key] = state
        while len(kept) > MOST_STATES:
            kept.popitem(last=False)
            self.forgotten = True

    def counts(self) -> Mapping[str, int]:
        """How many mails are in which state."""
        return Counter(str(s.get("state", "unknown")) for s in self._states.values())


class Tail:
    """`start()` begins reading in the background; `close()` takes a bounded time."""

    def __init__(self, bootstrap: str, topics: Topics) -> None:
        self._bootstrap = bootstrap
        self._alerts, self._dead = topics.alerts.name, topics.mail_dead_letters.name
        self._states = topics.mail_state.name
        self._task: asyncio.Task[None] | None = None
        self._next: dict[TopicPartition, int] = {}
        self.alerts = Alerts()
        self.mails: deque[DeadMail] = deque(maxlen=MOST_MAILS)
        self.states = MailStates()
        self.reading = False
        """False while Kafka cannot be read: what is here may be old."""

    def start(self) -> None:
        self._task = asyncio.create_task(self._follow(), name="admin-tail")

    async def close(self) -> None:
        await end_tasks(self._task)

    async def _follow(self) -> None:
        backoff_s = _BACKOFF_MIN_S
        while True:
            consumer = AIOKafkaConsumer(
                bootstrap_servers=self._bootstrap,
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="earliest",  # what retention took is of no more use
                isolation_level="read_committed",
                request_timeout_ms=10_000,
            )
            try:
                async with asyncio.timeout(_START_LIMIT_S):
                    await consumer.start()
                    await self._begin(consumer)
                self.reading = True
                backoff_s = _BACKOFF_MIN_S
                while True:
                    for place, records in (await consumer.getmany(timeout_ms=1000)).items():
                        self._take(place, records)
            except (KafkaError, OSError) as error:
                _log.info("recovering", what="alerts and mail", error=type(error).__name__)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise  # somebody wants us to end; else the client has let out one of its own
            except Exception as error:  # noqa: BLE001 - it must go on following, whatever comes
                _log.error("unexpected_error", what="alerts and mail", error=repr(error))
            finally:
                self.reading = False
                await stop_consumer(consumer)
            await asyncio.sleep(backoff_s * random.uniform(0.5, 1))  # noqa: S311 - no secret
            backoff_s = min(backoff_s * 2, _BACKOFF_MAX_S)

    async def _begin(self, consumer: AIOKafkaConsumer) -> None:
        cluster = await consumer._client.fetch_all_metadata()
        places = []
        for topic in (self._alerts, self._dead, self._states):
            known = cluster.partitions_for_topic(topic)
            if not known:
                raise KafkaError(f"no topic {topic}")
            places += [TopicPartition(topic, n) for n in sorted(known)]
        consumer.assign(places)
        begins = await consumer.beginning_offsets(places)
        ends = await consumer.end_offsets(places)
        for place in places:
            share = _LOOK_BACK // max(1, sum(p.topic == place.topic for p in places))
            start = max(begins[place], ends[place] - share)
            known_next = self._next.get(place, -1)
            consumer.seek(place, known_next if start <= known_next <= ends[place] else start)

    def _take(self, place: TopicPartition, records: Sequence[Any]) -> None:
        for record in records:
            self._next[place] = record.offset + 1
            if place.topic == self._alerts:
                self._take_alert(record)
            elif place.topic == self._dead:
                self.mails.appendleft(_dead_mail(record))
            else:
                self._take_state(record)

    def _take_alert(self, record: Any) -> None:
        try:
            self.alerts.take(Alert.from_json(json.loads(record.value)))
        except (ValueError, KeyError, TypeError):
            return  # not one of ours

    def _take_state(self, record: Any) -> None:
        try:
            state = json.loads(record.value) if record.value is not None else None
        except ValueError:
            return
        if record.key is not None and (state is None or isinstance(state, dict)):
            self.states.take(record.key.decode("utf-8", "replace"), state)


def _dead_mail(record: Any) -> DeadMail:
    why = {
        name: content.decode("utf-8", "replace")
        for name, content in record.headers
        if content is not None
    }
    try:
        mail = Mail.from_json(json.loads(record.value or b""))
    except (ValueError, KeyError, TypeError, AttributeError):
        mail = None
    return DeadMail(record.offset, datetime.fromtimestamp(record.timestamp / 1000, UTC), mail, why)
