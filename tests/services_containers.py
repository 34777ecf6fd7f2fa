"""PostgreSQL, Redis and Kafka in containers, for machines where a Docker engine answers.

The images are named by `AFTERWRITE_TEST_POSTGRES_IMAGE`, `AFTERWRITE_TEST_REDIS_IMAGE` and
`AFTERWRITE_TEST_KAFKA_IMAGE`; unset, they are the official ones. Everything is started through the
contract of the official images (`POSTGRES_PASSWORD`, `redis-server OPTIONS`, `KAFKA_*` properties
and `CLUSTER_ID`), and the images that `.ci/engine` builds where no registry can be reached keep
that contract, so this module does not know which ones it runs.

Each service keeps its address and its data while its container is stopped, killed and started
again: fault tests depend on it. Therefore host ports are chosen here and not by the engine, which
would choose anew at every start.
"""

import contextlib
import gc
import os
import random
import socket
import struct
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import docker.errors  # type: ignore[import-untyped]
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient

ServiceName = Literal["postgres", "redis", "kafka"]

START_TIMEOUT_S = 90.0
"""How long a container may take until it answers; Kafka on a busy two-core machine needs 15 s."""

_OFFICIAL_IMAGES: dict[ServiceName, str] = {
    "postgres": "postgres:17",
    "redis": "redis:8",
    "kafka": "apache/kafka:4.3.1",
}
_PORTS: dict[ServiceName, int] = {"postgres": 5432, "redis": 6379, "kafka": 9092}
_PASSWORD = "afterwrite"
_KAFKA_SETTINGS = Path(__file__).parent.parent / "deploy" / "kafka" / "server.properties"

# Tests go on connecting to a port while its service is down. Inside the range of ephemeral ports
# such a connection may, once in a while, be given its own target as source and reach itself.
_HOST_PORTS = range(20_000, 32_000)


class ContainersUnavailable(RuntimeError):
    """An engine answers, but what it needs to run the services is not there. Use other services."""


def engine_available() -> bool:
    """Whether a Docker engine answers, where testcontainers would look for it. Takes at most 5 s."""
    with warnings.catch_warnings():
        # The Docker client leaves its socket to the garbage collector when nobody answers.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            with _client(timeout_s=5) as client:
                return bool(client.client.ping())
        except (docker.errors.DockerException, OSError):
            return False
        finally:
            gc.collect()


def image(name: ServiceName) -> str:
    """The image that service `name` is started from."""
    return os.environ.get(f"AFTERWRITE_TEST_{name.upper()}_IMAGE") or _OFFICIAL_IMAGES[name]


@dataclass
class ContainerServices:
    """The three services. `start` returns when all answer; `stop` removes them and their data.

    Blocking throughout, and free of any event loop; any thread may call it.
    """

    host: str = field(default="", init=False)
    _containers: dict[ServiceName, DockerContainer] = field(default_factory=dict, init=False)
    _ports: dict[ServiceName, int] = field(default_factory=dict, init=False)

    @property
    def database_url(self) -> str:
        """PostgreSQL as the superuser `postgres`, who may create roles and databases."""
        return f"postgresql://postgres:{_PASSWORD}@{self._address('postgres')}/postgres"

    @property
    def redis_url(self) -> str:
        """Database 0 of an empty Redis with an append-only file."""
        return f"redis://{self._address('redis')}/0"

    @property
    def kafka_bootstrap(self) -> str:
        """`host:port` of the single broker, which creates no topic by itself."""
        return self._address("kafka")

    def start(self) -> None:
        """Start all three at once and wait for them.

        Raises `ContainersUnavailable` when an image is neither there nor can be pulled.
        """
        with _client() as client:
            # By number: the name may stand for two addresses, and a client would try both.
            self.host = client.host().replace("localhost", "127.0.0.1")
            _require_images(client)
        try:
            for name in get_args(ServiceName):
                self._create(name)
            for name in get_args(ServiceName):
                self._wait_ready(name)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Remove the containers with their data. Safe to repeat, and after half a start."""
        for container in self._containers.values():
            with contextlib.suppress(docker.errors.NotFound):
                container.stop()
        self._containers.clear()

    def kill(self, name: ServiceName) -> None:
        """End one service as `kill -9` does. What it had written to files stays."""
        wrapped = self._containers[name].get_wrapped_container()
        wrapped.kill()
        wrapped.wait()

    def terminate(self, name: ServiceName) -> None:
        """Shut one service down in an orderly way; after 20 s it is killed."""
        self._containers[name].get_wrapped_container().stop(timeout=20)

    def restart(self, name: ServiceName) -> None:
        """Start a killed or terminated service at its old address, and wait until it answers."""
        self._containers[name].get_wrapped_container().start()
        self._wait_ready(name)

    def freeze(self, name: ServiceName) -> None:
        """Stop the service's clock: its connections stay open and nothing answers, until `thaw`."""
        self._containers[name].get_wrapped_container().pause()

    def thaw(self, name: ServiceName) -> None:
        """Let a frozen service go on where it was."""
        self._containers[name].get_wrapped_container().unpause()

    def _address(self, name: ServiceName) -> str:
        return f"{self.host}:{self._ports[name]}"

    def _create(self, name: ServiceName) -> None:
        # Another process may take the port between our look and the engine's bind.
        for attempts_left in (2, 1, 0):
            self._ports[name] = _free_port()
            container = _container(name, self._address(name))
            container.with_bind_ports(_PORTS[name], self._ports[name])
            self._containers[name] = container
            try:
                container.start()
            except docker.errors.APIError:
                container.stop()
                if not attempts_left:
                    raise
            else:
                return

    def _wait_ready(self, name: ServiceName) -> None:
        wrapped = self._containers[name].get_wrapped_container()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _answers(name, self.host, self._ports[name]):
            wrapped.reload()
            if wrapped.status == "exited" or time.monotonic() > deadline:
                log = wrapped.logs(tail=30).decode(errors="replace")
                raise TimeoutError(f"{name} ({image(name)}) is {wrapped.status}; its log:\n{log}")
            time.sleep(0.05)


@contextlib.contextmanager
def _client(timeout_s: int = 60) -> Iterator[DockerClient]:
    client = DockerClient(timeout=timeout_s)
    try:
        yield client
    finally:
        client.client.close()


def _require_images(client: DockerClient) -> None:
    images = [image(name) for name in get_args(ServiceName)]
    if not testcontainers_config.ryuk_disabled:
        images.append(testcontainers_config.ryuk_image)
    for wanted in images:
        try:
            client.client.images.get(wanted)
        except docker.errors.ImageNotFound:
            try:
                client.client.images.pull(wanted)
            except docker.errors.APIError as error:
                raise ContainersUnavailable(
                    f"image {wanted} is not there and cannot be pulled: {error.explanation}. "
                    'Without a registry: .ci/engine && eval "$(.ci/engine env)"'
                ) from error


def _container(name: ServiceName, address: str) -> DockerContainer:
    """A container of service `name`, not started, to be reached by clients at `address`."""
    container = DockerContainer(image(name)).with_kwargs(labels={"afterwrite.test": name})
    match name:
        case "postgres":
            # Tests kill processes, not machines: what is written survives them without fsync.
            return container.with_envs(POSTGRES_PASSWORD=_PASSWORD).with_command(
                ["postgres", "-c", "fsync=off", "-c", "max_connections=200"]
            )
        case "redis":
            return container.with_command(
                ["redis-server", "--appendonly", "yes", "--save", "", "--protected-mode", "no"]
            )
        case "kafka":
            return container.with_envs(**_kafka_environment(address))


def _kafka_environment(address: str) -> dict[str, str]:
    """The embedded broker's settings, with what is different inside a container."""
    settings = dict(
        line.split("=", 1)
        for line in _KAFKA_SETTINGS.read_text(encoding="utf-8").splitlines()
        if "=" in line and not line.startswith("#")
    )
    settings |= {
        "controller.quorum.voters": "1@localhost:9093",
        # The broker calls itself, too, and inside the container the clients' address leads nowhere.
        "inter.broker.listener.name": "INTERNAL",
        "listeners": "CLIENT://:9092,CONTROLLER://localhost:9093,INTERNAL://localhost:9094",
        "advertised.listeners": f"CLIENT://{address},INTERNAL://localhost:9094",
        "listener.security.protocol.map": (
            "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT,INTERNAL:PLAINTEXT"
        ),
        "log.dirs": "/tmp/kraft-combined-logs",
    }
    return {
        "CLUSTER_ID": "4L6g3nShT-eMCtK--X86sw",
        "KAFKA_HEAP_OPTS": "-Xms64m -Xmx384m -XX:+UseSerialGC -XX:TieredStopAtLevel=1",
    } | {_variable(key): value for key, value in settings.items()}


def _variable(key: str) -> str:
    """The name under which the official image takes the broker's property `key`."""
    return "KAFKA_" + key.replace("_", "__").replace("-", "___").replace(".", "_").upper()


def _free_port() -> int:
    while True:
        port = random.choice(_HOST_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port


# Readiness is asked for in each service's own protocol: behind the engine's port proxy an open port
# says nothing. Written out by hand, since drivers would want an event loop and retries of their own.


def _answers(name: ServiceName, host: str, port: int) -> bool:
    """Whether the service does more than accept connections. Takes at most 2 s."""
    try:
        with socket.create_connection((host, port), timeout=2) as connection:
            return _PROBES[name](connection)
    except OSError:
        return False


def _postgres_answers(connection: socket.socket) -> bool:
    body = struct.pack("!i", 196_608) + b"user\0postgres\0database\0postgres\0\0"
    connection.sendall(struct.pack("!i", len(body) + 4) + body)
    # A request for the password; an error ("the database system is starting up") begins with E.
    return connection.recv(1) == b"R"


def _redis_answers(connection: socket.socket) -> bool:
    connection.sendall(b"PING\r\n")
    # -LOADING while it reads its files.
    return connection.recv(5) == b"+PONG"


def _kafka_answers(connection: socket.socket) -> bool:
    # Metadata, version 4, no topics. A broker that is not yet let in lists no brokers.
    request = struct.pack("!hhihi?", 3, 4, 1, -1, 0, False)
    connection.sendall(struct.pack("!i", len(request)) + request)
    answer = b""
    while len(answer) < 16:
        chunk = connection.recv(1024)
        if not chunk:
            return False
        answer += chunk
    _size, _correlation, _throttle_ms, brokers = struct.unpack_from("!iiii", answer)
    return bool(brokers > 0)


_PROBES: dict[ServiceName, Callable[[socket.socket], bool]] = {
    "postgres": _postgres_answers,
    "redis": _redis_answers,
    "kafka": _kafka_answers,
}
