"""What a measurement gives back, as an object and as a line of JSON."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

REPORTED = "reported"
"""The goal of what has none."""


class WrongRun(Exception):
    """What a run left behind is not what it should be: however fast it was, it does not count."""


@dataclass(frozen=True)
class Ratio:
    """The least, the middle and the greatest of one figure over the repeats."""

    min: float
    median: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Ratio":
        """Raises `ValueError` when there are none."""
        if not values:
            raise ValueError("there is no figure of which to take the median")
        return cls(min(values), statistics.median(values), max(values))

    def to_json(self) -> dict[str, float]:
        return {name: float(f"{getattr(self, name):.4g}") for name in ("min", "median", "max")}


@dataclass(frozen=True)
class Result:
    """One measurement: its figures, whether its goal is met, and how that was found out.

    `samples` has a figure a repeat for each competitor, in `unit`. `ratio` is taken within each
    repeat and is `None` where the goal is none. `cpu_s` are CPU seconds by process over all measured
    runs. `verified` says what was checked after each run.
    """

    name: str
    title: str
    goal: str
    met: bool
    ratio: Ratio | None
    samples: dict[str, list[float]]
    unit: str
    cpu_s: dict[str, float] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    verified: str = ""
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """For one line of JSON. Figures have four digits: more would not be the same twice."""
        return {
            "name": self.name,
            "title": self.title,
            "ratio": self.ratio.to_json() if self.ratio else None,
            "goal": self.goal,
            "met": self.met,
            "unit": self.unit,
            "samples": {who: [_round(f) for f in them] for who, them in self.samples.items()},
            "cpu_s": {who: round(seconds, 2) for who, seconds in self.cpu_s.items()},
            "settings": self.settings,
            "verified": self.verified,
            "notes": self.notes,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Result":
        ratio = Ratio(**data["ratio"]) if data["ratio"] else None
        return cls(**(data | {"ratio": ratio}))


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Ours ÷ theirs, repeat by repeat."""
    return Ratio.of([a / b for a, b in zip(ours, theirs, strict=True)])


def _round(figure: float) -> float:
    return float(f"{figure:.4g}")
