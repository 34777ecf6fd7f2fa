"""What PostgreSQL said lately, kept in Redis for the time when it is away: rows and pages.

They are kept as they were read, before any overlay, with the lane positions of their snapshot: an
overlay entry whose offset is below the position of its lane is in those rows already, every other is
not, so that the overlay is merged with them exactly.

Best effort: nothing here raises, and nobody waits for what is kept. It is bounded in entries and in
bytes; the oldest go first.
"""

import asyncio
import time
import uuid
import zlib
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from prometheus_client import Counter

from frontend_api.cached_rows import (
    Kept,
    KeptPage,
    Positions,
    kept_field,
    page_field,
    parse_page,
    parse_row,
    row_field,
    written,
)
from frontend_api.redis_access import Call, RedisAccess, RedisUnavailable
from frontend_api.view import CachedPage, CachedRow
from schema.catalog import ListOf
from schema.content import Kind, Row
from schema.redis_keys import RedisKeys
from schema.tasks import end_tasks

ENTRY_BYTES: Final = 4096
"""Bytes that all entries together may have for each entry that is allowed."""
AGAIN_S: Final = 1.0
"""How long a process leaves alone what it has kept: a page that is read a thousand times a second
costs one write in this time."""
SELDOM_S: Final = 5.0
"""The same for rows that nobody reads, but something is checked by. Many write where many write: what
they are checked by is the same again and again."""
_LARGER_STAYS_MS: Final = 30_000
"""How long a page is not replaced by one of fewer rows: of the larger one, either can be cut."""
_MAX_SHARDS: Final = 8
_REMEMBERED: Final = 20_000
_QUEUED: Final = 64
_ROUND_BYTES: Final = 524_288
_PAUSE_S: Final = 0.1
"""Between two rounds of keeping. With `_QUEUED` it bounds what keeping takes from answering."""

_KEEP: Final = f"""
-- KEYS: values, kept   ARGV: now_ms, ttl_ms, most entries, most bytes,
-- then for each entry: field, at_ms, rank, value
-- `values` is a hash, field → value, and `bytes` → what they take; `kept` orders the fields by time.
local values, kept = KEYS[1], KEYS[2]
local now, ttl, most, most_bytes =
    tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if redis.call('EXISTS', values) ~= redis.call('EXISTS', kept) then
    redis.call('DEL', values, kept)  -- Redis has evicted one of the two
end
local bytes = tonumber(redis.call('HGET', values, 'bytes') or 0)
local function drop(field)
    bytes = bytes - redis.call('HSTRLEN', values, field)
    redis.call('HDEL', values, field)
    redis.call('ZREM', kept, field)
end
local stored = 0
for i = 5, #ARGV, 4 do
    local field, at, rank, value = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), ARGV[i + 3]
    local before = tonumber(redis.call('ZSCORE', kept, field) or 0)
    local keep = before <= at
    if keep and rank > 0 and at - before < {_LARGER_STAYS_MS} then
        local had = string.match(redis.call('HGET', values, field) or '0|', '^%d+')
        keep = tonumber(had) <= rank
    end
    if keep then
        local was = redis.call('HSTRLEN', values, field)
        local done = redis.pcall('HSET', values, field, value)
        -- Redis is full: what the overlay needs goes before this, and nobody is to see an error.
        if type(done) == 'table' and done.err then
            redis.call('DEL', values, kept)
            return 0
        end
        bytes = bytes - was + #value
        redis.call('ZADD', kept, at, field)
        stored = stored + 1
    end
end
for _, field in ipairs(redis.call('ZRANGEBYSCORE', kept, '-inf', now - ttl)) do drop(field) end
while redis.call('ZCARD', kept) > most or bytes > most_bytes do
    local oldest = redis.call('ZRANGE', kept, 0, 0)[1]
    if not oldest then break end
    drop(oldest)
end
if redis.call('EXISTS', kept) == 0 then
    redis.call('DEL', values)
else
    redis.pcall('HSET', values, 'bytes', bytes)
    redis.call('PEXPIRE', values, ttl)
    redis.call('PEXPIRE', kept, ttl)
end
return stored
"""

_FIND: Final = """
-- KEYS: values   ARGV: field…
return redis.call('HMGET', KEYS[1], unpack(ARGV))
"""

Wanted = tuple[Kind, uuid.UUID]


class ReadCache:
    """Rows and pages by what they are. A private one is found by its owner only.

    `entries` is how many there may be, of `ENTRY_BYTES` on average; 0 keeps nothing. `results` counts
    by `result`: hit, miss, kept, dropped. `clock` tells seconds since 1970.
    """

    def __init__(
        self,
        redis: RedisAccess,
        keys: RedisKeys,
        results: Counter,
        *,
        entries: int,
        ttl_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._results = results
        self._shards = min(_MAX_SHARDS, entries)
        self._entries = entries
        self._ttl_s = ttl_s
        self._clock = clock
        self._lately: OrderedDict[str, float] = OrderedDict()
        self._queue: deque[Kept] = deque()
        self._task: asyncio.Task[None] | None = None

    def wants_rows(
        self, refs: Sequence[Wanted], reader: uuid.UUID, *, seldom: bool = False
    ) -> bool:
        """Whether `keep_rows` would keep any of these; it costs no round trip to ask.

        With `seldom`, whether it is time that it did, of rows that nobody reads now."""
        if not self._open:
            return False
        again_s = SELDOM_S if seldom else AGAIN_S
        return any(self._due(row_field(kind, i, reader), again_s) for kind, i in refs)

    def wants_page(
        self, lst: ListOf, parent: uuid.UUID | None, after: uuid.UUID | None, reader: uuid.UUID
    ) -> bool:
        """Whether `keep_page` would keep this one; it costs no round trip to ask."""
        return self._open and self._due(page_field(lst, parent, after, reader))

    def keep_rows(
        self, rows: Mapping[Wanted, Row | None], positions: Positions, reader: uuid.UUID
    ) -> None:
        """Keep what one snapshot said of these rows, None if it had none. Returns at once."""
        due = {}
        for (kind, row_id), row in rows.items():
            field = kept_field(kind, row_id, row)
            if field is not None and self._due(field):
                due[field] = (kind, row)
        if due:
            self._enqueue(Kept(self._now_ms(), positions, due))

    def keep_page(
        self,
        lst: ListOf,
        parent: uuid.UUID | None,
        after: uuid.UUID | None,
        reader: uuid.UUID,
        asked: int,
        rows: Sequence[Row],
        positions: Positions,
    ) -> None:
        """Keep a page of which `asked` rows were asked for, and its rows. Returns at once."""
        page = KeptPage(page_field(lst, parent, after, reader), lst.kind, tuple(rows), asked)
        if not self._due(page.field):
            return
        due = {}
        for row in rows:
            field = kept_field(lst.kind, row["id"], row)
            if field is not None and self._due(field):
                due[field] = (lst.kind, row)
        self._enqueue(Kept(self._now_ms(), positions, due, page))

    async def rows(
        self, refs: Sequence[Wanted], reader: uuid.UUID
    ) -> dict[tuple[str, uuid.UUID], CachedRow]:
        """What is known of these rows."""
        fields = {row_field(kind, row_id, reader): (kind, row_id) for kind, row_id in refs}
        found = {}
        for field, value in (await self._find(list(fields))).items():
            kind, row_id = fields[field]
            row = parse_row(kind, value, self._clock())
            if row is not None and row.age_s <= self._ttl_s:
                found[kind.name, row_id] = row
        self._results.labels("hit").inc(len(found))
        self._results.labels("miss").inc(len(fields) - len(found))
        return found

    async def page(
        self,
        lst: ListOf,
        parent: uuid.UUID | None,
        after: uuid.UUID | None,
        reader: uuid.UUID,
        limit: int,
    ) -> CachedPage | None:
        """At most `limit` rows of this page. It may be shorter without being complete."""
        field = page_field(lst, parent, after, reader)
        value = (await self._find([field])).get(field)
        page = parse_page(lst.kind, value, limit, self._clock()) if value is not None else None
        if page is None or page.age_s > self._ttl_s:
            self._results.labels("miss").inc()
            return None
        self._results.labels("hit").inc()
        return page

    async def close(self) -> None:
        """What is still to be kept is given up."""
        await end_tasks(self._task)

    @property
    def _open(self) -> bool:
        return self._shards > 0 and len(self._queue) < _QUEUED and self._redis.available

    def _due(self, field: str, again_s: float | None = None) -> bool:
        kept = self._lately.get(field)
        again_s = AGAIN_S if again_s is None else again_s
        return kept is None or time.monotonic() - kept >= again_s

    def _enqueue(self, kept: Kept) -> None:
        if not self._open:
            self._results.labels("dropped").inc(len(kept.fields))
            return
        for field in kept.fields:
            self._lately[field] = time.monotonic()
            self._lately.move_to_end(field)
        while len(self._lately) > _REMEMBERED:
            self._lately.popitem(last=False)
        self._queue.append(kept)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work(), name="read-cache")

    async def _work(self) -> None:
        while self._queue:
            await self._round()
            await asyncio.sleep(_PAUSE_S)

    async def _round(self) -> None:
        """Store what is in the queue, as much as one round trip should carry."""
        shards: dict[int, list[Any]] = {}
        fields: list[str] = []
        size = 0
        while self._queue and size < _ROUND_BYTES:
            kept = self._queue.popleft()
            for entry in written(kept):
                args = shards.setdefault(self._shard(entry.field), [])
                args += [entry.field, kept.at_ms, entry.rank, entry.value]
                fields.append(entry.field)
                size += len(entry.value)
            await asyncio.sleep(0)  # requests go first
        most = self._entries // self._shards
        bound = [self._now_ms(), int(self._ttl_s * 1000), most, most * ENTRY_BYTES]
        calls: list[Call] = [
            (_KEEP, [self._keys.cache_values(shard), self._keys.cache_kept(shard)], [*bound, *args])
            for shard, args in shards.items()
        ]
        try:
            stored = sum(await self._redis.run_all(calls))
        except RedisUnavailable:
            stored = 0
            for field in fields:
                self._lately.pop(field, None)
        self._results.labels("kept").inc(stored)
        self._results.labels("dropped").inc(len(fields) - stored)

    async def _find(self, fields: Sequence[str]) -> dict[str, str]:
        shards: dict[int, list[str]] = {}
        for field in fields if self._shards else ():
            shards.setdefault(self._shard(field), []).append(field)
        if not shards:
            return {}
        calls: list[Call] = [
            (_FIND, [self._keys.cache_values(shard)], own) for shard, own in shards.items()
        ]
        try:
            answers = await self._redis.run_all(calls)
        except RedisUnavailable:
            return {}
        asked = [field for own in shards.values() for field in own]
        values = [value for answer in answers for value in answer]
        return {f: v for f, v in zip(asked, values, strict=True) if v is not None}

    def _shard(self, field: str) -> int:
        return zlib.crc32(field.encode()) % self._shards

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)
