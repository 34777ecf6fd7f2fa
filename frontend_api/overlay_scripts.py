"""Scripts that read the pending overlay. Each is one atomic round trip that changes nothing."""

from typing import Final

READ: Final = """
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
    if found[1] and found[2] then
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

COUNT: Final = """
-- KEYS: entries, count index…   ARGV: author to leave out, then lane, position, lane, position, …
-- Returns for each index what commands add: a sum over those at or behind the position of their
-- lane, which are certainly undecided, and the members and states of all others. With an author to
-- leave out it is the shared overlay, of which there are no others: nobody asks the ledger what became
-- of somebody else's command, so that its place alone decides.
local positions, shared = {}, ARGV[1] ~= ''
for i = 2, #ARGV, 2 do positions[ARGV[i]] = tonumber(ARGV[i + 1]) end
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
            if state and string.sub(member, -73, -38) ~= ARGV[1] then
                local name, lane, offset = string.match(state, '^(%a+)|%d+|(%d*)|(%d*)$')
                local column, delta = string.match(member, '^([^:]+):(-?%d+):')
                local ahead = positions[lane] and offset ~= '' and tonumber(offset) >= positions[lane]
                local decided = positions[lane] and offset ~= '' and not ahead and name ~= 'parked'
                if name == 'rejected' or (shared and decided) then
                elseif ahead or shared then
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

LOOK: Final = """
-- KEYS: entries   ARGV: id. State and payload of one entry.
return redis.call('HMGET', KEYS[1], ARGV[1] .. ':s', ARGV[1])
"""

NEWEST: Final = """
-- KEYS: entries   ARGV: limit, id (empty: from the newest on). Id, state and payload of the newest
-- entries older than this one. It looks at every id, but at no more payloads than it returns.
local limit, before, newest = tonumber(ARGV[1]), ARGV[2], {}
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
    if #field == 36 and (before == '' or field < before)
        and (#newest < limit or field > newest[#newest]) then
        local at = #newest + 1
        while at > 1 and newest[at - 1] < field do at = at - 1 end
        table.insert(newest, at, field)
        newest[limit + 1] = nil
    end
end
local entries = {}
for _, id in ipairs(newest) do
    local found = redis.call('HMGET', KEYS[1], id .. ':s', id)
    entries[#entries + 1] = id
    entries[#entries + 1] = found[1]
    entries[#entries + 1] = found[2]
end
return entries
"""
