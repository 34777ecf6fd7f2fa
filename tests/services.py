"""The servers of a test run: by URL, in containers, or embedded; started once, shared by all tests.

`AFTERWRITE_TEST_SERVICES` chooses: `url` (AFTERWRITE_TEST_DATABASE_URL as superuser,
AFTERWRITE_TEST_REDIS_URL, AFTERWRITE_TEST_KAFKA_BOOTSTRAP), `containers` (testcontainers), `embedded`;
by default the first that is there. Faults need servers that are ours: by URL they are skipped, aloud.
"""

import contextlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import psutil

from deploy.embedded.postgres import Postgres
from deploy.embedded.services import EmbeddedServices
from tests import services_containers
from tests.services_containers import ContainerServices

ServiceName = Literal["postgres", "redis", "kafka"]


class Services(Protocol):
    """What tests ask of the servers."""

    admin_url: str
    redis_url: str
    kafka_bootstrap: str
    described: str

    def kill(self, name: ServiceName) -> None: ...
    def restart(self, name: ServiceName) -> None: ...
    def pause(self, name: ServiceName) -> None: ...
    def resume(self, name: ServiceName) -> None: ...
    def stop(self) -> None: ...


@dataclass
class UrlServices:
    """Servers that somebody else runs; they cannot be stopped from here."""

    admin_url: str
    redis_url: str
    kafka_bootstrap: str
    described: str = "servers named by URL"

    def kill(self, name: ServiceName) -> None:
        raise FaultsImpossible

    restart = pause = resume = kill

    def stop(self) -> None:
        return


class FaultsImpossible(Exception):
    """The test needs to stop a server that is not ours."""


class Embedded:
    """The wheels' PostgreSQL, Valkey and Kafka, or Debian's (`AFTERWRITE_…_SOURCE=system`)."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(
            prefix="afterwrite-test-", ignore_cleanup_errors=True
        )
        Path(self._folder.name).chmod(0o755)
        self._services = EmbeddedServices(Path(self._folder.name) / "home")
        self._services.start()
        environment = self._services.environment()
        self.admin_url = environment["AFTERWRITE_ADMIN_DATABASE_URL"]
        self.redis_url = environment["AFTERWRITE_REDIS_URL"]
        self.kafka_bootstrap = environment["AFTERWRITE_KAFKA_BOOTSTRAP"]
        parts = ", ".join(f"{k}: {v}" for k, v in self._services.describe().items())
        self.described = f"embedded ({parts})"

    @property
    def postgres(self) -> Postgres:
        """The server itself, for what is made of it: a replica."""
        return self._services.postgres

    @property
    def redis_files(self) -> Path:
        """Redis' append-only files: what it remembers when it is started again."""
        return self._services.home.folder("redis") / "appendonlydir"

    @property
    def kafka_folder(self) -> Path:
        """Where Kafka keeps its log."""
        return self._services.home.folder("kafka") / "data"

    def pids(self) -> dict[str, int]:
        """The process of each server, for those who measure it."""
        return {p["name"]: p["pid"] for p in self._services.processes() if p["pid"] is not None}

    def kill(self, name: ServiceName) -> None:
        self._services.kill(name)

    def restart(self, name: ServiceName) -> None:
        self._services.restart(name)

    def pause(self, name: ServiceName) -> None:
        self._each(name, psutil.Process.suspend)

    def resume(self, name: ServiceName) -> None:
        self._each(name, psutil.Process.resume)

    def _each(self, name: ServiceName, act: Callable[[psutil.Process], None]) -> None:
        """The server and its children: PostgreSQL's sessions go on while only their parent stands."""
        pid = next(p["pid"] for p in self._services.processes() if p["name"] == name)
        parent = psutil.Process(pid)
        for process in [parent, *parent.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):  # a session that ends at this moment
                act(process)

    def stop(self) -> None:
        self._services.stop()
        self._folder.cleanup()


class Containers:
    """Servers in containers."""

    def __init__(self) -> None:
        self._services = ContainerServices()
        self._services.start()
        self.admin_url = self._services.database_url
        self.redis_url = self._services.redis_url
        self.kafka_bootstrap = self._services.kafka_bootstrap
        images = ", ".join(services_containers.image(n) for n in ("postgres", "redis", "kafka"))
        self.described = f"testcontainers ({images})"

    def kill(self, name: ServiceName) -> None:
        self._services.kill(name)

    def restart(self, name: ServiceName) -> None:
        self._services.restart(name)

    def pause(self, name: ServiceName) -> None:
        self._services.freeze(name)

    def resume(self, name: ServiceName) -> None:
        self._services.thaw(name)

    def stop(self) -> None:
        self._services.stop()


def start_services() -> Services:
    """Start, or name, the servers of this run."""
    wanted = os.environ.get("AFTERWRITE_TEST_SERVICES", "auto")
    url = os.environ.get("AFTERWRITE_TEST_DATABASE_URL")
    if wanted == "url" or (wanted == "auto" and url):
        return UrlServices(
            os.environ["AFTERWRITE_TEST_DATABASE_URL"],
            os.environ["AFTERWRITE_TEST_REDIS_URL"],
            os.environ["AFTERWRITE_TEST_KAFKA_BOOTSTRAP"],
        )
    if wanted == "containers":
        return Containers()
    if wanted == "auto" and services_containers.engine_available():
        try:
            return Containers()
        except services_containers.ContainersUnavailable as error:
            embedded = Embedded()
            embedded.described += f" — a Docker engine answers, but NOT USED: {error}"
            return embedded
    return Embedded()
