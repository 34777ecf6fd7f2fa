"""The state folder of one embedded stack: layout, lock, ports, secrets, and who runs.

lock               flock of the stack that runs; holds its process id
version.json       which layout and which servers made the data
ports.json         port of each process, kept across restarts while they are free
secrets.json       passwords and keys, mode 0600
environment.json   settings of the running stack, mode 0600
stack.json         the processes and their states, rewritten at each change
postgres/ redis/ kafka/   data of the services
logs/              one file a process
"""

import fcntl
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypedDict

from deploy.embedded import ports
from deploy.embedded.files import locked, write_atomically
from deploy.errors import NotReachable, Trouble, UsageTrouble

DEFAULT_HOME = ".afterwrite"
LAYOUT = 1

SERVERS = (
    "AFTERWRITE_DATABASE_URL",
    "AFTERWRITE_WRITER_DATABASE_URL",
    "AFTERWRITE_FRONTEND_DATABASE_URL",
    "AFTERWRITE_REDIS_URL",
    "AFTERWRITE_KAFKA_BOOTSTRAP",
)

State = Literal["starting", "running", "restarting", "stopped"]


class ProcessState(TypedDict):
    """One process as `stack.json` shows it; `pid` is `None` while there is none."""

    name: str
    pid: int | None
    state: State
    restarts: int
    port: int | None
    since: float | None
    """Start of the process in clock ticks after boot: tells it from a later one of the same id."""


def default_path() -> Path:
    """`AFTERWRITE_HOME`, or `.afterwrite` in the working directory."""
    return Path(os.environ.get("AFTERWRITE_HOME") or DEFAULT_HOME).absolute()


class Home:
    """One state folder. Making a `Home` touches nothing; `open()` creates and locks the folder."""

    def __init__(self, path: Path | str | None = None) -> None:
        self.path = Path(path).absolute() if path is not None else default_path()
        self._lock: int | None = None

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def folder(self, name: str) -> Path:
        """The folder of one service, made if missing."""
        path = self.path / name
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    # -- the lock ---------------------------------------------------------------------------

    def open(self) -> None:
        """Creates the folder if needed and locks it for this process until `close()`.

        Raises `Trouble` when another stack runs in it, naming its process id.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise UsageTrouble(
                f"{self.path} is not a folder.", "Set AFTERWRITE_HOME to another place."
            ) from None
        self.path.chmod(0o711)
        self.logs.mkdir(exist_ok=True)
        lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        if not locked(lock):
            os.close(lock)
            raise Trouble(
                f"A stack already runs in {self.path} (process {self.supervisor_pid()}).",
                "Stop that one first, or set AFTERWRITE_HOME (and PORT) to run a second one.",
            )
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
        self._lock = lock
        self._check_layout()

    def close(self) -> None:
        """Lets go of the lock. The data stay."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def running(self) -> bool:
        """Whether some process, this one included, holds the folder."""
        if self._lock is not None:
            return True
        try:
            lock = os.open(self.path / "lock", os.O_RDWR)
        except OSError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def supervisor_pid(self) -> int | None:
        """The process that holds (or last held) the lock."""
        try:
            return int((self.path / "lock").read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None

    # -- versions ---------------------------------------------------------------------------

    def _check_layout(self) -> None:
        found = self.read("version.json").get("layout", LAYOUT)
        if found != LAYOUT:
            raise Trouble(
                f"{self.path} has layout {found}; this Afterwrite knows layout {LAYOUT}.",
                "Use the version that made it, or set AFTERWRITE_HOME to a new folder.",
            )

    def stamp(self, name: str, version: str, remedy: str) -> None:
        """Records which version made the data of service `name`, once.

        Raises `Trouble` with `remedy` when another version had made them.
        """
        versions = self.read("version.json")
        found = versions.get(name)
        if found is None:
            versions |= {"layout": LAYOUT, name: version}
            self.write("version.json", versions)
        elif found != version:
            raise Trouble(f"{self.path / name} was made by {found}, and this is {version}.", remedy)

    # -- what is kept -----------------------------------------------------------------------

    def read(self, name: str) -> dict[str, Any]:
        """A JSON object kept in the folder; empty if there is none."""
        try:
            value = json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError:
            raise Trouble(
                f"{self.path / name} is not JSON.", "Restore it from a copy, or remove it."
            ) from None
        return value if isinstance(value, dict) else {}

    def write(self, name: str, value: dict[str, Any], mode: int = 0o644) -> None:
        write_atomically(self.path / name, json.dumps(value, indent=1) + "\n", mode)

    def port(self, name: str) -> int:
        """A free port of 127.0.0.1 for process `name`: the one of last time if it is still free."""
        known = self.read("ports.json")
        port = ports.choose(known.get(name), taken=set(known.values()))
        if known.get(name) != port:
            self.write("ports.json", known | {name: port})
        return port

    def secret(self, name: str) -> str:
        """A random secret of 43 letters and digits, made at first use and then kept."""
        known = self.read("secrets.json")
        if name not in known:
            alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
            known[name] = "".join(secrets.choice(alphabet) for _ in range(43))
            self.write("secrets.json", known, mode=0o600)
        return str(known[name])

    # -- for other commands -----------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        """The settings of the running stack, `AFTERWRITE_…` name to value.

        Raises `NotReachable` when no stack runs here.
        """
        values = self.read("environment.json") if self.running() else {}
        if not values:
            raise NotReachable(
                f"No stack is running in {self.path}.",
                "Start one with `afterwrite up`, or set AFTERWRITE_HOME to the folder of one.",
            )
        return {str(name): str(value) for name, value in values.items()}

    def processes(self) -> list[ProcessState]:
        """The processes of the stack; all are `stopped` when none runs here."""
        known: list[ProcessState] = self.read("stack.json").get("processes", [])
        if not self.running():
            return [{**process, "pid": None, "state": "stopped"} for process in known]
        return known


def known_settings(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The `AFTERWRITE_…` settings a command should use.

    Where the environment names a server, it alone counts: a command must not work on the database
    of one system and the Kafka of another. Else they are those of the stack that runs in the home,
    if one does, overridden by the environment.
    """
    ours = {key: value for key, value in environ.items() if key.startswith("AFTERWRITE_")}
    if any(ours.get(name) or ours.get(f"{name}_FILE") for name in SERVERS):
        return ours
    try:
        return Home().environment() | ours
    except NotReachable:
        return ours
