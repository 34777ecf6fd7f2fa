"""The pending overlay in Redis: its layout, its states, and the scripts that change it.

An overlay lives under one hash tag: its author's, or for what everyone may see while it is pending,
`SHARED`. Of each command it holds two fields of one hash: the payload, written once, and the state, a
short string that outcomes change; the field `seq` counts what was put. One sorted set, in which all
scores are 0, leads to it: of each command it holds a member for every row, list and counter it touches,

    row:TYPE:ID     `command`
    list:NAME:OF    `row:command`, so in the order of row ids
    count:TYPE:ID   `column:delta:command`

each behind ten characters that stand for what is touched (`index_prefix`). A count member of the shared
overlay has its author before the command, `column:delta:author:command`, so that a reader's own
commands can be told from those of others without looking at them.

It is one set for all, and ids in it are written short (`short_id`), since most authors have little
pending: every key costs about as much as a member does, and Redis keeps a small set in one piece of
memory, for a tenth of what it takes otherwise, while no member has more than 64 bytes.

The payload is two lines. The first is a JSON list of the members of this command, without the command
at their ends, so that they can be removed without asking anybody. The second is the command's JSON;
or, if that is shorter, the same deflated, in base64.

A state without a payload is a tombstone: the command was settled before its entry came. An entry that
comes after all finds it and stays away. Tombstones are swept like other settled entries.

Every script is one atomic round trip, idempotent, and never moves a state backwards.
"""

import base64
import binascii
import functools
import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from pydantic_core import to_json

INDEX_CHARS: Final = 10
"""Characters before each member that stand for what is touched."""
_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUV"
_PAIRS: Final = [high + low for high in _DIGITS for low in _DIGITS]
_USUAL: Final = (
    b'"op":"delete","op":"update","replays":"","fingerprint":"","idempotency_key":""'
    b'"roles":["admin","moderator"]},"reply_to":"","title":"{"command_id":"","stream":"","author":'
    b'{"id":"","name":"","roles":[]},"accepted_at":"2026-01-01T00:00:00.000000Z","mutations":'
    b'[{"op":"create","type":"","id":"","values":{"topic_id":"","body":"","expected_version":1}]}'
)
"""What commands usually say; payloads are deflated against it. To change it is to change the layout."""
_SMALL_BYTES: Final = 3500
"""What a window of 4 KiB holds, together with what is usual."""


@functools.lru_cache(maxsize=8192)
def index_prefix(name: str) -> str:
    """What stands before the members of an index; `name` is `row:TYPE:ID` or one of its kin.

    50 bits of a hash: among 100,000 indexes of one overlay the odds that any two are the same are
    four in a million. Rows and lists would still be told apart by the ids in their entries.
    """
    digest = hashlib.blake2b(name.encode(), digest_size=10).digest()
    bits = int.from_bytes(digest, "big") >> 30
    return "".join([_PAIRS[bits >> shift & 1023] for shift in range(40, -1, -10)])


def _deflating(wbits: int, memory: int) -> "zlib._Compress":
    return zlib.compressobj(6, zlib.DEFLATED, wbits, memory, zlib.Z_DEFAULT_STRATEGY, _USUAL)


_SMALL: Final = _deflating(-12, 5)
"""Has read what is usual, and nothing else yet: a copy takes half the time of a new one."""


def pack(index: Sequence[str], command: str) -> str:
    """The payload of an entry, from its members and the command's JSON."""
    plain = command.encode()
    # A window of 32 KiB costs far more time to set up than a small text takes to deflate.
    deflate = _SMALL.copy() if len(plain) < _SMALL_BYTES else _deflating(-15, 8)
    raw = deflate.compress(plain) + deflate.flush()
    packed = binascii.b2a_base64(raw, newline=False)
    last = packed.decode() if len(packed) < len(plain) else command
    return f"{to_json(index).decode()}\n{last}"


def unpack(payload: str) -> Any:
    """The command's JSON out of a payload. Raises ValueError or IndexError if it is none."""
    last = payload.split("\n", 1)[1]
    if last.startswith("{"):
        return json.loads(last)
    try:
        inflate = zlib.decompressobj(wbits=-15, zdict=_USUAL)
        return json.loads(inflate.decompress(base64.b64decode(last, validate=True)))
    except zlib.error as error:
        raise ValueError("the payload cannot be inflated") from error


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
-- KEYS: entries, index   ARGV: id, payload, then each member without the id
-- Returns the state. An entry that is there already (a repeated request) is left as it is.
local id = ARGV[1]
local known = redis.call('HGET', KEYS[1], id .. ':s')
if known then return known end
local seq = redis.call('HINCRBY', KEYS[1], 'seq', 1)
local state = 'unconfirmed|' .. seq .. '||'
redis.call('HSET', KEYS[1], id, ARGV[2], id .. ':s', state)
for i = 3, #ARGV do redis.call('ZADD', KEYS[2], 0, ARGV[i] .. id) end
return state
"""

LAY: Final = """
-- KEYS: entries, index   ARGV: id, payload, lane, offset, until_ms, then each member without the id
-- What Kafka is known to have: put and confirmed at once. Returns the state.
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
local seq = redis.call('HINCRBY', KEYS[1], 'seq', 1)
local state = 'pending|' .. seq .. '|' .. place
redis.call('HSET', KEYS[1], id, ARGV[2], id .. ':s', state)
for i = 6, #ARGV do redis.call('ZADD', KEYS[2], 0, ARGV[i] .. id) end
return state
"""

RESTORE: Final = """
-- KEYS: entries, index   ARGV: id, payload, state, lane, offset, anew, then each member without the id
-- What the log is known to hold, after memory was lost. Returns the state.
-- An entry that is there stays as it is: Kafka has it, so an unconfirmed one becomes this state. Its
-- index members are put back: a server evicts keys one by one, and may have kept the entries without
-- their index. A tombstone of what was settled meanwhile gets its payload, for replicas that lag. With
-- `anew` = 1 the index members of an entry that is there are made again.
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
        local read, index = pcall(cjson.decode, string.match(payload, '^[^\\n]*'))
        if not read or type(index) ~= 'table' then index = {} end
        if ARGV[6] ~= '1' then
            for _, member in ipairs(index) do redis.call('ZADD', KEYS[2], 0, member .. id) end
            if state ~= known then redis.call('HSET', KEYS[1], field, state) end
            return state
        end
        for _, member in ipairs(index) do redis.call('ZREM', KEYS[2], member .. id) end
    end
end
seq = seq or redis.call('HINCRBY', KEYS[1], 'seq', 1)
local state = name .. '|' .. seq .. '|' .. rest
redis.call('HSET', KEYS[1], id, ARGV[2], field, state)
for i = 7, #ARGV do redis.call('ZADD', KEYS[2], 0, ARGV[i] .. id) end
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

_SETTLE = """
local freed
local function settle(id, becomes, lane, offset, tombstone)
    local field = id .. ':s'
    local state = redis.call('HGET', KEYS[1], field)
    local name, seq = nil, '0'
    if state then
        name, seq = string.match(state, '^(%a+)|(%d+)|')
    elseif tombstone ~= '1' then
        return nil
    end
    if name == 'saved' or name == 'rejected' then return state end
    state = becomes .. '|' .. seq .. '|' .. lane .. '|' .. offset
    -- A full server refuses the first write of a script if it may take room, but none behind one that
    -- gives some. Settling must go on: nothing else ever makes room.
    if not freed then redis.call('HDEL', KEYS[1], field) end
    freed = true
    redis.call('HSET', KEYS[1], field, state)
    return state
end
"""

SETTLE: Final = (
    _SETTLE
    + """
-- KEYS: entries   ARGV: id, state, lane, offset, tombstone. What the ledger says; saved and rejected
-- are final. Without an entry, `1` leaves a tombstone. Returns the state, nil if there is none.
return settle(ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5])
"""
)

SETTLE_MANY: Final = (
    _SETTLE
    + """
-- KEYS: entries   ARGV: what SETTLE takes, as `id|state|lane|offset|tombstone`, of many, in one text with
-- spaces between: each argument by itself costs the client more than all else.
local before = redis.call('HLEN', KEYS[1])
for one in string.gmatch(ARGV[1], '%S+') do
    settle(string.match(one, '^(%w+)|(%a+)|(%d*)|(%d*)|(1?)$'))
end
-- Of tombstones alone, which are short, a server keeps hundreds in one piece and reads all of it for
-- each. A long value makes a table of them, as payloads do, and a table it stays without that value.
if before < 64 and redis.call('HLEN', KEYS[1]) >= 64 then
    redis.call('HSET', KEYS[1], 'long', string.rep('-', 65))
    redis.call('HDEL', KEYS[1], 'long')
end
return 1
"""
)

SWEEP_LATER: Final = """
-- KEYS: sweep   ARGV: due_ms, members with spaces between. When settled entries may go. Done by a full
-- server, too.
redis.call('ZREM', KEYS[1], string.match(ARGV[2], '%S+'))
for member in string.gmatch(ARGV[2], '%S+') do redis.call('ZADD', KEYS[1], ARGV[1], member) end
return 1
"""

_REMOVE = """
local function remove(id)
    local payload = redis.call('HGET', KEYS[1], id)
    if payload then
        -- What is not understood, another version has written: it goes without its members.
        local known, index = pcall(cjson.decode, string.match(payload, '^[^\\n]*'))
        if known and type(index) == 'table' then
            for _, member in ipairs(index) do
                if type(member) == 'string' then redis.call('ZREM', KEYS[2], member .. id) end
            end
        end
    end
    redis.call('HDEL', KEYS[1], id, id .. ':s')
    if redis.call('HLEN', KEYS[1]) == redis.call('HEXISTS', KEYS[1], 'seq') then
        redis.call('DEL', KEYS[1], KEYS[2])
    end
end
"""

WITHDRAW: Final = (
    _REMOVE
    + """
-- KEYS: entries, index   ARGV: id. It never reached Kafka: gone, if it is unconfirmed still.
local state = redis.call('HGET', KEYS[1], ARGV[1] .. ':s')
if not state or string.sub(state, 1, 11) ~= 'unconfirmed' then return 0 end
remove(ARGV[1])
return 1
"""
)

SWEEP: Final = (
    _REMOVE
    + """
-- KEYS: entries, index   ARGV: id, and more of the same overlay. A settled entry leaves after its grace
-- period. Returns how many went.
local gone = 0
for _, id in ipairs(ARGV) do
    local state = redis.call('HGET', KEYS[1], id .. ':s')
    local name = state and string.match(state, '^(%a+)|')
    if name == 'saved' or name == 'rejected' then
        remove(id)
        gone = gone + 1
    end
end
return gone
"""
)
