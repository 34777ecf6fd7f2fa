"""What is true, and what each reader must see of it: a plain model of the log and the database.

Every state that the database ever had is kept, so that a reader may be shown any of them. What an
author must see is such a state with his undecided commands carried out on all of its tables, in the
order of the log. Nothing here is taken from the code that merges.
"""

import copy
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from frontend_api.reading_ports import Wanted
from frontend_api.view import DatabaseUnavailable, Glance, LanePosition, SnapshotPort
from schema.catalog import Catalog, ListOf
from schema.commands import Command, Mutation
from schema.content import Kind, Row
from schema.outcomes import Outcome
from tests.fakes import glancing, glancing_page

T = TypeVar("T")
Ref = tuple[str, uuid.UUID]
FINAL = (Outcome.SAVED, Outcome.REJECTED)


@dataclass
class State:
    """The database after a transaction."""

    catalog: Catalog
    rows: dict[Ref, Row] = field(default_factory=dict)
    ledger: dict[uuid.UUID, tuple[int, Outcome]] = field(default_factory=dict)
    """Command → its offset and what became of it."""
    effects: dict[uuid.UUID, list[dict[str, Any]]] = field(default_factory=dict)
    """Saved command → what its ledger row says of the rows that it changed."""
    position: int = 0

    def copy(self) -> "State":
        rows = {ref: dict(row) for ref, row in self.rows.items()}
        return State(self.catalog, rows, dict(self.ledger), dict(self.effects), self.position)

    def carry_out(self, command: Command) -> bool:
        """All of it, or nothing: False if one of its mutations cannot be."""
        changed = self.copy()
        effects = [self._effect(command, m) for m in command.mutations]
        for mutation in command.mutations:
            if not changed._mutate(command, mutation):
                return False
            if mutation.op == "create" and changed._orphans():
                return False
            changed._complete()
        self.rows = changed.rows
        self.effects[command.command_id] = [e for e in effects if e is not None]
        return True

    def _effect(self, command: Command, m: Mutation) -> dict[str, Any] | None:
        """What the writer would tell; nothing of a row that is there already."""
        kind, there = self.catalog[m.type], self.rows.get((m.type, uuid.UUID(str(m.id))))
        if m.op == "create" and there is not None:
            return None
        row = there or self._created(kind, command, m)
        above = [f.name for f in kind.refs if f.ref is not None and not f.ref.weak]
        return {
            "type": m.type,
            "id": str(m.id),
            "op": m.op,
            "version": row["version"],
            "parents": [str(row[name]) for name in above],
        }

    def show(self, commands: Iterable[Command]) -> None:
        """All of them, each as far as it goes: what goes with something missing is not shown."""
        for command in commands:
            for mutation in command.mutations:
                self._mutate(command, mutation)
        self._complete()

    def listed(self, lst: ListOf, parent: uuid.UUID | None) -> list[Row]:
        rows = [
            row
            for (type_, _), row in self.rows.items()
            if type_ == lst.kind.name and (lst.listing.by is None or row[lst.listing.by] == parent)
        ]
        return sorted(rows, key=lambda row: row["id"].int, reverse=lst.listing.newest_first)

    def _mutate(self, command: Command, m: Mutation) -> bool:
        kind, ref = self.catalog[m.type], (m.type, uuid.UUID(str(m.id)))
        there = self.rows.get(ref)
        if m.op == "create":
            if there is not None:
                return bool(kind.model.natural_key)
            self.rows[ref] = self._created(kind, command, m)
        elif there is None:
            return False
        elif m.op == "update":
            there |= kind.from_json(m.values)
            there |= {"version": there["version"] + 1, "updated_at": command.accepted_at}
        else:
            del self.rows[ref]
        return True

    @staticmethod
    def _created(kind: Kind, command: Command, m: Mutation) -> Row:
        row: Row = {name: f.default for name, f in kind.fields.items()}
        row |= kind.from_json(m.values) | dict.fromkeys(kind.counters, 0)
        if kind.author_field is not None:
            row[kind.author_field] = uuid.UUID(str(command.author.id))
        at = command.accepted_at
        return row | {
            "id": uuid.UUID(str(m.id)),
            "version": 1,
            "created_at": at,
            "updated_at": at,
        }

    def _orphans(self) -> list[Ref]:
        """Rows without one that they go with."""
        return [
            ref
            for ref, row in self.rows.items()
            if any(
                (f.ref.type, row[f.name]) not in self.rows
                for f in self.catalog[ref[0]].refs
                if f.ref is not None and not f.ref.weak
            )
        ]

    def _complete(self) -> None:
        """What PostgreSQL does of itself: rows vanish with what they go with, and are counted."""
        while orphans := self._orphans():
            for ref in orphans:
                del self.rows[ref]
        self._count()

    def _count(self) -> None:
        for (type_, row_id), row in self.rows.items():
            for child in self.catalog:
                for by, column in child.model.counted_in.items():
                    if self.catalog.parent(child, by).name == type_:
                        row[column] = sum(
                            other[by] == row_id
                            for (other_type, _), other in self.rows.items()
                            if other_type == child.name
                        )


@dataclass(eq=False)
class Sent:
    """A command that its author was told of, and what has happened to it."""

    command: Command
    number: int
    offset: int | None
    """None: it never came into the log, though nobody can tell."""
    placed: bool = True
    """Whether the overlay knows its place in the log."""
    told: Outcome | None = None
    """What the overlay was told of it."""
    held: bool = True
    """Whether the overlay has its entry still."""
    blindly: bool = False
    """Whether it was accepted while database or overlay could not be read."""


class World:
    """The log, and PostgreSQL with its whole history; it is the database that the front end reads.

    `seen` is the state that a reader gets: the newest of a primary, an older one of a replica.
    """

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.history = [State(catalog)]
        self.seen = 0
        self.available = True
        self.sent: list[Sent] = []
        self.waiting: dict[uuid.UUID, list[Sent]] = {}
        """Streams that are held back: their parked commands, in order."""

    # -- the database that is read --------------------------------------------------------------

    async def until_available(self) -> None:
        if not self.available:
            raise DatabaseUnavailable

    async def read(
        self, work: Callable[[SnapshotPort], Awaitable[T]], timeout_s: float | None = None
    ) -> T:
        if not self.available:
            raise DatabaseUnavailable
        return await work(_Snapshot(self.history[self.seen]))

    async def glance(
        self,
        wanted: Sequence[Wanted],
        author: uuid.UUID,
        commands: Sequence[uuid.UUID],
        timeout_s: float | None = None,
    ) -> Glance:
        return await self.read(glancing(wanted, author, commands), timeout_s)

    async def glance_page(
        self,
        lst: ListOf,
        limit: int,
        after: uuid.UUID | None,
        parent: uuid.UUID | None,
        reader: uuid.UUID,
        commands: Sequence[uuid.UUID] | None,
    ) -> Glance:
        return await self.read(glancing_page(lst, limit, after, parent, reader, commands))

    # -- the writer -----------------------------------------------------------------------------

    @property
    def now(self) -> State:
        return self.history[-1]

    def logged(self) -> list[Sent]:
        """What is in the log, in its order."""
        return sorted((s for s in self.sent if s.offset is not None), key=lambda s: s.offset or 0)

    def stream_of(self, command: Command) -> uuid.UUID:
        """The topic that it belongs to, as far as anybody can know."""
        for m in command.mutations:
            at: Ref | None = (m.type, uuid.UUID(str(m.id)))
            while at is not None and at[0] != "topic":
                at = self._above(at)
            if at is not None:
                return at[1]
        return uuid.UUID(str(command.command_id))

    def _above(self, ref: Ref) -> Ref | None:
        field_name, above = {"post": ("topic_id", "topic"), "reaction": ("post_id", "post")}[ref[0]]
        for state in reversed(self.history):
            if ref in state.rows:
                return above, state.rows[ref][field_name]
        for sent in self.sent:
            for m in sent.command.mutations:
                if (m.type, uuid.UUID(str(m.id))) == ref and m.op == "create":
                    return above, uuid.UUID(m.values[field_name])
        return None

    def apply(self, wish: Outcome) -> bool:
        """Commit the next command. What is parked holds back all that follows in its stream."""
        state = self.now.copy()
        log = self.logged()
        if state.position >= len(log):
            return False
        sent = log[state.position]
        stream = self.stream_of(sent.command)
        if wish is Outcome.PARKED or stream in self.waiting:
            self.waiting.setdefault(stream, []).append(sent)
            outcome = Outcome.PARKED
        else:
            done = wish is Outcome.SAVED and state.carry_out(sent.command)
            outcome = Outcome.SAVED if done else Outcome.REJECTED
        state.ledger[sent.command.command_id] = (state.position, outcome)
        state.position += 1
        self.history.append(state)
        return True

    def retry(self, stream: uuid.UUID) -> None:
        """The head of a stream that was held back is tried again."""
        sent = self.waiting[stream].pop(0)
        if not self.waiting[stream]:
            del self.waiting[stream]
        state = self.now.copy()
        outcome = Outcome.SAVED if state.carry_out(sent.command) else Outcome.REJECTED
        offset, _ = state.ledger[sent.command.command_id]
        state.ledger[sent.command.command_id] = (offset, outcome)
        self.history.append(state)

    # -- what must be seen ----------------------------------------------------------------------

    def undecided(self, author: uuid.UUID, at: int) -> list[Sent]:
        """An author's commands that are not in a state, in the order of the log."""
        ledger = self.history[at].ledger
        mine = [
            s
            for s in self.sent
            if s.command.author.id == author
            and s.held
            and s.told is not Outcome.REJECTED
            and ledger.get(s.command.command_id, (0, None))[1] not in FINAL
        ]
        return sorted(mine, key=lambda s: s.number)

    def must_be_seen(self, author: uuid.UUID, at: int) -> State:
        """A state with the author's undecided commands carried out.

        Where Kafka never confirmed a command, nobody can know its place before the ledger has it. It
        is shown where its author made it, among his others.
        """
        state = self.history[at].copy()
        state.show(sent.command for sent in self.undecided(author, at))
        return state

    def not_counted(self, author: uuid.UUID, at: int) -> set[Ref]:
        """Rows whose counters may be off by one in this state.

        What a command adds to a counter is settled when it is accepted, by what its author sees then.
        If an earlier one about the same row comes to nothing, it adds what it should not, until it is
        decided, too: a reaction that is sent twice, or a post that is deleted and was never created.
        The same holds where it could not be seen what was there.
        """
        ledger = self.history[at].ledger
        undecided = {s.command.command_id for s in self.undecided(author, at)}
        in_vain: set[Ref] = set()
        found: set[Ref] = set()
        for sent in self.sent:
            if sent.command.author.id != author:
                continue
            _, outcome = ledger.get(sent.command.command_id, (0, None))
            none = Outcome.REJECTED in (outcome, sent.told) or sent.offset is None
            none = none or (not sent.held and outcome is not Outcome.SAVED)
            for m in sent.command.mutations:
                ref = (m.type, uuid.UUID(str(m.id)))
                open_ = m.type != "topic" and sent.command.command_id in undecided
                unseen = sent.blindly and (m.op == "delete" or m.type == "reaction")
                above = self._above(ref) if open_ and (ref in in_vain or unseen) else None
                if above is not None:
                    found.add(above)
                if none:
                    in_vain.add(ref)
                    if open_:
                        found |= {a for a in [self._above(ref)] if a and self._again(sent, ref)}
        return found

    def _again(self, sent: Sent, ref: Ref) -> bool:
        """Whether a later command is about the same row."""
        return any(
            (m.type, uuid.UUID(str(m.id))) == ref
            for other in self.sent
            if other.number > sent.number
            for m in other.command.mutations
        )


class _Snapshot:
    """One state, as the front end's adapter reads it."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def rows(self, kind: Kind, ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, Row]:
        found = {i: self._state.rows.get((kind.name, i)) for i in ids}
        return {i: copy.copy(row) for i, row in found.items() if row is not None}

    async def page(
        self,
        lst: ListOf,
        limit: int,
        after: uuid.UUID | None,
        parent: uuid.UUID | None,
        reader: uuid.UUID,
    ) -> list[Row]:
        rows = beyond(lst, self._state.listed(lst, parent), after)
        return [copy.copy(row) for row in rows[:limit]]

    async def positions(self) -> dict[int, LanePosition]:
        parked = {at for at, outcome in self._state.ledger.values() if outcome is Outcome.PARKED}
        return {0: LanePosition(self._state.position, 0, frozenset(parked))}

    async def decisions(
        self, author: uuid.UUID, commands: Sequence[uuid.UUID]
    ) -> list[Mapping[str, Any]]:
        return [
            {
                "command_id": command,
                "author_id": author,
                "outcome": self._state.ledger[command][1],
                "lane": 0,
                "offset": self._state.ledger[command][0],
                "decided_at": datetime.now(tz=UTC),
                "duplicate_of": None,
            }
            for command in commands
            if command in self._state.ledger
        ]

    async def commands(
        self, author: uuid.UUID, before: uuid.UUID | None, limit: int
    ) -> list[Mapping[str, Any]]:
        raise NotImplementedError


def beyond(lst: ListOf, rows: Sequence[Row], after: uuid.UUID | None) -> list[Row]:
    """The rows of a list behind one of them."""
    if after is None:
        return list(rows)
    if lst.listing.newest_first:
        return [row for row in rows if row["id"].int < after.int]
    return [row for row in rows if row["id"].int > after.int]
