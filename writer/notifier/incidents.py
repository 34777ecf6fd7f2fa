"""What administrators hear: one alert when an incident opens, fewer and fewer, one when it closes.

Pure: what is seen and the time go in; incidents and alerts come out.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

from schema.alerts import Alert, Phase
from schema.fields import parse_time, render_time
from schema.identifiers import derived_id
from writer.notifier.alert_texts import CASES, about, case_number

_MARKS: Final = (timedelta(minutes=15), timedelta(hours=1), timedelta(hours=4))
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True)
class Trouble:
    """Something that is wrong at this moment. `reason` is the servers' or operators' own words."""

    reason: str | None = None
    waiting: int | None = None
    since: datetime | None = None
    """Since when, if that is known better than by having looked."""


@dataclass(frozen=True)
class Seen:
    """All that was looked at. A family in `unknown` could not be: its incidents stay as they are."""

    troubles: Mapping[str, Trouble] = field(default_factory=dict)
    unknown: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Incident:
    """Something that is, or seems to be, wrong. `kind` is a family, or `family:part`.

    It is opened when it has lasted, and closed when it has been gone as long. `told` counts the alerts
    of it, the first included; 0: it is only suspected, and nobody has heard of it.
    """

    kind: str
    since: datetime
    opened_at: datetime | None = None
    told: int = 0
    reason: str | None = None
    waiting: int | None = None
    fine_since: datetime | None = None

    @property
    def id(self) -> uuid.UUID:
        return derived_id("incident", self.kind, render_time(self.since))

    def to_json(self) -> dict[str, Any]:
        """As it is remembered. Only what was opened is."""
        assert self.opened_at is not None
        return {
            "kind": self.kind,
            "since": render_time(self.since),
            "opened_at": render_time(self.opened_at),
            "told": self.told,
            "reason": self.reason,
            "waiting": self.waiting,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Incident":
        return cls(
            kind=data["kind"],
            since=parse_time(data["since"]),
            opened_at=parse_time(data["opened_at"]),
            told=data["told"],
            reason=data["reason"],
            waiting=data["waiting"],
        )


Incidents = Mapping[str, Incident]


@dataclass(frozen=True)
class Patience:
    """How long things must last until they count. `links` is where the failure cases are."""

    after: timedelta
    links: str

    def of(self, kind: str) -> timedelta:
        return self.after * CASES[family(kind)].patience


def family(kind: str) -> str:
    """`lane_halted:3` is one of the family `lane_halted`."""
    return kind.partition(":")[0]


def step(
    incidents: Incidents, seen: Seen, now: datetime, patience: Patience
) -> tuple[dict[str, Incident], list[Alert]]:
    """The incidents after one look, and the alerts that follow from it."""
    after: dict[str, Incident] = {}
    alerts: list[Alert] = []
    for kind in sorted({*incidents, *seen.troubles}):
        incident, phase = _one(kind, incidents.get(kind), seen, now, patience)
        if phase is not None:
            assert incident is not None
            alerts.append(alert_of(incident, phase, now, patience))
        if incident is not None and phase != "closed":
            after[kind] = incident
    return after, alerts


def _one(
    kind: str, incident: Incident | None, seen: Seen, now: datetime, patience: Patience
) -> tuple[Incident | None, Phase | None]:
    trouble = seen.troubles.get(kind)
    if trouble is None:
        return _without_trouble(incident, seen, now, patience)
    if incident is None:
        incident = Incident(kind, min(trouble.since or now, now))
    incident = replace(
        incident,
        reason=trouble.reason or incident.reason,
        waiting=trouble.waiting if trouble.waiting is not None else incident.waiting,
        fine_since=None,
    )
    if incident.opened_at is None:
        if now - incident.since < patience.of(kind):
            return incident, None
        return replace(incident, opened_at=now, told=1), "opened"
    due = 1 + marks_passed(now - incident.opened_at)
    if due > incident.told:
        return replace(incident, told=due), "reminder"
    return incident, None


def _without_trouble(
    incident: Incident | None, seen: Seen, now: datetime, patience: Patience
) -> tuple[Incident | None, Phase | None]:
    if incident is None or family(incident.kind) in seen.unknown:
        return incident, None
    if incident.opened_at is None:
        return None, None
    if incident.fine_since is None:
        return replace(incident, fine_since=now), None
    if now - incident.fine_since < patience.of(incident.kind):
        return incident, None
    return incident, "closed"


def marks_passed(lasted: timedelta) -> int:
    """How many reminders are due after this time: at 15 min, 1 h, 4 h, then each day."""
    return sum(lasted >= mark for mark in _MARKS) + max(0, lasted // _DAY)


def alert_of(incident: Incident, phase: Phase, now: datetime, patience: Patience) -> Alert:
    """The alert. Its id follows from incident, phase and number: told again, it is the same."""
    case = CASES[family(incident.kind)]
    at = incident.fine_since if phase == "closed" else now
    title, text = about(
        incident.kind, phase, incident.since, at or now, incident.reason, incident.waiting
    )
    return Alert(
        alert_id=derived_id("alert", str(incident.id), phase, str(incident.told)),
        incident=incident.kind,
        phase=phase,
        severity=case.severity if phase != "closed" else "info",
        title=title,
        text=text,
        since=incident.since,
        at=now,
        waiting=incident.waiting,
        link=f"{patience.links}#f-{case_number(incident.kind, incident.reason):02}",
    )
