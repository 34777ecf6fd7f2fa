"""What administrators are told of each kind of incident: what it is, what to do, where to read on."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from schema.alerts import Phase, Severity

_MAX_REASON: Final = 300


@dataclass(frozen=True)
class Case:
    """One family of incidents.

    `what` may have `{part}`, what stands behind the colon of a kind. `number` is its failure case.
    `patience` is how many times as long as others it must last before it counts.
    """

    number: int
    severity: Severity
    what: str
    todo: str
    patience: int = 1


CASES: Final[Mapping[str, Case]] = {
    "database_down": Case(
        10, "critical", "PostgreSQL does not answer",
        "Changes are accepted and kept in the log; nothing is lost, and it is saved by itself when "
        "PostgreSQL is back. Bring PostgreSQL back.",
    ),
    "redis_down": Case(
        13, "critical", "Redis does not answer",
        "Changes are accepted and saved, but shown only when they are saved. Bring Redis back.",
    ),
    "log_unavailable": Case(
        15, "critical", "Kafka does not answer",
        "No change can be accepted until it is back. Bring the brokers back.",
    ),
    "lane_halted": Case(
        23, "critical", "Lane {part} is halted",
        "Nothing of this lane is saved until somebody has looked. See to the reason, then run "
        "`afterwrite lane resume {part}`.",
    ),
    "lane_paused": Case(
        38, "warning", "Lane {part} is paused by an operator",
        "Nothing of this lane is saved until it goes on: `afterwrite writer resume`.",
    ),
    "no_writer": Case(
        48, "critical", "Lane {part} has no writer",
        "Start a writer: `afterwrite serve writer`. If one runs, its log says what it waits for.",
        patience=3,
    ),
    "oldest_pending": Case(
        47, "warning", "Commands wait longer than they should",
        "Writers work, but do not come to the end of the log: see `afterwrite status`.",
    ),
    "stream_parked": Case(
        9, "warning", "Streams are parked",
        "Their first command cannot be saved yet and is tried again; what follows in them waits.",
    ),
    "disk_full": Case(
        45, "critical", "The disk of broker {part} fills up",
        "Before it is full, new changes are refused. Make room, or let the writer catch up.",
    ),
    "channel_failing": Case(
        55, "warning", "Alerts do not get through by {part}",
        "The other channels work. Look at its address and at the server behind it.",
    ),
    "redis_evicts": Case(
        14, "warning", "Redis may evict what is pending",
        "Set `maxmemory-policy` to `noeviction`: pending changes may vanish from view.",
    ),
    "mail_failing": Case(
        59, "warning", "Mail is not sent",
        "Mails wait in their topic. Look at the mail workers and at the SMTP server.", patience=12,
    ),
    "rejections": Case(
        54, "info", "Commands were rejected",
        "Their authors have been told. Look at the dead letters: `afterwrite dead groups`.",
    ),
}  # fmt: skip
"""Every family. What is worth an incident is in here."""

_HALTS: Final = (
    ("upgrade the writer", 22),
    ("the log", 25),
    ("were deleted", 25),
    ("the database refused", 26),
    ("the database refuses the notice", 39),
)
"""Of the reasons for which a lane halts, those that have a failure case of their own."""


def case_number(kind: str, reason: str | None) -> int:
    """The failure case to read. For a lane that is halted it depends on why."""
    family = kind.partition(":")[0]
    if family == "lane_halted":
        for words, number in _HALTS:
            if words in (reason or ""):
                return number
    return CASES[family].number


def about(
    kind: str,
    phase: Phase,
    since: datetime,
    at: datetime,
    reason: str | None,
    waiting: int | None,
) -> tuple[str, str]:
    """Title (one line) and text of an alert."""
    name, _, part = kind.partition(":")
    case = CASES[name]
    what = case.what.format(part=part)
    lasted = shown_duration(at - since)
    if phase == "closed":
        return f"Over: {what}", f"It lasted {lasted}, from {shown(since)} to {shown(at)}."
    lines = [f"Since {shown(since)}, for {lasted}."]
    if reason:
        lines.append(f"Reason: {one_line(reason)}")
    if waiting is not None:
        lines.append("1 command waits." if waiting == 1 else f"{waiting} commands wait.")
    lines.append(case.todo.format(part=part))
    still = "Still: " if phase == "reminder" else ""
    return f"{still}{what}", "\n".join(lines)


def rejections(codes: Mapping[str, int], open_letters: int | None) -> tuple[str, str]:
    """Title and text of the summary of rejected commands."""
    total = sum(codes.values())
    title = "1 command was rejected" if total == 1 else f"{total} commands were rejected"
    by_code = sorted(codes.items(), key=lambda item: (-item[1], item[0]))
    lines = [f"{count} × {one_line(code)}" for code, count in by_code[:20]]
    if len(by_code) > 20:
        lines.append(f"and {len(by_code) - 20} other reasons")
    if open_letters is not None:
        lines.append(f"Dead letters that nobody has dealt with: {open_letters}.")
    lines.append(CASES["rejections"].todo)
    return title, "\n".join(lines)


def shown(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def shown_duration(lasted: timedelta) -> str:
    """In the two largest units that matter."""
    seconds = max(0, int(lasted.total_seconds()))
    for size, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            rest = {"d": ("h", 3600), "h": ("min", 60), "min": ("s", 1)}[name]
            return f"{seconds // size} {name} {seconds % size // rest[1]} {rest[0]}"
    return f"{seconds} s"


def one_line(text: str) -> str:
    """What others wrote, on one line and not too long."""
    flat = " ".join(text.split())
    return flat if len(flat) <= _MAX_REASON else f"{flat[:_MAX_REASON]}…"
