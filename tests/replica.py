"""A streaming replica of the test run's PostgreSQL, whose lag is decided by the test.

    async with replica_of(installation.services) as replica:
        api = installation.start("api", frontend_database_url=replica.url_like(frontend_url))
        await replica.delay(2)       # every commit is replayed 2 s late
        await replica.hold()         # nothing is replayed …
        await replica.release()      # … until now
        await replica.caught_up()    # all that the primary has now is there

It is a copy of the whole server by `pg_basebackup`, with a replication slot, so that a replica that
was away finds everything it has missed. It needs the programs of the primary's very version, so it
can be had where the tests start PostgreSQL themselves; elsewhere the test is skipped, aloud.
"""

import asyncio
import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import psutil
import pytest

from deploy.embedded import ports, probes
from deploy.embedded.postgres import Postgres
from deploy.embedded.process import Launch, Process
from tests.installation import eventually_async, fresh_name
from tests.services import Embedded, Services

_READY_S: Final = 60.0
_CAUGHT_UP_S: Final = 60.0
_SETTINGS: Final = {
    # Tests kill processes, not machines: what is written survives them without fsync.
    "fsync": "off",
    "hot_standby": "on",
    "hot_standby_feedback": "off",
    "wal_retrieve_retry_interval": "100ms",
    "wal_receiver_status_interval": "1s",
}


class Replica:
    """A standby. Start and restart it in the main thread: it ends with the one that started it."""

    def __init__(self, primary: Postgres, folder: Path) -> None:
        self._primary = primary
        self._folder = folder
        self._data = folder / "data"
        self._slot = f"replica_{fresh_name()}"
        self._process = Process("replica", folder / "replica.log")
        self.port = ports.choose(None, {primary.port})

    @property
    def admin_url(self) -> str:
        return self.url_like(self._primary.url("postgres", "postgres"))

    def url_like(self, url: str) -> str:
        """The replica's URL for the same role and database as a URL of the primary."""
        parts = urlsplit(url)
        who, _, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{who}@127.0.0.1:{self.port}"))

    def cancelled(self) -> int:
        """How many reads were in the way of what it replays, and were told 40001."""
        text = self._process.log.read_text(encoding="utf-8", errors="replace")
        return text.count("due to conflict with recovery")

    # -- its processes ----------------------------------------------------------------------

    async def create(self) -> None:
        """Copy the primary and start. Takes a second or two."""
        if self._primary.run_as.isdigit():
            shutil.chown(self._folder, int(self._primary.run_as), int(self._primary.run_as))
        program = str(self._primary.binary.path.parent / "pg_basebackup")
        options = ["--dbname", self._primary.url("postgres", "postgres"), "--no-sync"]
        options += ["--checkpoint=fast", "--wal-method=stream", "--write-recovery-conf"]
        options += ["--create-slot", "--slot", self._slot, "--pgdata", str(self._data)]
        command = Launch(
            (program, *options),
            run_as=self._primary.run_as,
            needs=(program, str(self._folder)),
        ).command()
        trouble = await asyncio.to_thread(_run, command)
        if trouble:
            raise RuntimeError(f"pg_basebackup failed: {trouble}")
        await self.restart()

    async def restart(self, **settings: str) -> None:
        """Start it (again), with these settings besides its own, and wait until it can be read."""
        self._process.kill()
        base = self._primary.launch()
        own = {**_SETTINGS, **settings, "port": str(self.port)}
        argv = [base.argv[0], "-D", str(self._data), *base.argv[3:]]
        argv += [word for key, value in own.items() for word in ("-c", f"{key}={value}")]
        self._process.start(
            Launch(
                tuple(argv),
                base.env,
                stop_signal=base.stop_signal,
                run_as=base.run_as,
                needs=(argv[0], str(self._data)),
            )
        )

        async def ready() -> bool:
            if not self._process.alive():
                raise AssertionError(f"the replica ended: {self._process.log_tail(20)}")
            return probes.postgres(self.port)

        await eventually_async(ready, _READY_S, "the replica to be readable")

    def kill(self) -> None:
        """End it as `kill -9` does, its sessions included."""
        self._process.kill()

    def pause(self) -> None:
        """It keeps its connections and answers nothing."""
        self._each(psutil.Process.suspend)

    def resume(self) -> None:
        self._each(psutil.Process.resume)

    def _each(self, act: Callable[[psutil.Process], None]) -> None:
        """The server and its children, as in `Embedded`."""
        pid = self._process.pid
        if pid is None:
            return
        parent = psutil.Process(pid)
        for process in [parent, *parent.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                act(process)

    async def remove(self) -> None:
        """End it, and give the slot back: a forgotten one keeps the primary's log for ever."""
        self._process.kill()
        connection = await asyncpg.connect(self._primary.url("postgres", "postgres"), timeout=10)

        async def dropped() -> bool:
            try:
                await connection.execute(
                    "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
                    "WHERE slot_name = $1",
                    self._slot,
                )
            except asyncpg.ObjectInUseError:  # its sender has not noticed yet
                return False
            return True

        try:
            await eventually_async(dropped, 30, "the slot to be free")
        finally:
            await connection.close()

    # -- its lag ----------------------------------------------------------------------------

    async def delay(self, seconds: float) -> None:
        """From now on a commit is replayed this long after the primary made it."""
        milliseconds = int(seconds * 1000)
        connection = await self._connect()
        try:
            await connection.execute(
                f"ALTER SYSTEM SET recovery_min_apply_delay = '{milliseconds}ms'"
            )
            await connection.execute("SELECT pg_reload_conf()")

            async def told() -> bool:
                shown = await connection.fetchval(
                    "SELECT setting FROM pg_settings WHERE name = 'recovery_min_apply_delay'"
                )
                return bool(int(shown) == milliseconds)

            await eventually_async(told, 10, "the delay to be told")
        finally:
            await connection.close()

    async def hold(self) -> None:
        """Replay nothing more. What arrives is kept."""
        connection = await self._connect()
        try:
            await connection.execute("SELECT pg_wal_replay_pause()")

            async def held() -> bool:
                state = await connection.fetchval("SELECT pg_get_wal_replay_pause_state()")
                return bool(state == "paused")

            await eventually_async(held, 30, "the replay to be paused")
        finally:
            await connection.close()

    async def release(self) -> None:
        """Replay again. Without effect when it does."""
        await self.value("SELECT pg_wal_replay_resume()")

    async def caught_up(self, timeout: float = _CAUGHT_UP_S) -> None:
        """Wait until all that the primary has written by now is replayed."""
        connection = await asyncpg.connect(self._primary.url("postgres", "postgres"), timeout=10)
        try:
            # A commit writes out what came before it, also of transactions that are still open.
            await connection.execute("SELECT pg_logical_emit_message(true, 'replica', '')")
            at = await connection.fetchval("SELECT pg_current_wal_flush_lsn()::text")
        finally:
            await connection.close()

        async def there() -> bool:
            return bool(await self.value("SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn", at))

        await eventually_async(there, timeout, f"the replica to come to {at}")

    async def value(self, query: str, *args: object, url: str | None = None) -> Any:
        """One value as the superuser, or whoever `url` names, reads it here."""
        connection = await asyncpg.connect(url or self.admin_url, timeout=10)
        try:
            return await connection.fetchval(query, *args)
        finally:
            await connection.close()

    async def _connect(self) -> Any:
        return await asyncpg.connect(self.admin_url, timeout=10)


@asynccontextmanager
async def replica_of(services: Services) -> AsyncIterator[Replica]:
    """A replica of the run's PostgreSQL. Skips the test, aloud, where none can be had."""
    if not isinstance(services, Embedded):
        pytest.skip(
            "SKIPPED FOR REAL: a replica needs a PostgreSQL that the tests start themselves"
        )
    primary = services.postgres
    if not (primary.binary.path.parent / "pg_basebackup").exists():
        pytest.skip(f"SKIPPED FOR REAL: no pg_basebackup beside {primary.binary.path}")
    folder = _folder()
    replica = Replica(primary, folder)
    try:
        await replica.create()
        yield replica
    finally:
        replica.resume()
        await asyncio.shield(replica.remove())
        shutil.rmtree(folder, ignore_errors=True)


def _folder() -> Path:
    """Open to others: PostgreSQL may have to run as another user."""
    folder = Path(tempfile.mkdtemp(prefix="afterwrite-replica-"))
    folder.chmod(0o755)
    return folder


def _run(command: list[str]) -> str:
    """What went wrong, empty if nothing did."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.stderr if done.returncode else ""
