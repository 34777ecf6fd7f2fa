"""Reading what others share, on the real server and on its fake: nothing twice, nothing private."""

import uuid
from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry, Counter

from frontend_api.overlay import Index, Laid, Overlay
from frontend_api.redis_access import RedisAccess
from schema.catalog import load_catalog
from schema.commands import Author, Command
from schema.identifiers import new_row_id, user_id_for
from schema.overlay import EntryState, index_prefix
from schema.redis_keys import SHARED, RedisKeys, short_id
from schema.scopes import Scope
from tests.commands import author, command, create
from tests.fakes import FakeOverlay
from tests.installation import fresh_name
from tests.services import Services

pytestmark = pytest.mark.integration

ADA, EVE = author("ada"), author("eve")


@pytest.fixture
def keys() -> RedisKeys:
    return RedisKeys(fresh_name())


@pytest.fixture
async def redis(services: Services) -> AsyncIterator[RedisAccess]:
    failures = Counter("failures", "for a test", registry=CollectorRegistry())
    access = RedisAccess(services.redis_url, 10.0, failures)
    yield access
    await access.close()


@pytest.fixture(params=["redis", "fake"])
def overlay(
    request: pytest.FixtureRequest, redis: RedisAccess, keys: RedisKeys
) -> Overlay | FakeOverlay:
    catalog = load_catalog("tests.content_open")
    return Overlay(redis, keys, catalog=catalog) if request.param == "redis" else FakeOverlay()


def laid(
    keys: RedisKeys, who: Author, topic: uuid.UUID, at: int, *, shared: bool, type_: str = "post"
) -> Laid:
    made: Command = command(who, create(type_, body="b"), stream=topic)
    row, owner = made.mutations[0].id, SHARED if shared else who.id
    counted_by = f"{who.id}:{made.command_id}" if shared else f"{made.command_id}"
    scopes = [
        Scope(keys.list(owner, "topic_posts", topic), f"{row}:{made.command_id}"),
        Scope(keys.count(owner, "topic", topic), f"post_count:1:{counted_by}"),
    ]
    return Laid(made, scopes, (0, at), owner)


async def test_own_and_shared_ones_are_read_together_and_nothing_twice(
    overlay: Overlay | FakeOverlay, keys: RedisKeys
) -> None:
    topic = new_row_id()
    for at in range(6):
        who = ADA if at % 2 else EVE
        one = laid(keys, who, topic, at, shared=True)
        scopes = [
            Scope(keys.list(who.id, "topic_posts", topic), one.scopes[0].member),
            Scope(keys.count(who.id, "topic", topic), f"post_count:1:{one.command.command_id}"),
        ]
        await overlay.lay(Laid(one.command, scopes, (0, at)))
        await overlay.lay(one)
    own = Index(keys.list(ADA.id, "topic_posts", topic), "asc", "-", 10)
    shared = Index(keys.list(SHARED, "topic_posts", topic), "asc", "-", 4)
    found = await overlay.read(ADA.id, [own], [shared])
    assert [len(members) for members in found.members] == [3, 2], "of the first four, two are hers"
    assert {e.own: e.command.author for e in found.entries.values()} == {True: ADA, False: EVE}
    assert len(found.entries) == 5
    own_end, shared_end = found.ends
    assert own_end is None
    last = str(found.members[1][-1][:36])
    assert shared_end is not None
    assert str(shared_end) >= last, "it was read up to her own, behind his last"
    (count,), _ = await overlay.counts(
        ADA.id,
        [keys.count(ADA.id, "topic", topic)],
        {0: 0},
        [keys.count(SHARED, "topic", topic)],
    )
    added = sum(count.certain.values()) + sum(delta for _, delta, _, _ in count.open)
    assert added == 6, "each counts once"
    mia = user_id_for("mia")
    for reader in (ADA.id, EVE.id, mia):
        counters = (await overlay.read(reader, [], counters=True)).counters
        assert counters == frozenset([index_prefix(f"count:topic:{short_id(topic)}")]), (
            "others add to it, too"
        )


async def test_a_reader_with_nothing_of_his_own_sees_what_is_shared(
    overlay: Overlay | FakeOverlay, keys: RedisKeys
) -> None:
    topic = new_row_id()
    one = laid(keys, ADA, topic, 0, shared=True)
    await overlay.lay(one)
    index = [Index(keys.list(EVE.id, "topic_posts", topic), "desc", "+", 3)]
    shared = [Index(keys.list(SHARED, "topic_posts", topic), "desc", "+", 3)]
    assert (await overlay.read(EVE.id, index)).empty
    found = await overlay.read(EVE.id, index, shared)
    assert not found.empty
    (entry,) = found.entries.values()
    assert (entry.own, entry.status.state, entry.status.offset) == (False, EntryState.PENDING, 0)
    assert (await overlay.read(ADA.id, [], shared)).entries == {}, "her own overlay has it"


async def test_a_private_kind_is_not_shown_even_if_it_got_there(
    redis: RedisAccess, keys: RedisKeys
) -> None:
    topic = new_row_id()
    shared = [Index(keys.list(SHARED, "topic_posts", topic), "asc", "-", 3)]
    catalog = load_catalog("tests.content_open")
    overlay = Overlay(redis, keys, catalog=catalog)
    await overlay.lay(laid(keys, ADA, topic, 0, shared=True, type_="reaction"))
    found = await overlay.read(EVE.id, [], shared)
    assert (found.entries, found.members) == ({}, [[]])
    await overlay.lay(laid(keys, ADA, topic, 0, shared=True))
    assert len((await overlay.read(EVE.id, [], shared)).entries) == 1
    assert (await Overlay(redis, keys).read(EVE.id, [], shared)).entries == {}


async def test_an_entry_of_another_is_not_shown_even_if_it_got_there(
    redis: RedisAccess, keys: RedisKeys
) -> None:
    topic, overlay = new_row_id(), Overlay(redis, keys)
    one = laid(keys, ADA, topic, 0, shared=False)
    scopes = [Scope(keys.list(EVE.id, "topic_posts", topic), one.scopes[0].member)]
    await overlay.lay(Laid(one.command, scopes, (0, 0), EVE.id))
    index = [Index(keys.list(EVE.id, "topic_posts", topic), "asc", "-", 3)]
    found = await overlay.read(EVE.id, index)
    assert found.entries == {}
    assert (await overlay.look(EVE.id, one.command.command_id))[0] is None
    assert (await overlay.newest(EVE.id, 3))[0] == []
