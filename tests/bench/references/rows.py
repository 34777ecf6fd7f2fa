"""What the Python references share: a row of the JSON topic, and its INSERT."""

import json
from datetime import datetime
from typing import Final
from uuid import UUID

INSERT: Final = """
INSERT INTO post (id, version, created_at, updated_at, topic_id, author_id, body)
VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (id) DO NOTHING
"""
"""Repeating is harmless, so that at-least-once delivery is enough."""

Row = tuple[UUID, int, datetime, datetime, UUID, UUID, str]


def row_of(value: bytes) -> Row:
    """A record's value as parameters of `INSERT`."""
    data = json.loads(value)
    return (
        UUID(data["id"]),
        data["version"],
        datetime.fromisoformat(data["created_at"]),
        datetime.fromisoformat(data["updated_at"]),
        UUID(data["topic_id"]),
        UUID(data["author_id"]),
        data["body"],
    )
