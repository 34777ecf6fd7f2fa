"""The early check: refuse at once what the writer would refuse, as far as can be read in time.

What cannot be read is left to the writer, which decides in any case.
"""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final, Protocol, get_args

from frontend_api.merge import apply, known_id
from frontend_api.overlay_rows import RowRef, readable
from frontend_api.planning import Effect, Plan, Planned, with_counts
from frontend_api.problems import ProblemError, fail, invalid
from frontend_api.reading import Reader
from frontend_api.seen import View
from schema.catalog import Catalog
from schema.commands import Command, Op
from schema.content import Kind, Row
from schema.facts import actor_facts, decide
from schema.identifiers import RowId
from schema.rules import UnknownFact
from schema.structs import struct

READ_LIMIT_S: Final = 0.25
"""Longest time that accepting waits for PostgreSQL, all questions together."""
_MAX_ROUNDS: Final = 4


class StreamPort(Protocol):
    """Streams of rows that were seen lately."""

    async def get(self, row_id: uuid.UUID) -> uuid.UUID | None: ...


_Known = dict[RowRef, Row | None]
"""The author's view, with the effects of the mutations checked so far laid over it."""


@struct(frozen=True)
class _Needs:
    """What an operation on a row of one kind depends on: (column, type) of references."""

    parents: tuple[tuple[str, str], ...]
    """Of the row itself."""
    way: tuple[tuple[str, str], ...]
    """One behind the other, to the row that says the stream."""
    at_once: bool
    """Whether the values of a new row name all of them, so that none is found by reading another."""


@struct(frozen=True)
class Checked:
    """A plan that nothing known speaks against."""

    stream: RowId
    effects: tuple[Effect, ...]


class EarlyCheck:
    """Asks the rules of the content types before anything is accepted."""

    def __init__(self, catalog: Catalog, reader: Reader, streams: StreamPort, lanes: int) -> None:
        self._catalog = catalog
        self._reader = reader
        self._streams = streams
        self._lanes = lanes
        self._needs = {
            (kind.name, op): _needs(catalog, kind, op) for kind in catalog for op in get_args(Op)
        }

    async def check(
        self, plan: Plan, draft: Command, *, again: bool, view: View | None = None
    ) -> Checked:
        """Raises `ProblemError` 403, 404, 412, 422, or 503 if the stream cannot be told.

        `again`: the command may be in the log already, so its own effects prove nothing against it.
        `view`: what was read for this very plan a moment ago.
        """
        view = view if view is not None else await self.read(plan)
        known: _Known = {
            ref: shown.row if shown is not None else None for ref, shown in view.rows.items()
        }
        certain = view.freshness.whole
        effects = []
        for planned in plan.mutations:
            effect = self._effect(planned, known, draft, certain=certain)
            if certain and not again:  # what is missing in the overlay might allow it
                self._must_be_possible(effect, known, draft)
                self._must_be_allowed(effect, known, draft)
            m = planned.mutation
            if effect.before_known or effect.after is not None or m.op != "update":
                known[planned.kind.name, m.id] = effect.after
            effects.append(effect)
        stream, found = await self._stream(effects, known)
        if found:
            effects = [self._placed(effect, stream) for effect in effects]
        return Checked(stream, with_counts(effects))

    async def read(self, plan: Plan) -> View:
        """Everything that rules, existence and the stream depend on, as far as it can be read."""
        author, actor = plan.author.id, self._catalog.actor
        made = set(plan.ids)
        values = [
            p.kind.from_json(p.mutation.values, known_id) if p.mutation.op == "create" else p.known
            for p in plan.mutations
        ]
        at_once = all(self._of(p).at_once and p.mutation.id in made for p in plan.mutations)
        view = View()
        asked: set[RowRef] = set()
        for _ in range(1 if at_once else _MAX_ROUNDS):
            wanted: set[RowRef] = {(actor.name, author)}
            for planned, given in zip(plan.mutations, values, strict=True):
                self._want(planned, given, view, wanted, made)
            missing = [ref for ref in wanted - asked if ref[1] not in made]
            if not missing:
                break
            kinds = [(self._catalog[type_], row_id) for type_, row_id in missing]
            read = await self._reader.rows(author, kinds, READ_LIMIT_S, counted=False, cached=False)
            view = view.plus(read) if asked else read
            asked.update(missing)
            if not view.database_read:
                break
        return view

    def _of(self, planned: Planned) -> _Needs:
        return self._needs[planned.kind.name, planned.mutation.op]

    def _want(
        self,
        planned: Planned,
        given: Mapping[str, Any],
        view: View,
        wanted: set[RowRef],
        made: set[uuid.UUID],
    ) -> None:
        """Add what this mutation depends on, as far as it is known by now."""
        kind, m = planned.kind, planned.mutation
        ref, needs = (kind.name, m.id), self._of(planned)
        if m.op != "create" or kind.natural_key or m.id not in made:
            wanted.add(ref)
        shown = view.rows.get(ref)
        row = shown.row if shown is not None else given
        for column, type_ in needs.parents:
            if row.get(column) is not None:
                wanted.add((type_, row[column]))
        for step, type_ in needs.way:
            if row.get(step) is None:
                return
            above = (type_, row[step])
            wanted.add(above)
            shown = view.rows.get(above)
            if shown is None:
                return
            row = shown.row

    def _effect(self, planned: Planned, known: _Known, draft: Command, *, certain: bool) -> Effect:
        kind, m = planned.kind, planned.mutation
        ref = (kind.name, m.id)
        fresh = m.op == "create" and not kind.natural_key
        before = known.get(ref)
        before_known = fresh or (certain and ref in known)
        return Effect(planned, before, apply(kind, before, draft, m), before_known)

    def _must_be_possible(self, effect: Effect, known: _Known, draft: Command) -> None:
        planned, m = effect.planned, effect.planned.mutation
        if m.op == "create":
            if effect.before is not None and not planned.kind.natural_key:
                raise fail("id_taken", "A row with this id exists already.")
            self._parents_must_exist(effect, known, draft)
            return
        actors_own = planned.kind is self._catalog.actor and m.id == draft.author.id
        if effect.before is None and not actors_own:
            if effect.before_known:
                raise fail("not_found", "There is no such row.")
            return
        if effect.before is None:
            return
        if not readable(planned.kind, effect.before, draft.author.id):
            raise fail("not_found", "There is no such row.")
        if m.expected_version not in (None, effect.before["version"]):
            version = effect.before["version"]
            error = fail("version_conflict", "It has another version now.", current_version=version)
            raise ProblemError(error.problem, {"ETag": f'"v{version}"'})

    def _parents_must_exist(self, effect: Effect, known: _Known, draft: Command) -> None:
        planned, kind, row = effect.planned, effect.planned.kind, effect.after
        if effect.before is not None:  # what is there may refer to others than what was sent
            row = apply(kind, None, draft, planned.mutation)
        assert row is not None
        for column, _, type_ in kind.parents:
            ref = (type_, row[column])
            if ref not in known:
                continue
            parent = known[ref]
            if parent is not None and readable(self._catalog[type_], parent, draft.author.id):
                continue
            if column in planned.parents_in_path:
                raise fail("not_found", "There is no such row.")
            error = invalid("refers to a row that does not exist", f"{planned.at}/{column}")
            raise ProblemError(
                type(error.problem)(
                    "target_missing", "A row referred to does not exist.", error.problem.errors
                )
            )

    def _must_be_allowed(self, effect: Effect, known: _Known, draft: Command) -> None:
        planned = effect.planned
        kind, op = planned.kind, planned.mutation.op
        actor_ref = (self._catalog.actor.name, draft.author.id)
        actor = actor_facts(
            self._catalog, draft.author, known.get(actor_ref), known=actor_ref in known
        )
        row: Mapping[str, Any] | None = effect.after if op == "create" else effect.before
        if op != "create" and row is None and effect.before_known:
            row = effect.after  # the author's own row, which this command makes
        if row is None:
            row = planned.known or None
        if row is None:
            return  # could not be read: the writer decides
        parents: dict[str, Row | None] = {}
        for column, name, type_ in kind.parents:
            if row.get(column) is not None:
                if (type_, row[column]) in known:
                    parents[name] = known[type_, row[column]]
            elif column in row:
                parents[name] = None
        try:
            verdict = decide(kind, op, actor=actor, row=row, new=effect.after, parents=parents)
        except UnknownFact:
            return
        if verdict is not None:
            raise fail(verdict, "You may not do this.")

    async def _stream(self, effects: Iterable[Effect], known: _Known) -> tuple[RowId, bool]:
        """The stream that all mutations have in common, and whether it is known for certain.

        Raises `ProblemError`.
        """
        streams: dict[RowId, Effect] = {}
        open_: list[Effect] = []
        for effect in effects:
            stream = await self._stream_of(effect, known)
            if stream is not None:
                streams.setdefault(stream, effect)
            else:
                open_.append(effect)
        if len(streams) > 1:
            at = list(streams.values())[1].planned.at
            raise invalid(
                "belongs to another stream than the mutations before it; send it as a command of its own",
                at,
                "stream",
            )
        if streams:
            return next(iter(streams)), True
        if self._lanes > 1:
            raise fail("not_accepted", "It cannot be told now where this belongs; try again.")
        # One lane orders everything, whatever the stream is called; the writer finds out the rest.
        return open_[0].planned.mutation.id, False

    def _placed(self, effect: Effect, stream: RowId) -> Effect:
        """With the parent of a row that could not be read, where the stream is the parent.

        What is deleted then is taken out of the right list, and off the right counter.
        """
        path = effect.planned.kind.stream_path
        if effect.after or effect.before or effect.planned.known or len(path) != 1:
            return effect
        known = {path[0]: stream}
        return replace(effect, planned=replace(effect.planned, known=known))

    async def _stream_of(self, effect: Effect, known: _Known) -> RowId | None:
        kind, row_id = effect.planned.kind, effect.planned.mutation.id
        row: Mapping[str, Any] | None = (
            effect.after or effect.before or effect.planned.known or None
        )
        at_kind, at_id = kind, row_id
        for step in kind.stream_path:
            if row is None or row.get(step) is None:
                cached = await self._streams.get(at_id)
                return RowId(cached) if cached is not None else None
            at_kind, at_id = self._catalog.parent(at_kind, step), row[step]
            row = known.get((at_kind.name, at_id))
        return at_id


def _needs(catalog: Catalog, kind: Kind, op: Op) -> _Needs:
    rules = [kind.rules[op], *kind.field_rules.values()]
    parts = [name.split(".") for rule in rules if rule is not None for name in rule.names]
    in_rules = {part[1] for part in parts if part[0] == "parent"}
    parents = [
        (column, type_)
        for column, name, type_ in kind.parents
        if op == "create" or name in in_rules
    ]
    way, at = [], kind
    for step in kind.stream_path[:-1]:
        at = catalog.parent(at, step)
        way.append((step, at.name))
    at_once = op == "create" and not kind.natural_key and not way
    return _Needs(tuple(parents), tuple(way), at_once)
