"""The closing report of a load: what became of every row of the dump."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Listed:
    """A row that is not saved, and why."""

    row: str
    reason: str


@dataclass
class Report:
    """Counts are rows of the dump; `seconds` is the time of this run. Every row is in exactly one of
    `saved`, `rejected`, `skipped` and `unsettled`."""

    rows: int = 0
    accepted: int = 0
    """Accepted in this run; `earlier`: in runs before it."""
    earlier: int = 0
    saved: int = 0
    rejected: list[Listed] = field(default_factory=list)
    """Refused by the API, or rejected by the writer."""
    skipped: list[Listed] = field(default_factory=list)
    """Not sent, because it cannot be taken."""
    unsettled: list[Listed] = field(default_factory=list)
    """Neither saved nor rejected yet: run the load again."""
    not_posts: int = 0
    """Of the skipped ones, those that are neither question nor answer."""
    seconds: float = 0.0

    @property
    def per_second(self) -> float:
        return self.accepted / self.seconds if self.seconds > 0 else 0.0

    def exit_code(self, strict: bool = False) -> int:
        """0 if every question and answer is saved; with `strict`, every row. Else 1."""
        return 0 if self.saved == self.rows - (0 if strict else self.not_posts) else 1

    def to_json(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "accepted": self.accepted,
            "accepted_earlier": self.earlier,
            "saved": self.saved,
            "rejected": [vars(listed) for listed in self.rejected],
            "skipped": [vars(listed) for listed in self.skipped],
            "unsettled": [vars(listed) for listed in self.unsettled],
            "seconds": round(self.seconds, 3),
            "per_second": round(self.per_second, 1),
        }

    def to_text(self) -> str:
        lines = [
            f"{name}: row {listed.row}: {listed.reason}"
            for name in ("rejected", "skipped", "unsettled")
            for listed in getattr(self, name)
        ]
        earlier = f" ({self.earlier:,} more in earlier runs)" if self.earlier else ""
        lines += [
            f"rows      {self.rows:,}",
            f"accepted  {self.accepted:,}{earlier}",
            f"saved     {self.saved:,}",
            f"rejected  {len(self.rejected):,}",
            f"skipped   {len(self.skipped):,}",
        ]
        if self.unsettled:
            lines.append(f"unsettled {len(self.unsettled):,}  (run the same command again)")
        lines.append(f"{self.seconds:.1f} s, {self.per_second:.1f} accepted per second")
        return "\n".join(lines)
