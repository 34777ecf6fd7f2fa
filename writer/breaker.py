"""The breaker before PostgreSQL: one for the process, whoever asks.

    closed ──an attempt to connect fails──▶ open ──its pause is over──▶ half-open: one probe
      ▲                                      ▲                             │      │
      └──────────── it is let in ────────────┼─────────────────────────────┘      │
                                             └──────────── it fails, a longer pause

Lanes and settlers share it, so that a server which struggles to come back is met by one connection,
not by one of each. It counts attempts to connect, never commands: nothing that waits is the worse
for a database that was away. What breaks on a connection that stood is not its business; whoever had
that connection makes a new one, and so finds out.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import IntEnum

from schema.telemetry import Log


class Circuit(IntEnum):
    """The states, with the values that the metric has."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class DatabaseAway(ConnectionError):
    """PostgreSQL cannot be connected to. It is asked again in `wait_s` at the earliest."""

    def __init__(self, wait_s: float, why: str) -> None:
        super().__init__(why)
        self.wait_s = wait_s


def backoff_s(
    failures: int, low_s: float, high_s: float, spread: Callable[[], float] = random.random
) -> float:
    """How long to wait after so many failures in a row (1 …): with full jitter under a ceiling
    that doubles from `low_s` to `high_s`, so that many do not come back at once. Never less than
    half of `low_s`: a jitter of nothing would be no pause."""
    ceiling = min(high_s, low_s * 2.0 ** min(failures - 1, 32))
    floor = min(low_s / 2, ceiling)
    return floor + (ceiling - floor) * spread()


class Breaker:
    """`attempt()` wraps each attempt to connect; there is never more than one at a time."""

    def __init__(
        self,
        low_s: float,
        high_s: float,
        log: Log,
        on_change: Callable[[Circuit], None],
        clock: Callable[[], float] = time.monotonic,
        spread: Callable[[], float] = random.random,
    ) -> None:
        self._low_s = low_s
        self._high_s = high_s
        self._log = log
        self._on_change = on_change
        self._clock = clock
        self._spread = spread
        self._one = asyncio.Lock()
        self._failures = 0
        self._due = 0.0
        self._opened = 0.0
        self._why = ""
        self.state = Circuit.CLOSED
        on_change(self.state)

    @asynccontextmanager
    async def attempt(self) -> AsyncIterator[None]:
        """One attempt to connect. Waits for the one that is under way, if any.

        Raises `DatabaseAway` instead of letting through while the circuit is open, and for whatever
        the attempt raises.
        """
        async with self._one:
            left_s = self._due - self._clock()
            if self.state is Circuit.OPEN and left_s > 0:
                raise DatabaseAway(left_s, f"the circuit is open: {self._why}")
            before = self.state
            if before is Circuit.OPEN:
                self._enter(Circuit.HALF_OPEN)
            try:
                yield
            except Exception as error:
                self._failed(error)
                raise DatabaseAway(self._due - self._clock(), repr(error)) from error
            except BaseException:
                self._enter(before)  # it was cancelled, and says nothing: the next one may try
                raise
            self._succeeded()

    def _failed(self, error: Exception) -> None:
        now = self._clock()
        if self.state is Circuit.CLOSED:
            self._opened = now
            self._log.warning("database_unavailable", error=repr(error))
        self._failures += 1
        self._why = repr(error)
        self._due = now + backoff_s(self._failures, self._low_s, self._high_s, self._spread)
        self._enter(Circuit.OPEN)

    def _succeeded(self) -> None:
        if self.state is not Circuit.CLOSED:
            away_s = round(self._clock() - self._opened, 1)
            self._log.info("database_available", away_s=away_s, attempts=self._failures + 1)
        self._failures = 0
        self._enter(Circuit.CLOSED)

    def _enter(self, state: Circuit) -> None:
        if state is not self.state:
            self.state = state
            self._on_change(state)
