"""Executes the acts that the administrators' page publishes, in whichever writer process comes first.

It holds no lane: what an operator orders must be done while a lane is paused or halted, too. An advisory
lock of PostgreSQL makes one process the executor; another one takes over when that connection ends. Acts
are read from the beginning of their topic, which keeps a week: the audit log knows which were done. While
PostgreSQL is away they wait, an hour at most.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition

from schema import clock
from schema.acts import LETTER_KINDS, Act, open_act
from schema.catalog import Catalog
from schema.envelope import EnvelopeError, Keyring
from schema.tasks import end_tasks
from schema.telemetry import Log as EventLog
from schema.topics import Topics
from writer.breaker import DatabaseAway
from writer.connection import Database
from writer.failures import FailureClass, LogUnavailable, classify
from writer.kafka_errors import stop_client, translated
from writer.operation import audit_log
from writer.operation.perform import Performed, Tools, perform, refuse
from writer.publisher import Message, OutcomePublisher

EXPIRE: Final = timedelta(hours=1)
"""An act that could not be done for so long is not done any more: much may have changed since."""
MOST_TOLD: Final = 200
"""Letters of an act that its message tells of; the audit log has them all."""
AHEAD: Final = timedelta(minutes=5)
"""How much the clock of who ordered it may be ahead of ours."""
_STANDBY_S: Final = 2.0
_BACKOFF_S: Final = (0.5, 10.0)
# A process that is frozen, or whose machine is gone, is silent: the server ends its session then, and
# with it the lock. Whoever holds it or waits for it speaks every two seconds.
_MUST_SPEAK: Final = "SET idle_session_timeout = '8s'"
_LOCK: Final = "SELECT pg_try_advisory_lock(hashtextextended('afterwrite.acts', 0))"


class _ConnectionGone(Exception):
    """The connection with the lock ended: another process may be the executor by now."""


@dataclass
class ActExecutor:
    """One for a writer process. `run` until it is cancelled."""

    database: Database
    bootstrap: str
    topics: Topics
    lanes: int
    keyring: Keyring
    catalog: Catalog
    log: EventLog
    _publisher: OutcomePublisher = field(init=False)
    _delay_s: float = _BACKOFF_S[0]

    def __post_init__(self) -> None:
        self._publisher = OutcomePublisher(self.bootstrap)

    async def run(self) -> None:
        """Be the executor whenever nobody else is; whatever fails is begun anew."""
        try:
            while True:
                try:
                    await self._hold()
                except DatabaseAway as error:
                    await asyncio.sleep(error.wait_s)  # the breaker's, and it has said so
                except Exception as error:  # noqa: BLE001 - acts are at least once; it is said
                    self.log.warning("acts_wait", error=repr(error))
                    await asyncio.sleep(self._delay_s)
                    self._delay_s = min(self._delay_s * 2, _BACKOFF_S[1])
        finally:
            await self._publisher.close()

    async def _hold(self) -> None:
        """Wait for the lock, and execute acts while we have it. Ends by raising."""
        async with self.database.connect("acts") as lock:
            await lock.execute(_MUST_SPEAK)
            while not await lock.fetchval(_LOCK):  # noqa: ASYNC110 - PostgreSQL tells nobody of it
                await asyncio.sleep(_STANDBY_S)
            self._delay_s = _BACKOFF_S[0]
            gone = asyncio.Event()
            lock.add_termination_listener(lambda _: gone.set())
            on_letters: asyncio.Queue[Act] = asyncio.Queue()
            # A pause must not wait behind a replay that takes its time.
            on_lanes: asyncio.Queue[Act] = asyncio.Queue()
            tasks = [
                asyncio.create_task(self._tail(on_letters, on_lanes)),
                asyncio.create_task(self._work(on_letters, "letters")),
                asyncio.create_task(self._work(on_lanes, "lanes")),
                asyncio.create_task(_watch(lock, gone)),
            ]
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                await end_tasks(*tasks)

    async def _tail(self, on_letters: asyncio.Queue[Act], on_lanes: asyncio.Queue[Act]) -> None:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap,
            client_id="afterwrite-acts",
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            request_timeout_ms=10_000,
        )
        partition = TopicPartition(self.topics.acts.name, 0)
        try:
            with translated():
                await consumer.start()
                consumer.assign([partition])
                await consumer.seek_to_beginning(partition)
            while True:
                with translated():
                    batches = await consumer.getmany(partition, timeout_ms=1000)
                for record in batches.get(partition, ()):
                    try:
                        act = open_act(record.key, record.value, record.headers, self.keyring)
                    except EnvelopeError as error:
                        self.log.warning("act_refused", offset=record.offset, error=str(error))
                        continue
                    (on_letters if act.kind in LETTER_KINDS else on_lanes).put_nowait(act)
        finally:
            await stop_client(consumer)

    async def _work(self, acts: asyncio.Queue[Act], purpose: str) -> None:
        """One act after the other, each on a connection that is kept between them."""
        async with self.database.connect(f"acts {purpose}") as connection:
            while True:
                act = await acts.get()
                performed = await self._performed(connection, act)
                if performed is not None:
                    await self._tell(act, performed)

    async def _performed(self, connection: asyncpg.Connection, act: Act) -> Performed | None:
        """Do an act, in time; None when it is long over and done."""
        age = clock.now() - act.at
        entry = None if act.dry_run else await audit_log.entry_of(connection, act)
        if entry is not None and entry.done:
            # Told again for a while: whoever did it may have died before he could tell.
            ok = entry.result.get("ok") is True
            return Performed(ok, entry.result, again=True) if age < EXPIRE else None
        if entry is None and not -AHEAD <= age < EXPIRE:
            if act.dry_run:
                return None
            return await refuse(connection, act, "expired: it could not be done within an hour")
        tools = Tools(
            connection,
            self._publisher,
            self.keyring,
            self.catalog,
            self.topics.commands.name,
            self.lanes,
        )
        try:
            performed = await perform(tools, act)
        except Exception as error:
            if isinstance(error, LogUnavailable) or classify(error) in _GO_ON_LATER:
                raise
            self.log.error("act_failed", act=str(act.act_id), kind=act.kind, error=repr(error))
            return await refuse(connection, act, f"it failed: {error!r}")
        self.log.info(
            "act_performed", act=str(act.act_id), kind=act.kind, who=act.who.name, ok=performed.ok
        )
        return performed

    async def _tell(self, act: Act, performed: Performed) -> None:
        value = {
            "kind": "act",
            "act_id": str(act.act_id),
            "ok": performed.ok,
            "result": brief(performed.result),
        }
        message = Message(
            self.topics.outcomes.name, str(act.who.id).encode(), json.dumps(value).encode()
        )
        await self._publisher.publish([message])


def brief(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result that fits into a message: of long lists the beginning, and how many there are."""
    told = dict(result)
    for name, value in result.items():
        if isinstance(value, list) and len(value) > MOST_TOLD:
            told |= {name: value[:MOST_TOLD], f"{name}_count": len(value)}
    return told


_GO_ON_LATER: Final = (FailureClass.TRANSIENT, FailureClass.AMBIGUOUS)


async def _watch(lock: asyncpg.Connection, gone: asyncio.Event) -> None:
    """Raises when the connection with the lock has ended; asks it now and then."""
    while not gone.is_set():
        try:
            async with asyncio.timeout(_STANDBY_S):
                await gone.wait()
        except TimeoutError:
            await lock.fetchval("SELECT 1")
    raise _ConnectionGone("the connection that holds the lock has ended")
