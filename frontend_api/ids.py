"""Ids as PostgreSQL's driver makes them: each is a `uuid.UUID` whose text and hash are made in C.

Accepting a post writes its ids some twenty times as text and looks them up seventy times. The ids of
rows that were read are of this type anyhow.
"""

import uuid

from asyncpg.pgproto.pgproto import UUID as DriverUUID


def quick(value: uuid.UUID) -> uuid.UUID:
    """The same id."""
    return DriverUUID(value.bytes)


def read_id(text: str) -> uuid.UUID:
    """The id. Takes and refuses what `uuid.UUID` does; raises ValueError, TypeError, AttributeError."""
    try:
        return DriverUUID(text)
    except (ValueError, TypeError):
        return uuid.UUID(text)  # braces and the like: seldom, but not wrong
