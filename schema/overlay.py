"""The pending overlay in Redis: its layout, its states, and the scripts that change it.

An author's overlay lives under one hash tag. Of each command it holds two fields of one hash: the
payload, written once, and the state, a short string that outcomes change. Three kinds of index lead
to it, each a sorted set:

    row:TYPE:ID     member `command id`                  score: order of acceptance
    list:NAME:OF    member `row id:command id`           score: 0, so in the order of row ids
    count:TYPE:ID   member `column:delta:command id`     score: order of acceptance

The payload is JSON: `{"command": Command.to_json(), "scopes": [[key, member], …]}`; `scopes` lists
the index members of this command, so that they can be removed without asking anybody.
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
-- KEYS: entries, sequence, index…   ARGV: id, payload, now_ms, then for each index: score kind, member
-- Returns the state. An entry that is there already (a repeated request) is left as it is.
local id = ARGV[1]
local known = redis.call('HGET', KEYS[1], id .. ':s')
if known then return known end
local seq = redis.call('INCR', KEYS[2])
local state = 'unconfirmed|' .. seq .. '||'
redis.call('HSET', KEYS[1], id, ARGV[2], id .. ':s', state)
for i = 3, #KEYS do
    local at = 4 + (i - 3) * 2
    local score = ARGV[at] == 'zero' and 0 or seq
    redis.call('ZADD', KEYS[i], score, ARGV[at + 1])
end
return state
"""

CONFIRM: Final = """
-- KEYS: entries   ARGV: id, lane, offset. Kafka has it: unconfirmed becomes pending, else no change.
local field = ARGV[1] .. ':s'
local state = redis.call('HGET', KEYS[1], field)
if not state then return nil end
local name, seq = string.match(state, '^(%a+)|(%d+)|')
if name ~= 'unconfirmed' then return state end
state = 'pending|' .. seq .. '|' .. ARGV[2] .. '|' .. ARGV[3]
redis.call('HSET', KEYS[1], field, state)
return state
"""

WITHDRAW: Final = """
-- KEYS: entries, index…   ARGV: id, then for each index: member. It never reached Kafka: take it back.
local state = redis.call('HGET', KEYS[1], ARGV[1] .. ':s')
if not state or string.sub(state, 1, 11) ~= 'unconfirmed' then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1], ARGV[1] .. ':s')
for i = 2, #KEYS do redis.call('ZREM', KEYS[i], ARGV[i]) end
return 1
"""

SETTLE: Final = """
-- KEYS: entries   ARGV: id, state, lane, offset. What the ledger says; saved and rejected are final.
local field = ARGV[1] .. ':s'
local state = redis.call('HGET', KEYS[1], field)
if not state then return nil end
local name, seq = string.match(state, '^(%a+)|(%d+)|')
if name == 'saved' or name == 'rejected' then return state end
state = ARGV[2] .. '|' .. seq .. '|' .. ARGV[3] .. '|' .. ARGV[4]
redis.call('HSET', KEYS[1], field, state)
return state
"""

SWEEP: Final = """
-- KEYS: entries, sequence   ARGV: id. A settled entry leaves after its grace period.
-- The index keys it removes from carry the same hash tag as KEYS, so they live on the same node.
local state = redis.call('HGET', KEYS[1], ARGV[1] .. ':s')
if not state then return 0 end
local name = string.match(state, '^(%a+)|')
if name ~= 'saved' and name ~= 'rejected' then return 0 end
local payload = cjson.decode(redis.call('HGET', KEYS[1], ARGV[1]))
for _, scope in ipairs(payload['scopes']) do redis.call('ZREM', scope[1], scope[2]) end
redis.call('HDEL', KEYS[1], ARGV[1], ARGV[1] .. ':s')
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('DEL', KEYS[2]) end
return 1
"""
