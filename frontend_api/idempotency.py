"""Claims of Idempotency-Keys: the first request with a key does the work, a repeat gets its answer.

The ids that the first request was given are part of the claim, so that whoever has to repeat the
work, because the first one died or never learned what became of it, repeats it with the same ids.
"""

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from pydantic_core import to_json

from frontend_api.redis_access import Call, RedisAccess
from schema.commands import Command
from schema.redis_keys import RedisKeys

_MEMORY_LIMIT_S: Final = 1.0
"""Longest wait for claims that were lost to be restored."""

_CLAIM: Final = """
-- KEYS: claim   ARGV: fingerprint, ids, stale_ms, ttl_s
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local held = redis.call('HMGET', KEYS[1], 'fingerprint', 'ids', 'since', 'answer')
if held[1] then
    if held[1] ~= ARGV[1] then return {'reused'} end
    if held[4] then return {'answered', held[4]} end
    if now_ms - tonumber(held[3]) < tonumber(ARGV[3]) then return {'in_flight'} end
    redis.call('HSET', KEYS[1], 'since', now_ms)
    return {'taken_over', held[2]}
end
redis.call('HSET', KEYS[1], 'fingerprint', ARGV[1], 'ids', ARGV[2], 'since', now_ms)
redis.call('EXPIRE', KEYS[1], ARGV[4])
return {'claimed'}
"""

_FIRST: Final = """
-- KEYS: claim   ARGV: fingerprint, ids, ttl_s. The ids that the key is claimed for; these, if none are.
local held = redis.call('HGET', KEYS[1], 'ids')
if held then return held end
redis.call('HSET', KEYS[1], 'fingerprint', ARGV[1], 'ids', ARGV[2], 'since', 0)
redis.call('EXPIRE', KEYS[1], ARGV[3])
return ARGV[2]
"""

_ANSWER: Final = """
-- KEYS: claim   ARGV: ids, answer. Only the claim with these ids is answered.
if redis.call('HGET', KEYS[1], 'ids') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'answer', ARGV[2])
return 1
"""

_RELEASE: Final = """
-- KEYS: claim   ARGV: ids. Nothing was done: the next request with this key starts afresh.
if redis.call('HGET', KEYS[1], 'ids') ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""

_REOPEN: Final = """
-- KEYS: claim   ARGV: ids. It is not known what became of it: a repeat takes the same ids at once.
if redis.call('HGET', KEYS[1], 'ids') ~= ARGV[1] then return 0 end
return redis.call('HSET', KEYS[1], 'since', 0)
"""

_RESTORE: Final = """
-- KEYS: claim   ARGV: fingerprint, ids, ttl_s. What the log says of a claim that was lost. Of several
-- commands with this key the oldest counts, as it does for the writer: ids begin with a command's,
-- which grow with time. A claim that has its answer stays. Returns the ids that have to give way.
local held = redis.call('HMGET', KEYS[1], 'ids', 'answer')
if held[2] or (held[1] and held[1] <= ARGV[2]) then return '' end
redis.call('HSET', KEYS[1], 'fingerprint', ARGV[1], 'ids', ARGV[2], 'since', 0)
redis.call('EXPIRE', KEYS[1], ARGV[3])
return held[1] or ''
"""


@dataclass(frozen=True)
class Answer:
    """An answer as it went out, kept for repeats of the request.

    Ids and times in its body may be such; a kept one has them as JSON has them.
    """

    status: int
    headers: dict[str, str]
    body: Any


@dataclass(frozen=True)
class Claimed:
    """The work is ours to do, with these ids. `again` if it may have been done before."""

    ids: tuple[uuid.UUID, ...]
    again: bool = False
    certain: bool = True
    """False while Redis cannot tell whether another request with this key came before."""


class InFlight(Exception):
    """The first request with this key is still in work."""


class KeyReused(Exception):
    """The key came with another request before."""


class MemoryPort(Protocol):
    """Knows whether Redis still has the claims that were made."""

    def question(self) -> Call: ...

    def holds(self, answer: Any) -> bool: ...

    async def until_whole(self, limit_s: float) -> bool: ...


class Idempotency:
    """Every method raises `RedisUnavailable`. `stale_ms`: after that a claim's holder is dead.

    With a `memory`, a fresh claim waits a moment while claims that were lost are restored.
    """

    def __init__(
        self,
        redis: RedisAccess,
        keys: RedisKeys,
        stale_ms: int,
        ttl_s: int,
        memory: MemoryPort | None = None,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._stale_ms = stale_ms
        self._ttl_s = ttl_s
        self._memory = memory

    async def claim(
        self, author: uuid.UUID, key: str, fingerprint: str, ids: Sequence[uuid.UUID]
    ) -> Claimed | Answer:
        """Claim the key for these ids, or learn what came before. Raises `InFlight`, `KeyReused`."""
        (result, *rest), certain = await self._ask(author, key, fingerprint, ids)
        match result:
            case "claimed":
                return Claimed(tuple(ids), certain=certain)
            case "taken_over":
                return Claimed(tuple(uuid.UUID(text) for text in rest[0].split(",")), again=True)
            case "answered":
                return Answer(**json.loads(rest[0]))
            case "in_flight":
                raise InFlight
            case _:
                raise KeyReused

    async def _ask(
        self, author: uuid.UUID, key: str, fingerprint: str, ids: Sequence[uuid.UUID]
    ) -> tuple[list[Any], bool]:
        """The answer of Redis, and whether a claim that it calls fresh is certainly the first."""
        claim: Call = (
            _CLAIM,
            [self._keys.idempotency(author, key)],
            [fingerprint, _join(ids), self._stale_ms, self._ttl_s],
        )
        if self._memory is None:
            return list(await self._redis.run(*claim)), True
        found, memory = await self._redis.run_all([claim, self._memory.question()])
        if self._memory.holds(memory) or found[0] != "claimed":
            return list(found), True
        # It looks like the first, but there may have been another, whose claim is lost.
        await self.release(author, key, ids)
        whole = await self._memory.until_whole(_MEMORY_LIMIT_S)
        return list(await self._redis.run(*claim)), whole

    async def first(
        self, author: uuid.UUID, key: str, fingerprint: str, ids: Sequence[uuid.UUID]
    ) -> bool | None:
        """Whether these ids are the first that the key is claimed for; None while that is not known."""
        if self._memory is not None:
            (answer,) = await self._redis.run_all([self._memory.question()])
            if not self._memory.holds(answer):
                return None
        claim = self._keys.idempotency(author, key)
        held = await self._redis.run(_FIRST, [claim], [fingerprint, _join(ids), self._ttl_s])
        return bool(held == _join(ids))

    def restoring(self, command: Command, ids: Sequence[uuid.UUID]) -> list[Call]:
        """To claim again what a command of the log had claimed; nothing if that has expired.

        The answer has the ids, with commas between, of a later request that has to give way.
        """
        key, fingerprint = command.idempotency_key, command.fingerprint
        age_s = (datetime.now(tz=UTC) - command.accepted_at).total_seconds()
        left_s = int(self._ttl_s - age_s)
        if key is None or fingerprint is None or left_s <= 0:
            return []
        claim = self._keys.idempotency(command.author.id, key)
        return [(_RESTORE, [claim], [fingerprint, _join(ids), left_s])]

    async def answer(
        self, author: uuid.UUID, key: str, ids: Sequence[uuid.UUID], answer: Answer
    ) -> None:
        """Keep the answer for repeats."""
        kept = {"status": answer.status, "headers": answer.headers, "body": answer.body}
        await self._redis.run(
            _ANSWER, [self._keys.idempotency(author, key)], [_join(ids), to_json(kept)]
        )

    async def release(self, author: uuid.UUID, key: str, ids: Sequence[uuid.UUID]) -> None:
        """Nothing was accepted: forget the claim."""
        await self._redis.run(_RELEASE, [self._keys.idempotency(author, key)], [_join(ids)])

    async def reopen(self, author: uuid.UUID, key: str, ids: Sequence[uuid.UUID]) -> None:
        """It is not known whether it was accepted: let a repeat do it again with the same ids."""
        await self._redis.run(_REOPEN, [self._keys.idempotency(author, key)], [_join(ids)])


def _join(ids: Sequence[uuid.UUID]) -> str:
    return ",".join(str(i) for i in ids)
