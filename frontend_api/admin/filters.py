"""What a view is asked for: its query string, read strictly and written again for links."""

import re
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

from frontend_api.admin.statements import CLOSED, STATES
from frontend_api.problems import invalid
from schema.fields import parse_time, render_time
from schema.identifiers import user_id_for

PENDING: Final = "pending"
_WORD: Final = re.compile(r"^[a-z][a-z0-9_]{0,99}$")
_AGO: Final = re.compile(r"^([0-9]{1,5})([mhd])$")
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}

Query = Mapping[str, str]


@dataclass(frozen=True)
class CommandFilter:
    """Which commands. Texts are as they were typed; the properties are what they mean."""

    state: str = ""
    type: str = ""
    user: str = ""
    code: str = ""
    since: str = ""
    until: str = ""

    @classmethod
    def of(cls, query: Query) -> "CommandFilter":
        """Raises `ProblemError` 422."""
        state = _one_of(query, "state", (*STATES, PENDING))
        return cls(state, *_common(query))

    @property
    def author(self) -> uuid.UUID | None:
        return author_of(self.user)

    def query(self, **more: str) -> str:
        return _query(asdict(self) | more)


@dataclass(frozen=True)
class LetterFilter:
    """Which dead letters. `type` is `-` for those that are no commands."""

    closed: str = "open"
    type: str = ""
    user: str = ""
    code: str = ""
    since: str = ""
    until: str = ""

    @classmethod
    def of(cls, query: Query) -> "LetterFilter":
        """Raises `ProblemError` 422."""
        closed = _one_of(query, "closed", tuple(CLOSED), "open")
        found = cls(closed, *_common(query, none="-"))
        day = query.get("day", "").strip()
        if not day:
            return found
        try:
            first = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC)
        except ValueError:
            raise invalid("is not a day", "/day") from None
        next_ = first + timedelta(days=1)
        return replace(found, since=render_time(first), until=render_time(next_))

    @property
    def author(self) -> uuid.UUID | None:
        return author_of(self.user)

    def query(self, **more: str) -> str:
        shown = asdict(self) | ({"closed": ""} if self.closed == "open" else {})
        return _query(shown | more)

    def words(self) -> str:
        """The filter, to be read."""
        said = [
            f"{name} {value}"
            for name, value in (("code", self.code), ("type", self.type), ("user", self.user))
            if value
        ]
        said += [f"{name} {v}" for name, v in (("from", self.since), ("before", self.until)) if v]
        which = "" if self.closed == "all" else f"{self.closed} "
        return f"{which}dead letters" + (f" with {', '.join(said)}" if said else "")


@dataclass(frozen=True)
class AuditFilter:
    who: str = ""
    act: str = ""
    since: str = ""
    until: str = ""

    @classmethod
    def of(cls, query: Query) -> "AuditFilter":
        """Raises `ProblemError` 422."""
        who = query.get("who", "").strip()
        if len(who) > 200 or not who.isprintable():
            raise invalid("is not a name", "/who")
        return cls(who, _word(query, "act"), _time(query, "since"), _time(query, "until"))

    def query(self, **more: str) -> str:
        return _query(asdict(self) | more)


def moment_of(text: str, now: datetime) -> datetime | None:
    """The time that a filter means: `90m`, `2h`, `3d` ago, a day, or a time. The text was checked."""
    ago = _AGO.match(text)
    if ago is not None:
        return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    if not text:
        return None
    if len(text) == len("2026-01-01"):
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    return parse_time(text)


def author_of(text: str) -> uuid.UUID | None:
    """A user by id, or by the name that a token for trying out was made for."""
    if not text:
        return None
    try:
        return uuid.UUID(text)
    except ValueError:
        return user_id_for(text)


def _common(query: Query, none: str = "") -> tuple[str, str, str, str, str]:
    user = query.get("user", "").strip()
    if len(user) > 200 or not user.isprintable():
        raise invalid("is not a user", "/user")
    type_ = none if none and query.get("type", "").strip() == none else _word(query, "type")
    return type_, user, _word(query, "code"), _time(query, "since"), _time(query, "until")


def _one_of(query: Query, name: str, known: tuple[str, ...], default: str = "") -> str:
    text = query.get(name, "").strip() or default
    if text not in known:
        raise invalid("is not one that there is", f"/{name}")
    return text


def _word(query: Query, name: str) -> str:
    text = query.get(name, "").strip()
    if text and not _WORD.match(text):
        raise invalid("is a word in small letters", f"/{name}")
    return text


def _time(query: Query, name: str) -> str:
    text = query.get(name, "").strip()
    try:
        moment_of(text, datetime.now(tz=UTC))
    except (ValueError, OverflowError):
        told = "is a time as 2026-01-31T12:00:00Z, a day as 2026-01-31, or 90m, 2h, 3d ago"
        raise invalid(told, f"/{name}") from None
    return text


def _query(values: Mapping[str, Any]) -> str:
    return urlencode({name: value for name, value in values.items() if value})
