"""Redis, bounded: one attempt per request, a short breaker, one kind of failure.

Redis is a view, not the truth: whoever calls this goes on without it when it is away.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from prometheus_client import Counter
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.commands.core import AsyncScript
from redis.exceptions import RedisError

from schema.telemetry import Log

_PAUSE_S = 1.0
"""How long Redis is left alone after a failure, so that one stuck server costs one timeout a second
and not several in every request."""

Call = tuple[str, Sequence[str], Sequence[Any]]
"""A script, its keys and its arguments."""

_log = Log("frontend_api")


class RedisUnavailable(Exception):
    """Redis did not answer in time, refused, or is full. Whether the request took effect is open."""


class RedisAccess:
    """Runs scripts. Takes at most `timeout_s` per call; `close()` gives the connections back."""

    def __init__(self, url: str, timeout_s: float, failures: Counter) -> None:
        # redis-py retries ten times by default: a lost reply would repeat a request that was done.
        self._redis: Redis = Redis.from_url(
            url,
            decode_responses=True,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            max_connections=256,
        )
        self._timeout_s = timeout_s
        self._failures = failures
        self._scripts: dict[str, AsyncScript] = {}
        self._away_until = 0.0

    @property
    def available(self) -> bool:
        """False while a failure is fresh."""
        return time.monotonic() >= self._away_until

    async def run(self, script: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """One atomic round trip. Raises `RedisUnavailable`."""
        return await self._bounded(self._script(script)(keys=list(keys), args=list(args)))

    def _script(self, text: str) -> AsyncScript:
        registered = self._scripts.get(text)
        if registered is None:
            registered = self._scripts[text] = self._redis.register_script(text)
        return registered

    async def run_all(self, calls: Sequence[Call]) -> list[Any]:
        """Several scripts in one round trip, in this order; each is atomic, all together are not.

        Raises `RedisUnavailable`.
        """
        return list(await self._bounded(self._pipelined(calls)))

    async def _pipelined(self, calls: Sequence[Call]) -> list[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for script, keys, args in calls:
            await self._script(script)(keys=list(keys), args=list(args), client=pipeline)
        return list(await pipeline.execute())

    async def ping(self) -> None:
        """Raises `RedisUnavailable`."""
        await self._bounded(self._redis.ping())

    async def set_all(self, values: dict[str, str], ttl_s: int) -> None:
        """Set several keys that need not live on one node. Raises `RedisUnavailable`."""
        pipeline = self._redis.pipeline(transaction=False)
        for key, value in values.items():
            pipeline.set(key, value, ex=ttl_s)
        await self._bounded(pipeline.execute())

    async def get(self, key: str) -> str | None:
        """Raises `RedisUnavailable`."""
        found = await self._bounded(self._redis.get(key))
        return str(found) if found is not None else None

    async def close(self) -> None:
        await self._redis.aclose()

    async def _bounded(self, request: Any) -> Any:
        if not self.available:
            request.close()
            raise RedisUnavailable("left alone after a failure")
        try:
            async with asyncio.timeout(self._timeout_s):
                return await request
        except (RedisError, OSError, TimeoutError) as error:
            self._failures.inc()
            if self.available:
                _log.warning("overlay_unavailable", error=type(error).__name__)
            self._away_until = time.monotonic() + _PAUSE_S
            raise RedisUnavailable(type(error).__name__) from error
