"""The early check: refuse at once what the writer would refuse, as far as can be read in time.

What cannot be read is left to the writer, which decides in any case.
"""

import functools
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from frontend_api.merge import Shown, apply
from frontend_api.overlay_rows import RowRef, readable
from frontend_api.planning import Effect, Plan, Planned, with_counts
from frontend_api.problems import ProblemError, fail, invalid
from frontend_api.reading import Reader
from frontend_api.seen import View
from schema.catalog import Catalog
from schema.commands import Command
from schema.content import Kind, Row
from schema.facts import actor_facts, decide
from schema.identifiers import RowId
from schema.rules import UnknownFact

READ_LIMIT_S: Final = 0.25
"""Longest time that accepting waits for PostgreSQL, all questions together."""
_MAX_ROUNDS: Final = 4


class StreamPort(Protocol):
    """Streams of rows that were seen lately."""

    async def get(self, row_id: uuid.UUID) -> uuid.UUID | None: ...


@dataclass
class _Known:
    """The author's view, with the effects of the mutations checked so far laid over it."""

    view: View
    changed: dict[RowRef, Row | None] = field(default_factory=dict)

    def __contains__(self, ref: RowRef) -> bool:
        return ref in self.changed or ref in self.view

    def row(self, type_: str, row_id: uuid.UUID) -> Row | None:
        if (type_, row_id) in self.changed:
            return self.changed[type_, row_id]
        shown: Shown | None = self.view.get(type_, row_id)
        return shown.row if shown is not None else None


@dataclass(frozen=True)
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

    async def check(
        self, plan: Plan, draft: Command, *, again: bool, view: View | None = None
    ) -> Checked:
        """Raises `ProblemError` 403, 404, 412, 422, or 503 if the stream cannot be told.

        `again`: the command may be in the log already, so its own effects prove nothing against it.
        `view`: what was read for this very plan a moment ago.
        """
        view = view if view is not None else await self.read(plan)
        known, certain = _Known(view), view.freshness.whole
        effects = []
        for planned in plan.mutations:
            effect = self._effect(planned, known, draft, certain=certain)
            if certain and not again:  # what is missing in the overlay might allow it
                self._must_be_possible(effect, known, draft)
                self._must_be_allowed(effect, known, draft)
            known.changed[planned.kind.name, planned.mutation.id] = effect.after
            if not effect.before_known and effect.after is None and planned.mutation.op == "update":
                del known.changed[planned.kind.name, planned.mutation.id]
            effects.append(effect)
        stream, found = await self._stream(effects, known)
        if found:
            effects = [self._placed(effect, stream) for effect in effects]
        return Checked(stream, with_counts(self._catalog, effects))

    async def read(self, plan: Plan) -> View:
        """Everything that rules, existence and the stream depend on, as far as it can be read."""
        view = View()
        author, actor = plan.author.id, self._catalog.actor
        made = {p.mutation.id for p in plan.mutations if p.mutation.id in plan.ids}
        asked: set[RowRef] = set()
        values = [
            p.kind.from_json(p.mutation.values) if p.mutation.op == "create" else p.known
            for p in plan.mutations
        ]
        for _ in range(_MAX_ROUNDS):
            wanted = {(actor.name, author), *self._wanted(plan, values, view)}
            missing = [ref for ref in wanted - asked if ref[1] not in made]
            if not missing:
                break
            asked |= set(missing)
            kinds = [(self._catalog[type_], row_id) for type_, row_id in missing]
            read = await self._reader.rows(author, kinds, READ_LIMIT_S, counted=False, cached=False)
            view = view.plus(read)
            if not view.database_read:
                break
        return view

    def _wanted(
        self, plan: Plan, values: Sequence[Mapping[str, Any]], view: View
    ) -> Iterator[RowRef]:
        for planned, given in zip(plan.mutations, values, strict=True):
            kind, m = planned.kind, planned.mutation
            if m.op != "create" or kind.model.natural_key or m.id not in plan.ids:
                yield kind.name, m.id
            shown = view.get(kind.name, m.id)
            yield from self._parents(kind, m.op, shown.row if shown else given, view)

    def _parents(self, kind: Kind, op: str, row: Mapping[str, Any], view: View) -> Iterator[RowRef]:
        """The rows behind references that this operation depends on."""
        names = _parents_in_rules(kind, op)
        for name, type_, row_id in kind.parents_of(row):
            if op == "create" or name in names:
                yield type_, row_id
        at: Mapping[str, Any] | None = row
        for step in self._catalog.stream_path(kind)[:-1]:
            if at is None or at.get(step) is None:
                return
            kind = self._catalog.parent(kind, step)
            yield kind.name, at[step]
            shown = view.get(kind.name, at[step])
            at = shown.row if shown is not None else None

    def _effect(self, planned: Planned, known: _Known, draft: Command, *, certain: bool) -> Effect:
        kind, m = planned.kind, planned.mutation
        ref = (kind.name, m.id)
        fresh = m.op == "create" and not kind.model.natural_key
        before = known.row(*ref)
        before_known = fresh or (certain and ref in known)
        return Effect(planned, before, apply(kind, before, draft, m), before_known)

    def _must_be_possible(self, effect: Effect, known: _Known, draft: Command) -> None:
        planned, m = effect.planned, effect.planned.mutation
        if m.op == "create":
            if effect.before is not None and not planned.kind.model.natural_key:
                raise fail("id_taken", "A row with this id exists already.")
            self._parents_must_exist(planned, known, draft)
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

    def _parents_must_exist(self, planned: Planned, known: _Known, draft: Command) -> None:
        kind = planned.kind
        row = apply(kind, None, draft, planned.mutation) or {}
        for f in kind.refs:
            if f.ref is None or row.get(f.name) is None or (f.ref.type, row[f.name]) not in known:
                continue
            parent = known.row(f.ref.type, row[f.name])
            if parent is not None and readable(self._catalog[f.ref.type], parent, draft.author.id):
                continue
            if f.name in planned.parents_in_path:
                raise fail("not_found", "There is no such row.")
            error = invalid("refers to a row that does not exist", f"{planned.at}/{f.name}")
            raise ProblemError(
                type(error.problem)(
                    "target_missing", "A row referred to does not exist.", error.problem.errors
                )
            )

    def _must_be_allowed(self, effect: Effect, known: _Known, draft: Command) -> None:
        planned = effect.planned
        kind, op = planned.kind, planned.mutation.op
        actor_ref = (self._catalog.actor.name, uuid.UUID(str(draft.author.id)))
        actor = actor_facts(
            self._catalog, draft.author, known.row(*actor_ref), known=actor_ref in known
        )
        row: Mapping[str, Any] | None = effect.after if op == "create" else effect.before
        if op != "create" and row is None and effect.before_known:
            row = effect.after  # the author's own row, which this command makes
        if row is None:
            row = planned.known or None
        if row is None:
            return  # could not be read: the writer decides
        parents = {
            f.parent_name: known.row(f.ref.type, row[f.name]) if row.get(f.name) else None
            for f in kind.refs
            if f.ref is not None
            and f.name in row
            and (row[f.name] is None or (f.ref.type, row[f.name]) in known)
        }
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
        path = self._catalog.stream_path(effect.planned.kind)
        if effect.after or effect.before or effect.planned.known or len(path) != 1:
            return effect
        known = {path[0]: uuid.UUID(str(stream))}
        return replace(effect, planned=replace(effect.planned, known=known))

    async def _stream_of(self, effect: Effect, known: _Known) -> RowId | None:
        kind, row_id = effect.planned.kind, effect.planned.mutation.id
        path = self._catalog.stream_path(kind)
        if not path:
            return row_id
        row: Mapping[str, Any] | None = (
            effect.after or effect.before or effect.planned.known or None
        )
        at_kind, at_id = kind, uuid.UUID(str(row_id))
        for step in path:
            if row is None or row.get(step) is None:
                cached = await self._streams.get(at_id)
                return RowId(cached) if cached is not None else None
            at_kind, at_id = self._catalog.parent(at_kind, step), row[step]
            row = known.row(at_kind.name, at_id)
        return RowId(at_id)


@functools.lru_cache(maxsize=1024)
def _parents_in_rules(kind: Kind, op: str) -> frozenset[str]:
    """The references whose rows the rules of this operation read."""
    rules = [kind.rules[op], *kind.field_rules.values()]
    parts = [name.split(".") for rule in rules if rule is not None for name in rule.names]
    return frozenset(part[1] for part in parts if part[0] == "parent")
