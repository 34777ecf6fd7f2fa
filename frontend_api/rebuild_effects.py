"""What rebuilt commands did, worked out again: which rows were there, and which are after them.

Index members depend on it: under which parent a change is found, and what it adds to counters.
Only what they need is remembered of a row: its references, not its text.
"""

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from frontend_api.merge import apply
from frontend_api.overlay_rows import RowRef
from frontend_api.planning import Effect, Planned
from schema.catalog import Catalog
from schema.commands import Command, Mutation
from schema.content import Kind, Row

Known = Mapping[RowRef, Row | None]
"""Rows that could be read; None: it is not there."""


class Replay:
    """Commands in the order of the log. What an author's earlier ones did is remembered for his
    later ones; what everyone may see, for everybody's."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._done: dict[tuple[uuid.UUID | None, str, uuid.UUID], Row | None] = {}

    def wanted(self, commands: Iterable[Command]) -> set[RowRef]:
        """The rows that must be read for these commands."""
        found: set[RowRef] = set()
        made: set[tuple[uuid.UUID | None, str, uuid.UUID]] = set()
        for command in commands:
            for m in command.mutations:
                kind, at = self._catalog[m.type], self._at(command, m)
                if m.op == "create" and not kind.model.natural_key:
                    made.add(at)
                elif at not in made and at not in self._done:
                    found.add((m.type, m.id))
        return found

    def undecided(self, command: Command, known: Known) -> tuple[Effect, ...]:
        """The effects of a command that is to be applied yet."""
        effects = []
        for m in command.mutations:
            at = self._at(command, m)
            if at in self._done:
                before, sure = self._done[at], True
            else:
                before, sure = known.get((m.type, m.id)), (m.type, m.id) in known
            effect = self._effect(command, m, before, sure=sure)
            if effect.after is not None or m.op == "delete":
                self._done[at] = effect.after
            effects.append(effect)
        return tuple(effects)

    def saved(self, command: Command, ledger_effects: object) -> tuple[Effect, ...]:
        """The effects of a command that was applied, as its ledger row tells them."""
        rows = self._before(command, ledger_effects)
        effects = []
        for m in command.mutations:
            ref = (m.type, m.id)
            effect = self._effect(command, m, rows.get(ref), sure=ref in rows)
            rows[ref] = effect.after
            effects.append(effect)
        return tuple(effects)

    def _effect(self, command: Command, m: Mutation, before: Row | None, *, sure: bool) -> Effect:
        kind = self._catalog[m.type]
        sure = sure or (m.op == "create" and not kind.model.natural_key)
        after = apply(kind, before, command, m)
        return Effect(Planned(kind, m), before, _slim(kind, after), sure)

    def _before(self, command: Command, ledger_effects: object) -> dict[RowRef, Row | None]:
        """The rows as they were before the command, as far as its ledger row tells."""
        told = (
            ledger_effects if isinstance(ledger_effects, list) else json.loads(str(ledger_effects))
        )
        last = {(e["type"], uuid.UUID(e["id"])): e for e in told}
        rows: dict[RowRef, Row | None] = {}
        for m in command.mutations:
            ref, kind = (m.type, uuid.UUID(str(m.id))), self._catalog[m.type]
            effect = last.get(ref)
            if ref in rows:
                continue
            if m.op != "create":
                rows[ref] = None if effect is None else _told_row(kind, effect)
            elif effect is not None or not kind.model.natural_key:
                rows[ref] = None
            else:  # it was there already, and stayed as it was
                rows[ref] = _slim(kind, apply(kind, None, command, m))
        return rows

    def _at(self, command: Command, m: Mutation) -> tuple[uuid.UUID | None, str, uuid.UUID]:
        public = self._catalog[m.type].model.visible_while_pending == "everyone"
        return (None if public else command.author.id, m.type, m.id)


def claimed_ids(catalog: Catalog, command: Command) -> Iterator[uuid.UUID]:
    """The ids that were made for the request of a command, as its plan lists them: its own, then
    those of new rows. Ids that the client chose are among them: only the client knows them."""
    yield command.command_id
    for m in command.mutations:
        if m.op == "create" and not catalog[m.type].model.natural_key:
            yield m.id


def _slim(kind: Kind, row: Row | None) -> Row | None:
    if row is None:
        return None
    names = {"id", "version", *(f.name for f in kind.refs), *kind.counters}
    return {name: row[name] for name in names if name in row}


def _told_row(kind: Kind, effect: Mapping[str, Any]) -> Row | None:
    """A row out of its effect, which lists the rows that it hangs on in the order of its fields."""
    row: Row = {"id": uuid.UUID(effect["id"]), "version": effect["version"]}
    strong = [f.name for f in kind.refs if f.ref is not None and not f.ref.weak]
    if len(strong) == len(effect["parents"]):
        row |= dict(zip(strong, map(uuid.UUID, effect["parents"]), strict=True))
    return row
