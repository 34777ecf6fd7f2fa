"""How many submissions an author may make in a minute. Without Redis there is no limit."""

import math
import time
import uuid
from typing import Final

from frontend_api.problems import ProblemError, fail
from frontend_api.redis_access import RedisAccess, RedisUnavailable
from schema.redis_keys import RedisKeys

_COUNT: Final = """
-- KEYS: counter   ARGV: ttl_s
local n = redis.call('INCR', KEYS[1])
if n == 1 then redis.call('EXPIRE', KEYS[1], ARGV[1]) end
return n
"""


class RateLimit:
    def __init__(self, redis: RedisAccess, keys: RedisKeys, per_minute: int) -> None:
        self._redis = redis
        self._keys = keys
        self._per_minute = per_minute

    async def count(self, author: uuid.UUID) -> dict[str, str]:
        """Count one submission. Returns the headers that say how many are left.

        Raises `ProblemError` 429, with the same headers, when it is one too many.
        """
        now_s = time.time()
        minute = int(now_s // 60)
        try:
            made = int(await self._redis.run(_COUNT, [self._keys.rate(author, minute)], [120]))
        except RedisUnavailable:
            return {}
        wait_s = max(1, math.ceil((minute + 1) * 60 - now_s))
        headers = {
            "RateLimit-Policy": f'"default";q={self._per_minute};w=60',
            "RateLimit": f'"default";r={max(0, self._per_minute - made)};t={wait_s}',
        }
        if made > self._per_minute:
            error = fail("rate_limited", f"At most {self._per_minute} submissions a minute.")
            raise ProblemError(error.problem, headers | {"Retry-After": str(wait_s)})
        return headers
