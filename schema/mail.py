"""Mail as it is queued: the name of a template, its version and parameters, never a rendered text."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from schema.fields import parse_time, render_time

MailFailure = Literal[
    "unreadable",
    "unknown_template",
    "bad_parameters",
    "bad_address",
    "address_bounced",
    "refused",
    "expired",
    "unsendable",
]
"""Why a mail became a dead letter; the header `afterwrite-dlq-code` has it."""

ADDRESS_KEY: Final = "address:"
"""What the key of an address begins with, in the state topic."""


@dataclass(frozen=True)
class Mail:
    """One message to one address, on the mail topic; its key is `mail_id`.

    `mail_id` is derived from what the mail is about, so that the same mail queued twice is one;
    its Message-ID is made of it. `to` is a bare address. `parameters` are JSON values for the
    template; texts of users may be among them, and reach the body only.
    """

    mail_id: uuid.UUID
    template: str
    version: int
    locale: str
    to: str
    parameters: Mapping[str, Any]
    created_at: datetime
    user: uuid.UUID | None = None

    def to_json(self) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "mail_id": str(self.mail_id),
            "template": self.template,
            "version": self.version,
            "locale": self.locale,
            "to": self.to,
            "parameters": dict(self.parameters),
            "created_at": render_time(self.created_at),
        }
        return shown | ({"user": str(self.user)} if self.user is not None else {})

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Mail":
        """Raises ValueError, KeyError or TypeError when the data are malformed."""
        texts = [data["template"], data["locale"], data["to"]]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("template, locale and to are texts")
        if type(data["version"]) is not int or not isinstance(data["parameters"], dict):
            raise TypeError("version is a number, parameters are an object")
        user = data.get("user")
        return cls(
            mail_id=uuid.UUID(data["mail_id"]),
            template=data["template"],
            version=data["version"],
            locale=data["locale"],
            to=data["to"],
            parameters=data["parameters"],
            created_at=parse_time(data["created_at"]),
            user=uuid.UUID(user) if user else None,
        )
