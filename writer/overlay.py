"""The writer's side of the pending overlay: settles entries, and sweeps them after their grace."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from schema.overlay import SETTLE, SETTLED, SWEEP, SWEEP_LATER, EntryState
from schema.redis_keys import RedisKeys, short_id

_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Settlement:
    """What an entry becomes. `owner` is whose overlay it is in: its author's, or `SHARED`."""

    owner: uuid.UUID
    command_id: uuid.UUID
    state: EntryState
    lane: int
    offset: int


class SettledOverlay:
    """Redis adapter. Every operation may be repeated."""

    def __init__(self, url: str, keys: RedisKeys, grace_s: float) -> None:
        # No retries inside the client: a retry after a lost reply would be ours to judge.
        self._redis: Redis = Redis.from_url(
            url,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
            decode_responses=True,
        )
        self._keys = keys
        self._grace_ms = int(grace_s * 1000)

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """Write the states in one round trip, and note when the settled ones may go.

        A settled entry that is missing leaves a tombstone, in case it comes later.
        """
        due = int(time.time() * 1000) + self._grace_ms
        going: list[str] = []
        async with self._redis.pipeline(transaction=False) as pipe:
            for s in settlements:
                final = s.state in SETTLED
                pipe.eval(
                    SETTLE,
                    1,
                    self._keys.entries(s.owner),
                    short_id(s.command_id),
                    s.state.value,
                    str(s.lane),
                    str(s.offset),
                    "1" if final else "",
                )
                if final:
                    going.append(f"{s.owner}:{s.command_id}")
            if going:
                pipe.eval(SWEEP_LATER, 1, self._keys.sweep(), str(due), *going)
            await pipe.execute()

    async def sweep(self, most: int = 500) -> int:
        """Remove entries whose grace is over; returns how many were looked at."""
        now = int(time.time() * 1000)
        due = await self._redis.zrangebyscore(self._keys.sweep(), "-inf", now, start=0, num=most)
        members = [str(member) for member in due]
        if not members:
            return 0
        async with self._redis.pipeline(transaction=False) as pipe:
            for member in members:
                owner_text, _, command_id = member.partition(":")
                owner = uuid.UUID(owner_text)
                entries, index = self._keys.entries(owner), self._keys.index(owner)
                pipe.eval(SWEEP, 2, entries, index, short_id(uuid.UUID(command_id)))
            pipe.zrem(self._keys.sweep(), *members)
            await pipe.execute()
        return len(members)

    async def close(self) -> None:
        await self._redis.aclose()
