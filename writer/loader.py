"""Reads what a batch has to know: the rows it refers to, and what earlier commands decided."""

import json
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import asyncpg

from schema.catalog import Catalog
from schema.commands import Command
from schema.content import Kind, Row
from schema.envelope import Keyring, headers_from_json
from schema.identifiers import is_uuid7, month_of
from schema.outcomes import Outcome
from writer import statements as sql
from writer.failures import Halt
from writer.ids import read_id
from writer.knowledge import Knowledge, ParkedCommand, brings
from writer.notices import AT_FAULT
from writer.record import LaneRecord, read_record
from writer.rows import MOST_GONE, Key, Rows
from writer.statements import Question, Statements, in_one

Answer = Sequence[Any]
"""The rows that answer a question, each with its columns in order."""


@dataclass
class Loader:
    """Reads inside the transaction of one batch."""

    connection: asyncpg.Connection
    catalog: Catalog
    keyring: Keyring
    lane: int
    statements: dict[str, Statements]
    few: int = 30
    """So many rows are asked for together: it saves round trips, but an array costs more than rows do."""

    def __post_init__(self) -> None:
        self._roots = {kind.name: self.catalog.root_of(kind).name for kind in self.catalog}

    async def knowledge(
        self, records: Sequence[LaneRecord], months: Iterable[date]
    ) -> tuple[Knowledge, Rows]:
        """What the ledger of these months, which are those of the records, says about the commands, the
        rows they refer to, the parked streams.

        Which stream a command belongs to is only known with its rows; any row that was read may be
        the root of one, so the parked commands of all of them are read.
        """
        commands = [r.command for r in records if r.envelope is not None]
        known, rows = Knowledge(), Rows()
        if not commands:
            return known, rows
        ids = [c.command_id for c in commands]
        asked = [Question(sql.DECIDED, (ids, list(months), self.lane))]
        keyed = [(c.author.id, c.idempotency_key) for c in commands if c.idempotency_key]
        if keyed:
            asked.append(Question(sql.USED_KEYS, tuple(zip(*keyed, strict=True))))
        decided, *used = await self.rows(commands, rows, known, asked)
        found = {command_id for (command_id,) in decided}
        known.decided = found - {None}
        for author_id, key, command_id, fingerprint in used[0] if used else ():
            known.keys[author_id, key] = (command_id, fingerprint)
        if None in found:  # the lane holds commands back
            roots = {row_id for _, row_id in rows.known} | {c.stream for c in commands}
            await self.held(roots, commands, known)
        return known, rows

    async def held(
        self, streams: Iterable[uuid.UUID], commands: Sequence[Command], known: Knowledge
    ) -> None:
        """Read the parked commands of these streams, and all that these commands may release.

        What is released may release more, so this goes on until nothing new is found.
        """
        wanted = set(streams)
        while wanted or commands:
            found = await self._parked(wanted, [i for c in commands for i in brings(c)])
            before = set(known.parked)
            fresh = [p for p in found if p.stream not in before]
            for parked in fresh:
                known.parked.setdefault(parked.stream, []).append(parked)
            wanted, commands = set(), [p.record.command for p in fresh]

    async def _parked(
        self, streams: Iterable[uuid.UUID], created: Sequence[uuid.UUID]
    ) -> list[ParkedCommand]:
        """All parked commands of these streams, and of streams that wait for a created row."""
        rows = await self.connection.fetch(sql.PARKED, self.lane, list(streams), created)
        return [self._held(row) for row in rows]

    def _held(self, row: asyncpg.Record) -> ParkedCommand:
        record = read_record(
            self.lane,
            row["offset"],
            0,  # a command's period comes from its id
            row["key"],
            row["value"],
            headers_from_json(row["headers"]),
            self.keyring,
        )
        if record.envelope is None:
            raise Halt(
                f"lane {self.lane} offset {row['offset']} is parked and cannot be read any more "
                f"({record.fault}): put its key back into AFTERWRITE_SIGNING_KEYS"
            )
        return ParkedCommand(
            record=record,
            stream=row["stream"],
            code=row["code"],
            waits_for=frozenset(row["waits_for"] or ()),
            parked_at=row["parked_at"],
            attempts=row["attempts"],
            retry_at=row["retry_at"],
        )

    async def rows(
        self,
        commands: Sequence[Command],
        into: Rows,
        known: Knowledge,
        beside: Sequence[Question] = (),
    ) -> list[Answer]:
        """Read the rows these commands refer to, and their ancestors; lock the ones to be changed.

        Missing rows are looked up in the ledger, which knows whether they will never come. Returns the
        answers to what is asked beside.
        """
        targets, needed = self._wanted(commands)
        targets |= self._notices(commands, into, known)
        found, told = await self._read(into, targets, needed, beside)
        while found:
            parents = {key for kind, row in found for key in _strong_parents(kind, row)}
            found, _ = await self._read(into, (), parents)
        await self._vanishing(commands, into)
        if missing := _missing(needed, commands, into):
            _note_fates(await self.connection.fetch(sql.DENIED, missing), known)
            await self._at_fault(known)
        await self._read(into, self._notices(commands, into, known))
        return told

    async def _at_fault(self, known: Knowledge) -> None:
        """Read of the commands at fault themselves, too: their authors have notices to be added to.

        They are not found by their rows when what was missing hangs on them through another author's.
        """
        unread = [c for c in set(known.at_fault.values()) - known.at_fault.keys() if is_uuid7(c)]
        if unread:
            months = {month_of(command_id) for command_id in unread}
            rows = await self.connection.fetch(sql.REJECTED, unread, list(months))
            _note_fates(rows, known)

    def _notices(self, commands: Sequence[Command], known: Rows, of: Knowledge) -> set[Key]:
        """The notices that may be added to when one of these commands is rejected, too."""
        authors = {c.author.id for c in commands}
        name = self.catalog.notice.name
        return {
            (name, row_id) for (author, _), row_id in of.told.items() if author in authors
        } - set(known.known)

    async def _vanishing(self, commands: Sequence[Command], into: Rows) -> None:
        """Note what hangs on rows to be deleted, and vanishes with them; so much of it as is kept."""
        deleted = [m for c in commands for m in c.mutations if m.op == "delete"]
        present: list[Key] = [(m.type, m.id) for m in deleted if into.known.get((m.type, m.id))]
        level = set(present) - set(into.hanging)
        most = MOST_GONE * len(level)
        while level:
            below: list[Key] = []
            for kind in self.catalog:
                ids = [row_id for type_, row_id in level if type_ == kind.name]
                for child, ref in self.catalog.children(kind) if ids else ():
                    text = self.statements[child.name].below[ref]
                    for row in await self.connection.fetch(text, ids, MOST_GONE):
                        key = (child.name, row["id"])
                        into.hanging.setdefault((kind.name, row["parent"]), []).append(key)
                        below.append(key)
            level = set(below[:most]) - set(into.hanging)

    def _wanted(self, commands: Sequence[Command]) -> tuple[set[Key], set[Key]]:
        """The rows that these commands change, and those without which they cannot be applied: what
        they refer to or change, their authors, and the roots of their streams, except a root that
        its command begins with."""
        actor = self.catalog.actor.name
        targets: set[Key] = set()
        needed: set[Key] = {(actor, command.author.id) for command in commands}
        for command in commands:
            stream, first = command.stream, command.mutations[0]
            begun = first.type if first.op == "create" and first.id == stream else None
            for mutation in command.mutations:
                root = self._roots.get(mutation.type)
                if root is None:
                    continue  # no content type
                key = (mutation.type, mutation.id)
                targets.add(key)
                if root != begun:
                    needed.add((root, stream))
                if mutation.op == "create":
                    _add_parents(self.catalog[mutation.type], mutation.values, needed)
                else:
                    needed.add(key)
        return targets, needed

    async def _read(
        self,
        into: Rows,
        locked: Iterable[Key],
        seen: Iterable[Key] = (),
        beside: Sequence[Question] = (),
    ) -> tuple[list[tuple[Kind, Row]], list[Answer]]:
        """Read the rows that are not known yet, some of them locked, and ask what is asked beside.

        Returns the rows that are there, and the answers.
        """
        kinds: list[Kind] = []
        questions, many = list(beside), 0
        for lock, keys in ((True, locked), (False, seen)):
            by_type: dict[str, list[uuid.UUID]] = defaultdict(list)
            for key in keys:
                if key not in into.known:
                    by_type[key[0]].append(key[1])
                    into.known[key] = None
            for kind in self.catalog:
                if ids := by_type.get(kind.name):
                    statements = self.statements[kind.name]
                    text = statements.lock if lock else statements.select
                    kinds.append(kind)
                    questions.append(Question(text, (ids,)))
                    many += len(ids)
        answers = await self._ask(questions, few=many <= self.few)
        found: list[tuple[Kind, Row]] = []
        for kind, records in zip(kinds, answers[len(beside) :], strict=True):
            for record in records:
                row = dict(zip(kind.columns, record, strict=True))  # half the time of dict(record)
                into.known[kind.name, row["id"]] = row
                found.append((kind, row))
        return found, answers[: len(beside)]

    async def _ask(self, questions: Sequence[Question], *, few: bool) -> list[Answer]:
        """The answers to questions, in order; in one round trip when they are about a few rows."""
        if few and len(questions) > 1:
            whole = in_one(questions)
            (row,) = await self.connection.fetch(whole.text, *whole.values)
            return list(row)
        return [await self.connection.fetch(q.numbered(), *q.values) for q in questions]


def _strong_parents(kind: Kind, row: Row) -> list[Key]:
    return [(type_, row[name]) for name, type_ in kind.strong_parents if row[name] is not None]


def _note_fates(rows: Sequence[asyncpg.Record], known: Knowledge) -> None:
    """What became of the commands that keep rows away; of rejections also which command was at
    fault, and the latest notice that an author has of it. What this transaction knows goes first."""
    told: dict[tuple[uuid.UUID, uuid.UUID], uuid.UUID] = {}
    for row in rows:
        if row["command_id"] in known.afresh:
            continue
        for row_id in row["denied"] or ():
            known.deny(row_id, row["command_id"], Outcome(row["outcome"]))
        if row["outcome"] == Outcome.REJECTED:
            problem, effects = json.loads(row["problem"] or "{}"), json.loads(row["effects"])
            at_fault = uuid.UUID(problem.get(AT_FAULT) or str(row["command_id"]))
            known.at_fault[row["command_id"]] = at_fault
            if effects:
                told[row["author_id"], at_fault] = uuid.UUID(effects[0]["id"])
    known.told = told | known.told


def _missing(needed: Iterable[Key], commands: Sequence[Command], known: Rows) -> list[uuid.UUID]:
    """The needed rows that are not there, or that may be gone when they are needed."""
    going: set[uuid.UUID] = {m.id for c in commands for m in c.mutations if m.op == "delete"}
    going |= {row_id for below in known.hanging.values() for _, row_id in below}
    return [key[1] for key in needed if known.known.get(key) is None or key[1] in going]


def _add_parents(kind: Kind, values: object, to: set[Key]) -> None:
    """Add the references in a mutation's values, as far as they are ids at all."""
    if not isinstance(values, Mapping):
        return
    for column, _, type_ in kind.parents:
        text = values.get(column)
        if isinstance(text, str):
            try:
                to.add((type_, read_id(text)))
            except ValueError:
                continue  # the planner refuses the command for it
