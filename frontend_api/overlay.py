"""The pending overlay in Redis: put, confirm, share, withdraw and read, each one round trip."""

import functools
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Literal, Protocol

from frontend_api.merge import Entry
from frontend_api.overlay_payloads import Payloads
from frontend_api.overlay_scripts import COUNT, LOOK, NEWEST, READ
from frontend_api.redis_access import Call, RedisAccess
from schema.catalog import Catalog
from schema.commands import Command
from schema.identifiers import CommandId
from schema.overlay import (
    CONFIRM,
    LAY,
    PUT,
    RESTORE,
    WITHDRAW,
    EntryState,
    Status,
)
from schema.redis_keys import SHARED, RedisKeys, long_id, short_id
from schema.scopes import Scope, entry_of, prefix_of, shortened
from schema.structs import struct
from schema.telemetry import Log

_UUID_CHARS: Final = 36
_LOOKED_THROUGH: Final = 500
"""Up to how many index members are looked through for those of counters: about 0.1 ms in Redis."""

_REJECTED: Final = (
    EntryState.REJECTED
)  # looked up through the class, a member takes a tenth of a µs

_log = Log("frontend_api")

Place = tuple[int, int]
"""Where in the log a command is: its lane and offset."""


@dataclass(frozen=True)
class Index:
    """One index to read. A list is read from `from_` on, at most `limit` members and a bit."""

    key: str
    kind: Literal["row", "asc", "desc"]
    from_: str = ""
    limit: int = 0


class OverlayState(StrEnum):
    """Whether the overlay holds everything that is undecided."""

    COMPLETE = "complete"
    REBUILDING = "rebuilding"
    """Redis has lost its memory; it is being read again from the log. Something may be missing."""
    UNAVAILABLE = "unavailable"
    """Redis does not answer."""


class MarkerPort(Protocol):
    """Knows by a mark in Redis whether Redis still has its memory."""

    def question(self) -> Call:
        """Asked in the round trip of every read, after what is read."""
        ...

    def judge(self, answer: Any) -> OverlayState:
        """What the answer says of that read. Wakes whoever rebuilds what was lost."""
        ...


@dataclass(frozen=True)
class OverlayRead:
    """What one round trip returned. `members` follow the indexes asked for, in their order."""

    empty: bool = True
    state: OverlayState = OverlayState.COMPLETE
    members: Sequence[Sequence[str]] = ()
    entries: dict[uuid.UUID, Entry] = field(default_factory=dict)
    ends: Sequence[uuid.UUID | None] = ()
    """Of each index the last row id up to which it was read, None: to its end. It may lie behind
    its last member: what a reader shares with others is not repeated to him."""
    counters: frozenset[str] | None = None
    """The prefixes of all count indexes that have members; None if that was not looked at."""


@dataclass(frozen=True)
class Count:
    """`certain`: by column, what is added for sure; `open`: what depends on the ledger."""

    certain: Mapping[str, int] = field(default_factory=dict)
    open: Sequence[tuple[str, int, uuid.UUID, Status]] = ()


@struct(frozen=True)
class Laid:
    """A command that is known to be in the log, and where its entry goes.

    `place` is its lane and offset; None if another record of it may decide: then the ledger is
    asked for it on every read.
    """

    command: Command
    scopes: Sequence[Scope]
    place: Place | None = None
    owner: uuid.UUID | None = None
    """`SHARED` for what everyone may see; else its author's."""


class Overlay:
    """Every method raises `RedisUnavailable`.

    Without a `marker` the overlay is taken as complete, without a `catalog` nothing that others
    share is shown. `grace_s` is how long settled entries stay.
    """

    def __init__(
        self,
        redis: RedisAccess,
        keys: RedisKeys,
        marker: MarkerPort | None = None,
        *,
        catalog: Catalog | None = None,
        grace_s: float = 600,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._marker = marker
        kinds = catalog or ()
        self._public = {k.name for k in kinds if k.model.visible_while_pending == "everyone"}
        self._payloads = Payloads()
        self._lay_within_ms = int(grace_s * 1000 / 2)

    async def put(self, command: Command, scopes: Sequence[Scope]) -> None:
        """Lay the command over its author's view, unconfirmed. Repeating it changes nothing."""
        await self._redis.run(*self._adding(PUT, Laid(command, scopes)))

    async def confirm(self, command: Command, lane: int | None, offset: int | None) -> bool:
        """Kafka has it. Without an offset (it may be in the log twice) only the state changes.

        False if there is no entry: Redis has lost it since, and it must be laid again.
        """
        place = (lane, offset) if lane is not None and offset is not None else None
        return (await self.confirm_all([(command, place)]))[0]

    async def confirm_all(
        self, confirmed: Sequence[tuple[Command, Place | None]]
    ) -> Sequence[bool]:
        """The same of several, each atomic, in one round trip."""
        calls: list[Call] = [
            (
                CONFIRM,
                [self._keys.entries(command.author.id)],
                [short_id(command.command_id), *(place or ("", ""))],
            )
            for command, place in confirmed
        ]
        return [state is not None for state in await self._redis.run_all(calls)]

    async def lay(self, laid: Laid) -> bool:
        """Put and confirm at once; nothing changes where it was settled already.

        False half a grace after its acceptance: it may have been settled and swept. Only who knows
        what became of it may `restore` it then.
        """
        until_ms = int(laid.command.accepted_at.timestamp() * 1000) + self._lay_within_ms
        return await self._redis.run(*self._laying(laid, until_ms)) is not None

    def restoring(self, laid: Laid, state: EntryState, *, anew: bool) -> Call:
        """To lay a command of any age again, after Redis lost its memory, as it is in the log.

        The caller sees to it that it is less than the grace since he knew what became of it. With
        `anew` the index members of an entry that is there already are made again.
        """
        place = laid.place or ("", "")
        return self._adding(RESTORE, laid, state.value, *place, "1" if anew else "0")

    async def withdraw(self, command: Command) -> None:
        """It never reached Kafka: take it back, unless it was confirmed after all."""
        await self.forget(command.author.id, command.command_id)

    async def forget(self, author: uuid.UUID, command: uuid.UUID) -> None:
        """Drop an entry that never reached the log, unless it was confirmed after all."""
        await self._redis.run(*self.forgetting(author, command))

    def forgetting(self, author: uuid.UUID, command: uuid.UUID) -> Call:
        """To drop an entry, unless it was confirmed."""
        return WITHDRAW, self._overlay_keys(author), [short_id(command)]

    async def read(
        self,
        author: uuid.UUID,
        indexes: Sequence[Index],
        shared: Sequence[Index] = (),
        *,
        counters: bool = False,
    ) -> OverlayRead:
        """The author's entries in these indexes, and those of others in the shared ones.

        Rejected ones are left out. The members are those of his own indexes, then the shared ones.
        With `counters` it is looked at as well which counters there may be something to add to.
        """
        most = _LOOKED_THROUGH if counters else 0
        calls = [self._reading(author, indexes, most)]
        if shared or (counters and self._public):
            calls.append(self._reading(SHARED, shared, most))
        *found, state = await self._ask(calls)
        own_entries, own_members = self._entries(author, author, found[0], len(indexes))
        ends = [_end(i, m) for i, m in zip(indexes, own_members, strict=True)]
        counted = _counters(found) if counters else None
        if not shared:
            empty = len(found[0]) == 1
            return OverlayRead(empty, state, own_members, own_entries, ends, counted)
        entries, members = self._entries(SHARED, author, found[1], len(shared))
        ends += [_end(i, m) for i, m in zip(shared, members, strict=True)]
        others = [[m for m in some if uuid.UUID(m[-_UUID_CHARS:]) in entries] for some in members]
        return OverlayRead(
            empty=len(found[0]) == 1 and not entries,
            state=state,
            members=[*own_members, *others],
            entries={**entries, **own_entries},
            ends=ends,
            counters=counted,
        )

    async def counts(
        self,
        author: uuid.UUID,
        keys: Sequence[str],
        positions: Mapping[int, int],
        shared: Sequence[str] = (),
    ) -> tuple[list[Count], OverlayState]:
        """What commands add to counters: one `Count` for each key of the author's count indexes.

        `shared` are the same counters' keys of the shared overlay, in the same order: what others
        add. The reader's own commands count once.
        """
        places: list[Any] = [part for place in positions.items() for part in place]
        calls: list[Call] = []
        for owner, some in ((author, keys), (SHARED, shared)):
            if some or owner == author:
                prefixes = [prefix_of(self._keys, owner, key) for key in some]
                args = ["" if owner == author else short_id(author), len(some), *prefixes, *places]
                calls.append((COUNT, self._overlay_keys(owner), args))
        own, *others, state = await self._ask(calls)
        counts = [_count(sums, open_) for sums, open_ in own]
        if not others:
            return counts, state
        more = [_count(sums, open_) for sums, open_ in others[0]]
        return [_sum(one, other) for one, other in zip(counts, more, strict=True)], state

    async def look(
        self, author: uuid.UUID, command_id: CommandId
    ) -> tuple[Entry | None, OverlayState]:
        """One command of the author, whatever its state."""
        call: Call = (LOOK, [self._keys.entries(author)], [short_id(command_id)])
        (status, payload), state = await self._ask([call])
        if not status or not payload:
            return None, state
        return self._entry(author, short_id(command_id), status, payload), state

    async def newest(
        self, author: uuid.UUID, limit: int, before: CommandId | None = None
    ) -> tuple[list[Entry], OverlayState]:
        """The author's newest commands by id, older than `before`, whatever their state.

        Takes about a microsecond for each pending command of the author inside Redis.
        """
        args = [limit, short_id(before) if before is not None else ""]
        flat, state = await self._ask([(NEWEST, [self._keys.entries(author)], args)])
        found = [self._entry(author, i, s, p) for i, s, p in _triples(flat)]
        return [entry for entry in found if entry is not None], state

    async def _ask(self, calls: Sequence[Call]) -> list[Any]:
        """The answers, and last of all what the marker says of them."""
        if self._marker is None:
            return [*await self._run(calls), OverlayState.COMPLETE]
        *found, answer = await self._run([*calls, self._marker.question()])
        return [*found, self._marker.judge(answer)]

    async def _run(self, calls: Sequence[Call]) -> list[Any]:
        if len(calls) == 1:
            return [await self._redis.run(*calls[0])]
        return await self._redis.run_all(calls)

    def _laying(self, laid: Laid, until_ms: int) -> Call:
        place = laid.place or ("", "")
        return self._adding(LAY, laid, *place, until_ms)

    def _adding(self, script: str, laid: Laid, *args: object) -> Call:
        command, owner = laid.command, laid.owner or laid.command.author.id
        payload, members = entry_of(self._keys, command, laid.scopes, owner)
        return (
            script,
            self._overlay_keys(owner),
            [short_id(command.command_id), payload, *args, *members],
        )

    def _overlay_keys(self, owner: uuid.UUID) -> list[str]:
        return [self._keys.entries(owner), self._keys.index(owner)]

    def _reading(self, owner: uuid.UUID, indexes: Sequence[Index], most: int) -> Call:
        args: list[Any] = [most]
        for index in indexes:
            prefix = prefix_of(self._keys, owner, index.key)
            args += [prefix, index.kind, shortened(index.from_), index.limit]
        return READ, self._overlay_keys(owner), args

    def _entries(
        self, owner: uuid.UUID, reader: uuid.UUID, found: Sequence[Any], indexes: int
    ) -> tuple[dict[uuid.UUID, Entry], Sequence[Sequence[str]]]:
        """The entries to be shown, by command, and the members of each index."""
        if len(found) == 1:
            return {}, [() for _ in range(indexes)]
        entries: dict[uuid.UUID, Entry] = {}
        for id_, status, payload in _triples(found[2]):
            entry = self._entry(owner, id_, status, payload)
            if entry is None or entry.status.state is _REJECTED:
                continue
            if entry.own or not _by(entry, reader):
                entries[entry.command.command_id] = entry
        return entries, [[_lengthened(member) for member in members] for members in found[1]]

    def _belongs(self, command: Command, owner: uuid.UUID) -> bool:
        """Whether it may be in this overlay: its author's own, or that of what everyone may see."""
        if owner != SHARED:
            return command.author.id == owner
        return all(m.type in self._public for m in command.mutations)

    def _entry(self, owner: uuid.UUID, id_: str, status: str, payload: str) -> Entry | None:
        """The entry, if it is what was asked for: what belongs to another is never shown."""
        try:
            decoded = self._payloads.get(payload)
            place = owner, id_, status
            if decoded.place == place:
                known: Entry = decoded.entry
                return known
            command = decoded.command
            entry = Entry(command, Status.parse(status), owner != SHARED)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            _log.error("unexpected_error", what="overlay entry", error=type(error).__name__)
            return None
        if short_id(command.command_id) != id_ or not self._belongs(command, owner):
            _log.error(
                "unexpected_error", what="overlay entry of another", command=str(long_id(id_))
            )
            return None
        decoded.place, decoded.entry = place, entry
        return entry


def _by(entry: Entry, author: uuid.UUID) -> bool:
    return entry.command.author.id == author


def _triples(flat: Sequence[Any]) -> Iterable[tuple[str, str, str]]:
    return ((flat[at], flat[at + 1], flat[at + 2]) for at in range(0, len(flat), 3))


def _counters(found: Sequence[Sequence[Any]]) -> frozenset[str] | None:
    """What was found in one or two overlays; None if one of them has too much to look through."""
    if any(1 < len(one) < 4 for one in found):
        return None
    return frozenset(prefix for one in found if len(one) > 1 for prefix in one[3])


def _end(index: Index, members: Sequence[str]) -> uuid.UUID | None:
    if index.kind == "row" or len(members) < index.limit:
        return None
    return uuid.UUID(members[-1][:_UUID_CHARS])


def _count(sums: Sequence[Any], open_: Sequence[str]) -> Count:
    certain = {sums[at]: int(sums[at + 1]) for at in range(0, len(sums), 2)}
    rest = []
    for at in range(0, len(open_), 2):
        column, delta, *_, command = open_[at].split(":")
        rest.append((column, int(delta), long_id(command), Status.parse(open_[at + 1])))
    return Count(certain, rest)


def _sum(one: Count, other: Count) -> Count:
    certain = dict(one.certain)
    for column, added in other.certain.items():
        certain[column] = certain.get(column, 0) + added
    return Count(certain, [*one.open, *other.open])


@functools.lru_cache(maxsize=16_384)
def _lengthened(member: str) -> str:
    """A member of a row's or a list's index with its ids as everywhere else."""
    return ":".join(str(long_id(part)) for part in member.split(":"))
