"""The disk watch: before a broker's disk is full, new changes are refused, and reads go on.

A broker whose disk is full ends, and takes with it what nobody has applied yet; so it is looked at in
the background, and a request only asks what was seen last.
"""

import asyncio
from typing import Final

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError
from prometheus_client import Gauge

from schema.broker_disks import BrokerDisk, DisksUnknown, Room, brokers_of, disk_of, fullest
from schema.tasks import end_tasks
from schema.telemetry import Log

_EVERY_S: Final = 10.0
_LIMIT_S: Final = 5.0
_CLOSE_S: Final = 2.0

_log = Log("frontend_api")


class DiskWatch:
    """`start()` begins looking in the background; `close()` ends it.

    What nobody can tell is not full: a Kafka that does not answer refuses by itself, and one that is
    too old to tell (before 3.3) is not to be shut out.
    """

    def __init__(self, bootstrap: str, shed_percent: float, gauge: Gauge) -> None:
        self._bootstrap = bootstrap
        self._room = Room(shed_percent)
        self._gauge = gauge
        self._task: asyncio.Task[None] | None = None
        self._unknown: str | None = None
        self.disks: list[BrokerDisk] = []
        """As they were seen last."""

    @property
    def full(self) -> bool:
        """Whether new changes are to be refused."""
        return self._room.full

    def start(self) -> None:
        self._task = asyncio.create_task(self._watch(), name="disk-watch")

    async def close(self) -> None:
        await end_tasks(self._task)

    async def _watch(self) -> None:
        while True:
            self._note(await self._look())
            await asyncio.sleep(_EVERY_S)

    def _note(self, disks: list[BrokerDisk]) -> None:
        self._gauge.clear()  # of a broker that is gone nothing is known any more
        for disk in disks:
            self._gauge.labels(disk.broker).set(disk.used_ratio)
        self.disks = disks
        before, self._room = self._room, self._room.after(disks)
        if self._room.full and not before.full:
            _log.error("log_full", used_percent=round(fullest(disks) * 100, 1))
        elif before.full and not self._room.full:
            _log.info("log_has_room", used_percent=round(fullest(disks) * 100, 1))

    async def _look(self) -> list[BrokerDisk]:
        """What the brokers tell; nothing while none does. Why not is said once."""
        try:
            found, unknown = await _ask(self._bootstrap), None
        except (DisksUnknown, KafkaError, OSError, TimeoutError) as error:
            found, unknown = [], repr(error)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # somebody wants us to end; else the client has let out one of its own
            found, unknown = [], "cancelled inside the client"
        except Exception as error:  # noqa: BLE001 - it must go on looking, whatever comes
            found, unknown = [], repr(error)
            _log.error("unexpected_error", what="disk watch", error=unknown)
        if unknown is not None and self._unknown is None:
            _log.info("disk_unknown", error=unknown)
        self._unknown = unknown
        return found


async def _ask(bootstrap: str) -> list[BrokerDisk]:
    """The disk of each broker that answers. Raises what stands in the way when none does."""
    client = AIOKafkaClient(
        bootstrap_servers=bootstrap,
        client_id="afterwrite-disks",
        request_timeout_ms=int(_LIMIT_S * 1000),
    )
    try:
        async with asyncio.timeout(_LIMIT_S):
            await client.bootstrap()
            answers = await asyncio.gather(
                *(disk_of(client, broker) for broker in brokers_of(client)), return_exceptions=True
            )
    finally:
        await _close(client)
    found = [answer for answer in answers if isinstance(answer, BrokerDisk)]
    failed = [answer for answer in answers if isinstance(answer, BaseException)]
    if failed and not found:
        raise failed[0]
    return found


async def _close(client: AIOKafkaClient) -> None:
    """In a task of its own: a cancellation that the client lets out must end nobody else."""
    closing = asyncio.ensure_future(client.close())
    try:
        await asyncio.wait({closing}, timeout=_CLOSE_S)
    finally:
        closing.cancel()
    if closing.done() and not closing.cancelled():
        closing.exception()  # seen
