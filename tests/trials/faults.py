"""What is done to the servers during a trial: a seeded, bounded schedule, one fault after the other."""

import asyncio
import random
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from redis.asyncio import Redis

from tests.installation import Installation
from tests.replica import Replica
from tests.services import Embedded, ServiceName
from tests.trials.model import Record

Fault = Literal[
    "writer paused",
    "writer killed",
    "postgres paused",
    "postgres killed",
    "redis paused",
    "redis killed",
    "redis flushed",
    "redis emptied",
    "redis restored",
    "replica delayed",
    "replica held",
    "replica paused",
    "replica killed",
]
WEIGHTS: Final[Mapping[Fault, int]] = {
    "writer paused": 3,
    "writer killed": 2,
    "postgres paused": 2,
    "postgres killed": 2,
    "redis paused": 1,
    "redis killed": 1,
    "redis flushed": 3,
    "redis emptied": 1,
    "redis restored": 1,
    "replica delayed": 3,
    "replica held": 3,
    "replica paused": 1,
    "replica killed": 1,
}
FORGETTING: Final = frozenset({"redis flushed", "redis emptied", "redis restored"})
LONGEST_S: Final = 3.0
WRITERS: Final = ("writer", "standby")


class Faults:
    """Run from the main thread: servers end with the thread that started them."""

    def __init__(
        self,
        installation: Installation,
        replica: Replica,
        record: Record,
        seed: int,
        weights: Mapping[Fault, int] = WEIGHTS,
    ) -> None:
        assert isinstance(installation.services, Embedded)
        self.installation = installation
        self.services = installation.services
        self.replica = replica
        self.record = record
        self.random = random.Random(f"faults/{seed}")
        self.weights = {fault: weight for fault, weight in weights.items() if weight}
        self.now: Fault | None = None
        self._old_file: Path | None = None

    async def go_on(self, until: asyncio.Event, gap_s: float) -> None:
        """One fault after the other, each healed before the next; all is healed at the end.

        Every kind comes once before any comes again, in a random order, so that a short trial meets
        as many as it can.
        """
        waiting: list[Fault] = []
        while self.weights and not until.is_set():
            if not waiting:
                waiting = self.order()
            await self.inject(waiting.pop(0), self.random.uniform(0.3, LONGEST_S))
            await asyncio.sleep(self.random.uniform(0.5, 1.5) * gap_s)

    def order(self) -> list[Fault]:
        """Each kind once, then the rest of its weight."""
        kinds = list(self.weights)
        rest = [f for f, weight in self.weights.items() for _ in range(weight - 1)]
        self.random.shuffle(kinds)
        self.random.shuffle(rest)
        return kinds + rest

    async def inject(self, fault: Fault, seconds: float) -> None:
        """Cause it, leave it so for a while, and heal it."""
        self.now = fault
        self.record.faults[fault] = self.record.faults.get(fault, 0) + 1
        begun = time.monotonic()
        try:
            if fault.startswith("writer"):
                await self._writer(fault, seconds)
            elif fault.startswith("replica"):
                await self._replica(fault, seconds)
            elif fault in FORGETTING:
                await self._forget(fault)
            else:
                name: ServiceName = "postgres" if fault.startswith("postgres") else "redis"
                await self._server(name, fault, seconds)
        finally:
            took = time.monotonic() - begun
            self.record.seconds[fault] = self.record.seconds.get(fault, 0.0) + took
            self.now = None

    async def _writer(self, fault: Fault, seconds: float) -> None:
        """One of the writers, whichever holds the lane."""
        name = self.random.choice(WRITERS)
        writer = self.installation.processes[name]
        if fault == "writer killed":
            writer.kill()
            await asyncio.sleep(seconds)
            self.installation.start("writer", name)
            return
        writer.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            writer.signal(signal.SIGCONT)

    async def _server(self, name: ServiceName, fault: Fault, seconds: float) -> None:
        if fault.endswith("killed"):
            self.services.kill(name)
            try:
                await asyncio.sleep(seconds)
            finally:
                self.services.restart(name)
            return
        self.services.pause(name)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.services.resume(name)

    async def _replica(self, fault: Fault, seconds: float) -> None:
        match fault:
            case "replica delayed":
                await self.replica.delay(self.random.uniform(0.2, 2))
                await asyncio.sleep(2 * seconds)
                await self.replica.delay(0)
            case "replica held":
                await self.replica.hold()
                await asyncio.sleep(seconds)
                await self.replica.release()
            case "replica paused":
                self.replica.pause()
                await asyncio.sleep(seconds)
                self.replica.resume()
            case _:
                self.replica.kill()
                self.record.horizon.reset(time.time())
                await asyncio.sleep(seconds)
                self.record.horizon.reset(time.time())
                await self.replica.restart()

    # -- Redis and its memory ---------------------------------------------------------------

    def keep_file(self) -> None:
        """What Redis has written by now is the old file from which it will be restored."""
        self._old_file = self.services.redis_files.with_name("an-old-file")
        shutil.rmtree(self._old_file, ignore_errors=True)
        shutil.copytree(self.services.redis_files, self._old_file)

    async def _forget(self, fault: Fault) -> None:
        if fault == "redis flushed":
            async with Redis.from_url(self.installation.services.redis_url) as redis:
                await redis.flushall()
            return
        self.services.kill("redis")
        shutil.rmtree(self.services.redis_files)
        if fault == "redis restored" and self._old_file is not None:
            shutil.copytree(self._old_file, self.services.redis_files)
        self.services.restart("redis")
