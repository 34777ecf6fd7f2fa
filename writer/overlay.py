"""The writer's side of the pending overlay: settles entries, and sweeps them after their grace."""

import hashlib
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from schema.overlay import SETTLE_MANY, SETTLED, SWEEP, SWEEP_LATER, EntryState
from schema.redis_keys import ID_CHARS, RedisKeys, long_id, short_id

_TIMEOUT_S = 5.0
_AT_ONCE = 500
"""So many entries a script changes: while it runs, nobody else is served."""
_LEAVING = 20
"""So many commands of one owner are one member of what is to be swept."""
_SWEPT = 100
"""So many members are swept at a time."""
_TOMBSTONE = {state: "1" if state in SETTLED else "" for state in EntryState}
_Call = tuple[str, Sequence[str], Sequence[str]]


class Settlement(NamedTuple):
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
        due = str(int(time.time() * 1000) + self._grace_ms)
        by_owner: dict[uuid.UUID, list[str]] = defaultdict(list)
        going: dict[uuid.UUID, list[str]] = defaultdict(list)
        for owner, command_id, state, lane, offset in settlements:
            command, tombstone = short_id(command_id), _TOMBSTONE[state]
            by_owner[owner].append(f"{command}|{state.value}|{lane}|{offset}|{tombstone}")
            if tombstone:
                going[owner].append(command)
        calls: list[_Call] = [
            (SETTLE_MANY, [self._keys.entries(owner)], [" ".join(part)])
            for owner, settled in by_owner.items()
            for part in _parts(settled, _AT_ONCE)
        ]
        leaving = [
            f"{owner}:{','.join(part) if len(part) > 1 else long_id(part[0])}"
            for owner, commands in going.items()
            for part in _parts(commands, _LEAVING)
        ]
        for part in _parts(leaving, _AT_ONCE):
            calls.append((SWEEP_LATER, [self._keys.sweep()], [due, " ".join(part)]))
        await self._run(calls)

    async def sweep(self, most: int = _SWEPT) -> int:
        """Remove the entries of so many members whose grace is over; returns how many were looked at."""
        now = int(time.time() * 1000)
        due = await self._redis.zrangebyscore(self._keys.sweep(), "-inf", now, start=0, num=most)
        members = [str(member) for member in due]
        if not members:
            return 0
        by_owner: dict[uuid.UUID, list[str]] = defaultdict(list)
        for member in members:
            owner, _, commands = member.partition(":")
            by_owner[uuid.UUID(owner)] += [
                command if len(command) == ID_CHARS else short_id(uuid.UUID(command))
                for command in commands.split(",")
            ]
        await self._run(
            [
                (SWEEP, [self._keys.entries(owner), self._keys.index(owner)], part)
                for owner, ids in by_owner.items()
                for part in _parts(ids, _AT_ONCE)
            ]
        )
        await self._redis.zrem(self._keys.sweep(), *members)
        return sum(map(len, by_owner.values()))

    async def _run(self, calls: Sequence[_Call]) -> None:
        """Run scripts, given with keys and arguments, in one round trip.

        Each script is sent once, whatever a server that was restarted has forgotten.
        """
        async with self._redis.pipeline(transaction=False) as pipe:
            for script in {script for script, _, _ in calls}:
                pipe.execute_command("SCRIPT LOAD", script)
            for script, keys, arguments in calls:
                pipe.execute_command("EVALSHA", _digest(script), len(keys), *keys, *arguments)
            await pipe.execute()

    async def close(self) -> None:
        await self._redis.aclose()


@cache
def _digest(script: str) -> str:
    """The name by which Redis knows a script: no secret, and nothing to be proved."""
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


def _parts(items: Sequence[str], most: int) -> Iterator[Sequence[str]]:
    return (items[at : at + most] for at in range(0, len(items), most))
