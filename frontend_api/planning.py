"""From checked input to mutations with their ids, and to the index members that show them."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from typing import Any

from frontend_api.ids import quick
from schema.catalog import Catalog
from schema.commands import Author, Command, Mutation
from schema.content import Kind, Row
from schema.identifiers import RowId, new_command_id, new_row_id
from schema.redis_keys import SHARED, RedisKeys
from schema.scopes import Scope, Touch, scopes_of_touches
from schema.structs import struct


@struct(frozen=True)
class Planned:
    """One mutation to be. `at` is its place in the body (a JSON Pointer), for problems.

    `known` are values that the address says of a row which need not have been read.
    """

    kind: Kind
    mutation: Mutation
    at: str = ""
    known: Mapping[str, Any] = field(default_factory=dict)
    parents_in_path: frozenset[str] = frozenset()


@struct(frozen=True)
class Plan:
    """What a request asks for. `ids` are those made for it: the command's, then those of new rows."""

    author: Author
    mutations: tuple[Planned, ...]
    ids: tuple[uuid.UUID, ...]
    key: str | None = None
    fingerprint: str | None = None

    def with_ids(self, ids: Sequence[uuid.UUID]) -> "Plan":
        """The same plan with the ids that an earlier request with the same key was given."""
        if ids == self.ids:
            return self
        chosen = {str(p.mutation.id) for p in self.mutations} - {str(i) for i in self.ids}
        ids = [i for i in ids if str(i) not in chosen]  # a restored claim has the client's, too
        if tuple(ids) == self.ids or len(ids) != len(self.ids):
            return self
        names = {str(ours): str(theirs) for ours, theirs in zip(self.ids, ids, strict=True)}

        def renamed(planned: Planned) -> Planned:
            m = planned.mutation
            values = {
                name: names.get(value, value) if isinstance(value, str) else value
                for name, value in m.values.items()
            }
            row_id = RowId(uuid.UUID(names.get(str(m.id), str(m.id))))
            return replace(planned, mutation=replace(m, id=row_id, values=values))

        return replace(self, mutations=tuple(map(renamed, self.mutations)), ids=tuple(ids))

    @property
    def command_id(self) -> uuid.UUID:
        return self.ids[0]

    @property
    def only_new(self) -> bool:
        """Whether it is about rows whose ids were made for it, and about no others."""
        return all(planned.mutation.id in self.ids for planned in self.mutations)


class Planner:
    """Collects the mutations of one request and the ids made for it."""

    def __init__(self, catalog: Catalog, author: Author) -> None:
        self._catalog = catalog
        self._author = author
        self._ids: list[uuid.UUID] = [quick(new_command_id())]
        self._mutations: list[Planned] = []

    def __len__(self) -> int:
        return len(self._mutations)

    def create(
        self,
        kind: Kind,
        values: Mapping[str, Any],
        *,
        row_id: uuid.UUID | None = None,
        at: str = "",
        parents_in_path: frozenset[str] = frozenset(),
    ) -> RowId:
        """A new row, and with it the one that opens it. `row_id`: the one the client chose."""
        given, opening = split_opening(kind, values)
        if kind.model.natural_key:
            row_id = kind.natural_id({**given, **self._authored(kind)})
        elif row_id is None:
            row_id = quick(new_row_id())
            self._ids.append(row_id)
        mutation = Mutation("create", kind.name, RowId(row_id), given)
        self._mutations.append(Planned(kind, mutation, at, parents_in_path=parents_in_path))
        opens = kind.model.opens_with
        if opens is not None and opening:
            self.create(self._catalog[opens.type], {opens.by: str(row_id), **opening}, at=at)
        return RowId(row_id)

    def change(
        self,
        kind: Kind,
        row_id: uuid.UUID,
        values: Mapping[str, Any],
        expected_version: int | None,
        at: str = "",
    ) -> None:
        mutation = Mutation("update", kind.name, RowId(row_id), values, expected_version)
        self._mutations.append(Planned(kind, mutation, at))

    def put(self, kind: Kind, values: Mapping[str, Any]) -> RowId:
        """The author's only row of this kind, with these values whether he had one or not.

        What is there already is not created again; so it is changed as well, and nobody need look.
        """
        to_say = {f.name: f.to_json(f.default) for f in kind.fields.values() if f.changeable}
        row_id = self.create(kind, values)
        self.change(kind, row_id, to_say | dict(values), None)
        return row_id

    def delete(
        self,
        kind: Kind,
        row_id: uuid.UUID,
        expected_version: int | None,
        at: str = "",
        known: Mapping[str, Any] | None = None,
    ) -> None:
        mutation = Mutation("delete", kind.name, RowId(row_id), {}, expected_version)
        self._mutations.append(Planned(kind, mutation, at, known or {}))

    def plan(self, key: str | None, fingerprint: str) -> Plan:
        return Plan(
            self._author,
            tuple(self._mutations),
            tuple(self._ids),
            key,
            fingerprint if key else None,
        )

    def _authored(self, kind: Kind) -> dict[str, Any]:
        return {kind.author_field: str(self._author.id)} if kind.author_field else {}


def split_opening(kind: Kind, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values of the row itself, and those of the row that opens it."""
    opens = kind.model.opens_with
    if opens is None:
        return dict(values), {}
    names = set(opens.fields) - set(kind.fields)
    own = {name: value for name, value in values.items() if name not in names}
    return own, {name: value for name, value in values.items() if name in names}


@struct(frozen=True)
class Effect:
    """One mutation with its row before and after, as far as it is known.

    `before` is None if the row was not there, `before_known` says whether that is certain.
    """

    planned: Planned
    before: Row | None
    after: Row | None
    before_known: bool


def with_counts(effects: Sequence[Effect]) -> tuple[Effect, ...]:
    """The effects with the counters of rows of this very command as its other mutations leave them."""
    added: dict[tuple[str, uuid.UUID], dict[str, int]] = {}
    here = {effect.planned.mutation.id for effect in effects}
    for effect in effects:
        row = effect.after or effect.before
        by = (effect.after is not None) - (effect.before is not None)
        if row is None or by == 0:
            continue
        for parent, ref, column in effect.planned.kind.counted:
            if row[ref] in here:
                counted = added.setdefault((parent.name, row[ref]), {})
                counted[column] = counted.get(column, 0) + by
    if not added:
        return tuple(effects)
    return tuple(
        replace(effect, after=effect.after | {c: effect.after[c] + n for c, n in more.items()})
        if effect.after is not None
        and (more := added.get((effect.planned.kind.name, effect.after["id"])))
        and all(c in effect.after for c in more)
        else effect
        for effect in effects
    )


def public_part(catalog: Catalog, command: Command) -> Command | None:
    """What everyone may see of a command while it is pending; None if there is nothing.

    Only the changes of such content types, and nothing that is between its author and us.
    """
    mutations = tuple(
        replace(m, expected_version=None)
        for m in command.mutations
        if catalog[m.type].model.visible_while_pending == "everyone"
    )
    if not mutations:
        return None
    return Command(
        command_id=command.command_id,
        stream=command.stream,
        author=replace(command.author, roles=(), email=None, locale=None),
        accepted_at=command.accepted_at,
        mutations=mutations,
    )


def shared_scopes_of(
    catalog: Catalog, keys: RedisKeys, command: Command, effects: Sequence[Effect]
) -> list[Scope]:
    """Every index member under which others are to find the public part of a command."""
    public = [e for e in effects if e.planned.kind.model.visible_while_pending == "everyone"]
    return scopes_of(catalog, keys, command, public, owner=SHARED)


def scopes_of(
    catalog: Catalog,
    keys: RedisKeys,
    command: Command,
    effects: Sequence[Effect],
    *,
    owner: uuid.UUID | None = None,
) -> list[Scope]:
    """Every index member under which the command is to be found, each once.

    `owner` is whose overlay it is for: its author's if nobody else's.
    """
    touches = [
        Touch(
            effect.planned.kind,
            effect.planned.mutation.id,
            effect.after or effect.before or effect.planned.known,
            _delta(effect),
        )
        for effect in effects
    ]
    return scopes_of_touches(catalog, keys, command, touches, owner)


def _delta(effect: Effect) -> int:
    """What this mutation adds to the number of rows."""
    existed = effect.before is not None
    match effect.planned.mutation.op:
        case "create":
            return 0 if existed else 1
        case "delete":
            return -1 if existed or not effect.before_known else 0
        case _:
            return 0
