"""What the operators' pages are built upon: their own looks at Kafka, and the shared adapters."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from frontend_api.admin.act_desk import ActDesk, ActPublisher
from frontend_api.admin.facts import Disk, Picture
from frontend_api.admin.log_look import LogLook
from frontend_api.admin.store import AdminStore, SnapshotsPort
from frontend_api.admin.tail import Tail
from frontend_api.admin.watch import Watch
from frontend_api.rebuild_log import CommandLog
from schema.broker_disks import BrokerDisk
from schema.catalog import Catalog
from schema.envelope import Keyring
from schema.settings import FrontendSettings
from schema.topics import topics


@dataclass(frozen=True)
class AdminParts:
    """What the pages are made of; tests put fakes here. `mail` looks at the mail that waits."""

    store: AdminStore
    look: LogLook
    mail: LogLook
    desk: ActDesk
    tail: Tail
    picture: Callable[[], Picture]


class AdminBackends:
    """`start()` returns at once, `close()` takes a bounded time. Made inside a running event loop."""

    def __init__(
        self,
        settings: FrontendSettings,
        catalog: Catalog,
        database: SnapshotsPort,
        ping_redis: Callable[[], Awaitable[None]],
        overlay_whole: Callable[[], bool],
        disks: Callable[[], Iterable[BrokerDisk]],
    ) -> None:
        names, bootstrap = topics(settings), settings.kafka_bootstrap
        keyring = Keyring.parse(settings.signing_keys.get_secret_value())
        store = AdminStore(database, catalog)
        look = LogLook(CommandLog(bootstrap, names.commands.name, f"{settings.prefix}.writer"))
        self._publisher = ActPublisher(bootstrap, names.acts.name)
        self._tail = Tail(bootstrap, names)
        self._watch = Watch(store, look, ping_redis, overlay_whole, lambda: _fullest(disks()))
        self.parts = AdminParts(
            store=store,
            look=look,
            mail=LogLook(CommandLog(bootstrap, names.mail.name, f"{settings.prefix}.mail")),
            desk=ActDesk(self._publisher, keyring),
            tail=self._tail,
            picture=lambda: self._watch.picture,
        )

    def start(self) -> None:
        self._tail.start()
        self._watch.start()

    async def close(self) -> None:
        await asyncio.gather(self._tail.close(), self._watch.close(), self._publisher.close())


def _fullest(disks: Iterable[BrokerDisk]) -> Disk | None:
    """The fullest of the brokers' disks that are known."""
    found = max(disks, key=lambda disk: disk.used_ratio, default=None)
    return Disk(found.broker, found.used_ratio * 100) if found is not None else None
