"""How long a command is tried, how long a parked one waits, and when it is tried again."""

import random
from dataclasses import dataclass
from datetime import datetime, timedelta

from schema.commands import Command
from schema.settings import WriterSettings


@dataclass(frozen=True)
class ParkPolicy:
    """Waits of parked commands, and the horizon of all. Durations are `timedelta`s."""

    dependency_wait: timedelta
    backoff_min: timedelta
    backoff_max: timedelta
    horizon: timedelta

    @classmethod
    def of(cls, settings: WriterSettings) -> "ParkPolicy":
        return cls(
            timedelta(seconds=settings.dependency_wait_s),
            timedelta(seconds=settings.park_backoff_min_s),
            timedelta(seconds=settings.park_backoff_max_s),
            timedelta(seconds=settings.horizon_s),
        )

    def expired(self, command: Command, now: datetime) -> bool:
        """Whether it is given up. What Afterwrite itself has to tell an author never is."""
        return not command.system and now - command.accepted_at >= self.horizon

    def within_horizon(self, at: datetime, command: Command) -> datetime:
        """The time of a retry: at the horizon, if it would be later, so that it bounces in time."""
        return at if command.system else min(at, command.accepted_at + self.horizon)

    def waited_too_long(self, since: datetime, now: datetime) -> bool:
        return now - since >= self.dependency_wait

    def retry_dependency_at(self, since: datetime) -> datetime:
        """The row's own coming releases the command; this is only when it is given up."""
        return since + self.dependency_wait

    def retry_at(self, attempts: int, now: datetime) -> datetime:
        """Exponential with full jitter, between the limits."""
        ceiling: timedelta = min(self.backoff_max, self.backoff_min * float(2 ** min(attempts, 16)))
        jitter = random.random()  # noqa: S311 - spreads retries, guards nothing
        return now + timedelta(
            seconds=self.backoff_min.total_seconds()
            + (ceiling - self.backoff_min).total_seconds() * jitter
        )
