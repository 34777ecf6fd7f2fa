"""Processes of ours without the second that Python takes to read libraries: a parent has read them.

Nothing but libraries is read beforehand. A process reads our own code itself, with its environment, as
`python -m MODULE` does; and tests of `afterwrite up` start their processes as an operator does.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Protocol, Self

LIBRARIES = (
    "aiokafka.admin",
    "aiosmtplib",
    "asyncpg",
    "fastapi",
    "hiredis",
    "httptools",
    "httpx2",
    "jinja2",
    "jwt",
    "prometheus_client",
    "pydantic_settings",
    "redis.asyncio",
    "rich.traceback",
    "starlette.routing",
    "structlog",
    "typer.rich_utils",
    "uuid6",
    "uvicorn.protocols.http.httptools_impl",
)
ROOT = Path(__file__).parent.parent
_LARGEST_BYTES = 100_000  # an environment
_NUMBER_BYTES = 4


class Process(Protocol):
    """What a test does with a process: a part of `subprocess.Popen`."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int) -> None: ...


class Forked:
    """A child of the parent of all. Its number, then how it ended, come by a socket of its own."""

    def __init__(self, words: Sequence[str], told: socket.socket) -> None:
        self._words = words
        self._told = told
        self._code: int | None = None
        self._lock = threading.Lock()
        self.pid = self._number()

    def _number(self) -> int:
        said = self._told.recv(_NUMBER_BYTES)
        if not said:
            raise RuntimeError(f"the parent of {self._words} is gone")
        return int.from_bytes(said, sys.byteorder, signed=True)

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        with self._lock:
            if self._code is None:
                self._told.settimeout(timeout)
                try:
                    self._code = self._number()
                except (BlockingIOError, TimeoutError) as error:
                    raise subprocess.TimeoutExpired(self._words, timeout or 0) from error
                self._told.close()
            return self._code

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, sig)


class Nursery:
    """The parent of all, started when the first child is wanted."""

    def __init__(self) -> None:
        self._parent: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._parent is not None:
            self._line.close()
            self._parent.wait()

    def start(
        self, words: Sequence[str], environment: dict[str, str], out: IO[bytes], err: IO[bytes]
    ) -> Forked:
        """`python -m` these words, in a session of its own."""
        with self._lock:
            if self._parent is None:
                self._line, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                with there:
                    number = there.fileno()
                    self._parent = subprocess.Popen(
                        [sys.executable, "-m", "tests.forking", str(number)],
                        cwd=ROOT,
                        pass_fds=[number],
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        start_new_session=True,
                    )
        told, tells = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        wanted = json.dumps({"words": [*words], "environment": environment}).encode()
        assert len(wanted) < _LARGEST_BYTES
        with tells:
            socket.send_fds(self._line, [wanted], [out.fileno(), err.fileno(), tells.fileno()])
        return Forked(words, told)

    def run(
        self, words: Sequence[str], environment: dict[str, str], folder: Path, timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """The same, to its end. What it said is kept in the folder for that long."""
        name = f"run-{time.monotonic_ns()}"
        out, err = folder / f"{name}.out", folder / f"{name}.err"
        with out.open("xb") as out_file, err.open("xb") as err_file:
            process = self.start(words, environment, out_file, err_file)
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            raise
        said = [path.read_text(encoding="utf-8") for path in (out, err)]
        out.unlink()
        err.unlink()
        return subprocess.CompletedProcess([*words], code, *said)


def _serve(line: socket.socket) -> list[str]:
    """Fork whatever is wanted, and tell how it ended. Returns in the child, with its words."""
    wakes, waker = socket.socketpair()
    for end in (wakes, waker):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
    living: dict[int, socket.socket] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(line, selectors.EVENT_READ)
        selector.register(wakes, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if wakes in ready:
                wakes.recv(4096)
                _bury(living)
            if line in ready:
                wanted, files, _, _ = socket.recv_fds(line, _LARGEST_BYTES, 3)
                if not wanted:
                    os._exit(0)
                child = os.fork()
                if child == 0:
                    break
                tells = socket.socket(fileno=files[2])
                tells.send(child.to_bytes(_NUMBER_BYTES, sys.byteorder, signed=True))
                living[child] = tells
                for file in files[:2]:
                    os.close(file)
    return _born(json.loads(wanted), files)


def _bury(living: dict[int, socket.socket]) -> None:
    while living:
        child, status = os.waitpid(-1, os.WNOHANG)
        if child == 0:
            return
        code = os.waitstatus_to_exitcode(status)
        with living.pop(child) as tells, contextlib.suppress(OSError):  # nobody asks any more
            tells.send(code.to_bytes(_NUMBER_BYTES, sys.byteorder, signed=True))


def _born(wanted: dict[str, object], files: list[int]) -> list[str]:
    """Nothing is left of the parent but the libraries it has read."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    for file, standard in zip(files, (1, 2), strict=False):
        os.dup2(file, standard)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    environment, words = wanted["environment"], wanted["words"]
    assert isinstance(environment, dict)
    assert isinstance(words, list)
    os.environ.clear()
    os.environ.update(environment)
    return words


def _main() -> None:
    for library in LIBRARIES:
        importlib.import_module(library)
    gc.freeze()  # else each child would look through all of it when it ends
    words = _serve(socket.socket(fileno=int(sys.argv[1])))
    sys.argv = words
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
