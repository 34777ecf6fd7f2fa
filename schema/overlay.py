"""The pending overlay in Redis: its layout, its states, and the scripts that change it.

An overlay lives under one hash tag: its author's, or for what everyone may see while it is pending,
`SHARED`. Of each command it holds two fields of one hash: the payload, written once, and the state, a
short string that outcomes change. Three kinds of index lead to it, each a sorted set:

    row:TYPE:ID     member `command id`                  score: order of acceptance
    list:NAME:OF    member `row id:command id`           score: 0, so in the order of row ids
    count:TYPE:ID   member `column:delta:command id`     score: order of acceptance

A count member of the shared overlay has its author before the command id, `column:delta:author:command
id`, so that a reader's own commands can be told from those of others without looking at them.

The payload is two lines of JSON. The first lists the index members of this command, so that they can
be removed without asking anybody: `[key, member, key, member, …]`, of each key what follows the part
that all keys of an overlay have in common, of each member what stands before the command id. The
second is the command.

A state without a payload is a tombstone: the command was settled before its entry came. An entry that
comes after all finds it and stays away. Tombstones are swept like other settled entries.

Every script is one atomic round trip, idempotent, and never moves a state backwards.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class EntryState(StrEnum):
    """Where an entry of the overlay is on its way."""

    UNCONFIRMED = "unconfirmed"
    """Kafka has not confirmed it (yet): shown to nobody but its author."""
    PENDING = "pending"
    PARKED = "parked"
    SAVED = "saved"
    REJECTED = "rejected"


SETTLED = frozenset({EntryState.SAVED, EntryState.REJECTED})


@dataclass(frozen=True)
class Status:
    """The state field of an entry. `lane` and `offset` are known once Kafka has confirmed."""

    state: EntryState
    seq: int
    lane: int | None = None
    offset: int | None = None

    @classmethod
    def parse(cls, text: str) -> "Status":
        """From `state|seq|lane|offset`, the last two of which may be empty."""
        state, seq, lane, offset = text.split("|")
        return cls(
            EntryState(state),
            int(seq),
            int(lane) if lane else None,
            int(offset) if offset else None,
        )


PUT: Final = """
-- KEYS: entries, sequence, index…   ARGV: id, payload, then for each index: score kind, member
-- Returns the state. An entry that is there already (a repeated request) is left as it is.
local id = ARGV[1]
local known = redis.call('HGET', KEYS[1], id .. ':s')
if known then return known end
local seq = redis.call('INCR', KEYS[2])
local state = 'unconfirmed|' .. seq .. '||'
redis.call('HSET', KEYS[1], id, ARGV[2], id .. ':s', state)
for i = 3, #KEYS do
    local at = 3 + (i - 3) * 2
    local score = ARGV[at] == 'zero' and 0 or seq
    redis.call('ZADD', KEYS[i], score, ARGV[at + 1])
end
return state
"""

LAY: Final = """
-- KEYS: entries, sequence, index…   ARGV: id, payload, lane, offset, until_ms, then for each index:
-- score kind, member. What Kafka is known to have: put and confirmed at once. Returns the state.
-- After `until_ms` (of this server's clock; empty: never too late) nothing is put any more: the
-- command may have been settled and swept already. Then the answer is nil.
local id = ARGV[1]
local known = redis.call('HGET', KEYS[1], id .. ':s')
local place = ARGV[3] .. '|' .. ARGV[4]
if known then
    local name, seq = string.match(known, '^(%a+)|(%d+)|')
    if name ~= 'unconfirmed' then return known end
    local state = 'pending|' .. seq .. '|' .. place
    redis.call('HSET', KEYS[1], id .. ':s', state)
    return state
end
if ARGV[5] ~= '' then
    local now = redis.call('TIME')
    if now[1] * 1000 + math.floor(now[2] / 1000) > tonumber(ARGV[5]) then return nil end
end
local seq = redis.call('INCR', KEYS[2])
local state = 'pending|' .. seq .. '|' .. place
redis.call('HSET', KEYS[1], id, ARGV[2], id .. ':s', state)
for i = 3, #KEYS do
    local at = 6 + (i - 3) * 2
    local score = ARGV[at] == 'zero' and 0 or seq
    redis.call('ZADD', KEYS[i], score, ARGV[at + 1])
end
return state
"""

RESTORE: Final = """
-- KEYS: entries, sequence, index…   ARGV: id, payload, state, lane, offset, anew, then for each index:
-- score kind, member. What the log is known to hold, after memory was lost. Returns the state.
-- An entry that is there stays as it is: Kafka has it, so an unconfirmed one becomes this state. A
-- tombstone of what was settled meanwhile gets its payload, for replicas that lag. With `anew` = 1 the
-- index members of an entry that is there are made again.
local id, field = ARGV[1], ARGV[1] .. ':s'
local known = redis.call('HGET', KEYS[1], field)
local name, seq, rest = ARGV[3], nil, ARGV[4] .. '|' .. ARGV[5]
if known then
    local was, at, place = string.match(known, '^(%a+)|(%d+)|(.*)$')
    if was == 'rejected' then return known end
    if was ~= 'unconfirmed' then name, rest = was, place end
    local payload = redis.call('HGET', KEYS[1], id)
    if payload then
        seq = at
        local state = name .. '|' .. seq .. '|' .. rest
        if ARGV[6] ~= '1' then
            if state ~= known then redis.call('HSET', KEYS[1], field, state) end
            return state
        end
        local base = string.sub(KEYS[1], 1, -8)
        local read, index = pcall(cjson.decode, string.match(payload, '^[^\\n]*'))
        if read and type(index) == 'table' then
            for i = 1, #index - 1, 2 do
                redis.call('ZREM', base .. index[i], index[i + 1] .. id)
            end
        end
    end
end
seq = seq or redis.call('INCR', KEYS[2])
local state = name .. '|' .. seq .. '|' .. rest
redis.call('HSET', KEYS[1], id, ARGV[2], field, state)
for i = 3, #KEYS do
    local at = 7 + (i - 3) * 2
    local score = ARGV[at] == 'zero' and 0 or seq
    redis.call('ZADD', KEYS[i], score, ARGV[at + 1])
end
return state
"""

CONFIRM: Final = """
-- KEYS: entries   ARGV: id, lane, offset. Kafka has it: unconfirmed becomes pending, else no change.
-- Returns the state, nil if there is no entry.
local field = ARGV[1] .. ':s'
local state = redis.call('HGET', KEYS[1], field)
if not state then return nil end
local name, seq = string.match(state, '^(%a+)|(%d+)|')
if name ~= 'unconfirmed' then return state end
state = 'pending|' .. seq .. '|' .. ARGV[2] .. '|' .. ARGV[3]
redis.call('HSET', KEYS[1], field, state)
return state
"""

SETTLE: Final = """
-- KEYS: entries   ARGV: id, state, lane, offset, tombstone. What the ledger says; saved and rejected
-- are final. Without an entry, `1` leaves a tombstone. Returns the state, nil if there is none.
local field = ARGV[1] .. ':s'
local state = redis.call('HGET', KEYS[1], field)
local name, seq = nil, '0'
if state then
    name, seq = string.match(state, '^(%a+)|(%d+)|')
elseif ARGV[5] ~= '1' then
    return nil
end
if name == 'saved' or name == 'rejected' then return state end
state = ARGV[2] .. '|' .. seq .. '|' .. ARGV[3] .. '|' .. ARGV[4]
redis.call('HSET', KEYS[1], field, state)
return state
"""

_REMOVE = """
local payload = redis.call('HGET', KEYS[1], ARGV[1])
if payload then
    -- The index keys carry the same hash tag as KEYS, so they live on the same node. What is not
    -- understood, another version has written: it goes without its index members.
    local base = string.sub(KEYS[1], 1, -8)
    local known, index = pcall(cjson.decode, string.match(payload, '^[^\\n]*'))
    if known and type(index) == 'table' then
        for i = 1, #index - 1, 2 do
            redis.call('ZREM', base .. index[i], index[i + 1] .. ARGV[1])
        end
    end
end
redis.call('HDEL', KEYS[1], ARGV[1], ARGV[1] .. ':s')
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('DEL', KEYS[2]) end
return 1
"""

WITHDRAW: Final = (
    """
-- KEYS: entries, sequence   ARGV: id. It never reached Kafka: gone, if it is unconfirmed still.
local state = redis.call('HGET', KEYS[1], ARGV[1] .. ':s')
if not state or string.sub(state, 1, 11) ~= 'unconfirmed' then return 0 end
"""
    + _REMOVE
)

SWEEP: Final = (
    """
-- KEYS: entries, sequence   ARGV: id. A settled entry leaves after its grace period.
local state = redis.call('HGET', KEYS[1], ARGV[1] .. ':s')
if not state then return 0 end
local name = string.match(state, '^(%a+)|')
if name ~= 'saved' and name ~= 'rejected' then return 0 end
"""
    + _REMOVE
)
