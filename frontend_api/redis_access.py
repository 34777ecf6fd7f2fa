"""Redis, bounded: one attempt per request, a short breaker, one kind of failure.

Redis is a view, not the truth: whoever calls this goes on without it when it is away.

What all requests ask in one turn of the event loop goes to Redis in one batch, on one connection: a
round trip costs a process more than what it carries. While several batches are under way, what comes
gathers for the next.
"""

import asyncio
import functools
import hashlib
import time
from collections import deque
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import hiredis
from prometheus_client import Counter
from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, OutOfMemoryError, RedisError

from frontend_api.redis_wire import Wire
from frontend_api.standstill import HEAR_S, stood_still
from schema.structs import struct
from schema.telemetry import Log

_PAUSE_S = 1.0
"""How long Redis is left alone after a failure, so that one stuck server costs one timeout a second
and not several in every request."""

_BATCHES_AT_ONCE: Final = 2
"""Batches that are with Redis at once; what comes then waits for its turn, within its time. Redis does
one thing at a time: with more, they would only be smaller."""
_BATCH_COMMANDS: Final = 256
"""A batch takes no more requests when it has so many commands..."""
_BATCH_BYTES: Final = 1_048_576
"""...or bytes."""

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


@struct(frozen=True)
class _Request:
    """Commands that are sent together, in this order, and whoever waits for their answers."""

    commands: Sequence[bytes]
    scripts: Sequence[str]
    """The scripts that they run, should Redis not know them."""
    until: float
    """When its time is up, on the loop's clock."""
    answers: "asyncio.Future[list[Any]]"


@dataclass(eq=False)
class _Batch:
    """Requests that leave together, and have one limit for all they do."""

    requests: list[_Request]
    timer: asyncio.TimerHandle | None = None
    wire: Wire | None = None
    opening: "asyncio.Task[None] | None" = None
    taught: Sequence[bytes] = field(default=())
    """Commands that were sent before all others because Redis did not know the scripts."""
    given_more: bool = False
    """Whether it was given the time in which this process stood still."""


class RedisAccess:
    """Runs scripts. Takes at most `timeout_s` per call, and a little more if this very process stood
    still meanwhile; `close()` gives the connections back.

    `server` is what the server said that was connected to last: a server that was started again is
    known before the first answer that comes from it.
    """

    def __init__(self, url: str, timeout_s: float, failures: Counter) -> None:
        # redis-py retries ten times by default: a lost reply would repeat a request that was done.
        self._pool: Any = ConnectionPool.from_url(
            url,
            decode_responses=True,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=None,  # a batch has one limit for all it does
            socket_connect_timeout=None,
            redis_connect_func=self._meet,
        )
        self._timeout_s = timeout_s
        self._failures = failures
        self._hashes: dict[str, str] = {}
        self._away_until = 0.0
        self._waiting: deque[_Request] = deque()
        self._flushing = False
        self._under_way: set[_Batch] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._idle: list[Wire] = []
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
        (found,) = await self._ask([("INFO",)])
        self.server = Server.parse(str(found))
        return self.server

    @property
    def available(self) -> bool:
        """False while a failure is fresh."""
        return time.monotonic() >= self._away_until

    async def run(self, script: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """One script, atomic. Raises `RedisUnavailable`."""
        return (await self.run_all([(script, keys, args)]))[0]

    def run_all(self, calls: Sequence[Call]) -> Awaitable[list[Any]]:
        """Several scripts in one round trip, in this order; each is atomic, all together are not.

        They are under way when this returns, whenever it is awaited. Raises `RedisUnavailable`.
        """
        commands = [
            ("EVALSHA", self._hash(script), len(keys), *keys, *args) for script, keys, args in calls
        ]
        return self._ask(commands, [script for script, _, _ in calls])

    async def ping(self) -> None:
        """Raises `RedisUnavailable`."""
        await self._ask([("PING",)])

    async def set_all(self, values: dict[str, str], ttl_s: int) -> None:
        """Set several keys. Raises `RedisUnavailable`."""
        await self._ask([("SET", key, value, "EX", ttl_s) for key, value in values.items()])

    async def get(self, key: str) -> str | None:
        """Raises `RedisUnavailable`."""
        (found,) = await self._ask([("GET", key)])
        return str(found) if found is not None else None

    async def close(self) -> None:
        for task in self._opening:
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        for batch in list(self._under_way):
            self._end(batch)
            self._fail(batch.requests, "closed")
        self._fail(self._waiting, "closed")
        self._drop_idle()

    def _hash(self, script: str) -> str:
        """What Redis knows a script by; it wants SHA-1."""
        known = self._hashes.get(script)
        if known is None:
            known = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
            self._hashes[script] = known
        return known

    def _ask(
        self, commands: Sequence[tuple[Any, ...]], scripts: Sequence[str] = ()
    ) -> Awaitable[list[Any]]:
        """The answers, to be awaited. They come with the batch that leaves when this turn ends."""
        loop = asyncio.get_running_loop()
        answers: asyncio.Future[list[Any]] = loop.create_future()
        if not self.available:
            answers.set_exception(RedisUnavailable("left alone after a failure"))
            answers.exception()  # seen: whoever asked may have gone
            return answers
        packed = [hiredis.pack_command(command) for command in commands]
        self._waiting.append(_Request(packed, scripts, loop.time() + self._timeout_s, answers))
        if not self._flushing:
            self._flushing = True
            loop.call_soon(self._flush)
        return answers

    def _flush(self) -> None:
        self._flushing = False
        while self._waiting and len(self._under_way) < _BATCHES_AT_ONCE:
            requests: list[_Request] = []
            commands = size = 0
            while self._waiting and commands < _BATCH_COMMANDS and size < _BATCH_BYTES:
                request = self._waiting.popleft()
                if not request.answers.done():
                    requests.append(request)
                    commands += len(request.commands)
                    size += sum(map(len, request.commands))
            if requests:
                self._carry(_Batch(requests))

    def _carry(self, batch: _Batch) -> None:
        """Bring a batch there and its answers back. Nothing of it is sent twice after a failure."""
        self._under_way.add(batch)
        self._limit(batch, batch.requests[0].until)
        while self._idle:
            wire = self._idle.pop()
            if wire.open:
                self._send(batch, wire)
                return
        batch.opening = asyncio.get_running_loop().create_task(self._open(batch))
        self._opening.add(batch.opening)
        batch.opening.add_done_callback(self._opening.discard)

    def _limit(self, batch: _Batch, until: float) -> None:
        batch.timer = asyncio.get_running_loop().call_at(until, self._time_is_up, batch, until)

    def _time_is_up(self, batch: _Batch, until: float) -> None:
        now = asyncio.get_running_loop().time()
        if stood_still(until, now) and not batch.given_more:
            batch.given_more = True
            self._limit(batch, now + HEAR_S)
            return
        self._broken(batch, TimeoutError())

    async def _open(self, batch: _Batch) -> None:
        """A connection of its own for a batch that finds none. Ends when the batch does."""
        connection = self._pool.make_connection()
        try:
            await connection.connect()
        except (RedisError, OSError, TimeoutError) as error:
            await connection.disconnect(nowait=True)
            batch.opening = None
            self._broken(batch, error)
            return
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        batch.opening = None
        self._send(batch, Wire(connection))

    def _send(self, batch: _Batch, wire: Wire) -> None:
        batch.wire = wire
        commands = [*batch.taught, *(c for request in batch.requests for c in request.commands)]
        arrived = functools.partial(self._arrived, batch, wire)
        wire.exchange(b"".join(commands), len(commands), arrived)

    def _arrived(self, batch: _Batch, wire: Wire, answers: "list[Any] | Exception") -> None:
        if isinstance(answers, Exception):
            self._broken(batch, answers)
            return
        at, unknown = len(batch.taught), []
        for request in batch.requests:
            own = answers[at : at + len(request.commands)]
            at += len(request.commands)
            if not batch.taught and any(isinstance(answer, NoScriptError) for answer in own):
                unknown.append(request)
            else:
                self._give(request, own)
        if unknown:
            # All of a request again: what it asks last is to be answered last.
            scripts = {script for request in unknown for script in request.scripts}
            loads: list[tuple[Any, ...]] = [("SCRIPT", "LOAD", script) for script in scripts]
            batch.taught = [hiredis.pack_command(load) for load in loads]
            batch.requests = unknown
            self._send(batch, wire)
            return
        batch.wire = None
        self._idle.append(wire)
        self._end(batch)
        if self._waiting and not self._flushing:
            self._flush()

    def _end(self, batch: _Batch) -> None:
        """It is not under way any more. A connection that it still has may have answers to come."""
        self._under_way.discard(batch)
        if batch.timer is not None:
            batch.timer.cancel()
        if batch.opening is not None:
            batch.opening.cancel()
        if batch.wire is not None:
            batch.wire.close()

    def _broken(self, batch: _Batch, error: Exception) -> None:
        """Who waits for this batch, and who still waits to be sent, does without."""
        if batch not in self._under_way:
            return
        self._end(batch)
        first = self._pause(error)
        lost = [*batch.requests, *self._waiting]
        self._waiting.clear()
        self._failures.inc(len(batch.requests))
        self._fail(lost, type(error).__name__)
        if first:
            self._drop_idle()

    def _give(self, request: _Request, answers: list[Any]) -> None:
        error = next((a for a in answers if isinstance(a, RedisError)), None)
        if error is None:
            if not request.answers.done():
                request.answers.set_result(answers)
            return
        self._failures.inc()
        if isinstance(error, OutOfMemoryError):
            # It is full, not away: it still reads, and it still deletes.
            self._fail([request], "full")
            return
        self._pause(error)
        self._fail([request], type(error).__name__)

    def _pause(self, error: Exception) -> bool:
        """Leave Redis alone for a moment. True if it was not already."""
        first = self.available
        self._away_until = time.monotonic() + _PAUSE_S
        if first:
            _log.warning("overlay_unavailable", error=type(error).__name__)
        return first

    @staticmethod
    def _fail(requests: Iterable[_Request], why: str) -> None:
        for request in requests:
            if not request.answers.done():
                request.answers.set_exception(RedisUnavailable(why))
                request.answers.exception()  # seen: whoever asked may have gone

    def _drop_idle(self) -> None:
        """A server that was started again left all idle connections dead.

        Each of them would cost another failure, and with it another pause.
        """
        while self._idle:
            self._idle.pop().close()
