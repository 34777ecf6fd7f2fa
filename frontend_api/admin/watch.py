"""Keeps looking: PostgreSQL, the command log and Redis, each by itself, so that none holds up another."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from typing import Final, Protocol

from frontend_api.admin.facts import Disk, Ledger, Log, Picture, Told
from frontend_api.admin.log_look import LogLook, bounded, first_of
from frontend_api.admin.trend import Trend
from frontend_api.rebuild_log import LogUnavailable, OpenLog
from frontend_api.redis_access import RedisUnavailable
from frontend_api.view import DatabaseUnavailable
from schema.clock import now
from schema.pace import Pace
from schema.tasks import end_tasks
from schema.telemetry import Log as EventLog

SEEN_S: Final = 1.0
"""How often it looks while somebody looks at the pages."""
UNSEEN_S: Final = 10.0
"""How often it looks while nobody does, so that it can say since when something is so."""
_ATTENTION_S: Final = 15.0
_LOOK_S: Final = 4.0

_log = EventLog("frontend_api")


class LedgerPort(Protocol):
    """Raises `DatabaseUnavailable`."""

    async def ledger(self) -> Ledger: ...


class Watch:
    """`start()` begins looking in the background; `close()` ends it. `picture` is there at once."""

    def __init__(
        self,
        store: LedgerPort,
        log: LogLook,
        ping_redis: Callable[[], Awaitable[None]],
        overlay_whole: Callable[[], bool],
        disk: Callable[[], Disk | None] = lambda: None,
    ) -> None:
        """`ping_redis` raises `RedisUnavailable`."""
        self._store = store
        self._look = log
        self._ping_redis = ping_redis
        self._overlay_whole = overlay_whole
        self._disk = disk
        self._ledger: Told[Ledger] = Told()
        self._log: Told[Log] = Told()
        self._redis: Told[bool] = Told()
        self._applied, self._accepted = Trend(), Trend()
        self._oldest: dict[int, tuple[int, datetime]] = {}
        self._looked_at = -_ATTENTION_S
        self._somebody = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        looks = (self._look_at_ledger, self._look_at_log, self._look_at_redis)
        self._tasks = [
            asyncio.create_task(self._keep(look), name=f"admin-watch-{n}")
            for n, look in enumerate(looks)
        ]

    async def close(self) -> None:
        await end_tasks(*self._tasks)

    @property
    def picture(self) -> Picture:
        """What is known now. Who asks for it keeps the watch awake for a while."""
        self._looked_at = asyncio.get_running_loop().time()
        self._somebody.set()
        picture = Picture(now(), self._ledger, self._log, self._redis, self._disk())
        return replace(picture, pace=self._pace(picture))

    def _pace(self, picture: Picture) -> Pace | None:
        """Each server is asked at its own times, so each rate is taken over its own looks."""
        applied, accepted = self._applied.rates(), self._accepted.rates()
        if not (self._ledger.ok and self._log.ok) or picture.behind is None:
            return None
        if applied is None or accepted is None:
            return None
        return Pace.of(accepted["accepted"], applied["applied"], applied["settled"], picture.behind)

    async def _pause(self) -> None:
        """Until it is time to look again."""
        loop = asyncio.get_running_loop()
        if loop.time() - self._looked_at < _ATTENTION_S:
            await asyncio.sleep(SEEN_S)
            return
        self._somebody.clear()
        try:
            async with asyncio.timeout(UNSEEN_S * random.uniform(0.8, 1)):  # noqa: S311 - no secret
                await self._somebody.wait()
        except TimeoutError:
            return

    async def _keep(self, look: Callable[[], Awaitable[None]]) -> None:
        """Look again and again, whatever comes: a page that has stopped looking must not look well."""
        while True:
            try:
                await look()
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise  # somebody wants us to end; else the client has let out one of its own
            except Exception as error:  # noqa: BLE001 - said, and seen by the age of what is known
                _log.error("unexpected_error", what="admin watch", error=repr(error))
            await self._pause()

    async def _look_at_ledger(self) -> None:
        try:
            found = await self._store.ledger()
            self._ledger = self._ledger.answered(found, now())
            self._applied.note(
                now(),
                {
                    "applied": sum(lane.position for lane in found.lanes),
                    "settled": sum(lane.settled for lane in found.lanes),
                },
            )
        except DatabaseUnavailable:
            self._ledger = self._ledger.silent(now())

    async def _look_at_redis(self) -> None:
        try:
            await self._ping_redis()
            self._redis = self._redis.answered(self._overlay_whole(), now())
        except (TimeoutError, RedisUnavailable):
            self._redis = self._redis.silent(now())

    async def _look_at_log(self) -> None:
        """Until it does not answer: the connection is kept."""
        try:
            async with self._look.open() as opened:
                while True:
                    found = await bounded(self._look_at(opened), _LOOK_S)
                    self._log = self._log.answered(found, now())
                    self._accepted.note(now(), {"accepted": sum(found.ends.values())})
                    await self._pause()
        except LogUnavailable:
            self._log = self._log.silent(now())

    async def _look_at(self, opened: OpenLog) -> Log:
        bounds = await opened.bounds()
        ends = {lane: end for lane, (_, end) in bounds.items()}
        lanes = self._ledger.value.lanes if self._ledger.value is not None else ()
        positions = {lane.lane: lane.position for lane in lanes}
        hinted = {} if self._ledger.ok else dict(await self._look.hint())
        for lane, position in hinted.items():
            positions[lane] = max(position, positions.get(lane, 0))
        oldest = {}
        for lane, position in positions.items():
            begin, end = bounds.get(lane, (0, 0))
            if position < end:
                oldest[lane] = await self._since(opened, lane, max(begin, position), end)
        return Log(ends, {lane: at for lane, at in oldest.items() if at is not None}, hinted)

    async def _since(self, opened: OpenLog, lane: int, position: int, end: int) -> datetime | None:
        """When the record at a position came; it is read once, not at each look."""
        known = self._oldest.get(lane)
        if known is not None and known[0] == position:
            return known[1]
        first = await first_of(opened, lane, position, end)
        if first is None:
            return None
        self._oldest[lane] = (position, first.at)
        return first.at
