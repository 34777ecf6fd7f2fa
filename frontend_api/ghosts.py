"""Ghosts: overlay entries whose command never reached the log, because their API process died.

Such an entry stays unconfirmed for ever. It may go once the log has shown that it does not hold it:
the log was read to an end that it had well after every producer gave up or delivered, the writer
has passed that end, and the ledger still does not know the command.
"""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from frontend_api.merge import Entry
from frontend_api.reading_ports import DatabasePort
from frontend_api.redis_access import RedisUnavailable
from frontend_api.view import DatabaseUnavailable, SnapshotPort
from schema.outcomes import Outcome
from schema.tasks import end_tasks
from schema.telemetry import Log
from schema.topics import lane_of

_MAX_SUSPECTS: Final = 1000
_PAUSE_S: Final = 1.0

_log = Log("frontend_api")


class ForgetPort(Protocol):
    """Raises `RedisUnavailable`."""

    async def forget(self, author: uuid.UUID, command: uuid.UUID) -> None: ...


@dataclass
class _Suspect:
    entry: Entry
    since: float
    end: int | None = None


class Ghosts:
    """`suspect()` is told of unconfirmed entries as reads meet them; the rest is in the background.

    `age_s`: how long a producer may still deliver what it was given, in a log that answers.
    `grace_s`: what was decided that long ago was settled and swept. If its entry is unconfirmed still,
    a repeat of the request has put it there anew, and died before it published.
    """

    def __init__(
        self,
        overlay: ForgetPort,
        database: DatabasePort,
        log_ends: Callable[[], Awaitable[Mapping[int, int]]],
        lanes: int,
        age_s: float = 12.0,
        grace_s: float = 600.0,
    ) -> None:
        self._overlay = overlay
        self._database = database
        self._log_ends = log_ends
        self._lanes = lanes
        self._age_s = age_s
        self._grace_s = grace_s
        self._suspects: dict[uuid.UUID, _Suspect] = {}
        self._any = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._hunt(), name="ghosts")

    async def close(self) -> None:
        await end_tasks(self._task)

    def suspect(self, entry: Entry) -> None:
        """An entry that was unconfirmed when it was read."""
        command = entry.command.command_id
        if command not in self._suspects and len(self._suspects) < _MAX_SUSPECTS:
            self._suspects[command] = _Suspect(entry, time.monotonic())
            self._any.set()

    async def _hunt(self) -> None:
        while True:
            await self._any.wait()
            await asyncio.sleep(_PAUSE_S)
            try:
                await self.look()
            except (DatabaseUnavailable, RedisUnavailable):
                continue
            if not self._suspects:
                self._any.clear()

    async def look(self) -> None:
        """One round over the suspects. Raises `DatabaseUnavailable`, `RedisUnavailable`."""
        now = time.monotonic()
        if any(s.end is None and now - s.since >= self._age_s for s in self._suspects.values()):
            ends = await self._log_ends()
            for suspect in self._suspects.values():
                if suspect.end is None and now - suspect.since >= self._age_s:
                    suspect.end = ends.get(self._lane(suspect))
        for suspect in [s for s in self._suspects.values() if s.end is not None]:
            await self._judge(suspect)

    def _lane(self, suspect: _Suspect) -> int:
        return lane_of(suspect.entry.command.stream, self._lanes)

    async def _judge(self, suspect: _Suspect) -> None:
        command = suspect.entry.command

        async def work(snapshot: SnapshotPort) -> tuple[bool, list[tuple[str, datetime]]]:
            lane = (await snapshot.positions()).get(self._lane(suspect))
            passed = lane is not None and suspect.end is not None and lane.position >= suspect.end
            known = await snapshot.decisions(command.author.id, [command.command_id])
            return passed, [(row["outcome"], row["decided_at"]) for row in known]

        passed, decided = await self._database.read(work)
        long_ago = datetime.now(tz=UTC) - timedelta(seconds=self._grace_s)
        if passed and all(o != Outcome.PARKED and at < long_ago for o, at in decided):
            await self._overlay.forget(command.author.id, command.command_id)
            if not decided:
                why = "never reached the log"
                _log.info("not_accepted", command=str(command.command_id), why=why)
        if passed or decided:
            del self._suspects[command.command_id]
