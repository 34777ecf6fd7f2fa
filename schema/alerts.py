"""Alerts: messages to administrators, one when an incident opens, some while it lasts, one at its end."""

import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal, get_args

from schema.fields import parse_time, render_time

Phase = Literal["opened", "reminder", "closed", "summary", "test"]
Severity = Literal["critical", "warning", "info"]


@dataclass(frozen=True)
class Alert:
    """What all channels are given, and what the alerts topic keeps.

    `alert_id` is this message's, the same on every channel and at each repetition. `incident` names
    what it is about, as `database_down` or `lane_halted:0`. `title` is one line, `text` says what
    happened, since when, how many wait and what to do. No text of users is in either.
    """

    alert_id: uuid.UUID
    incident: str
    phase: Phase
    severity: Severity
    title: str
    text: str
    since: datetime
    at: datetime
    waiting: int | None = None
    link: str | None = None

    def to_json(self) -> dict[str, Any]:
        shown = asdict(self) | {"alert_id": str(self.alert_id)}
        return shown | {"since": render_time(self.since), "at": render_time(self.at)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Alert":
        """Raises ValueError, KeyError or TypeError when the data are malformed."""
        if data["phase"] not in get_args(Phase) or data["severity"] not in get_args(Severity):
            raise ValueError("phase or severity is not known")
        return cls(
            alert_id=uuid.UUID(data["alert_id"]),
            incident=str(data["incident"]),
            phase=data["phase"],
            severity=data["severity"],
            title=str(data["title"]),
            text=str(data["text"]),
            since=parse_time(data["since"]),
            at=parse_time(data["at"]),
            waiting=data["waiting"],
            link=data["link"],
        )
