"""When a channel tries again: after growing pauses, and once a minute when it has failed for good."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

State = Literal["working", "retrying", "failing"]


@dataclass(frozen=True)
class Timing:
    """Seconds, and how many failures in a row open the breaker."""

    timeout_s: float = 10.0
    first_s: float = 1.0
    limit_s: float = 30.0
    probe_s: float = 60.0
    breaker_after: int = 4
    look_s: float = 1.0
    """How often a channel that waits looks at the clock, which tests move."""


class Pauses:
    """Pure: the time is given. `jitter` gives numbers of [0, 1)."""

    def __init__(self, timing: Timing, jitter: Callable[[], float] = random.random) -> None:
        self._timing = timing
        self._jitter = jitter
        self._failures = 0
        self._due: datetime | None = None
        self.failing_since: datetime | None = None

    @property
    def state(self) -> State:
        """`failing` while the breaker is open: one attempt at a time, a minute apart."""
        if not self._failures:
            return "working"
        return "failing" if self._failures >= self._timing.breaker_after else "retrying"

    def failed(self, now: datetime) -> None:
        """Half of each pause is fixed and half is chance, so channels that failed together part."""
        self._failures += 1
        self.failing_since = self.failing_since or now
        pause = self._timing.first_s * 2 ** min(self._failures - 1, 16)
        pause = min(pause, self._timing.limit_s) * (0.5 + self._jitter() / 2)
        if self.state == "failing":
            pause = self._timing.probe_s * (0.9 + self._jitter() / 5)
        self._due = now + timedelta(seconds=pause)

    def succeeded(self) -> None:
        self._failures = 0
        self._due = self.failing_since = None

    def left_s(self, now: datetime) -> float:
        """How long until the next attempt. A clock that was put back does not prolong it."""
        if self._due is None:
            return 0.0
        longest = max(self._timing.probe_s * 1.1, self._timing.limit_s)
        self._due = min(self._due, now + timedelta(seconds=longest))
        return max(0.0, (self._due - now).total_seconds())
