"""What is asked of PostgreSQL and Redis, again and again, each in a task of its own: none waits for
another, and every wait is bounded. What was found last is there to be read at any time."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import asyncpg
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from schema import clock
from schema.tasks import end_tasks
from schema.telemetry import Log
from writer.disk import broker_disks
from writer.notifier.telling import Decided

EVERY_S: Final = 1.0
_LIMIT_S: Final = 2.5
_PARKED_EVERY_S: Final = 3.0
_DISKS_EVERY_S: Final = 20.0

_LANES: Final = """
SELECT lane, position, log_id, halted, paused, deaths,
    CASE WHEN leased_until > clock_timestamp() THEN owner END AS owner
FROM afterwrite.lane ORDER BY lane
"""

_PARKED: Final = """
SELECT l.author_id, p.lane, count(*) AS count, min(l.accepted_at) AS oldest,
    min(p."offset") AS first, max(p."offset") AS last,
    (array_agg(p.command_id ORDER BY p."offset"))[1] AS first_id
FROM afterwrite.parked p JOIN afterwrite.ledger l USING (lane, "offset", period)
WHERE l.author_id IS NOT NULL GROUP BY l.author_id, p.lane LIMIT 20000
"""

_PARKED_CODES: Final = """
SELECT code, count(*) AS count, min(parked_at) AS since FROM afterwrite.parked GROUP BY code
"""

_PARKED_VALUES: Final = """
SELECT command_id, value FROM afterwrite.parked WHERE command_id = ANY($1::uuid[])
"""

# What a command of the system made is not what anybody waits for.
_DECIDED: Final = """
SELECT w.n, count(*) FILTER (WHERE l.outcome = 'saved') AS saved,
    count(*) FILTER (WHERE l.outcome = 'rejected') AS rejected,
    count(*) FILTER (WHERE l.outcome = 'parked') AS open
FROM unnest($1::int[], $2::int[], $3::uuid[], $4::bigint[], $5::bigint[])
    AS w(n, lane, author, first, last)
JOIN afterwrite.ledger l ON l.author_id = w.author AND l.lane = w.lane
    AND l."offset" BETWEEN w.first AND w.last
WHERE NOT (l.outcome = 'saved'
    AND l.effects @> jsonb_build_array(jsonb_build_object('type', $6::text, 'op', 'create')))
GROUP BY w.n
"""

_OPEN_LETTERS: Final = "SELECT count(*) FROM afterwrite.dead_letter WHERE closed IS NULL"

_LETTERS: Final = """
SELECT lane, "offset", value FROM afterwrite.dead_letter
WHERE (lane, "offset") IN (SELECT * FROM unnest($1::int[], $2::bigint[])) AND value IS NOT NULL
"""

_PREFERENCES: Final = 'SELECT user_id, mail, locale FROM public."{table}"'


@dataclass(frozen=True)
class LaneSeen:
    """One lane as PostgreSQL has it."""

    lane: int
    position: int
    log_id: uuid.UUID
    owner: str | None
    halted: str | None
    paused: str | None


@dataclass(frozen=True)
class ParkedOf:
    """What is parked of one author in one lane."""

    author: uuid.UUID
    lane: int
    count: int
    oldest: datetime
    first: int
    last: int
    first_id: uuid.UUID


@dataclass(frozen=True)
class DatabaseSeen:
    """What PostgreSQL said last. What it says of parked commands is a few seconds older."""

    lanes: dict[int, LaneSeen] = field(default_factory=dict)
    parked: Sequence[ParkedOf] = ()
    parked_codes: dict[str, int] = field(default_factory=dict)
    parked_since: datetime | None = None
    open_letters: int = 0


class Watch:
    """Asks in intervals. `error` is set while it does not succeed, `since` when that began."""

    def __init__(
        self, ask: Callable[[], Awaitable[None]], name: str, log: Log, every_s: float = EVERY_S
    ) -> None:
        self._ask = ask
        self._every_s = every_s
        self._name = name
        self._log = log
        self._task: asyncio.Task[None] | None = None
        self.asked = False
        self.error: str | None = None
        self.since: datetime | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._watch(), name=f"watch-{self._name}")

    async def close(self) -> None:
        await end_tasks(self._task)

    async def _watch(self) -> None:
        while True:
            began = clock.now()
            try:
                await self._ask()
            except Exception as error:  # noqa: BLE001 - whatever it is, it cannot be asked
                if self.error is None:
                    self._log.info("watch_failed", what=self._name, error=repr(error))
                    self.since = began
                self.error = repr(error)
            else:
                self.error = self.since = None
            self.asked = True
            await asyncio.sleep(self._every_s)


class DatabaseWatch:
    """Asks PostgreSQL with the read-only role, on one connection of its own."""

    def __init__(self, url: str, notice_type: str, log: Log) -> None:
        self._url = url
        self._notice_type = notice_type
        self._connection: asyncpg.Connection | None = None
        self._turn = asyncio.Lock()
        self._parked_at = 0.0
        self.watch = Watch(self._look, "database", log)
        self.seen: DatabaseSeen | None = None
        """None until it answered for the first time. Afterwards what it said last."""

    @property
    def answers(self) -> bool:
        return self.seen is not None and self.watch.error is None

    async def close(self) -> None:
        await self.watch.close()
        await self._drop()

    async def _look(self) -> None:
        lanes = await self._fetch(_LANES)
        before = self.seen or DatabaseSeen()
        loop = asyncio.get_running_loop()
        parked, codes, since = before.parked, before.parked_codes, before.parked_since
        letters = before.open_letters
        if self.seen is None or loop.time() - self._parked_at >= _PARKED_EVERY_S:
            rows = await self._fetch(_PARKED)
            parked = [
                ParkedOf(
                    r["author_id"],
                    r["lane"],
                    r["count"],
                    r["oldest"],
                    r["first"],
                    r["last"],
                    r["first_id"],
                )
                for r in rows
            ]
            by_code = await self._fetch(_PARKED_CODES)
            codes = {r["code"]: r["count"] for r in by_code}
            since = min((r["since"] for r in by_code), default=None)
            letters = (await self._fetch(_OPEN_LETTERS))[0][0]
            self._parked_at = loop.time()
        self.seen = DatabaseSeen(
            {
                r["lane"]: LaneSeen(
                    r["lane"], r["position"], r["log_id"], r["owner"], r["halted"], r["paused"]
                )
                for r in lanes
            },
            parked,
            codes,
            since,
            letters,
        )

    async def values_of_parked(self, commands: Sequence[uuid.UUID]) -> dict[uuid.UUID, bytes]:
        """The records of parked commands, by id."""
        rows = await self._fetch(_PARKED_VALUES, commands)
        return {row["command_id"]: row["value"] for row in rows}

    async def values_of_letters(
        self, places: Sequence[tuple[int, int]]
    ) -> dict[tuple[int, int], bytes]:
        """The records of dead letters, by lane and offset."""
        rows = await self._fetch(_LETTERS, [p[0] for p in places], [p[1] for p in places])
        return {(row["lane"], row["offset"]): row["value"] for row in rows}

    async def preferences_of(
        self, table: str, users: Sequence[uuid.UUID]
    ) -> dict[uuid.UUID, dict[str, Any]]:
        """How these users want to be told; those who have not said are left out."""
        query = f"{_PREFERENCES.format(table=table)} WHERE user_id = ANY($1::uuid[])"
        return _by_user(await self._fetch(query, users))

    async def preferences_after(
        self, table: str, user: uuid.UUID, most: int
    ) -> dict[uuid.UUID, dict[str, Any]]:
        """The next ones, by user id."""
        query = f"{_PREFERENCES.format(table=table)} WHERE user_id > $1 ORDER BY user_id LIMIT $2"
        return _by_user(await self._fetch(query, user, most))

    async def decided(self, ranges: Sequence[tuple[int, uuid.UUID, int, int]]) -> list[Decided]:
        """What became of each author's commands in a lane, from one offset to another."""
        lanes, authors, firsts, lasts = (list(part) for part in zip(*ranges, strict=True))
        rows = await self._fetch(
            _DECIDED, list(range(len(ranges))), lanes, authors, firsts, lasts, self._notice_type
        )
        found = {row["n"]: Decided(row["saved"], row["rejected"], row["open"]) for row in rows}
        return [found.get(n, Decided(0, 0, 0)) for n in range(len(ranges))]

    async def _fetch(self, query: str, *args: object) -> list[Any]:
        """Raises whatever is wrong; the connection is made anew then."""
        async with self._turn:
            try:
                async with asyncio.timeout(_LIMIT_S):
                    if self._connection is None:
                        self._connection = await asyncpg.connect(
                            self._url,
                            timeout=_LIMIT_S,
                            command_timeout=_LIMIT_S,
                            server_settings={"application_name": "afterwrite notifier"},
                        )
                    return list(await self._connection.fetch(query, *args))
            except BaseException:
                await self._drop()
                raise

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()


def _by_user(rows: Sequence[Any]) -> dict[uuid.UUID, dict[str, Any]]:
    return {row["user_id"]: {"mail": row["mail"], "locale": row["locale"]} for row in rows}


class DiskWatch:
    """Asks the brokers how full their disks are."""

    def __init__(self, bootstrap: str, log: Log) -> None:
        self._bootstrap = bootstrap
        self.watch = Watch(self._look, "disks", log, _DISKS_EVERY_S)
        self.used_percent: dict[int, float] = {}
        """By broker id; of those that tell."""

    async def close(self) -> None:
        await self.watch.close()

    async def _look(self) -> None:
        disks = await broker_disks(self._bootstrap, 2 * _LIMIT_S)
        self.used_percent = {disk.broker: 100 * disk.used_ratio for disk in disks}

    def full(self, percent: float) -> dict[str, str]:
        """Brokers whose disks are fuller than this, and how full."""
        return {
            str(broker): f"{used:.0f} % are used"
            for broker, used in self.used_percent.items()
            if used >= percent
        }


class RedisWatch:
    """Asks Redis whether it is there, and whether it may evict."""

    def __init__(self, url: str, log: Log) -> None:
        self._redis: Redis = Redis.from_url(
            url,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=_LIMIT_S,
            socket_connect_timeout=_LIMIT_S,
            decode_responses=True,
        )
        self.watch = Watch(self._look, "redis", log)
        self.policy: str | None = None

    async def close(self) -> None:
        await self.watch.close()
        await self._redis.aclose()

    async def _look(self) -> None:
        self.policy = str((await self._redis.info("memory")).get("maxmemory_policy", ""))
