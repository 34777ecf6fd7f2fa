"""The marker: whether Redis still holds the whole overlay.

When the overlay has been rebuilt, a key is set that names the server which holds it. A server that
was emptied has no such key; one that was started again, with an old file or a new one, is another
than the key names; one that has evicted keys has evicted more than the key says. Each read of the
overlay asks for the marker behind what it reads: if it is still good then, the read was whole.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from prometheus_client import Gauge

from frontend_api.overlay import OverlayState
from frontend_api.redis_access import Call, RedisAccess, Server
from schema.redis_keys import RedisKeys
from schema.telemetry import Log

_ASK: Final = """
-- KEYS: marker   ARGV: 1 if the server may evict. Returns the marker and how many keys were evicted.
-- INFO takes fifty times as long as GET: it is asked for only where it can matter.
local marker = redis.call('GET', KEYS[1]) or ''
if ARGV[1] ~= '1' then return {marker, ''} end
return {marker, string.match(redis.call('INFO', 'stats'), 'evicted_keys:(%d+)') or ''}
"""

BLIND: Final = "blind"
"""Third part of the marker: rebuilt without PostgreSQL, so that counts may be wrong."""

_log = Log("frontend_api")


def marker_value(server: Server, *, blind: bool) -> str:
    """The marker of an overlay that this server holds."""
    return f"{server.run_id}|{server.evicted}|{BLIND if blind else ''}"


class Marker:
    """Judges answers to its question. `lost` is set when one is bad; `owes` says whether this very
    process still has entries to put that Redis did not take."""

    def __init__(
        self,
        redis: RedisAccess,
        keys: RedisKeys,
        gauge: Gauge,
        owes: Callable[[], bool] = lambda: False,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._gauge = gauge
        self._owes = owes
        self._warned_of: str | None = None
        self._whole = asyncio.Event()
        self.lost = asyncio.Event()
        self.blind = False
        """Whether the overlay was rebuilt without PostgreSQL, as far as the last answer said."""
        self.hopeless = False
        """Set by who rebuilds: the last attempt has failed, so waiting for it is of no use."""

    @property
    def whole(self) -> bool:
        """Whether nothing was missing when it was last asked; that is once a second at least."""
        return self._whole.is_set() and not self.blind and not self._owes()

    def question(self) -> Call:
        """To be asked behind everything whose completeness it is to prove."""
        return _ASK, [self._keys.marker()], ["1" if self._redis.server.evicts else "0"]

    def judge(self, answer: Any) -> OverlayState:
        """What an answer to the question says. A bad one wakes who rebuilds."""
        if not self.holds(answer):
            return OverlayState.REBUILDING
        incomplete = self.blind or self._owes()
        return OverlayState.REBUILDING if incomplete else OverlayState.COMPLETE

    def holds(self, answer: Any) -> bool:
        """Whether Redis has lost nothing since the marker was set, so that claims are all there."""
        marker, evicted = answer
        run_id, known, blind = (*marker.split("|"), "", "")[:3] if marker else ("", "", "")
        server = self._redis.server
        good = bool(marker) and run_id == server.run_id and known.isdecimal()
        if good:
            # A server that may not evict now may have done so until a moment ago.
            good = evicted == known if evicted else server.evicted <= int(known)
        self.blind = good and blind == BLIND
        if good:
            self._whole.set()
        else:
            self._whole.clear()
            self.lost.set()
        self._gauge.set(1 if good and not self.blind and not self._owes() else 0)
        return good

    async def look(self) -> bool:
        """Ask now, whatever the policy is now. Raises `RedisUnavailable`."""
        server = await self._redis.look()
        if server.policy != "noeviction" and server.policy != self._warned_of:
            _log.warning("redis_evicts", policy=server.policy)
        self._warned_of = server.policy
        (answer,) = await self._redis.run_all([self.question()])
        return self.holds(answer)

    async def until_whole(self, limit_s: float) -> bool:
        """Wait until the overlay is rebuilt, at most so long; not at all if that is hopeless."""
        if self.hopeless:
            return False
        try:
            async with asyncio.timeout(limit_s):
                await self._whole.wait()
        except TimeoutError:
            return False
        return True
