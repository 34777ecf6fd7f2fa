"""Composition root of the notifier: settings → watches, memory, channels → two loops; order of stopping."""

import asyncio
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

import asyncpg

from schema import clock
from schema.alerts import Alert
from schema.catalog import load_catalog
from schema.envelope import Keyring
from schema.identifiers import new_id
from schema.redis_keys import RedisKeys
from schema.settings import NotifierSettings
from schema.tasks import end_tasks
from schema.telemetry import Log, configure_logging
from schema.topics import topics
from writer.alerting.channels import Channels
from writer.failures import LogUnavailable
from writer.notifier.administrators import Administrators
from writer.notifier.authors import Authors
from writer.notifier.bounces import Bounces
from writer.notifier.incidents import Patience, Seen
from writer.notifier.log_reader import LogReader
from writer.notifier.mail_watch import MailWatch
from writer.notifier.memory import Memory
from writer.notifier.metrics import Metrics
from writer.notifier.observing import DatabaseWatch, DiskWatch, RedisWatch, Watch
from writer.notifier.outcomes import OutcomeFollower
from writer.notifier.preferences import Preferences
from writer.notifier.publishing import NoticeOverlay, Outbox
from writer.notifier.seeing import Down, Look, explains, seen
from writer.notifier.telling import Policy, Teller
from writer.publisher import OutcomePublisher

_EVERY_S: Final = 1.0
_READ_AFTER_S: Final = 30.0
"""A lane is read when something in it waits for so long, or half of the time after which it is told."""


class Closing(Protocol):
    async def close(self) -> None: ...


def serve(settings: NotifierSettings) -> None:
    """Run the notifier until SIGTERM or SIGINT."""
    configure_logging(settings.log_level, settings.log_format)
    asyncio.run(run(settings))


async def run(settings: NotifierSettings) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    notifier = Notifier.of(settings)
    await notifier.start()
    await stopping.wait()
    await notifier.close()


@dataclass
class Notifier:
    """All parts of a notifier."""

    settings: NotifierSettings
    memory: Memory
    database: DatabaseWatch
    redis: RedisWatch
    disks: DiskWatch
    mail: MailWatch
    reader: LogReader
    channels: Channels
    administrators: Administrators
    authors: Authors
    metrics: Metrics
    log: Log
    follower: OutcomeFollower
    closing: tuple[Closing, ...]
    _back_at: datetime | None = None
    _was_down: bool = False
    _explained_at: datetime | None = None
    _tasks: tuple["asyncio.Task[None]", ...] = ()

    @classmethod
    def of(cls, settings: NotifierSettings) -> "Notifier":
        """Raises `CatalogError` or `ChannelRefused` when the settings are wrong."""
        log, metrics = Log("notifier"), Metrics()
        catalog = load_catalog(settings.content)
        keyring = Keyring.parse(settings.signing_keys.get_secret_value())
        names = topics(settings)
        keys, bootstrap = RedisKeys(settings.prefix), settings.kafka_bootstrap
        memory = Memory(bootstrap, names.notices.name, f"{settings.prefix}.notifier", log)
        database = DatabaseWatch(
            settings.frontend_database_url.get_secret_value(), catalog.notice.name, log
        )
        redis = RedisWatch(settings.redis_url, log)
        disks = DiskWatch(bootstrap, log)
        mail = MailWatch(bootstrap, names, f"{settings.prefix}.mail", log)
        reader = LogReader(
            bootstrap,
            names.commands.name,
            settings.lanes,
            f"{settings.prefix}.writer",
            keyring,
            min(_READ_AFTER_S, settings.delay_notice_after / 2),
            log,
        )
        publisher = OutcomePublisher(bootstrap)
        overlay = NoticeOverlay(settings.redis_url, keys, catalog, settings.settled_grace_s)
        outbox = Outbox(memory, publisher, overlay, catalog, keyring, names, log)
        policy = Policy(
            delay_after=timedelta(seconds=settings.delay_notice_after),
            horizon=timedelta(seconds=settings.horizon_s),
            mails_per_user_day=settings.mail_per_user_day,
            link=f"{settings.public_url.rstrip('/')}/notices",
        )
        told = _Told()
        channels = Channels.of(settings, settled=told)
        notifier: Notifier

        def look(now: datetime) -> Seen:
            return notifier.look(now)

        administrators = Administrators(
            memory=memory,
            channels=channels,
            look=look,
            patience=Patience(timedelta(seconds=settings.incident_after_s), settings.failures_url),
            rejections_every=timedelta(seconds=settings.rejections_every_s),
            metrics=metrics,
            log=log,
        )
        told.administrators = administrators
        teller = Teller(catalog, policy, memory.recall, new_id)
        preferring = catalog.preference.name if catalog.preference is not None else None
        follower = OutcomeFollower(
            bootstrap, names.outcomes.name, names.outcomes.partitions, preferring, log
        )
        preferences = Preferences(memory, database, catalog)
        authors = Authors(
            memory=memory,
            outbox=outbox,
            teller=teller,
            database=database,
            reader=reader,
            administrators=administrators,
            bounces=Bounces(memory, follower, database, teller, preferences, catalog),
            mails_per_minute=settings.mail_per_minute,
            metrics=metrics,
            log=log,
        )
        notifier = cls(
            settings,
            memory,
            database,
            redis,
            disks,
            mail,
            reader,
            channels,
            administrators,
            authors,
            metrics,
            log,
            follower,
            (memory, reader, follower, redis, disks, mail, database, publisher, overlay),
        )
        return notifier

    async def start(self) -> None:
        self.metrics.serve(self.settings.notifier_port)
        await self.channels.start()
        parts = (self.database, self.redis, self.disks, self.mail, self.reader, self.follower)
        for part in parts:
            part.watch.start()
        self.memory.start()
        self._tasks = (
            asyncio.create_task(self._tell_administrators(), name="administrators"),
            asyncio.create_task(self._tell_authors(), name="authors"),
        )
        self.log.info("started", owner=self.memory.owner)

    async def close(self) -> None:
        """The last words go out, then everything is given back."""
        self.log.info("stopping")
        await end_tasks(*self._tasks)
        await self.channels.close()
        for part in self.closing:
            await part.close()
        self.log.info("stopped")

    # -- the loops --------------------------------------------------------------------------------

    async def _tell_administrators(self) -> None:
        while True:
            try:
                await self.administrators.tick(clock.now())
            except Exception as error:  # noqa: BLE001 - the next look may go well; it must go on
                self.log.error("unexpected_error", what="administrators", error=repr(error))
            self.metrics.leading.set(self.memory.leading)
            await asyncio.sleep(_EVERY_S)

    async def _tell_authors(self) -> None:
        while True:
            self._keep_positions()
            try:
                await self.authors.tick()
            except (LogUnavailable, OSError, TimeoutError, *_DATABASE) as error:
                self.log.info("recovering", what="authors", error=repr(error))
            except Exception as error:  # noqa: BLE001 - the next round may go well; it must go on
                self.log.error("unexpected_error", what="authors", error=repr(error))
            await asyncio.sleep(_EVERY_S)

    def _keep_positions(self) -> None:
        """Tell the reader how far lanes are decided: as PostgreSQL says; without it as it was last
        seen, or as writers showed to lag tools. Where nobody knows, a lane is not read."""
        self.reader.wants_hints = not self.database.answers
        remembered: Mapping[str, Any] = self.memory.values.get("positions", {})
        if self.database.answers and self.database.seen is not None:
            positions = {n: lane.position for n, lane in self.database.seen.lanes.items()}
            shown = {str(n): position for n, position in positions.items()}
            if self.memory.leading and shown != remembered and self._may_write_positions():
                self.memory.put({"positions": shown})
        else:
            positions = {int(n): position for n, position in remembered.items()}
            for more in (self.reader.positions, self.reader.hints, self.follower.decided):
                for lane, position in more.items():
                    positions[lane] = max(position, positions.get(lane, 0))
        self.reader.moved(positions)

    def _may_write_positions(self) -> bool:
        """Not each second: a heartbeat goes into the same topic anyhow."""
        now = asyncio.get_running_loop().time()
        if now - self._positions_at < 10:
            return False
        self._positions_at = now
        return True

    _positions_at: float = 0.0

    # -- one look ---------------------------------------------------------------------------------

    def look(self, now: datetime) -> Seen:
        """What is wrong now."""
        watches = {
            "database": self.database.watch,
            "redis": self.redis.watch,
            "log": self.reader.watch,
            "disks": self.disks.watch,
            "mail": self.mail.watch,
        }
        down = _down(self.database.watch)
        if down is None and self._was_down:
            self._back_at = now
        self._was_down = down is not None
        oldest = self._oldest()
        self.metrics.oldest_s.set((now - oldest).total_seconds() if oldest is not None else 0)
        found = seen(
            Look(
                now=now,
                delay_after=timedelta(seconds=self.settings.delay_notice_after),
                database=self.database.seen,
                database_down=down,
                database_back_at=self._back_at,
                explained_at=self._explained_at,
                redis_down=_down(self.redis.watch),
                redis_policy=self.redis.policy,
                log_down=_down(self.reader.watch),
                oldest=oldest,
                waiting=self._waiting(),
                failing_channels={
                    state.name: state.last_error or ""
                    for state in self.channels.states()
                    if state.state == "failing"
                },
                mail_stuck=self.mail.stuck(now),
                full_disks=self.disks.full(self.settings.disk_alert_percent),
                unasked=frozenset(name for name, watch in watches.items() if not watch.asked)
                | {name for name in ("disks", "mail") if watches[name].error is not None},
            )
        )
        if explains(found):
            self._explained_at = now
        return found

    def _oldest(self) -> datetime | None:
        oldest = [w.oldest for w in self.reader.waiting.values() if w.oldest is not None]
        return min(oldest) if oldest else None

    def _waiting(self) -> int | None:
        """How many commands wait, in the log and parked; None where that is not known."""
        in_the_log = self.reader.total()
        if in_the_log is None:
            return None
        codes = self.database.seen.parked_codes if self.database.seen is not None else {}
        return in_the_log + sum(codes.values())


_DATABASE: Final = (asyncpg.PostgresError, asyncpg.InterfaceError)


class _Told:
    """Hands what channels are done with to who keeps what is owed, which is made after them."""

    administrators: Administrators | None = None

    def __call__(self, channel: str, alert: Alert, delivered: bool) -> None:
        if self.administrators is not None:
            self.administrators.settled(channel, alert, delivered)


def _down(watch: Watch) -> Down | None:
    if watch.error is None or watch.since is None:
        return None
    return Down(watch.since, watch.error)
