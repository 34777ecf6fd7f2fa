"""A lane in memory: commands decided one after the other, without a database."""

import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from schema.catalog import load_catalog
from schema.commands import Author, Command, Mutation
from schema.content import Row
from schema.envelope import Envelope
from schema.outcomes import Outcome, Problem
from tests.commands import author, command
from writer.decisions import Decision
from writer.knowledge import Knowledge
from writer.parking import ParkPolicy
from writer.planner import Planner
from writer.record import LaneRecord
from writer.rows import Key, Rows

CATALOG = load_catalog("schema.forum")
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
POLICY = ParkPolicy(
    timedelta(minutes=15), timedelta(minutes=5), timedelta(hours=1), timedelta(days=5)
)
ADA, BOB, MOD = author("ada"), author("bob"), author("mod", "moderator")


class _All(dict[Key, Row | None]):
    """Every row has been read; those that are not in here are not there."""

    def __missing__(self, key: Key) -> None:
        return None


class Lane:
    """Commands decided one after the other, as one lane has them. They are accepted at `NOW`."""

    def __init__(self) -> None:
        self.rows = Rows(_All())
        self.knowledge = Knowledge()
        self.now = NOW
        self._offsets: Iterator[int] = iter(range(10_000))

    def record(self, what: Command) -> LaneRecord:
        envelope = Envelope(replace(what, accepted_at=NOW), uuid.UUID(int=7))
        return LaneRecord(0, next(self._offsets), 0, b"", b"", (), envelope)

    def planner(self) -> Planner:
        return Planner(CATALOG, self.rows, self.knowledge, POLICY, self.now)

    def decide(self, who: Author, *mutations: Mutation, **more: Any) -> Decision:
        return self.decided(command(who, *mutations, **more))

    def decided(self, what: Command) -> Decision:
        return self.planner().decide(self.record(what))

    def saved(self, who: Author, *mutations: Mutation, **more: Any) -> Decision:
        decision = self.decide(who, *mutations, **more)
        assert decision.outcome is Outcome.SAVED, decision.problem
        return decision

    def refused(self, who: Author, *mutations: Mutation, **more: Any) -> Problem:
        decision = self.decide(who, *mutations, **more)
        assert decision.outcome is Outcome.REJECTED
        assert decision.problem is not None
        return decision.problem

    def row(self, type_: str, row_id: uuid.UUID) -> Row:
        found = self.rows.get(type_, row_id)
        assert found is not None
        return found

    def has(self, type_: str, row_id: uuid.UUID) -> bool:
        return self.rows.get(type_, row_id) is not None
