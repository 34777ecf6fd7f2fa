"""The rebuild: when Redis has lost its memory, the overlay is made again from the log.

One process does it, the others wait for its marker. What is undecided comes first: parked commands,
then everything from the writer's position to the end of each lane. Then what was settled so lately
that a replica may not have it yet. At last, entries of an old file of Redis are told what became of
them. Everything may be done twice, and by a process that takes over from one that died.
"""

import asyncio
import random
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from prometheus_client import Counter

from frontend_api.merge import Entry
from frontend_api.overlay import Laid
from frontend_api.overlay_marker import Marker
from frontend_api.planning import Effect, public_part, scopes_of, shared_scopes_of
from frontend_api.rebuild_effects import Replay, claimed_ids
from frontend_api.rebuild_entries import LOCK_S, LostAgain, RebuildEntries, Restored, Standing
from frontend_api.rebuild_ledger import RebuildLedger, Told
from frontend_api.rebuild_log import CommandLog, LogUnavailable, OpenLog
from frontend_api.redis_access import RedisUnavailable
from frontend_api.view import DatabaseUnavailable
from schema.catalog import Catalog
from schema.commands import Command
from schema.envelope import EnvelopeError, Keyring, headers_from_json, open_record
from schema.outcomes import Outcome
from schema.overlay import SETTLED, EntryState
from schema.redis_keys import SHARED, RedisKeys
from schema.tasks import end_tasks
from schema.telemetry import Log

_LOOK_S: Final = 1.0
"""How often the marker is looked at when nobody reads."""
_MEND_S: Final = 5.0
_OTHERS_S: Final = 0.2
"""How often to look whether another process has finished."""
_BACKOFF_S: Final = (0.2, 5.0)
_DATABASE_S: Final = 2.0
"""How long a rebuild waits for PostgreSQL before it goes without."""
_OWED_S: Final = 5.0
"""How long Redis may answer and not take what this process owes it."""
_PARKED: Final = 100

_log = Log("frontend_api")

Found = tuple[int, int, Command]
"""A command with its lane and offset."""


class CannotTell(Exception):
    """It is not known how far the writer has come, so that there is nowhere to begin."""


class DatabasePort(Protocol):
    @property
    def available(self) -> bool: ...

    async def until_available(self) -> None: ...


@dataclass
class _Work:
    """One rebuild in progress."""

    blind: bool
    anew: bool
    replay: Replay
    commands: int = 0
    parked: set[uuid.UUID] = field(default_factory=set)
    keys: dict[tuple[uuid.UUID, str], uuid.UUID] = field(default_factory=dict)

    def repeats(self, command: Command) -> bool:
        """Whether a command before it has its key: of those the writer takes the first."""
        key, own = command.idempotency_key, command.command_id
        return key is not None and self.keys.setdefault((command.author.id, key), own) != own


class Rebuilder:
    """`start()` begins watching the marker in the background; `close()` ends it.

    `owed` are commands in the log that Redis has not taken from this process, by their ids. When it
    does not take them soon after it answers again, they are found by a rebuild.
    """

    def __init__(
        self,
        *,
        marker: Marker,
        entries: RebuildEntries,
        log: CommandLog,
        ledger: RebuildLedger,
        database: DatabasePort,
        catalog: Catalog,
        keys: RedisKeys,
        keyring: Keyring,
        grace_s: float,
        owed: set[uuid.UUID],
        on_unconfirmed: Callable[[Entry], None],
        rebuilds: Counter,
    ) -> None:
        self._marker = marker
        self._entries = entries
        self._log = log
        self._ledger = ledger
        self._database = database
        self._catalog = catalog
        self._keys = keys
        self._keyring = keyring
        self._grace_s = grace_s
        self._owed = owed
        self._on_unconfirmed = on_unconfirmed
        self._rebuilds = rebuilds
        self._task: asyncio.Task[None] | None = None
        self._owing_since: float | None = None
        self._told_of: set[uuid.UUID] = set()
        self._mend_behind: dict[int, int] = {}
        self._mend_at = 0.0

    def start(self) -> None:
        self._task = asyncio.create_task(self._watch(), name="rebuild")

    async def close(self) -> None:
        """What this process still owes to Redis, others have to find in the log."""
        await end_tasks(self._task)
        try:
            if self._owed:
                await self._entries.forget_marker()
            await self._entries.release()
        except RedisUnavailable:
            pass  # who starts next finds a run id that is not the marker's, or nothing is amiss
        await self._entries.close()

    # -- when ---------------------------------------------------------------------------------

    async def _watch(self) -> None:
        pause_s = _BACKOFF_S[0]
        while True:
            try:
                async with asyncio.timeout(_LOOK_S):
                    await self._marker.lost.wait()
            except TimeoutError:
                pass
            self._marker.lost.clear()
            try:
                await self._look()
                pause_s = _BACKOFF_S[0]
                continue
            except RedisUnavailable:
                # Said by who asked. It is away, or full: there is nothing to rebuild into.
                self._marker.hopeless = True
                self._owing_since = None
            except (LostAgain, LogUnavailable, DatabaseUnavailable, CannotTell) as error:
                self._marker.hopeless = True
                why = f"{type(error).__name__}: {error}"
                _log.info("recovering", what="rebuild", error=why, wait_s=pause_s)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is repeated and said
                self._marker.hopeless = True
                _log.error("unexpected_error", what="rebuild", error=repr(error))
            await asyncio.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311 - no secret
            pause_s = min(pause_s * 2, _BACKOFF_S[1])

    async def _look(self) -> None:
        whole = await self._marker.look()
        if whole:
            self._owed -= self._told_of
            self._told_of = set()
            whole = not await self._tell_of_owed()
        anew = whole and self._marker.blind
        if whole and not (anew and self._database.available):
            await self._mend_later()
            return
        server = await self._entries.begin()
        if server is None:
            await asyncio.sleep(_OTHERS_S)
            self._marker.lost.set()
            return
        _log.warning("overlay_lost", anew=anew)
        started = time.monotonic()
        keeping = asyncio.create_task(self._keep(), name="rebuilder")
        try:
            work = await self._rebuild(anew=anew)
            await self._entries.finish(server, blind=work.blind)
        finally:
            await end_tasks(keeping)
            await self._entries.release()
        self._marker.hopeless = False
        seconds = round(time.monotonic() - started, 2)
        _log.info("overlay_rebuilt", commands=work.commands, seconds=seconds, blind=work.blind)
        self._rebuilds.inc()
        self._marker.lost.set()  # look again, to say so

    async def _tell_of_owed(self) -> bool:
        """Whether something is owed for so long that everybody has to know, and now does."""
        if not self._owed:
            self._owing_since = None
            return False
        now = time.monotonic()
        if self._owing_since is None:
            self._owing_since = now
        if now - self._owing_since < _OWED_S:
            return False
        self._owing_since = None
        self._told_of = set(self._owed)  # in the log before any rebuild begins that follows
        await self._entries.forget_marker()
        return True

    async def _keep(self) -> None:
        """Stay the only one. When that fails, the next step of the rebuild notices."""
        while True:
            await asyncio.sleep(LOCK_S / 4)
            try:
                await self._entries.renew()
            except (LostAgain, RedisUnavailable):
                continue

    # -- what ---------------------------------------------------------------------------------

    async def _rebuild(self, *, anew: bool) -> _Work:
        async with self._log.open() as log:
            bounds = await log.bounds()
            positions, blind = await self._positions(bounds)
            work = _Work(blind, anew, Replay(self._catalog))
            if not blind:
                for lane in bounds:
                    await self._parked(work, lane)
            for lane, (start, end) in bounds.items():
                await self._range(work, log, lane, max(start, positions[lane]), end)
            later = await log.bounds()
            for lane, (_, end) in later.items():
                await self._range(work, log, lane, bounds.get(lane, (0, 0))[1], end)
            if not blind:
                since = await log.since(self._grace_s)
                for lane, (start, _) in bounds.items():
                    from_ = max(start, since.get(lane, positions[lane]))
                    await self._range(work, log, lane, from_, positions[lane])
                await self._mend()
                self._mend_behind = {lane: end for lane, (_, end) in later.items()}
        return work

    async def _positions(
        self, bounds: Mapping[int, tuple[int, int]]
    ) -> tuple[dict[int, int], bool]:
        """How far the writer has come in each lane, and whether only the hint could be asked."""
        try:
            async with asyncio.timeout(_DATABASE_S):
                await self._database.until_available()
            told = await self._ledger.positions()
            return {lane: told[lane].position if lane in told else 0 for lane in bounds}, False
        except (DatabaseUnavailable, TimeoutError):
            hint = await self._log.hint()
        positions = {}
        for lane, (start, end) in bounds.items():
            if lane not in hint and end > start:
                raise CannotTell(f"PostgreSQL is away, and of lane {lane} nothing else is known")
            positions[lane] = hint.get(lane, end)
        return positions, True

    async def _parked(self, work: _Work, lane: int) -> None:
        after = -1
        while held := await self._ledger.parked(lane, after, _PARKED):
            after = held[-1].offset
            found = [
                (lane, p.offset, command)
                for p in held
                if (command := self._opened(p.key, p.value, headers_from_json(p.headers)))
            ]
            await self._put(work, found)
            work.parked |= {command.command_id for _, _, command in found}

    async def _range(self, work: _Work, log: OpenLog, lane: int, from_: int, to: int) -> None:
        async for records in log.records(lane, from_, to):
            found = [
                (lane, r.offset, command)
                for r in records
                if (command := self._opened(r.key, r.value, r.headers))
            ]
            await self._put(
                work, [found_ for found_ in found if found_[2].command_id not in work.parked]
            )

    def _opened(
        self,
        key: bytes | None,
        value: bytes | None,
        headers: Iterable[tuple[str, bytes | None]],
    ) -> Command | None:
        """The command of a record; None for what the writer would not apply."""
        try:
            command = open_record(key, value, headers, self._keyring).command
        except EnvelopeError:
            return None
        return command if all(m.type in self._catalog for m in command.mutations) else None

    async def _put(self, work: _Work, found: list[Found]) -> None:
        told = None
        if not work.blind and found:
            commands = [command for _, _, command in found]
            told = await self._ledger.tell(
                [c.command_id for c in commands], work.replay.wanted(commands)
            )
        restored: list[Restored] = []
        for lane, offset, command in found:
            try:
                restored += self._restored(work, (lane, offset), command, told)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                # Values that no writer would take: it will be rejected.
                _log.info("not_accepted", command=str(command.command_id), why=repr(error))
        await self._entries.restore(restored, anew=work.anew)
        work.commands += len(found)

    def _restored(
        self, work: _Work, place: tuple[int, int], command: Command, told: Told | None
    ) -> Iterator[Restored]:
        if work.repeats(command):
            return
        row = told.outcomes.get(command.command_id) if told is not None else None
        state = EntryState.PENDING
        if row is not None:
            place = (row["lane"], row["offset"])
            if row["outcome"] == Outcome.SAVED:
                state = EntryState.SAVED
            elif row["outcome"] == Outcome.PARKED:
                state = EntryState.PARKED
            else:
                return
        elif told is not None and told.passed(*place):
            return  # it only repeated another, or the ledger has forgotten it
        if row is not None and state is EntryState.SAVED:
            effects = work.replay.saved(command, row["effects"])
        else:
            effects = work.replay.undecided(command, told.rows if told is not None else {})
        yield from self._entries_of(place, command, effects, state)

    def _entries_of(
        self,
        place: tuple[int, int],
        command: Command,
        effects: tuple[Effect, ...],
        state: EntryState,
    ) -> Iterator[Restored]:
        ids = tuple(claimed_ids(self._catalog, command)) if command.idempotency_key else ()
        scopes = scopes_of(self._catalog, self._keys, command, effects)
        yield Restored(Laid(command, scopes, place), state, ids)
        public = public_part(self._catalog, command)
        if public is not None:
            scopes = shared_scopes_of(self._catalog, self._keys, command, effects)
            yield Restored(Laid(public, scopes, place, SHARED), state)

    # -- what stands there and is out of date ---------------------------------------------------

    async def _mend_later(self) -> None:
        """Once PostgreSQL, as we read it, has passed what was rebuilt: a replica that lags may have
        called something undecided that the writer had settled before Redis lost its memory."""
        if not self._mend_behind or time.monotonic() < self._mend_at:
            return
        self._mend_at = time.monotonic() + _MEND_S
        try:
            told = await self._ledger.positions()
            if all(n in told and told[n].position >= end for n, end in self._mend_behind.items()):
                await self._mend()
                self._mend_behind = {}
        except DatabaseUnavailable:
            return

    async def _mend(self) -> None:
        """Tell every entry that stands in Redis what the ledger says of it."""
        async for batch in self._entries.standing():
            told = await self._ledger.tell([s.command for s in batch])
            await self._entries.settle({s: _became(s, told) for s in batch})
            for standing in batch:
                unconfirmed = standing.status.state is EntryState.UNCONFIRMED
                if unconfirmed and standing.command not in told.outcomes:
                    entry = await self._entries.entry(standing)
                    if entry is not None:
                        self._on_unconfirmed(entry)


def _became(standing: Standing, told: Told) -> EntryState | None:
    """The state that the ledger gives to an entry; None if it says nothing new."""
    status, row = standing.status, told.outcomes.get(standing.command)
    if status.state in SETTLED:
        return None
    if row is not None:
        state = {
            Outcome.SAVED: EntryState.SAVED,
            Outcome.PARKED: EntryState.PARKED,
        }.get(row["outcome"], EntryState.REJECTED)
        return state if state is not status.state else None
    # It repeated another, whose entry shows; or it is so old that the ledger has forgotten it.
    return EntryState.SAVED if told.passed(status.lane, status.offset) else None
