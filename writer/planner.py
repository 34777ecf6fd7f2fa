"""The planner: decides what becomes of each command of a batch, in order, without a database.

It works on rows that were read in the batch's transaction, and changes them in memory as it goes, so
that each command meets what the ones before it left. Deciding a batch of n is therefore the same as
deciding n batches of one; only the writing is set-based.
"""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any, ClassVar

from schema.catalog import Catalog
from schema.commands import Author, Command, Mutation, Op
from schema.content import Kind, Row
from schema.facts import ActorFacts, actor_facts, decide
from schema.identifiers import UserId
from schema.outcomes import Outcome, Problem
from schema.rules import UnknownFact
from writer.decisions import Change, Decision, Park
from writer.early import must_be_in_time, repeats, waits_behind
from writer.failures import Halt, Refused
from writer.knowledge import Knowledge, ParkedCommand
from writer.notices import AT_FAULT, Notices, command_at_fault, told_by_system
from writer.parking import ParkPolicy
from writer.record import LaneRecord
from writer.rows import Key, Rows, StagedRows
from writer.streams import stream_of
from writer.values import new_row, validate, values_of

_Step = Callable[
    ["Planner", Command, Kind, Mutation, ActorFacts, StagedRows],
    Change | None,
]


class _Missing(Exception):
    """A row that a command needs is not there, and nobody knows yet that it never will be."""

    def __init__(self, row_id: uuid.UUID) -> None:
        super().__init__(str(row_id))
        self.row_id = row_id


@dataclass
class Planner:
    """Decides commands. `rows` and `knowledge` must cover all that the commands refer to."""

    catalog: Catalog
    rows: Rows
    knowledge: Knowledge
    policy: ParkPolicy
    now: datetime
    _actors: dict[UserId, tuple[Author, Row | None, ActorFacts]] = field(default_factory=dict)

    def decide(self, record: LaneRecord, parked: ParkedCommand | None = None) -> Decision:
        """What becomes of a record; with `parked`, of a command that was held back until now."""
        if record.envelope is None:
            problem = Problem("invalid", f"undecodable: {record.fault}")
            return Decision(record, Outcome.DEAD, None, problem=problem)
        stream = self._stream(record.command)
        decision = self._decided(record, stream, parked)
        decision.was_parked = parked is not None
        self._remember(decision)
        return decision

    def reject(self, decision: Decision, problem: Problem) -> Decision:
        """The rejection that takes the place of a decision the database refused."""
        rejected = self._rejected(decision.record, decision.stream, problem)
        rejected.was_parked, rejected.attempts = decision.was_parked, decision.attempts
        self._remember(rejected)
        return rejected

    def park(self, record: LaneRecord, park: Park) -> Decision:
        """Hold a record back without trying it."""
        decision = self._parked(record, self._stream(record.command), park)
        self._remember(decision)
        return decision

    # -- the command itself ------------------------------------------------------------------

    def _decided(
        self, record: LaneRecord, stream: uuid.UUID, parked: ParkedCommand | None
    ) -> Decision:
        command = record.command
        staged = StagedRows(self.catalog, self.rows)
        try:
            first = repeats(command, self.knowledge) if parked is None else None
            if first is not None:
                return Decision(record, Outcome.DUPLICATE, stream, duplicate_of=first)
            must_be_in_time(command, self.policy, self.now)
            if parked is None and waits_behind(command, stream, self.knowledge):
                park = Park("waits_behind", frozenset(), self.now, 0, None)
                return self._parked(record, stream, park)
            changes = self._changes(command, staged)
        except Refused as error:
            return self._rejected(record, stream, error.problem)
        except _Missing as error:
            return self._missing(record, stream, error.row_id, parked)
        staged.keep()
        gone = tuple(staged.gone)
        return Decision(record, Outcome.SAVED, stream, changes=changes, denied=gone)

    def _changes(self, command: Command, staged: StagedRows) -> list[Change]:
        if command.system:
            return told_by_system(self.catalog, command, staged)
        changes = self._author_row(command, staged)
        actor = self._actor(command.author, staged)
        for mutation in command.mutations:
            kind = self.catalog.get(mutation.type)
            if kind is None:
                raise Halt(f"content type {mutation.type!r} is not known here; upgrade the writer")
            change = self._STEPS[mutation.op](self, command, kind, mutation, actor, staged)
            if change is not None:
                changes.append(change)
        return changes

    def _actor(self, author: Author, staged: StagedRows) -> ActorFacts:
        """The author as rules see him; put together once for as long as he stays the same."""
        row = staged.get(self.catalog.actor.name, author.id)
        known = self._actors.get(author.id)
        if known is not None and known[1] is row:
            before = known[0]
            if before.name == author.name and before.roles == author.roles:
                return known[2]
        facts = actor_facts(self.catalog, author, row)
        self._actors[author.id] = (author, row, facts)
        return facts

    def _author_row(self, command: Command, staged: StagedRows) -> list[Change]:
        kind, author = self.catalog.actor, command.author
        if staged.get(kind.name, author.id) is not None:
            return []
        values = {"name": author.name} if "name" in kind.fields else {}
        row = new_row(kind, author.id, values, command)
        staged.put(kind, row)
        return [Change(kind, "create", row)]

    def _create(
        self,
        command: Command,
        kind: Kind,
        mutation: Mutation,
        actor: Mapping[str, Any],
        staged: StagedRows,
    ) -> Change | None:
        row = new_row(kind, mutation.id, values_of(kind, mutation), command)
        if kind.natural_key and kind.natural_id(row) != mutation.id:
            raise Refused(Problem("invalid", f"The id of a {kind.name} follows from its key."))
        parents = self._parents(command, kind, row, staged)
        self._permit(kind, "create", actor, row, row, parents)
        there = staged.get(kind.name, mutation.id)
        if there is not None:
            if kind.natural_key:
                return None  # putting it twice is one row
            raise Refused(_taken(kind, there, command))
        staged.put(kind, row)
        return Change(kind, "create", row, self._counted(kind, row, 1))

    def _update(
        self,
        command: Command,
        kind: Kind,
        mutation: Mutation,
        actor: Mapping[str, Any],
        staged: StagedRows,
    ) -> Change | None:
        row = self._target(command, kind, mutation, staged)
        new = row | values_of(kind, mutation)
        self._permit(kind, "update", actor, row, new, self._parent_rows(kind, row, staged))
        validate(kind, {name: new[name] for name in kind.fields})
        new |= {"version": row["version"] + 1, "updated_at": command.accepted_at}
        staged.put(kind, new)
        return Change(kind, "update", new)

    def _delete(
        self,
        command: Command,
        kind: Kind,
        mutation: Mutation,
        actor: Mapping[str, Any],
        staged: StagedRows,
    ) -> Change | None:
        if kind.natural_key and staged.get(kind.name, mutation.id) is None:
            return None  # taking it back twice is none
        row = self._target(command, kind, mutation, staged)
        self._permit(kind, "delete", actor, row, row, self._parent_rows(kind, row, staged))
        staged.remove(kind, mutation.id)
        return Change(kind, "delete", row, self._counted(kind, row, -1))

    _STEPS: ClassVar[Mapping[Op, _Step]] = {"create": _create, "update": _update, "delete": _delete}

    # -- rows and their neighbours -------------------------------------------------------------

    def _target(self, command: Command, kind: Kind, mutation: Mutation, staged: StagedRows) -> Row:
        row = staged.get(kind.name, mutation.id)
        if row is None:
            raise self._absent(command, kind, (kind.name, mutation.id), staged, "not_found")
        expected = mutation.expected_version
        if expected is not None and row["version"] != expected:
            raise Refused(
                Problem(
                    "version_conflict",
                    f"It has version {row['version']} now, not {expected}.",
                    extra={"current_version": row["version"]},
                )
            )
        return row

    def _parents(
        self, command: Command, kind: Kind, row: Row, staged: StagedRows
    ) -> dict[str, Row | None]:
        """The rows that a new row refers to, by their names in rules; each must be there."""
        found: dict[str, Row | None] = {}
        for column, name, type_ in kind.parents:
            row_id = row[column]
            parent = None if row_id is None else staged.get(type_, row_id)
            if parent is None and row_id is not None:
                raise self._absent(command, kind, (type_, row_id), staged, "target_missing")
            found[name] = parent
        return found

    @staticmethod
    def _parent_rows(kind: Kind, row: Row, staged: StagedRows) -> dict[str, Row | None]:
        """The rows that a row refers to which is there already, as far as they were read."""
        found: dict[str, Row | None] = {}
        for column, name, type_ in kind.parents:
            row_id = row.get(column)
            try:
                found[name] = None if row_id is None else staged.get(type_, row_id)
            except KeyError:  # a weak reference of a row that is not new: no rule may need it
                continue
        return found

    def _absent(
        self, command: Command, kind: Kind, key: Key, staged: StagedRows, code: str
    ) -> Refused | _Missing:
        """Why a row is not there: it was deleted, it was rejected, or it may still come.

        If nobody knows of the row itself, it shares the fate of its stream's root.
        """
        type_, row_id = key
        fate = self.knowledge.fate(row_id)
        root = self.catalog.root_of(kind).name
        if fate is None and staged.get(root, command.stream) is None:
            fate = self.knowledge.fate(command.stream)
        if fate is Outcome.REJECTED:
            missing = row_id if self.knowledge.fate(row_id) else command.stream
            at_fault = {AT_FAULT: str(self.knowledge.who_rejected(missing))}
            detail = f"The {type_} that this needs could not be saved."
            return Refused(Problem("parent_rejected", detail, extra=at_fault))
        if fate is Outcome.SAVED:
            return Refused(Problem(code, f"The {type_} is not there any more."))
        return _Missing(row_id)

    def _permit(
        self,
        kind: Kind,
        op: Any,
        actor: Mapping[str, Any],
        row: Row,
        new: Row,
        parents: Mapping[str, Row | None],
    ) -> None:
        try:
            code = decide(kind, op, actor=actor, row=row, new=new, parents=parents)
        except UnknownFact as error:
            raise Halt(
                f"rule of {kind.name} needs {error}, which the writer did not read"
            ) from error
        if code is not None:
            raise Refused(Problem(code, f"You may not {op} this {kind.name}."))

    @staticmethod
    def _counted(kind: Kind, row: Row, by: int) -> tuple[tuple[Kind, uuid.UUID, str, int], ...]:
        if not kind.counted:
            return ()
        return tuple([(parent, row[ref], column, by) for parent, ref, column in kind.counted])

    # -- outcomes ------------------------------------------------------------------------------

    def _rejected(self, record: LaneRecord, stream: uuid.UUID | None, problem: Problem) -> Decision:
        if record.command.system:
            problem = replace(problem, extra=problem.extra | {"system": True})
        return Decision(
            record,
            Outcome.REJECTED,
            stream,
            changes=self._notices.of_rejection(record.command, problem),
            problem=problem,
            denied=_created(record.command),
        )

    @cached_property
    def _notices(self) -> Notices:
        return Notices(self.catalog, self.rows, self.knowledge, self.now)

    def _missing(
        self,
        record: LaneRecord,
        stream: uuid.UUID,
        row_id: uuid.UUID,
        parked: ParkedCommand | None,
    ) -> Decision:
        """Hold the command back until the row comes, but not for ever."""
        since = parked.parked_at if parked else self.now
        attempts = parked.attempts + 1 if parked else 0
        if self.policy.waited_too_long(since, self.now):
            problem = Problem("target_missing", "What this refers to never came.")
            return self._rejected(record, stream, problem)
        give_up_at = self.policy.retry_dependency_at(since)
        retry_at = self.policy.within_horizon(give_up_at, record.command)
        park = Park("target_missing", frozenset({row_id}), since, attempts, retry_at)
        return self._parked(record, stream, park)

    def _parked(self, record: LaneRecord, stream: uuid.UUID, park: Park) -> Decision:
        return Decision(record, Outcome.PARKED, stream, park=park, denied=_created(record.command))

    def _remember(self, decision: Decision) -> None:
        if decision.outcome is Outcome.DUPLICATE:
            return  # what the first one did stands
        command, known = decision.record.command, self.knowledge
        known.decided.add(command.command_id)
        known.afresh.add(command.command_id)
        if command.idempotency_key is not None:
            known.keys.setdefault(
                (command.author.id, command.idempotency_key),
                (command.command_id, command.fingerprint),
            )
        if known.denied:
            for row_id in _created(command):
                known.allow(row_id, command.command_id)
        for row_id in decision.denied:
            known.deny(row_id, command.command_id, decision.outcome)
        if decision.problem is not None:
            known.at_fault[command.command_id] = command_at_fault(command, decision.problem)
        if decision.park is not None and not decision.was_parked and decision.stream is not None:
            held = known.parked.setdefault(decision.stream, [])
            held.append(_held(decision, decision.park))

    def _stream(self, command: Command) -> uuid.UUID:
        return stream_of(self.catalog, self.rows, command)


def _taken(kind: Kind, there: Row, command: Command) -> Problem:
    """Whoever may not read the row that has the id is not told of it."""
    private_to = kind.model.private_to
    if private_to is not None and there[private_to] != command.author.id:
        return Problem("invalid", "This id cannot be used; leave it out.")
    return Problem("id_taken", f"There is a {kind.name} with this id.")


def _created(command: Command) -> tuple[uuid.UUID, ...]:
    return tuple(m.id for m in command.mutations if m.op == "create")


def _held(decision: Decision, park: Park) -> ParkedCommand:
    stream = decision.stream or decision.record.command.stream
    return ParkedCommand(
        decision.record,
        stream,
        park.code,
        park.waits_for,
        park.parked_at,
        park.attempts,
        park.retry_at,
    )
