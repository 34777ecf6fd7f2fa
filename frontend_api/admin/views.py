"""How things are said on the pages: times, lengths, states with their icons."""

import json
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from markupsafe import Markup

from frontend_api.admin.statements import MOST_COUNTED
from frontend_api.admin.verdict import length, number
from schema.outcomes import Outcome

STATE_OF: Final = {
    Outcome.SAVED: "saved",
    Outcome.REJECTED: "rejected",
    Outcome.PARKED: "parked",
    Outcome.DUPLICATE: "duplicate",
    Outcome.DEAD: "rejected",
}


def moment(at: datetime | None) -> Markup:
    """A time in UTC, exact for machines."""
    if at is None:
        return Markup("–")
    at = at.astimezone(UTC)
    return Markup('<time datetime="{}">{}</time>').format(
        at.isoformat(timespec="milliseconds").replace("+00:00", "Z"), f"{at:%Y-%m-%d %H:%M:%S}"
    )


def ago(at: datetime | None, now: datetime) -> Markup:
    """How long ago, with the exact time behind it."""
    if at is None:
        return Markup("–")
    seconds = (now - at).total_seconds()
    shown = f"{length(seconds)} ago" if seconds >= 0 else f"in {length(-seconds)}"
    exact = at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return Markup('<time datetime="{}" title="{}">{}</time>').format(exact, exact, shown)


def took(start: datetime | None, end: datetime | None) -> str:
    """The time between two moments; they may be of two machines."""
    if start is None or end is None:
        return ""
    seconds = (end - start).total_seconds()
    return f"+{length(seconds, fine=True)}" if seconds >= 0 else ""


def capped(count: int) -> str:
    """A number that was counted up to a bound."""
    return f"{MOST_COUNTED:,}+" if count > MOST_COUNTED else f"{count:,}"


def short(value: Any) -> str:
    """An id in a table: its end, which tells it apart from its neighbours."""
    text = str(value)
    return f"…{text[-12:]}" if len(text) == len(str(uuid.UUID(int=0))) else text


def excerpt(text: str, chars: int = 160) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(text[: chars * 4].split())
    return line if len(line) <= chars else line[: chars - 1] + "…"


def brief(value: Any, chars: int = 120) -> str:
    """JSON on one line, its beginning."""
    if isinstance(value, str):
        return excerpt(value, chars)
    return excerpt(json.dumps(value, ensure_ascii=False, default=str), chars)


def pretty(value: Any) -> str:
    """JSON to be read."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def types_of(row: Mapping[str, Any]) -> str:
    """What a command of the ledger was about: as its dead letter says, else by its effects."""
    if row.get("dead_type"):
        return str(row["dead_type"])
    if row["outcome"] in (Outcome.REJECTED, Outcome.DEAD):
        return ""
    effects = row.get("effects") or []
    said = dict.fromkeys(f"{e.get('op', '')} {e.get('type', '')}".strip() for e in effects)
    return ", ".join(said)


FILTERS: Final[Mapping[str, Callable[..., Any]]] = {
    "moment": moment,
    "ago": ago,
    "took": took,
    "capped": capped,
    "short": short,
    "excerpt": excerpt,
    "brief": brief,
    "pretty": pretty,
    "types": types_of,
    "lasting": length,
    "number": number,
}
