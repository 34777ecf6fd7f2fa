"""When to try again: one mail, by its attempts; and the server, by one probe at a time. Pure."""

import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

PROBE_MIN_S: Final = 1.0
PROBE_MAX_S: Final = 60.0


@dataclass(frozen=True)
class Backoff:
    """Exponential, full jitter: between 0 and `min_s` doubled with each attempt, at most `max_s`."""

    min_s: float
    max_s: float

    def wait_s(self, attempts: int) -> float:
        """How long to wait after so many attempts (at least one) have failed."""
        most = min(self.max_s, self.min_s * 2.0 ** min(attempts - 1, 60))
        return random.uniform(0, most)  # noqa: S311 (it spreads load, it hides nothing)


@dataclass
class Breaker:
    """Whether the server is asked at all. One mail is sent at a time, so that a probe is one mail."""

    backoff: Backoff
    failures: int = 0
    since: datetime | None = None
    """When it was first found away; `None` while it answers."""
    probe_at: datetime | None = field(default=None)

    def closed(self, now: datetime) -> bool:
        """Whether a mail may be tried: the server answers, or it is time for a probe."""
        return self.probe_at is None or now >= self.probe_at

    def failed(self, now: datetime) -> float:
        """The server could not be used; returns how long nobody asks it, in seconds."""
        self.failures += 1
        self.since = self.since or now
        wait_s = self.backoff.wait_s(self.failures)
        self.probe_at = now + timedelta(seconds=wait_s)
        return wait_s

    def worked(self) -> bool:
        """It has answered; returns whether it had been away."""
        was_away = self.probe_at is not None
        self.failures, self.since, self.probe_at = 0, None, None
        return was_away
