"""The alerts that wait for one channel: bounded, and no opening or closing is dropped to make room."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from schema.alerts import Alert

LIMIT: Final = 100
PATIENCE: Final = 5
"""After so many failures in a row an alert of another incident is tried once, to tell what is wrong."""


@dataclass(eq=False)
class Waiting:
    """An alert; what had been delivered when it first failed; how often it failed after later ones
    had been taken: then it is the alert that is refused, and not the channel that fails."""

    alert: Alert
    first_failed_at: int | None = None
    refused: int = 0


class WaitingAlerts:
    """Pure: no clock, no I/O.

    When there are `limit`, the oldest reminder goes (or summary, or test), else the oldest opening
    together with its closing: that incident is over. Openings of incidents that last are kept beyond
    the limit; they are as few as the kinds of incidents.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._waiting: deque[Waiting] = deque()
        self._sent = 0
        self._in_vain = 0
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
        """The one to try now: the oldest, with those that are refused behind all others.

        After some failures in a row it is once the oldest of another incident: so it comes out if one
        alert is refused, and the alerts of an incident keep their order.
        """
        ordered = sorted(self._waiting, key=lambda waiting: waiting.refused > 0)
        first = ordered[0] if ordered else None
        if first is not None and self._in_vain % (PATIENCE + 1) == PATIENCE:
            others = (w for w in ordered if w.alert.incident != first.alert.incident)
            return next(others, first)
        return first

    def failed(self, waiting: Waiting) -> None:
        self._in_vain += 1
        if waiting.first_failed_at is None:
            waiting.first_failed_at = self._sent
        elif self._sent > waiting.first_failed_at:
            waiting.refused += 1

    def sent(self, waiting: Waiting) -> None:
        self._sent += 1
        self._in_vain = 0
        self._remove(waiting)

    def give_up(self, waiting: Waiting) -> None:
        self.dropped += 1
        self._remove(waiting)

    def _remove(self, waiting: Waiting) -> None:
        if waiting in self._waiting:  # it may have gone while it was being sent
            self._waiting.remove(waiting)

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
