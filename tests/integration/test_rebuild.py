"""What a rebuild relies on, on real servers: the marker, the script that puts entries back, claims."""

import uuid
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge

from frontend_api.app import Backends
from frontend_api.idempotency import Claimed, Idempotency
from frontend_api.metrics import build_metrics
from frontend_api.overlay import Index, Laid, Overlay, OverlayState
from frontend_api.overlay_marker import Marker, marker_value
from frontend_api.redis_access import RedisAccess, Server
from schema.catalog import load_catalog
from schema.commands import Command
from schema.overlay import SETTLE, EntryState
from schema.redis_keys import RedisKeys, short_id
from schema.scopes import Scope
from schema.settings import FrontendSettings
from tests.commands import author, command, create
from tests.installation import Installation, eventually

pytestmark = [pytest.mark.integration, pytest.mark.once, pytest.mark.timeout(90)]

ADA = author("ada")


@pytest.fixture
async def redis(installation: Installation) -> AsyncIterator[RedisAccess]:
    failures = Counter("failures", "for a test", registry=CollectorRegistry())
    access = RedisAccess(installation.services.redis_url, 2.0, failures)
    yield access
    await access.close()


@pytest.fixture
def keys(installation: Installation) -> RedisKeys:
    return RedisKeys(installation.name)


def gauge() -> Gauge:
    return Gauge("complete", "for a test", registry=CollectorRegistry())


async def _mark(
    redis: RedisAccess, keys: RedisKeys, server: Server, *, blind: bool = False
) -> None:
    await redis.set_all({keys.marker(): marker_value(server, blind=blind)}, 60)


# -- the marker -------------------------------------------------------------------------------


async def test_a_marker_is_good_for_the_server_that_it_names(
    redis: RedisAccess, keys: RedisKeys
) -> None:
    marker = Marker(redis, keys, gauge())
    assert not await marker.look()
    assert marker.lost.is_set()
    server = redis.server
    assert server.run_id
    await _mark(redis, keys, server)
    assert await marker.look()
    await _mark(redis, keys, replace(server, run_id="another"))
    assert not await marker.look()
    await _mark(redis, keys, server, blind=True)
    assert await marker.look()
    (answer,) = await redis.run_all([marker.question()])
    assert marker.judge(answer) is OverlayState.REBUILDING  # claims are whole, counts may not be


async def test_a_marker_that_survives_an_eviction_is_good_no_more(
    redis: RedisAccess, keys: RedisKeys
) -> None:
    marker = Marker(redis, keys, gauge())
    server = await redis.look()
    redis.server = replace(server, policy="allkeys-lru")
    await _mark(redis, keys, redis.server)
    (answer,) = await redis.run_all([marker.question()])
    assert marker.judge(answer) is OverlayState.COMPLETE
    await _mark(redis, keys, replace(redis.server, evicted=server.evicted + 1))
    (answer,) = await redis.run_all([marker.question()])
    assert marker.judge(answer) is OverlayState.REBUILDING


async def test_who_owes_entries_does_not_call_the_overlay_complete(
    redis: RedisAccess, keys: RedisKeys
) -> None:
    owed = {uuid.uuid4()}
    marker = Marker(redis, keys, gauge(), lambda: bool(owed))
    await redis.look()
    await _mark(redis, keys, redis.server)
    (answer,) = await redis.run_all([marker.question()])
    assert marker.judge(answer) is OverlayState.REBUILDING
    assert not marker.lost.is_set()
    owed.clear()
    assert marker.judge(answer) is OverlayState.COMPLETE


async def test_what_is_owed_for_long_is_found_by_a_rebuild(installation: Installation) -> None:
    named = {
        name.removeprefix("AFTERWRITE_").lower(): value
        for name, value in installation.environment().items()
    }
    settings = FrontendSettings.model_validate(named)
    backends = Backends(settings, load_catalog(settings.content), build_metrics(), lambda why: None)
    owed, rebuilds = backends.services.submissions.owed, backends.rebuilder._rebuilds
    backends.start()
    try:
        await eventually(lambda: rebuilds._value.get() == 1, 20, "the first rebuild")
        owed.add(uuid.uuid4())
        await eventually(lambda: rebuilds._value.get() == 2, 20, "another rebuild")
        await eventually(lambda: not owed, 5, "nothing to be owed any more")
    finally:
        await backends.close()


# -- putting back -----------------------------------------------------------------------------


def _laid(keys: RedisKeys, made: Command, place: tuple[int, int] | None = (0, 7)) -> Laid:
    row = Scope(keys.row(ADA.id, "topic", made.mutations[0].id), str(made.command_id))
    return Laid(made, [row], place)


async def _found(overlay: Overlay, keys: RedisKeys, made: Command) -> list[tuple[str, int | None]]:
    """What a read by the row's index finds: states and offsets."""
    index = Index(keys.row(ADA.id, "topic", made.mutations[0].id), "row")
    read = await overlay.read(ADA.id, [index])
    entries = [read.entries[i] for i in read.entries]
    return [(e.status.state.value, e.status.offset) for e in entries]


async def _restore(
    redis: RedisAccess, overlay: Overlay, laid: Laid, state: EntryState, *, anew: bool = False
) -> None:
    await redis.run(*overlay.restoring(laid, state, anew=anew))


async def test_an_entry_is_put_back_in_its_state(redis: RedisAccess, keys: RedisKeys) -> None:
    overlay = Overlay(redis, keys)
    for state in (EntryState.PENDING, EntryState.PARKED, EntryState.SAVED):
        made = command(ADA, create("topic", title="T"))
        await _restore(redis, overlay, _laid(keys, made), state)
        await _restore(redis, overlay, _laid(keys, made), state)
        assert await _found(overlay, keys, made) == [(state.value, 7)]


async def test_an_entry_that_is_there_is_only_confirmed(
    redis: RedisAccess, keys: RedisKeys
) -> None:
    overlay = Overlay(redis, keys)
    made = command(ADA, create("topic", title="T"))
    await overlay.put(made, _laid(keys, made).scopes)
    await _restore(redis, overlay, _laid(keys, made), EntryState.PENDING)
    assert await _found(overlay, keys, made) == [("pending", 7)]
    await _restore(redis, overlay, _laid(keys, made, (0, 8)), EntryState.PARKED)
    assert await _found(overlay, keys, made) == [("pending", 7)]


async def test_a_tombstone_gets_its_payload_but_a_rejected_one_stays_away(
    redis: RedisAccess, keys: RedisKeys
) -> None:
    overlay = Overlay(redis, keys)
    for state, found in ((EntryState.SAVED, [("saved", 7)]), (EntryState.REJECTED, [])):
        made = command(ADA, create("topic", title="T"))
        args = [short_id(made.command_id), state.value, 0, 7, "1"]
        await redis.run(SETTLE, [keys.entries(ADA.id)], args)
        await _restore(redis, overlay, _laid(keys, made), EntryState.PENDING)
        assert await _found(overlay, keys, made) == found


async def test_members_are_made_again_only_when_asked_for(
    redis: RedisAccess, keys: RedisKeys
) -> None:
    overlay = Overlay(redis, keys)
    made = command(ADA, create("topic", title="T"))
    blind = replace(_laid(keys, made), scopes=[])
    await _restore(redis, overlay, blind, EntryState.PENDING)
    await _restore(redis, overlay, _laid(keys, made), EntryState.PENDING)
    assert await _found(overlay, keys, made) == []
    await _restore(redis, overlay, _laid(keys, made), EntryState.PENDING, anew=True)
    assert await _found(overlay, keys, made) == [("pending", 7)]
    await _restore(redis, overlay, blind, EntryState.PENDING, anew=True)
    assert await _found(overlay, keys, made) == []


async def test_a_lost_index_is_put_back_although_the_entries_are_there(
    redis: RedisAccess, keys: RedisKeys
) -> None:
    """A server that evicts takes one key, and leaves the other."""
    overlay = Overlay(redis, keys)
    made = command(ADA, create("topic", title="T"))
    await _restore(redis, overlay, _laid(keys, made), EntryState.PENDING)
    await redis.run("return redis.call('DEL', KEYS[1])", [keys.index(ADA.id)], [])
    assert await _found(overlay, keys, made) == []
    await _restore(redis, overlay, _laid(keys, made), EntryState.PENDING)
    assert await _found(overlay, keys, made) == [("pending", 7)]


# -- claims -----------------------------------------------------------------------------------


async def test_of_two_commands_with_one_key_the_older_has_the_claim(
    redis: RedisAccess, keys: RedisKeys
) -> None:
    claims = Idempotency(redis, keys, 0, 600)
    older = command(ADA, create("topic", title="T"), key="k", fingerprint="f")
    newer = command(ADA, create("topic", title="T"), key="k", fingerprint="f")
    for order in ((newer, older), (older, newer)):
        for one in order:
            await redis.run_all(claims.restoring(one, [one.command_id, one.mutations[0].id]))
        claimed = await claims.claim(ADA.id, "k", "f", [uuid.uuid4(), uuid.uuid4()])
        assert claimed == Claimed((older.command_id, older.mutations[0].id), again=True)
        await claims.release(ADA.id, "k", [older.command_id, older.mutations[0].id])


async def test_a_claim_that_has_expired_is_not_restored(
    redis: RedisAccess, keys: RedisKeys
) -> None:
    claims = Idempotency(redis, keys, 0, 0)
    assert (
        claims.restoring(command(ADA, create("topic", title="T"), key="k", fingerprint="f"), [])
        == []
    )
