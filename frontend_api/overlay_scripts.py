"""Scripts that read the pending overlay. Each is one atomic round trip that changes nothing.

Ids in fields, members and arguments are short, 26 characters.
"""

from typing import Final

from schema.overlay import INDEX_CHARS

READ: Final = """
-- KEYS: entries, index   ARGV: most, then for each index: prefix, kind (row, asc, desc), from, limit
-- Returns: number of fields, members of each index, id, state, payload of each entry found, and, if the
-- overlay has at most `most` members, the prefixes of all indexes of counters that have any.
-- Of a list it returns `limit` members from `from` on, and the rest of the last row among them, so
-- that what it returns is complete up to that row.
local total = redis.call('HLEN', KEYS[1])
if total == 0 then return {0} end
local members, ids, seen = {}, {}, {}
for at = 2, #ARGV, 4 do
    local prefix, kind, from, limit = ARGV[at], ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3])
    local first, last, found = '[' .. prefix, '(' .. prefix .. '~', {}
    local function add(some)
        for _, member in ipairs(some) do
            found[#found + 1] = string.sub(member, #prefix + 1)
            local id = string.sub(member, -26)
            if not seen[id] then
                seen[id] = true
                ids[#ids + 1] = id
            end
        end
    end
    if kind == 'row' then
        add(redis.call('ZRANGEBYLEX', KEYS[2], first, last))
    elseif kind == 'asc' then
        if from ~= '-' then first = '(' .. prefix .. string.sub(from, 2) end
        add(redis.call('ZRANGEBYLEX', KEYS[2], first, last, 'LIMIT', 0, limit))
        if #found == limit then
            local to = '(' .. prefix .. string.sub(found[limit], 1, 26) .. ';'
            add(redis.call('ZRANGEBYLEX', KEYS[2], '(' .. prefix .. found[limit], to))
        end
    else
        if from ~= '+' then last = '(' .. prefix .. string.sub(from, 2) end
        add(redis.call('ZREVRANGEBYLEX', KEYS[2], last, first, 'LIMIT', 0, limit))
        if #found == limit then
            local to = '[' .. prefix .. string.sub(found[limit], 1, 26) .. ':'
            add(redis.call('ZREVRANGEBYLEX', KEYS[2], '(' .. prefix .. found[limit], to))
        end
    end
    members[#members + 1] = found
end
local entries = {}
for from = 1, #ids, 500 do
    local fields = {}
    for i = from, math.min(from + 499, #ids) do
        fields[#fields + 1] = ids[i] .. ':s'
        fields[#fields + 1] = ids[i]
    end
    local found = redis.call('HMGET', KEYS[1], unpack(fields))
    for i = 1, #found, 2 do
        if found[i] and found[i + 1] then
            entries[#entries + 1] = fields[i + 1]
            entries[#entries + 1] = found[i]
            entries[#entries + 1] = found[i + 1]
        end
    end
end
local most, counters = tonumber(ARGV[1]), {}
if most == 0 or redis.call('ZCARD', KEYS[2]) > most then return {total, members, entries} end
local last
for _, member in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
    local prefix = string.sub(member, 1, PREFIX)
    if prefix ~= last and string.find(member, '^[^:]+:%-?%d+:', PREFIX + 1) then
        counters[#counters + 1] = prefix
        last = prefix
    end
end
return {total, members, entries, counters}
""".replace("PREFIX", str(INDEX_CHARS))

COUNT: Final = """
-- KEYS: entries, index   ARGV: author to leave out, number of indexes, the prefix of each, then lane,
-- position, lane, position, …
-- Returns for each index what commands add: a sum over those at or behind the position of their
-- lane, which are certainly undecided, and the members and states of all others. With an author to
-- leave out it is the shared overlay, of which there are no others: nobody asks the ledger what became
-- of somebody else's command, so that its place alone decides.
local positions, shared = {}, ARGV[1] ~= ''
local indexes = tonumber(ARGV[2])
for i = 3 + indexes, #ARGV, 2 do positions[ARGV[i]] = tonumber(ARGV[i + 1]) end
local answer = {}
for i = 3, 2 + indexes do
    local sums, open = {}, {}
    local members = redis.call('ZRANGEBYLEX', KEYS[2], '[' .. ARGV[i], '(' .. ARGV[i] .. '~')
    for from = 1, #members, 500 do
        local fields = {}
        for j = from, math.min(from + 499, #members) do
            fields[#fields + 1] = string.sub(members[j], -26) .. ':s'
        end
        local states = redis.call('HMGET', KEYS[1], unpack(fields))
        for j, state in ipairs(states) do
            local member = string.sub(members[from + j - 1], #ARGV[i] + 1)
            if state and string.sub(member, -53, -28) ~= ARGV[1] then
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
    if #field == 26 and (before == '' or field < before)
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
