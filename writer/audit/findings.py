"""What an audit says: findings, and the report that they add up to."""

import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Code = Literal[
    "ledger_gap",
    "ledger_double",
    "ledger_beyond_position",
    "ledger_lane_unknown",
    "command_twice",
    "duplicate_dangling",
    "epoch_backwards",
    "effects_without_saving",
    "row_missing",
    "row_changed",
    "row_undeleted",
    "row_double",
    "row_unknown",
    "counter_wrong",
    "dead_letter_missing",
    "dead_letter_unknown",
    "replay_missing",
    "notice_missing",
    "parked_missing",
    "parked_unknown",
]
Progress = Callable[[str, int], None]
"""Called with what is being checked, and how many rows of it were compared so far."""

KEPT = 1000


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it must be: a code, where it is, and a sentence."""

    code: Code
    text: str
    lane: int | None = None
    offset: int | None = None
    type: str | None = None
    id: uuid.UUID | None = None

    def to_json(self) -> dict[str, Any]:
        shown = {name: value for name, value in asdict(self).items() if value is not None}
        return shown | ({"id": str(self.id)} if self.id is not None else {})

    def __str__(self) -> str:
        where = []
        if self.lane is not None:
            where.append(f"lane {self.lane}")
        if self.offset is not None:
            where.append(f"offset {self.offset}")
        if self.type is not None:
            where.append(f"{self.type} {self.id}")
        return f"{self.code}: {', '.join(where)}: {self.text}" if where else self.text


@dataclass
class Report:
    """The result of an audit. All findings are counted; the first `KEPT` are kept, so that a
    database that is wrong throughout cannot fill the memory."""

    findings: list[Finding] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    lanes: int = 0
    ledger_rows: int = 0
    content_rows: int = 0
    unverifiable: int = 0
    """Rows and duplicates whose ledger entry retention has dropped: nothing can be said of them."""

    def add(self, finding: Finding) -> None:
        self.counts[finding.code] += 1
        if len(self.findings) < KEPT:
            self.findings.append(finding)

    @property
    def total(self) -> int:
        return self.counts.total()

    @property
    def clean(self) -> bool:
        return not self.counts

    def to_json(self) -> dict[str, Any]:
        return {
            "clean": self.clean,
            "lanes": self.lanes,
            "ledger_rows": self.ledger_rows,
            "content_rows": self.content_rows,
            "unverifiable": self.unverifiable,
            "counts": dict(self.counts),
            "findings": [finding.to_json() for finding in self.findings],
        }
