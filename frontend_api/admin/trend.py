"""How fast something grows that is looked at again and again."""

from collections import deque
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

WINDOW: Final = timedelta(seconds=5)
"""Over so long a rate is taken: shorter and it jumps with every batch, longer and it is of the past."""


class Trend:
    """Totals that only grow, by name, as they were at the last looks."""

    def __init__(self) -> None:
        self._seen: deque[tuple[datetime, Mapping[str, int]]] = deque()

    def note(self, at: datetime, totals: Mapping[str, int]) -> None:
        """Names that come or go, or a total that shrinks, begin it anew: it is not the same any more."""
        last = self._seen[-1][1] if self._seen else totals
        if last.keys() != totals.keys() or any(totals[name] < last[name] for name in totals):
            self._seen.clear()
        self._seen.append((at, totals))
        while len(self._seen) > 2 and at - self._seen[1][0] >= WINDOW:
            self._seen.popleft()

    def rates(self) -> Mapping[str, float] | None:
        """Growth a second by name; None before the second look."""
        if len(self._seen) < 2:
            return None
        (began, first), (ended, last) = self._seen[0], self._seen[-1]
        seconds = (ended - began).total_seconds()
        if seconds <= 0:
            return None
        return {name: (last[name] - first[name]) / seconds for name in last}
