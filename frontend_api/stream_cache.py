"""Streams of rows that were seen lately, so that an edit needs no database to be put in order."""

import asyncio
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

from frontend_api.redis_access import RedisAccess, RedisUnavailable
from schema.redis_keys import RedisKeys

TTL_S: Final = 7 * 24 * 3600
_REMEMBERED: Final = 20_000
_GATHER_S: Final = 0.1
"""How long new ones gather: nobody waits for them, and each round trip costs requests their time."""


class StreamCache:
    """Best effort: what Redis does not know is simply unknown. Filled in the background."""

    def __init__(self, redis: RedisAccess, keys: RedisKeys) -> None:
        self._redis = redis
        self._keys = keys
        self._recent: OrderedDict[uuid.UUID, uuid.UUID] = OrderedDict()
        self._new: dict[uuid.UUID, uuid.UUID] = {}
        self._task: asyncio.Task[None] | None = None

    async def get(self, row_id: uuid.UUID) -> uuid.UUID | None:
        if row_id in self._recent:
            return self._recent[row_id]
        try:
            found = await self._redis.get(self._keys.stream(row_id))
        except RedisUnavailable:
            return None
        return uuid.UUID(found) if found is not None else None

    def remember(self, streams: Mapping[uuid.UUID, uuid.UUID]) -> None:
        """Keep these for a week; returns at once."""
        new = {row: stream for row, stream in streams.items() if self._recent.get(row) != stream}
        if not new:
            return
        self._recent.update(new)
        while len(self._recent) > _REMEMBERED:
            self._recent.popitem(last=False)
        self._new |= new
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._store(), name="stream-cache")

    async def close(self) -> None:
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _store(self) -> None:
        """What comes while this is under way goes with the next round trip."""
        while self._new:
            await asyncio.sleep(_GATHER_S)
            streams, self._new = self._new, {}
            values = {self._keys.stream(row): str(stream) for row, stream in streams.items()}
            try:
                await self._redis.set_all(values, TTL_S)
            except RedisUnavailable:
                for row in streams:
                    self._recent.pop(row, None)
