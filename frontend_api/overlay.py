"""The author's pending overlay in Redis: put, confirm, withdraw and read, each one round trip."""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Literal

from frontend_api.merge import Entry
from frontend_api.redis_access import RedisAccess
from schema.commands import Command
from schema.identifiers import CommandId
from schema.overlay import CONFIRM, PUT, WITHDRAW, EntryState, Status
from schema.redis_keys import RedisKeys
from schema.telemetry import Log

_log = Log("frontend_api")

_READ: Final = """
-- KEYS: entries, index…   ARGV: for each index: kind (row, asc, desc), from, limit
-- Returns: number of fields, members of each index, then id, state, payload of each entry found.
-- Of a list it returns `limit` members from `from` on, and the rest of the last row among them, so
-- that what it returns is complete up to that row.
local total = redis.call('HLEN', KEYS[1])
if total == 0 then return {0} end
local members, entries, seen = {}, {}, {}
local function take(id)
    if seen[id] then return end
    seen[id] = true
    local found = redis.call('HMGET', KEYS[1], id .. ':s', id)
    if found[1] then
        entries[#entries + 1] = id
        entries[#entries + 1] = found[1]
        entries[#entries + 1] = found[2]
    end
end
for i = 2, #KEYS do
    local at = (i - 2) * 3
    local kind, from, limit = ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3])
    local found, rest = nil, {}
    if kind == 'row' then
        found = redis.call('ZRANGE', KEYS[i], 0, -1)
    else
        local range = kind == 'asc' and 'ZRANGEBYLEX' or 'ZREVRANGEBYLEX'
        found = redis.call(range, KEYS[i], from, kind == 'asc' and '+' or '-', 'LIMIT', 0, limit)
        local last = found[#found]
        if #found == limit then
            local row = string.sub(last, 1, 36)
            local to = kind == 'asc' and '(' .. row .. ';' or '[' .. row .. ':'
            rest = redis.call(range, KEYS[i], '(' .. last, to)
        end
    end
    for _, member in ipairs(rest) do found[#found + 1] = member end
    members[#members + 1] = found
    for _, member in ipairs(found) do take(string.sub(member, -36)) end
end
return {total, members, entries}
"""

_COUNT: Final = """
-- KEYS: entries, count index…   ARGV: lane, position, lane, position, …
-- Returns for each index what the author's commands add: a sum over those at or behind the position
-- of their lane, which are certainly undecided, and the members and states of all others.
local positions = {}
for i = 1, #ARGV, 2 do positions[ARGV[i]] = tonumber(ARGV[i + 1]) end
local answer = {}
for i = 2, #KEYS do
    local sums, open = {}, {}
    local members = redis.call('ZRANGE', KEYS[i], 0, -1)
    for from = 1, #members, 500 do
        local fields = {}
        for j = from, math.min(from + 499, #members) do
            fields[#fields + 1] = string.sub(members[j], -36) .. ':s'
        end
        local states = redis.call('HMGET', KEYS[1], unpack(fields))
        for j, state in ipairs(states) do
            local member = members[from + j - 1]
            if state then
                local name, lane, offset = string.match(state, '^(%a+)|%d+|(%d*)|(%d*)$')
                local column, delta = string.match(member, '^([^:]+):(-?%d+):')
                local ahead = positions[lane] and offset ~= '' and tonumber(offset) >= positions[lane]
                if name == 'rejected' then
                elseif ahead then
                    sums[column] = (sums[column] or 0) + tonumber(delta)
                else
                    open[#open + 1] = member
                    open[#open + 1] = state
                end
            end
        end
    end
    local flat = {}
    for column, sum in pairs(sums) do
        flat[#flat + 1] = column
        flat[#flat + 1] = sum
    end
    answer[#answer + 1] = {flat, open}
end
return answer
"""

_LOOK: Final = """
-- KEYS: entries   ARGV: id. State and payload of one entry.
return redis.call('HMGET', KEYS[1], ARGV[1] .. ':s', ARGV[1])
"""


_FORGET: Final = """
-- KEYS: entries   ARGV: id. It never reached the log: gone, if it is unconfirmed still.
local state = redis.call('HGET', KEYS[1], ARGV[1] .. ':s')
if not state or string.sub(state, 1, 11) ~= 'unconfirmed' then return 0 end
local payload = cjson.decode(redis.call('HGET', KEYS[1], ARGV[1]))
for _, scope in ipairs(payload['scopes']) do redis.call('ZREM', scope[1], scope[2]) end
redis.call('HDEL', KEYS[1], ARGV[1], ARGV[1] .. ':s')
return 1
"""


@dataclass(frozen=True)
class Scope:
    """One index member of a command: under which key it is found."""

    key: str
    member: str
    by_row_id: bool = False
    """List indexes are ordered by row id, the others by acceptance."""


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


@dataclass(frozen=True)
class OverlayRead:
    """What one round trip returned. `members` follow the indexes asked for, in their order."""

    empty: bool = True
    state: OverlayState = OverlayState.COMPLETE
    members: Sequence[Sequence[str]] = ()
    entries: dict[uuid.UUID, Entry] = field(default_factory=dict)


@dataclass(frozen=True)
class Count:
    """`certain`: by column, what is added for sure; `open`: what depends on the ledger."""

    certain: Mapping[str, int] = field(default_factory=dict)
    open: Sequence[tuple[str, int, uuid.UUID, Status]] = ()


class Overlay:
    """Every method raises `RedisUnavailable`."""

    def __init__(self, redis: RedisAccess, keys: RedisKeys) -> None:
        self._redis = redis
        self._keys = keys

    async def put(self, command: Command, scopes: Sequence[Scope]) -> None:
        """Lay the command over its author's view, unconfirmed. Repeating it changes nothing."""
        payload = {
            "command": command.to_json(),
            "scopes": [[scope.key, scope.member] for scope in scopes],
        }
        author = command.author.id
        args: list[Any] = [str(command.command_id), _dumps(payload), 0]
        for scope in scopes:
            args += ["zero" if scope.by_row_id else "order", scope.member]
        keys = [self._keys.entries(author), self._keys.sequence(author), *(s.key for s in scopes)]
        await self._redis.run(PUT, keys, args)

    async def confirm(self, command: Command, lane: int | None, offset: int | None) -> None:
        """Kafka has it. Without an offset (it may be in the log twice) only the state changes."""
        place = ["" if value is None else value for value in (lane, offset)]
        entries = self._keys.entries(command.author.id)
        await self._redis.run(CONFIRM, [entries], [str(command.command_id), *place])

    async def withdraw(self, command: Command, scopes: Sequence[Scope]) -> None:
        """It never reached Kafka: take it back, unless it was confirmed after all."""
        keys = [self._keys.entries(command.author.id), *(scope.key for scope in scopes)]
        await self._redis.run(
            WITHDRAW, keys, [str(command.command_id), *(scope.member for scope in scopes)]
        )

    async def read(self, author: uuid.UUID, indexes: Sequence[Index]) -> OverlayRead:
        """The author's entries in these indexes. Rejected ones are left out."""
        args: list[Any] = []
        for index in indexes:
            args += [index.kind, index.from_, index.limit]
        keys = [self._keys.entries(author), *(index.key for index in indexes)]
        found = await self._redis.run(_READ, keys, args)
        if len(found) == 1:
            return OverlayRead(members=[() for _ in indexes])
        entries: dict[uuid.UUID, Entry] = {}
        flat = found[2]
        for at in range(0, len(flat), 3):
            status = Status.parse(flat[at + 1])
            if status.state is EntryState.REJECTED:
                continue
            command_id = uuid.UUID(flat[at])
            entry = _entry(author, command_id, status, flat[at + 2])
            if entry is not None:
                entries[command_id] = entry
        return OverlayRead(False, members=found[1], entries=entries)

    async def counts(
        self, author: uuid.UUID, keys: Sequence[str], positions: Mapping[int, int]
    ) -> list[Count]:
        """What the author's commands add to counters, one `Count` for each count index."""
        args: list[int] = []
        for lane, position in positions.items():
            args += [lane, position]
        found = await self._redis.run(_COUNT, [self._keys.entries(author), *keys], args)
        return [_count(sums, open_) for sums, open_ in found]

    async def forget(self, author: uuid.UUID, command: uuid.UUID) -> None:
        """Drop an entry that never reached the log, unless it was confirmed after all."""
        await self._redis.run(_FORGET, [self._keys.entries(author)], [str(command)])

    async def look(self, author: uuid.UUID, command_id: CommandId) -> Entry | None:
        """One command of the author, whatever its state."""
        state, payload = await self._redis.run(
            _LOOK, [self._keys.entries(author)], [str(command_id)]
        )
        if not state or not payload:
            return None
        return _entry(author, command_id, Status.parse(state), payload)


def _entry(author: uuid.UUID, command_id: uuid.UUID, status: Status, text: str) -> Entry | None:
    """The entry, if it is what was asked for: a reply that belongs to another is never shown."""
    try:
        command = Command.from_json(json.loads(text)["command"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        _log.error("unexpected_error", what="overlay entry", error=type(error).__name__)
        return None
    if command.author.id != author or command.command_id != command_id:
        _log.error("unexpected_error", what="overlay entry of another", command=str(command_id))
        return None
    return Entry(command, status)


def _count(sums: Sequence[Any], open_: Sequence[str]) -> Count:
    certain = {sums[at]: int(sums[at + 1]) for at in range(0, len(sums), 2)}
    rest = []
    for at in range(0, len(open_), 2):
        column, delta, command = open_[at].split(":")
        rest.append((column, int(delta), uuid.UUID(command), Status.parse(open_[at + 1])))
    return Count(certain, rest)


def _dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
