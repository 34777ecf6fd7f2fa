"""Redis, as the rebuild needs it: one rebuilder at a time, entries put back, stale ones mended."""

import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from frontend_api.idempotency import Idempotency
from frontend_api.merge import Entry
from frontend_api.overlay import Laid, Overlay
from frontend_api.overlay_marker import marker_value
from frontend_api.redis_access import Call, RedisAccess, Server
from schema.commands import Command
from schema.identifiers import CommandId
from schema.overlay import SETTLE, SETTLED, EntryState, Status
from schema.redis_keys import SHARED, RedisKeys, long_id, short_id

LOCK_S: Final = 5.0
"""How long a rebuilder that died keeps others from taking over."""
_BATCH_BYTES: Final = 1_000_000
_BATCH_CALLS: Final = 300
_SCAN: Final = 500

_LOCK: Final = """
-- KEYS: rebuilder   ARGV: token, ms
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
return redis.call('GET', KEYS[1]) == ARGV[1] and 1 or 0
"""

_RENEW: Final = """
-- KEYS: rebuilder   ARGV: token, ms. 0 if it is another's, or gone with everything else.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""

_RELEASE: Final = """
-- KEYS: rebuilder   ARGV: token
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""

_FINISH: Final = """
-- KEYS: rebuilder, marker   ARGV: token, run id, evicted keys, value. Sets the marker only if
-- nothing was lost since the rebuild began. Returns what speaks against it, or nothing.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'lost again' end
local id = string.match(redis.call('INFO', 'server'), 'run_id:(%w*)') or ''
if id ~= ARGV[2] then return 'another server' end
local evicted = string.match(redis.call('INFO', 'stats'), 'evicted_keys:(%d+)') or '0'
if evicted ~= ARGV[3] then return 'evicted' end
redis.call('SET', KEYS[2], ARGV[4])
redis.call('DEL', KEYS[1])
return ''
"""

_FORGET_MARKER: Final = """
-- KEYS: marker. Everybody rebuilds.
return redis.call('DEL', KEYS[1])
"""

_SWEEP_AT: Final = """
-- KEYS: sweep   ARGV: due_ms, member. When a settled entry may go, if that is not known yet.
return redis.call('ZADD', KEYS[1], 'NX', ARGV[1], ARGV[2])
"""

_KEYS: Final = """
-- KEYS: any   ARGV: cursor, pattern, count. Some keys of this server.
return redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3])
"""

_FIELDS: Final = """
-- KEYS: entries   ARGV: cursor, count. Some of the states in one overlay, without the payloads.
local found = redis.call('HSCAN', KEYS[1], ARGV[1], 'MATCH', '*:s', 'COUNT', ARGV[2])
return {found[1], found[2]}
"""


class LostAgain(Exception):
    """Redis has lost its memory while it was being rebuilt, or another process rebuilds now."""


@dataclass(frozen=True)
class Restored:
    """An entry to be put back, with the ids of the request if it came with a key."""

    laid: Laid
    state: EntryState = EntryState.PENDING
    ids: tuple[uuid.UUID, ...] = ()


@dataclass(frozen=True)
class Standing:
    """The state of one entry as it stands in an overlay."""

    owner: uuid.UUID
    command: uuid.UUID
    status: Status


class RebuildEntries:
    """Every method raises `RedisUnavailable`."""

    def __init__(
        self,
        redis: RedisAccess,
        keys: RedisKeys,
        overlay: Overlay,
        claims: Idempotency,
        grace_s: float,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._overlay = overlay
        self._claims = claims
        self._grace_ms = int(grace_s * 1000)
        self._token = str(uuid.uuid4())

    async def begin(self) -> Server | None:
        """Become the only rebuilder, and learn of which server; None if another one is."""
        args = [self._token, int(LOCK_S * 1000)]
        if not await self._redis.run(_LOCK, [self._keys.rebuilder()], args):
            return None
        return await self._redis.look()

    async def renew(self) -> None:
        """Stay the only rebuilder for `LOCK_S` more. Raises `LostAgain`."""
        (mine,) = await self._redis.run_all([self._renewal()])
        if not mine:
            raise LostAgain

    async def release(self) -> None:
        await self._redis.run(_RELEASE, [self._keys.rebuilder()], [self._token])

    async def close(self) -> None:
        await self._redis.close()

    async def finish(self, server: Server, *, blind: bool) -> None:
        """Set the marker. Raises `LostAgain`."""
        against = await self._redis.run(
            _FINISH,
            [self._keys.rebuilder(), self._keys.marker()],
            [self._token, server.run_id, server.evicted, marker_value(server, blind=blind)],
        )
        if against:
            raise LostAgain(against)

    async def forget_marker(self) -> None:
        """Let everybody know that something is missing."""
        await self._redis.run(_FORGET_MARKER, [self._keys.marker()], [])

    async def restore(self, entries: Sequence[Restored], *, anew: bool) -> None:
        """Put entries back. One that stands there stays as it is, unless it was unconfirmed.

        `anew`: its index members are made again, too. Raises `LostAgain`.
        """
        calls = await self._claim_again(entries)
        for entry in entries:
            calls.append(self._overlay.restoring(entry.laid, entry.state, anew=anew))
            command = entry.laid.command
            if entry.state in SETTLED:
                calls.append(self._sweeping(entry.laid.owner or command.author.id, command))
        for batch in _batches(calls):
            *_, mine = await self._redis.run_all([*batch, self._renewal()])
            if not mine:
                raise LostAgain

    async def _claim_again(self, entries: Iterable[Restored]) -> list[Call]:
        """Restore the claims first. Returns how to take back what was laid for repeats meanwhile."""
        claims = [
            (entry.laid.command.author.id, call)
            for entry in entries
            if entry.ids
            for call in self._claims.restoring(entry.laid.command, entry.ids)
        ]
        answers: list[str] = []
        for batch in _batches([call for _, call in claims]):
            answers += await self._redis.run_all(batch)
        return [
            self._overlay.forgetting(author, uuid.UUID(given_way.split(",")[0]))
            for (author, _), given_way in zip(claims, answers, strict=True)
            if given_way
        ]

    async def standing(self) -> AsyncIterator[list[Standing]]:
        """All entries of all overlays that stand in Redis, in batches of one overlay each."""
        pattern = self._keys.entries(SHARED).replace(short_id(SHARED), "*")
        cursor = "0"
        while True:
            cursor, found = await self._redis.run(
                _KEYS, [self._keys.marker()], [cursor, pattern, _SCAN]
            )
            for key in found:
                async for batch in self._states(key):
                    yield batch
            if cursor == "0":
                return

    async def entry(self, standing: Standing) -> Entry | None:
        """One of them, with its command."""
        entry, _ = await self._overlay.look(standing.owner, CommandId(standing.command))
        return entry

    async def settle(self, standing: Mapping[Standing, EntryState | None]) -> None:
        """Note what became of entries (None: as it is), and when settled ones may go."""
        calls: list[Call] = []
        for entry, state in standing.items():
            at = entry.status
            if state is not None:
                place = ["" if part is None else part for part in (at.lane, at.offset)]
                args = [short_id(entry.command), state.value, *place, "0"]
                calls.append((SETTLE, [self._keys.entries(entry.owner)], args))
            if (state or at.state) in SETTLED:
                calls.append(self._sweeping_of(entry.owner, entry.command))
        for batch in _batches(calls):
            await self._redis.run_all(batch)

    async def _states(self, key: str) -> AsyncIterator[list[Standing]]:
        owner = long_id(key[key.index("{") + 1 : key.index("}")])
        cursor = "0"
        while True:
            cursor, flat = await self._redis.run(_FIELDS, [key], [cursor, _SCAN])
            batch: list[Standing] = []
            for at in range(0, len(flat), 2):
                with contextlib.suppress(ValueError):  # another version wrote it: not ours to judge
                    id_, status = long_id(flat[at].removesuffix(":s")), Status.parse(flat[at + 1])
                    batch.append(Standing(owner, id_, status))
            if batch:
                yield batch
            if cursor == "0":
                return

    def _renewal(self) -> Call:
        return _RENEW, [self._keys.rebuilder()], [self._token, int(LOCK_S * 1000)]

    def _sweeping(self, owner: uuid.UUID, command: Command) -> Call:
        return self._sweeping_of(owner, command.command_id)

    def _sweeping_of(self, owner: uuid.UUID, command: uuid.UUID) -> Call:
        due_ms = int(time.time() * 1000) + self._grace_ms
        return _SWEEP_AT, [self._keys.sweep()], [due_ms, f"{owner}:{command}"]


def _batches(calls: Sequence[Call]) -> Iterable[Sequence[Call]]:
    """Portions that Redis takes in a moment, however long the texts are."""
    batch: list[Call] = []
    size = 0
    for call in calls:
        length = sum(len(arg) for arg in call[2] if isinstance(arg, str))
        if batch and (size + length > _BATCH_BYTES or len(batch) >= _BATCH_CALLS):
            yield batch
            batch, size = [], 0
        batch.append(call)
        size += length
    if batch:
        yield batch
