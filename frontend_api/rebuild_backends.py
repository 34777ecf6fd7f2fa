"""What a rebuild works with: connections of its own, so that it hinders nobody who is served."""

import uuid
from collections.abc import Callable

from frontend_api.content_reader import ContentReader
from frontend_api.idempotency import Idempotency
from frontend_api.merge import Entry
from frontend_api.metrics import Metrics
from frontend_api.overlay import Overlay
from frontend_api.overlay_marker import Marker
from frontend_api.rebuild import Rebuilder
from frontend_api.rebuild_entries import RebuildEntries
from frontend_api.rebuild_ledger import RebuildLedger
from frontend_api.rebuild_log import CommandLog
from frontend_api.redis_access import RedisAccess
from schema.catalog import Catalog
from schema.envelope import Keyring
from schema.redis_keys import RedisKeys
from schema.settings import FrontendSettings
from schema.topics import topics

_REDIS_TIMEOUT_S = 5.0
"""A batch takes longer than what a request may wait for."""


def open_rebuilder(
    settings: FrontendSettings,
    catalog: Catalog,
    metrics: Metrics,
    marker: Marker,
    database: ContentReader,
    owed: set[uuid.UUID],
    on_unconfirmed: Callable[[Entry], None],
) -> Rebuilder:
    """Connects to nothing before `start()`; its `close()` gives its connections back."""
    keys = RedisKeys(settings.prefix)
    redis = RedisAccess(settings.redis_url, _REDIS_TIMEOUT_S, metrics.overlay_failures)
    claims = Idempotency(redis, keys, 0, settings.idempotency_ttl_s)
    return Rebuilder(
        marker=marker,
        entries=RebuildEntries(
            redis, keys, Overlay(redis, keys, catalog=catalog), claims, settings.settled_grace_s
        ),
        log=CommandLog(
            settings.kafka_bootstrap, topics(settings).commands.name, f"{settings.prefix}.writer"
        ),
        ledger=RebuildLedger(database, catalog),
        database=database,
        catalog=catalog,
        keys=keys,
        keyring=Keyring.parse(settings.signing_keys.get_secret_value()),
        grace_s=settings.settled_grace_s,
        owed=owed,
        on_unconfirmed=on_unconfirmed,
        rebuilds=metrics.overlay_rebuilds,
    )
