"""Ends a worker that has got stuck, so that a supervisor starts a new one: a silent worker is worse than
a dead one. Three ways of being stuck are known: the loop stands still; the group has forgotten us and
the client does not notice; another has our partition and the group does not say so."""

import os
import threading
import time
from collections.abc import Callable
from typing import Final, NoReturn

from schema.telemetry import Log

STUCK_S: Final = 60.0
EXIT_CODE: Final = 1


class Stuck(Exception):
    """The worker cannot work any more, and would not get well by waiting."""


class Doubt:
    """Something that may be wrong for a while, not for longer. Pure; `now` is a monotonic time."""

    def __init__(self, what: str, limit_s: float = STUCK_S) -> None:
        self._what = what
        self._limit_s = limit_s
        self._since: float | None = None

    def note(self, well: bool | None, now: float) -> None:
        """`None`: it cannot be known now, which neither raises nor ends the doubt. Raises `Stuck`."""
        if well:
            self._since = None
        elif well is False:
            self._since = now if self._since is None else self._since
            if now - self._since >= self._limit_s:
                raise Stuck(f"for {self._limit_s:g} s {self._what}")


def _end() -> NoReturn:
    os._exit(EXIT_CODE)


class Pulse:
    """A thread that ends the process when `beat` was not called for too long.

    Twice in a row: a process that was stopped and goes on finds itself late once.
    """

    def __init__(
        self,
        log: Log,
        limit_s: float = STUCK_S,
        every_s: float = 2.0,
        end: Callable[[], None] = _end,
    ) -> None:
        self._log = log
        self._limit_s = limit_s
        self._every_s = every_s
        self._end = end
        self._last = time.monotonic()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def beat(self) -> None:
        self._last = time.monotonic()

    def stop(self) -> None:
        self._stopping.set()

    def _run(self) -> None:
        late = 0
        while not self._stopping.wait(self._every_s):
            silent_s = time.monotonic() - self._last
            late = late + 1 if silent_s > self._limit_s else 0
            if late >= 2:
                self._log.error("stuck", reason=f"the loop stood still for {silent_s:.0f} s")
                self._end()
                return
