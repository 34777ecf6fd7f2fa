"""Alerts in the AsyncAPI description: what a webhook is sent, and the alerts topic has."""

import uuid
from datetime import timedelta
from typing import get_args

from schema.alerts import Alert, Phase, Severity
from schema.asyncapi_messages import kafka_message
from schema.envelope import CONTENT_TYPE
from schema.fields import parse_time
from schema.json_schema import (
    EXAMPLE_TIME,
    TIME,
    UUID,
    Component,
    Schema,
    described,
    example_id,
    named,
)


def alert_message() -> Component:
    """A message to administrators."""
    text: Schema = {"type": "string"}
    members = {
        "alert_id": described(UUID, "The same wherever and however often it comes."),
        "incident": described(text, "What it is about, as `database_down` or `lane_halted:0`."),
        "phase": text | {"enum": list(get_args(Phase))},
        "severity": text | {"enum": list(get_args(Severity))},
        "title": described(text, "One line."),
        "text": described(text, "What happened, since when, and what to do. Nothing of users."),
        "since": TIME,
        "at": TIME,
        "waiting": {
            "type": ["integer", "null"],
            "minimum": 0,
            "description": "How many commands wait.",
        },
        "link": {"type": ["string", "null"], "description": "The failure case to read."},
    }
    since = parse_time(EXAMPLE_TIME)
    example = Alert(
        uuid.UUID(example_id("alert")),
        "database_down",
        "opened",
        "critical",
        "PostgreSQL does not answer",
        "Since 2026-01-01 00:00:00 UTC, for 5 s.\n3 commands wait.\nBring PostgreSQL back.",
        since,
        since + timedelta(seconds=5),
        3,
        "docs/failures.md#f-10",
    )
    return kafka_message(
        "Alert",
        {
            "title": "A message to administrators",
            "contentType": CONTENT_TYPE.decode(),
            "payload": named(
                "Alert", {"type": "object", "required": list(members), "properties": members}
            ),
            "examples": [{"name": "opened", "payload": example.to_json()}],
        },
        described(text, "The incident."),
    )
