"""Redis, bounded: one attempt per request, a short breaker, one kind of failure.

Redis is a view, not the truth: whoever calls this goes on without it when it is away.
"""

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client import Counter
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.commands.core import AsyncScript
from redis.exceptions import NoScriptError, OutOfMemoryError, RedisError

from schema.telemetry import Log

_PAUSE_S = 1.0
"""How long Redis is left alone after a failure, so that one stuck server costs one timeout a second
and not several in every request."""

_AT_ONCE = 128
"""Requests that are with Redis at once; more of them wait for their turn, within their time."""

Call = tuple[str, Sequence[str], Sequence[Any]]
"""A script, its keys and its arguments."""

_log = Log("frontend_api")


class RedisUnavailable(Exception):
    """Redis did not answer in time, refused, or is full. Whether the request took effect is open."""


@dataclass(frozen=True)
class Server:
    """What a Redis server says of itself.

    A server that was started again has another `run_id`. One that hides it has the empty one.
    """

    run_id: str = ""
    evicted: int = 0
    """How many keys it has evicted since it was started."""
    policy: str = "noeviction"
    used_bytes: int = 0
    most_bytes: int = 0
    """0: no limit of its own."""

    @property
    def evicts(self) -> bool:
        """Whether it may throw away keys that have no lifetime."""
        return self.policy.startswith("allkeys")

    @classmethod
    def parse(cls, info: str | Mapping[str, Any]) -> "Server":
        """From the answer to INFO, whole or in part."""
        if isinstance(info, str):
            pairs = (line.partition(":") for line in info.splitlines())
            info = {name: value for name, _, value in pairs}
        return cls(
            str(info.get("run_id", "")),
            int(info.get("evicted_keys", 0)),
            str(info.get("maxmemory_policy", "noeviction")),
            int(info.get("used_memory", 0)),
            int(info.get("maxmemory", 0)),
        )


class RedisAccess:
    """Runs scripts. Takes at most `timeout_s` per call; `close()` gives the connections back.

    `server` is what the server said that was connected to last: a server that was started again is
    known before the first answer that comes from it.
    """

    def __init__(self, url: str, timeout_s: float, failures: Counter) -> None:
        # redis-py retries ten times by default: a lost reply would repeat a request that was done.
        self._redis: Redis = Redis.from_url(
            url,
            decode_responses=True,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            max_connections=2 * _AT_ONCE,
            redis_connect_func=self._meet,
        )
        self._timeout_s = timeout_s
        self._failures = failures
        self._scripts: dict[str, AsyncScript] = {}
        self._away_until = 0.0
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self.server = Server()

    async def _meet(self, connection: Any) -> None:
        """What redis-py does with a new connection, and then ask who is there."""
        await connection.on_connect()
        found: dict[str, str] = {}
        for section in ("server", "memory", "stats"):
            await connection.send_command("INFO", section)
            answer = await connection.read_response()
            text = answer.decode() if isinstance(answer, bytes) else str(answer)
            found |= dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        self.server = Server.parse(found)

    async def look(self) -> Server:
        """Ask the server about itself now. Raises `RedisUnavailable`."""
        self.server = Server.parse(await self._bounded(self._redis.info()))
        return self.server

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
        """A pipeline of redis-py asks whether its scripts are there before each execution: one more
        round trip. Here they are taken to be there, and loaded when one turns out not to be; those
        that did run may run again, as every script may."""
        try:
            return await self._by_hash(calls)
        except NoScriptError:
            for script, _, _ in calls:
                await self._redis.script_load(script)
            return await self._by_hash(calls)

    async def _by_hash(self, calls: Sequence[Call]) -> list[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for script, keys, args in calls:
            pipeline.evalsha(self._script(script).sha, len(keys), *keys, *args)
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
            async with asyncio.timeout(self._timeout_s), self._turns:
                return await request
        except OutOfMemoryError as error:
            self._failures.inc()
            # It is full, not away: it still reads, and it still deletes.
            raise RedisUnavailable("full") from error
        except (RedisError, OSError, TimeoutError) as error:
            self._failures.inc()
            first = self.available
            self._away_until = time.monotonic() + _PAUSE_S
            if first:
                _log.warning("overlay_unavailable", error=type(error).__name__)
                await self._drop_idle()
            raise RedisUnavailable(type(error).__name__) from error
        finally:
            request.close()  # it may not have had its turn

    async def _drop_idle(self) -> None:
        """A server that was started again left all idle connections dead.

        Each of them would cost another failure, and with it another pause.
        """
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(self._timeout_s):
                await self._redis.connection_pool.disconnect(inuse_connections=False)
