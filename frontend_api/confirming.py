"""What Kafka has is confirmed in the overlay, and laid there again if Redis has lost it.

Until then an entry is shown to its author alone. For him nothing changes by it where it only makes new
rows: then his answer need not wait. He is told once Kafka has his command, and it is confirmed a moment
later, with others. If the process stops in between, he goes on to see the entry, and what becomes of
the command is written over it. Of two changes to one row only their places in the log tell which was
first, so that these are confirmed before the answer.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol
from uuid import UUID

from frontend_api.overlay import Laid, Place
from frontend_api.planning import Effect, public_part, scopes_of, shared_scopes_of
from frontend_api.redis_access import RedisUnavailable
from schema.catalog import Catalog
from schema.commands import Command
from schema.redis_keys import SHARED, RedisKeys
from schema.structs import struct
from schema.telemetry import Log

MAX_LATE: Final = 1000
"""How many commands at once wait for Redis to take what it could not be told in time."""
_GATHER_S: Final = 0.01
"""How long confirmations gather that nobody waits for."""

_log = Log("frontend_api")


class OverlayPort(Protocol):
    """Raises `RedisUnavailable`."""

    async def confirm(self, command: Command, lane: int | None, offset: int | None) -> bool: ...

    async def confirm_all(
        self, confirmed: Sequence[tuple[Command, Place | None]]
    ) -> Sequence[bool]: ...

    async def lay(self, laid: Laid) -> bool: ...


@struct(frozen=True)
class Sent:
    """A command that Kafka has. `place` is None where the log may have it twice.

    `new`: it makes rows whose ids nobody knew before, and does nothing else.
    """

    command: Command
    effects: Sequence[Effect]
    place: Place | None
    new: bool = False


@dataclass(frozen=True)
class Confirming:
    """Built with the `late` tasks and the `owed` commands of its process; see `Submissions`."""

    catalog: Catalog
    keys: RedisKeys
    overlay: OverlayPort
    late: set[asyncio.Task[None]]
    owed: set[UUID]
    _gathered: list[Sent] = field(default_factory=list)

    @property
    def many_late(self) -> bool:
        """Whether so much is late that whoever brings more should wait for it himself."""
        return len(self.late) >= MAX_LATE

    def later(self, work: Coroutine[None, None, None]) -> None:
        """Do this while nobody waits for it; before it ends, the process waits a moment."""
        task = asyncio.get_running_loop().create_task(work)
        self.late.add(task)
        task.add_done_callback(self.late.discard)

    async def confirm(self, sent: Sent, *, shown: bool) -> bool:
        """Say so in the overlay, and show what others may see. False if its author cannot see it.

        `shown`: its entry was put there. If what it makes is new, and for its author's eyes only, it
        is confirmed soon, and this waits for nothing.
        """
        soon = shown and sent.new and public_part(self.catalog, sent.command) is None
        if not soon or self.many_late or len(self._gathered) >= MAX_LATE:
            return await self.confirm_now(sent, shown=shown)
        self._gathered.append(sent)
        if len(self._gathered) == 1:
            self.later(self._confirm_gathered())
        return True

    async def _confirm_gathered(self) -> None:
        await asyncio.sleep(_GATHER_S)
        gathered = self._gathered.copy()
        self._gathered.clear()
        try:
            there = await self.overlay.confirm_all([(s.command, s.place) for s in gathered])
        except RedisUnavailable:
            there = [False] * len(gathered)
        for sent, is_there in zip(gathered, there, strict=True):
            if not is_there:
                await self.confirm_now(sent, shown=False)

    async def confirm_now(self, sent: Sent, *, shown: bool = True) -> bool:
        """The same, at once. What Redis does not take now it is given later: the writer leaves a
        tombstone if it was faster."""
        command = sent.command
        missing: list[Laid] = []
        try:
            # Redis may have lost its memory since the entry was put there
            there = shown and await self.overlay.confirm(command, *(sent.place or (None, None)))
        except RedisUnavailable:
            there = False
        if not there:
            scopes = scopes_of(self.catalog, self.keys, command, sent.effects)
            missing.append(Laid(command, scopes, sent.place))
        own = missing[0] if missing else None
        public = public_part(self.catalog, command)
        if public is not None:
            scopes = shared_scopes_of(self.catalog, self.keys, command, sent.effects)
            missing.append(Laid(public, scopes, sent.place, SHARED))
        if not await self._lay(missing):
            self.owed.add(command.command_id)
            if not self.many_late:
                self.later(self._lay_later(missing))
        return own is None or own not in missing

    async def _lay(self, missing: list[Laid]) -> bool:
        """Lay these, and take them off the list. True if none is left."""
        try:
            while missing and await self.overlay.lay(missing[0]):
                del missing[0]
        except RedisUnavailable:
            return False
        return not missing

    async def _lay_later(self, missing: list[Laid]) -> None:
        command = missing[0].command.command_id
        for attempt in range(10):
            await asyncio.sleep(min(2.0**attempt, 60))
            if await self._lay(missing):
                self.owed.discard(command)
                return
        _log.error("overlay_unavailable", command=str(command), what="lay")
