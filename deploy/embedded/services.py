"""PostgreSQL, Valkey or Redis, and Kafka alone, without API and writer: for tests.

    services = EmbeddedServices(folder)
    services.start()                      # cold about 5 s, warm about 2 s
    os.environ |= services.environment()  # the names that `afterwrite env` prints
    services.kill("postgres")             # SIGKILL; or kill(name, signal.SIGSTOP)
    services.restart("postgres")
    services.stop()

Blocking, and free of any event loop. Call `start` and `restart` from the main thread (a fixture is;
a worker thread is not): Linux ends a child together with the thread that started it, which also
means that nothing stays behind when the test run is killed. Nothing is restarted by itself here.
"""

import os
import signal
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from deploy.embedded import leftovers
from deploy.embedded.choose import NAMES, choose, fetch, own
from deploy.embedded.home import Home, ProcessState, State
from deploy.embedded.kafka import Kafka
from deploy.embedded.postgres import Postgres
from deploy.embedded.process import Process, started_at
from deploy.embedded.service import External, Service, ServiceName
from deploy.errors import Trouble

READY_S = 60.0


class EmbeddedServices:
    """The three services in one folder.

    `environ` decides which binaries are taken, as for `afterwrite up`; a service that it names by a
    URL is not started. `only` leaves the others out.
    """

    def __init__(
        self,
        folder: Path | str,
        environ: Mapping[str, str] | None = None,
        only: Sequence[ServiceName] = NAMES,
    ) -> None:
        self.home = Home(folder)
        self._only = only
        self._environ = dict(os.environ if environ is None else environ)
        self._services: list[Service | External] = []
        self._processes: dict[str, Process] = {}
        self._restarts: dict[str, int] = {}

    # -- all of them ------------------------------------------------------------------------

    def start(self) -> None:
        """Starts all and returns when all serve. Raises `Trouble`; nothing runs on then."""
        self.home.open()
        try:
            leftovers.end(self.home)
            self._services = choose(self.home, self._environ, self._only)
            for service in self._services:
                if isinstance(service, Kafka):
                    service.may_train = False  # a test run ends soon and starts once
            fetch(self._services, lambda done, total: None)
            ours = own(self._services)
            with ThreadPoolExecutor(3) as pool:
                list(pool.map(lambda service: service.prepare(), ours))
            for service in ours:
                self._processes[service.name] = Process(
                    service.name, self.home.logs / f"{service.name}.log"
                )
                self._spawn(service)
            for service in ours:
                self.wait_ready(service.name)
            with ThreadPoolExecutor(3) as pool:
                list(pool.map(lambda service: service.finish(), ours))
            self.home.write("environment.json", dict(self.environment()), mode=0o600)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stops all in order: Kafka, Redis, PostgreSQL. May be called twice."""
        for process in reversed(self._processes.values()):
            process.stop()
        if self._processes:
            self._record()
        self.home.close()

    def __enter__(self) -> "EmbeddedServices":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.stop()

    # -- what they are ----------------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        """`AFTERWRITE_…` settings of the services, with the superuser's URL under
        `AFTERWRITE_ADMIN_DATABASE_URL`, and the keys of this folder."""
        values: dict[str, str] = {}
        for service in self._services:
            values |= service.environment()
        return values | keys(self.home)

    def processes(self) -> list[ProcessState]:
        return [self._state(process) for process in self._processes.values()]

    def describe(self) -> dict[str, str]:
        """Which binary or server each service is."""
        return {service.name: service.describe() for service in self._services}

    @property
    def postgres(self) -> Postgres:
        """The PostgreSQL that was started: its program and data, for those who copy it."""
        found = self._service("postgres")
        assert isinstance(found, Postgres)
        return found

    # -- one of them ------------------------------------------------------------------------

    def kill(self, name: ServiceName, number: int = signal.SIGKILL) -> None:
        """Sends a signal to one service. After SIGKILL it is waited for: it is gone on return."""
        process = self._processes[name]
        process.signal(number)
        if number == signal.SIGKILL and process.popen is not None:
            process.popen.wait()
        self._record()

    def stop_one(self, name: ServiceName) -> None:
        """Stops one service in its orderly way."""
        self._processes[name].stop()
        self._record()

    def restart(self, name: ServiceName) -> None:
        """Starts one service again (stopping it first if it runs) and waits until it serves."""
        service = self._service(name)
        self._processes[name].stop()
        service.prepare()
        self._restarts[name] = self._restarts.get(name, 0) + 1
        self._spawn(service)
        self.wait_ready(name)

    def wait_ready(self, name: ServiceName, timeout_s: float = READY_S) -> None:
        """Returns when the service serves. Raises `Trouble` if it ends or `timeout_s` passes."""
        service, process = self._service(name), self._processes[name]
        deadline = time.monotonic() + timeout_s
        while not service.ready():
            if not process.alive():
                raise Trouble(
                    f"{name} ended while it started ({process.exit_text}): {process.log_tail()}",
                    f"See {process.log}.",
                )
            if time.monotonic() > deadline:
                raise Trouble(f"{name} was not ready after {timeout_s} s.", f"See {process.log}.")
            time.sleep(0.03)  # a server says nothing when it becomes ready: it has to be asked
        self._record()

    def _service(self, name: ServiceName) -> Service:
        return next(service for service in own(self._services) if service.name == name)

    def _spawn(self, service: Service) -> None:
        self._processes[service.name].start(service.launch())
        self._record()

    def _state(self, process: Process) -> ProcessState:
        pid = process.pid
        state: State = "running" if pid else "stopped"
        return {
            "name": process.name,
            "pid": pid,
            "state": state,
            "restarts": self._restarts.get(process.name, 0),
            "port": next(s.port for s in own(self._services) if s.name == process.name),
            "since": started_at(pid) if pid else None,
        }

    def _record(self) -> None:
        self.home.write("stack.json", {"pid": os.getpid(), "processes": self.processes()})


def keys(home: Home) -> dict[str, str]:
    """The keys of a home, made at first use: for tokens, and for the envelope's signature."""
    return {
        "AFTERWRITE_JWT_SECRET": home.secret("jwt"),
        "AFTERWRITE_SIGNING_KEYS": f"k1:{home.secret('signing')}",
    }
