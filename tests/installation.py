"""One installation per test: a fresh database, a prefix of its own for topics and keys, processes."""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import httpx2
import jwt
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from schema.catalog import load_catalog
from schema.identifiers import user_id_for
from schema.settings import OwnerSettings
from schema.topics import topics
from tests.forking import Nursery, Process
from tests.services import Services
from writer.migrate import migrate_database
from writer.topic_admin import migrate_topics

PASSWORD = "test-only"  # of roles in a throw-away server
ROLES = ("afterwrite_owner", "afterwrite_writer", "afterwrite_frontend")
SECRET = "a-secret-for-tests-only-0123456789abcdef"
ROOT = Path(__file__).parent.parent
_DELETE_LIMIT_S = 3.0
_RUN_LIMIT_S = 120.0
NURSERY: Nursery | None = None
"""Where processes of ours are forked in a run of tests; without one they are started as ever."""


@dataclass
class Installation:
    """URLs, settings, and the processes that a test starts; everything is gone after the test."""

    services: Services
    name: str
    folder: Path
    lanes: int = 1
    extra: dict[str, str] = field(default_factory=dict)
    addresses: bool = False
    """Whether tokens say by which e-mail address their user can be reached: NAME@example.org."""
    processes: dict[str, "Running"] = field(default_factory=dict)
    emails: dict[str, str] = field(default_factory=dict)
    """Addresses that users' tokens name, by user."""
    _postgres: tuple[str, int] | None = None

    def url_of(self, role: str) -> str:
        parts = urlsplit(self.services.admin_url)
        host, port = self._postgres or (parts.hostname or "127.0.0.1", parts.port or 5432)
        return urlunsplit(
            ("postgresql", f"{role}:{PASSWORD}@{host}:{port}", f"/{self.name}", "", "")
        )

    @property
    def admin_url(self) -> str:
        return urlunsplit(urlsplit(self.services.admin_url)._replace(path=f"/{self.name}"))

    @property
    def owner_url(self) -> str:
        return self.url_of("afterwrite_owner")

    @property
    def writer_url(self) -> str:
        return self.url_of("afterwrite_writer")

    @property
    def frontend_url(self) -> str:
        return self.url_of("afterwrite_frontend")

    def through(self, host: str, port: int) -> None:
        """Processes started from now on reach PostgreSQL by this address, a proxy's."""
        self._postgres = (host, port)

    def direct(self) -> None:
        """Processes started from now on reach PostgreSQL directly again."""
        self._postgres = None

    def environment(self) -> dict[str, str]:
        return {
            "AFTERWRITE_DATABASE_URL": self.owner_url,
            "AFTERWRITE_WRITER_DATABASE_URL": self.writer_url,
            "AFTERWRITE_FRONTEND_DATABASE_URL": self.frontend_url,
            "AFTERWRITE_REDIS_URL": self.services.redis_url,
            "AFTERWRITE_KAFKA_BOOTSTRAP": self.services.kafka_bootstrap,
            "AFTERWRITE_PREFIX": self.name,
            "AFTERWRITE_LANES": str(self.lanes),
            "AFTERWRITE_SIGNING_KEYS": f"k1:{SECRET}",
            "AFTERWRITE_JWT_SECRET": SECRET,
            "AFTERWRITE_HOME": str(self.folder / "home"),
            "AFTERWRITE_DATABASE_BACKOFF_MIN_S": "0.2",
            "AFTERWRITE_DATABASE_BACKOFF_MAX_S": "1",
            "AFTERWRITE_LEASE_S": "2",
            # How full the disk of the machine is that tests run on is not what they are about.
            "AFTERWRITE_DISK_SHED_PERCENT": "100",
            "AFTERWRITE_DISK_ALERT_PERCENT": "100",
        } | self.extra

    def start(
        self, what: str, name: str | None = None, launcher: str = "", **settings: str
    ) -> "Running":
        """Start `api`, `writer`, `notifier` or `mail-worker` as a process of its own.

        `settings` are further AFTERWRITE_… names.
        `launcher` is a module to run instead of the command, with its first arguments, as one text.
        """
        name = name or what
        environment = self.environment() | {
            f"AFTERWRITE_{k.upper()}": v for k, v in settings.items()
        }
        if what == "api":
            environment.setdefault("AFTERWRITE_PORT", str(free_port()))
            environment["AFTERWRITE_URL"] = f"http://127.0.0.1:{environment['AFTERWRITE_PORT']}"
        self.processes[name] = Running(
            what,
            name,
            environment,
            self.folder / f"{name}.log",
            tuple(launcher.split()) or ("deploy.cli",),
        )
        return self.processes[name]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run an `afterwrite` command to its end."""
        environment = os.environ | self.environment()
        api = self.processes.get("api")
        if api is not None:
            environment["AFTERWRITE_URL"] = api.url
        if NURSERY is not None:
            return NURSERY.run(["deploy.cli", *command], environment, self.folder, _RUN_LIMIT_S)
        return subprocess.run(
            [sys.executable, "-m", "deploy.cli", *command],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=_RUN_LIMIT_S,
            check=False,
        )

    async def create(self) -> None:
        """Make roles, database and topics."""
        await asyncio.gather(self._make_database(), self._make_topics())

    async def _make_database(self) -> None:
        await create_database(self.services.admin_url, self.name)
        connection = await asyncpg.connect(self.owner_url)
        try:
            catalog = load_catalog(self.extra.get("AFTERWRITE_CONTENT", "schema.forum"))
            await migrate_database(connection, catalog, self.lanes, lambda line: None)
        finally:
            await connection.close()

    async def _make_topics(self) -> None:
        async def made() -> bool:
            """Not by a broker that was frozen or killed a moment ago, and is not in its cluster again."""
            try:
                await migrate_topics(self._settings(), 1, 1, lambda line: None)
            except (RuntimeError, KafkaError):
                return False
            return True

        await eventually_async(made, 30, "the topics to be made")

    async def destroy(self) -> None:
        for process in self.processes.values():
            process.kill()
        await asyncio.gather(self._drop_database(), self._delete_topics())

    async def _drop_database(self) -> None:
        connection = await asyncpg.connect(self.services.admin_url)
        try:
            await connection.execute(f'DROP DATABASE IF EXISTS "{self.name}" WITH (FORCE)')
        finally:
            await connection.close()

    async def _delete_topics(self) -> None:
        """A broker that was killed looks at every partition before it is back: with those of a whole
        run that takes most of a minute. Where it is away just now, they stay."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.services.kafka_bootstrap)
        names = [topic.name for topic in topics(self._settings()).all()]
        with contextlib.suppress(KafkaError, OSError, TimeoutError):
            async with asyncio.timeout(_DELETE_LIMIT_S):
                try:
                    await admin.start()
                    await admin.delete_topics(names, timeout_ms=int(_DELETE_LIMIT_S * 1000))
                finally:
                    await admin.close()

    def _settings(self) -> OwnerSettings:
        return OwnerSettings.model_validate(
            {
                "database_url": self.owner_url,
                "kafka_bootstrap": self.services.kafka_bootstrap,
                "prefix": self.name,
                "lanes": self.lanes,
            }
        )

    async def fetch(self, query: str, *args: object) -> list[asyncpg.Record]:
        """Rows as the owner sees them, on a connection of its own."""
        connection = await asyncpg.connect(self.owner_url, timeout=10)
        try:
            rows: list[asyncpg.Record] = await connection.fetch(query, *args)
            return rows
        finally:
            await connection.close()

    async def value(self, query: str, *args: object) -> Any:
        return (await self.fetch(query, *args))[0][0]

    def token(self, user: str, *roles: str) -> str:
        claims = {
            "sub": str(user_id_for(user)),
            "name": user,
            "roles": list(roles),
            "exp": int(time.time()) + 3600,
        }
        if self.addresses:
            claims["email"] = f"{user}@example.org"
        return jwt.encode(claims, SECRET, algorithm="HS256")

    def client(self, user: str, *roles: str, api: str = "api") -> httpx2.AsyncClient:
        """An HTTP client of the running API that speaks for a user, and changes any version."""
        return httpx2.AsyncClient(
            base_url=self.processes[api].url,
            headers={"Authorization": f"Bearer {self.token(user, *roles)}"},
            timeout=15,
            event_hooks={"request": [any_version]},
        )


async def any_version(request: httpx2.Request) -> None:
    """For `event_hooks` of a client that does not mind which version it changes, unless it says."""
    if request.method in ("PATCH", "DELETE"):
        request.headers.setdefault("If-Match", "*")


async def create_database(admin_url: str, name: str) -> None:
    """A fresh database owned by afterwrite_owner; the roles are made, or given the tests' password."""
    connection = await asyncpg.connect(admin_url)
    try:
        async with connection.transaction():  # two at the same time upset the server
            await connection.execute("SELECT pg_advisory_xact_lock(1)")
            for role in ROLES:
                known = await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role)
                verb = "ALTER" if known else "CREATE"
                await connection.execute(f"{verb} ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
        await connection.execute(
            f'CREATE DATABASE "{name}" OWNER afterwrite_owner TEMPLATE template0'
        )
        await connection.execute(f'REVOKE ALL ON DATABASE "{name}" FROM PUBLIC')
        await connection.execute(
            f'GRANT CONNECT ON DATABASE "{name}" TO afterwrite_writer, afterwrite_frontend'
        )
    finally:
        await connection.close()


class Running:
    """A process of ours, started as an operator starts it."""

    def __init__(
        self,
        what: str,
        name: str,
        environment: dict[str, str],
        log: Path,
        launcher: tuple[str, ...] = ("deploy.cli",),
    ) -> None:
        self.name = name
        self.url = environment.get("AFTERWRITE_URL", "")
        self.log = log
        words = [*launcher, *(["serve"] * (what != "mail-worker")), what]
        self.popen: Process
        with log.open("ab") as out:
            if NURSERY is not None:
                self.popen = NURSERY.start(words, os.environ | environment, out, out)
                return
            self.popen = subprocess.Popen(
                [sys.executable, "-m", *words],
                env=os.environ | environment,
                cwd=ROOT,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    def signal(self, number: int) -> None:
        self.popen.send_signal(number)

    def kill(self) -> None:
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGKILL)
            self.popen.send_signal(signal.SIGCONT)
        self.popen.wait()

    def terminate(self, timeout: float = 20) -> int:
        """SIGTERM; returns the exit code."""
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(timeout)

    async def ended(self, timeout: float = 20) -> int:
        """Wait until the process has ended by itself; returns its exit code."""
        await eventually(lambda: self.popen.poll() is not None, timeout, f"{self.name} to end")
        return self.popen.wait()

    def events(self) -> list[dict[str, Any]]:
        """The log lines so far."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    async def logged(self, event: str, timeout: float = 20, **fields: object) -> dict[str, Any]:
        """Wait for a log event with these fields."""
        found: list[dict[str, Any]] = []

        def there() -> bool:
            found[:] = [
                e
                for e in self.events()
                if e.get("event") == event and all(e.get(k) == v for k, v in fields.items())
            ]
            if not found and self.popen.poll() not in (None, 0, -signal.SIGKILL):
                raise AssertionError(f"{self.name} ended:\n{self.log.read_text()[-3000:]}")
            return bool(found)

        await eventually(there, timeout, f"{self.name} to log {event}")
        return found[-1]

    async def ready(self, timeout: float = 30) -> "Running":
        """Wait until the API answers /readyz with 200, or the writer has said that it started.

        Where all servers are there, also until the API has made sure of its overlay.
        """
        if not self.url:
            await self.logged("started", timeout)
            return self
        async with httpx2.AsyncClient(base_url=self.url, timeout=2) as client:

            async def answers() -> bool:
                if self.popen.poll() is not None:
                    raise AssertionError(f"{self.name} ended:\n{self.log.read_text()[-3000:]}")
                try:
                    answer = await client.get("/readyz")
                    return answer.status_code == 200 and answer.json()["degraded"] != ["overlay"]
                except httpx2.HTTPError:
                    return False

            await eventually_async(answers, timeout, f"{self.name} to be ready")
        return self


async def eventually(check: Callable[[], bool], timeout: float, what: str) -> None:
    """Wait for something that can only be asked for, with a deadline."""

    async def ask() -> bool:
        return check()

    await eventually_async(ask, timeout, what)


async def eventually_async(check: Callable[[], Any], timeout: float, what: str) -> None:
    deadline = time.monotonic() + timeout
    while not await check():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout} s for {what}")
        await asyncio.sleep(0.05)


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def fresh_name() -> str:
    return f"t{uuid.uuid4().hex[:8]}{secrets.token_hex(2)}"
