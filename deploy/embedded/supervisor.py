"""Keeps child processes running: starts them, waits until they are ready, restarts what dies.

Every restart is said aloud, and comes after a pause that doubles each time until the process has
been well for a while. One event loop in the main thread; waiting for a child's end and asking
whether it is ready happen in threads.
"""

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from deploy.embedded.home import Home, ProcessState, State
from deploy.embedded.process import Launch, Process, started_at
from deploy.errors import Trouble

READY_S = 90.0
"""Longest time a process may take to become ready for the first time."""
FIRST_TRIES = 3
"""How often it may die before it was ever ready."""
POLL_S = 0.05

T = TypeVar("T")


@dataclass
class Backoff:
    """Pauses between restarts, in seconds: doubling from `first_s` to `limit_s`, and from the
    beginning again after a run of at least `calm_s`."""

    first_s: float = 0.5
    limit_s: float = 30.0
    calm_s: float = 60.0
    _next_s: float = field(default=0.0, init=False)

    def pause_after(self, ran_s: float) -> float:
        if ran_s >= self.calm_s or not self._next_s:
            self._next_s = self.first_s
        pause = self._next_s
        self._next_s = min(self._next_s * 2, self.limit_s)
        return pause


@dataclass(frozen=True)
class Child:
    """A process to be kept running."""

    name: str
    launch: Callable[[], Launch]
    ready: Callable[[], bool]
    port: int | None = None
    prepare: Callable[[], None] = lambda: None
    """Called before each start, in a thread; may block."""


class Supervisor:
    """The children of one open home. Use it from one event loop, in the main thread."""

    def __init__(
        self, home: Home, say: Callable[[str], None], backoff: Callable[[], Backoff] = Backoff
    ) -> None:
        self._home = home
        self._say = say
        self.backoff = backoff
        self._kept: list[_Kept] = []
        self._threads = ThreadPoolExecutor(32, thread_name_prefix="supervisor")

    async def start(self, children: list[Child]) -> None:
        """Starts them side by side; returns when all are ready. They are kept running from then on.

        Raises `Trouble` when one does not become ready.
        """
        fresh = [_Kept(self, child) for child in children]
        self._kept += fresh
        for kept in fresh:
            kept.task = asyncio.create_task(kept.keep(), name=child_task(kept.child))
        await asyncio.gather(*(kept.first_ready for kept in fresh))

    async def stop(self, names: list[str]) -> None:
        """Stops the named children one after another, then any other. Idempotent."""
        for kept in self._kept:
            kept.stopping = True
        order = {name: place for place, name in enumerate(names)}
        for kept in sorted(self._kept, key=lambda kept: order.get(kept.child.name, len(order))):
            await kept.stop()
        self._threads.shutdown(wait=False)

    def kill(self) -> None:
        """Kills all that still run, at once."""
        for kept in self._kept:
            kept.stopping = True
            kept.process.kill()

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Runs blocking work without blocking the loop. Not for starting processes."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def say(self, text: str) -> None:
        self._say(text)

    def record(self) -> None:
        """Writes `stack.json`. A full disk must not keep us from restarting or stopping anything:
        it is said, and the file is behind until the next change."""
        states = [kept.snapshot() for kept in self._kept]
        try:
            self._home.write("stack.json", {"pid": os.getpid(), "processes": states})
        except OSError as error:
            self.say(f"cannot write {self._home.path / 'stack.json'}: {error.strerror}")

    def process(self, child: Child) -> Process:
        return Process(child.name, self._home.logs / f"{child.name}.log")


def child_task(child: Child) -> str:
    return f"keep {child.name}"


class _Kept:
    """One child and the task that keeps it running."""

    def __init__(self, supervisor: Supervisor, child: Child) -> None:
        self._supervisor = supervisor
        self.child = child
        self.process = supervisor.process(child)
        self.task: asyncio.Task[None] | None = None
        self.first_ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.stopping = False
        self._state: State = "starting"
        self._restarts = 0
        self._backoff = supervisor.backoff()

    async def keep(self) -> None:
        try:
            while not self.stopping:
                began = time.monotonic()
                await self._run_once()
                if not self.stopping:
                    await self._pause(time.monotonic() - began)
        except Exception as error:  # noqa: BLE001 (handed to whoever waits for the first start)
            if self.first_ready.done():
                self._supervisor.say(f"{self.child.name}: no longer supervised: {error}")
            else:
                self.first_ready.set_exception(error)

    async def _run_once(self) -> None:
        """From the start of the process to its end."""
        began = time.monotonic()
        await self._supervisor.in_thread(self.child.prepare)
        if self.stopping:
            return
        self.process.start(self.child.launch())
        self._set("starting")
        if await self._until_ready(began + READY_S):
            self._set("running")
            self._supervisor.say(f"{self.child.name} is ready ({time.monotonic() - began:.1f} s)")
            if not self.first_ready.done():
                self.first_ready.set_result(None)
        popen = self.process.popen
        assert popen is not None
        await self._supervisor.in_thread(popen.wait)

    async def _until_ready(self, deadline: float) -> bool:
        while self.process.alive() and not self.stopping:
            if await self._supervisor.in_thread(self.child.ready):
                return True
            if time.monotonic() > deadline and not self.first_ready.done():
                raise Trouble(
                    f"{self.child.name} was not ready after {READY_S:.0f} s.",
                    f"See {self.process.log}.",
                )
            await asyncio.sleep(POLL_S)  # a server does not say when it is ready
        return False

    async def _pause(self, ran_s: float) -> None:
        self._restarts += 1
        how = self.process.exit_text
        if not self.first_ready.done() and self._restarts >= FIRST_TRIES:
            raise Trouble(
                f"{self.child.name} does not start ({how}). Its last lines:\n"
                f"{self.process.log_tail()}",
                f"The whole log is {self.process.log}.",
            )
        pause = self._backoff.pause_after(ran_s)
        self._set("restarting")
        self._supervisor.say(f"{self.child.name} ended ({how}); restarting it in {pause:g} s")
        await asyncio.sleep(pause)

    async def stop(self) -> None:
        was_alive = self.process.alive()
        if not await self._supervisor.in_thread(self.process.stop):
            self._supervisor.say(f"{self.child.name} did not stop in time and was killed")
        if self.task is not None:
            if not was_alive:
                self.task.cancel()  # it sleeps between two tries
            await asyncio.wait([self.task])
        if not self.first_ready.done():
            self.first_ready.cancel()
        self._set("stopped")

    def _set(self, state: State) -> None:
        self._state = state
        self._supervisor.record()

    def snapshot(self) -> ProcessState:
        pid = self.process.pid
        return {
            "name": self.child.name,
            "pid": pid,
            "state": self._state,
            "restarts": self._restarts,
            "port": self.child.port,
            "since": started_at(pid) if pid else None,
        }
