"""How much mail one user gets in a day; what is beyond comes as one digest when the day is over. Pure."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Any

from schema.fields import parse_time, render_time
from schema.identifiers import derived_id
from schema.mail import Mail
from schema.mail_templates import Digest, queue


@dataclass(frozen=True)
class Mailed:
    """The mails of one user on one day (UTC). `held` counts by template what was kept back."""

    user: uuid.UUID
    day: date
    to: str
    name: str
    locale: str
    since: datetime
    sent: int = 0
    held: Mapping[str, int] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Under which it is remembered."""
        return f"mailed:{self.user}:{self.day.isoformat()}"

    def with_one(self, template: str, most: int) -> tuple["Mailed", bool]:
        """One more mail is wanted; whether it may be sent."""
        if self.sent < most:
            return replace(self, sent=self.sent + 1), True
        held = {**self.held, template: self.held.get(template, 0) + 1}
        return replace(self, held=held), False

    def digest(self, link: str, now: datetime) -> Mail | None:
        """The mail for what was held; None if nothing was."""
        if not self.held:
            return None
        parameters = Digest(
            name=self.name,
            since=self.since,
            delayed=self.held.get("delayed", 0),
            saved=self.held.get("saved_after_all", 0),
            rejected=self.held.get("rejected", 0),
            link=link,
        )
        mail_id = derived_id("mail", "digest", str(self.user), self.day.isoformat())
        return queue(
            parameters,
            mail_id=mail_id,
            to=self.to,
            locale=self.locale,
            created_at=now,
            user=self.user,
        )

    def over(self, now: datetime) -> bool:
        return now.astimezone(UTC).date() > self.day

    def to_json(self) -> dict[str, Any]:
        return {
            "user": str(self.user),
            "day": self.day.isoformat(),
            "to": self.to,
            "name": self.name,
            "locale": self.locale,
            "since": render_time(self.since),
            "sent": self.sent,
            "held": dict(self.held),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Mailed":
        return cls(
            user=uuid.UUID(data["user"]),
            day=date.fromisoformat(data["day"]),
            to=data["to"],
            name=data["name"],
            locale=data["locale"],
            since=parse_time(data["since"]),
            sent=data["sent"],
            held=data["held"],
        )
