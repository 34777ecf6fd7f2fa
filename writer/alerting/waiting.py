"""The alerts that wait for one channel: bounded, and no opening or closing is dropped to make room."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from schema.alerts import Alert

LIMIT: Final = 100
PATIENCE: Final = 5
"""After so many attempts in a row an alert lets those go first which have had fewer."""


@dataclass(eq=False)
class Waiting:
    """An alert and how often it was tried. `since_sent` counts what the channel has delivered meanwhile."""

    alert: Alert
    attempts: int = 0
    since_sent: int = 0


class WaitingAlerts:
    """Pure: no clock, no I/O.

    When there are `limit`, the oldest reminder goes (or summary, or test), else the oldest opening
    together with its closing: that incident is over. Openings of incidents that last are kept beyond
    the limit; they are as few as the kinds of incidents.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._waiting: deque[Waiting] = deque()
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Alert]:
        return (waiting.alert for waiting in self._waiting)

    def put(self, alert: Alert) -> list[Alert]:
        """Take an alert; returns those that had to go for it. One that waits already is not taken again."""
        if any(waiting.alert.alert_id == alert.alert_id for waiting in self._waiting):
            return []
        self._waiting.append(Waiting(alert))
        going = self._surplus() if len(self._waiting) > self._limit else []
        for waiting in going:
            self._waiting.remove(waiting)
        self.dropped += len(going)
        return [waiting.alert for waiting in going]

    def next(self) -> Waiting | None:
        """The one to try now: the oldest, unless it has been tried in vain and others have not.

        So an alert that the other side takes exception to does not hold up all that come after.
        """
        return min(self._waiting, key=lambda w: w.attempts // PATIENCE, default=None)

    def remove(self, waiting: Waiting, *, sent: bool) -> None:
        """It was delivered, or given up."""
        if waiting in self._waiting:
            self._waiting.remove(waiting)
        for other in self._waiting:
            other.since_sent += sent and other.attempts > 0

    def _surplus(self) -> list[Waiting]:
        for waiting in self._waiting:
            if waiting.alert.phase not in ("opened", "closed"):
                return [waiting]
        opened: dict[str, Waiting] = {}
        for waiting in self._waiting:
            if waiting.alert.phase == "opened":
                opened[waiting.alert.incident] = waiting
            elif waiting.alert.incident in opened:
                return [opened[waiting.alert.incident], waiting]
        return []
