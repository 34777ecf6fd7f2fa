"""One consistent view of the database, and what can be asked of it step by step."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from frontend_api.statements import COMMANDS, DECISIONS, POSITIONS, Statements, page_parameters
from frontend_api.view import LanePosition
from schema.catalog import ListOf
from schema.content import Kind, Row


@dataclass(frozen=True)
class Snapshot:
    """One consistent view of the database; every method reads from it."""

    connection: Any
    statements: Statements

    async def rows(self, kind: Kind, ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, Row]:
        found = await self.connection.fetch(self.statements.by_id[kind.name], list(ids))
        return {row["id"]: dict(row) for row in found}

    async def page(
        self,
        lst: ListOf,
        limit: int,
        after: uuid.UUID | None,
        parent: uuid.UUID | None,
        reader: uuid.UUID,
    ) -> list[Row]:
        statement = self.statements.pages[lst.name, after is not None]
        args = page_parameters(lst, limit, after, parent, reader)
        return [dict(row) for row in await self.connection.fetch(statement, *args)]

    async def positions(self) -> dict[int, LanePosition]:
        rows = await self.connection.fetch(POSITIONS)
        return {
            r["lane"]: LanePosition(r["position"], r["ledger_from"], frozenset(r["parked"]))
            for r in rows
        }

    async def decisions(
        self, author: uuid.UUID, commands: Sequence[uuid.UUID]
    ) -> list[Mapping[str, Any]]:
        """The author's ledger rows of these commands; a command may have several."""
        found = await self.connection.fetch(DECISIONS, author, list(commands))
        return [dict(row) for row in found]

    async def commands(
        self, author: uuid.UUID, before: uuid.UUID | None, limit: int
    ) -> list[Mapping[str, Any]]:
        """The author's ledger rows by command id, newest first; a command may have several."""
        found = await self.connection.fetch(COMMANDS, author, before, limit)
        return [dict(row) for row in found]
