"""What every measurement stands on: one set of servers, installations, CPU seconds, versions."""

import contextlib
import os
import platform
import statistics
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Self

import asyncpg
import psutil

from tests.installation import Installation, fresh_name
from tests.services import Embedded, Services

DISTRIBUTIONS = ("afterwrite", "aiokafka", "asyncpg", "redis", "fastapi", "uvicorn", "uvloop")

median = statistics.median


class Bench:
    """One run of the benchmark.

    `repeats` runs of each competitor, in turns; `quick` asks for small counts, for a smoke test;
    `full` for the counts that take longer than all the others together. `say` tells of progress.
    """

    def __init__(
        self,
        repeats: int = 5,
        quick: bool = False,
        say: Callable[[str], None] = lambda line: None,
        services: Services | None = None,
        full: bool = False,
    ) -> None:
        self.repeats = 1 if quick else repeats
        self.quick = quick
        self.full = full
        self.say = say
        self._services = services
        self._ours: Embedded | None = None
        self._folder = tempfile.TemporaryDirectory(
            prefix="afterwrite-bench-", ignore_cleanup_errors=True
        )
        self.names: list[str] = []
        """All measurements that were asked for."""
        self.memory: dict[str, object] = {}
        """What measurements keep for each other within a run: prepared topics, measured rates."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._ours is not None:
            self._ours.stop()
        self._folder.cleanup()

    @property
    def folder(self) -> Path:
        """For files of this run; gone with it."""
        return Path(self._folder.name)

    @property
    def services(self) -> Services:
        """PostgreSQL, Valkey and Kafka with the durability settings of production. Started once."""
        if self._services is None:
            self.say("starting PostgreSQL, Valkey and Kafka")
            self._services = self._ours = Embedded()
        return self._services

    @asynccontextmanager
    async def installation(self, lanes: int = 1, **settings: str) -> AsyncIterator[Installation]:
        """A migrated installation; `settings` are AFTERWRITE_… names. Its processes end with it."""
        name = fresh_name()
        folder = self.folder / name
        folder.mkdir()
        extra = PRODUCTION | {f"AFTERWRITE_{k.upper()}": v for k, v in settings.items()}
        made = Installation(self.services, name, folder, lanes, extra)
        await made.create()
        try:
            yield made
        finally:
            await made.destroy()

    def meter(self, **processes: int) -> "Meter":
        """Counts CPU seconds from now on, of the servers and of these processes."""
        pids = dict(processes)
        if isinstance(self._services, Embedded):
            pids |= self._services.pids()
        return Meter(pids)

    async def versions(self) -> dict[str, str]:
        """Of everything that takes part, and the machine."""
        connection = await asyncpg.connect(self.services.admin_url)
        try:
            postgres = await connection.fetchval("SHOW server_version")
        finally:
            await connection.close()
        memory = psutil.virtual_memory().total / 2**30
        return {
            "machine": f"{os.cpu_count()} cores ({_cpu_model()}), {memory:.0f} GiB, "
            f"{platform.system()} {platform.release()}",
            "Python": platform.python_version(),
            "PostgreSQL": str(postgres),
            "servers": self.services.described,
        } | {name: version(name) for name in DISTRIBUTIONS}


PRODUCTION: dict[str, str] = {
    # The tests' Installation shortens these so that tests are short.
    "AFTERWRITE_LEASE_S": "5",
    "AFTERWRITE_DATABASE_BACKOFF_MIN_S": "1",
    "AFTERWRITE_DATABASE_BACKOFF_MAX_S": "60",
}
"""Settings as they are by default."""


class Meter:
    """CPU seconds of named processes since it was made."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self._before = {name: cpu_of(pid) for name, pid in pids.items()}

    def read(self) -> dict[str, float]:
        return {name: cpu_of(pid) - self._before[name] for name, pid in self._pids.items()}


def cpu_of(pid: int) -> float:
    """CPU seconds, user and system, of a process and its descendants, those that ended too."""
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    total = 0.0
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(member.cpu_times()[:4])
    return total


def rss_of(pid: int) -> int:
    """Bytes of memory that a process holds at this moment."""
    return int(psutil.Process(pid).memory_info().rss)


def add_up(totals: dict[str, float], more: Mapping[str, float]) -> None:
    """Add figures by name, in place."""
    for name, figure in more.items():
        totals[name] = totals.get(name, 0.0) + figure


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
