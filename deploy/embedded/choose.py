"""Decides for each service what will run, before anything is started."""

import os
from collections.abc import Callable, Mapping, Sequence

from deploy.embedded import sources
from deploy.embedded.home import Home
from deploy.embedded.jars import Jars, Report, cache_folder, kafka_version, read_lock
from deploy.embedded.kafka import Kafka
from deploy.embedded.postgres import Postgres
from deploy.embedded.redis import Redis
from deploy.embedded.service import External, Service, ServiceName

NAMES: tuple[ServiceName, ...] = ("postgres", "redis", "kafka")


def choose(
    home: Home, environ: Mapping[str, str] = os.environ, names: Sequence[ServiceName] = NAMES
) -> list[Service | External]:
    """The services of an open home, in the order of `names`. Raises `Trouble`."""
    makers: dict[ServiceName, Callable[[], Service]] = {
        "postgres": lambda: Postgres(home, sources.postgres(environ)),
        "redis": lambda: Redis(home, sources.redis(environ)),
        "kafka": lambda: _kafka(home, environ),
    }
    chosen: list[Service | External] = []
    for name in names:
        settings = sources.external(name, environ)
        chosen.append(External(name, settings) if settings else makers[name]())
    return chosen


def _kafka(home: Home, environ: Mapping[str, str]) -> Kafka:
    pinned = read_lock()
    cache = cache_folder(home.path / "cache", environ)
    return Kafka(
        home, sources.java(environ), Jars(cache / f"kafka-{kafka_version(pinned)}", pinned)
    )


def own(services: list[Service | External]) -> list[Service]:
    """Those that we start."""
    return [service for service in services if not isinstance(service, External)]


def fetch(services: list[Service | External], report: Report) -> None:
    """Fetches what is still missing (Kafka's jars)."""
    for service in services:
        if isinstance(service, Kafka):
            service.jars.ensure(report)
