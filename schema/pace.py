"""How fast changes come and go, and when all of them will be applied; in figures and as one sentence."""

from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Pace:
    """Commands a second over the last moments.

    `behind` is how many are accepted and not applied. `drained_in_s` is None while they do not
    become fewer.
    """

    accepted: float
    applied: float
    settled: float
    behind: int
    drained_in_s: float | None

    @classmethod
    def of(cls, accepted: float, applied: float, settled: float, behind: int) -> Self:
        gaining = applied - accepted
        left = 0.0 if behind <= 0 else behind / gaining if gaining > 0 else None
        return cls(accepted, applied, settled, max(behind, 0), left)

    @property
    def sentence(self) -> str:
        """`12.5 accepted/s, 3,400 applied/s, 3,398 settled/s, drained in 12 min`."""
        told = (
            f"{_rate(self.accepted)} accepted/s, {_rate(self.applied)} applied/s, "
            f"{_rate(self.settled)} settled/s"
        )
        if not self.behind:
            return told
        if self.drained_in_s is None:
            return f"{told}, not draining"
        return f"{told}, drained in {duration(self.drained_in_s)}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def _rate(figure: float) -> str:
    return f"{figure:,.1f}" if figure < 100 else f"{figure:,.0f}"


def duration(seconds: float) -> str:
    """`42 s`, `12 min`, `3 h 5 min`, `2 d 4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"
