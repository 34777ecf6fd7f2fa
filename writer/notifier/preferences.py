"""How users want to be told: kept in the memory, since it is wanted when PostgreSQL cannot be asked.

Read whole once; from then on, whoever has changed his is known from the outcomes.
"""

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from schema.catalog import Catalog
from writer.notifier.memory import Memory
from writer.notifier.observing import DatabaseWatch
from writer.notifier.telling import Records

_AT_ONCE: Final = 1000
_READ: Final = "preferences"
"""Memory key: up to which user they have been read, `all` when they are."""


@dataclass
class Preferences:
    """Nothing is done where the content has no such type."""

    memory: Memory
    database: DatabaseWatch
    catalog: Catalog

    async def changed(self, users: Collection[uuid.UUID]) -> Records:
        """Those of users who have changed theirs."""
        kind = self.catalog.preference
        if kind is None or not users:
            return {}
        found = await self.database.preferences_of(kind.name, list(users))
        return {f"preference:{user}": found.get(user) for user in users}

    async def unread(self) -> Records:
        """Some of those that were there before there was a notifier."""
        kind, read = self.catalog.preference, self.memory.recall(_READ)
        if kind is None or read == "all" or not self.database.answers:
            return {}
        after = uuid.UUID(read) if read is not None else uuid.UUID(int=0)
        found = await self.database.preferences_after(kind.name, after, _AT_ONCE)
        if not found:
            return {_READ: "all"}
        records: Records = {f"preference:{user}": value for user, value in found.items()}
        return records | {_READ: str(max(found))}
