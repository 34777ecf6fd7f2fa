"""The front end's adapters on real servers: what the fakes promise, the real ones keep."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import MessageSizeTooLargeError
from prometheus_client import CollectorRegistry, Counter, Histogram

from frontend_api.command_publisher import CommandPublisher
from frontend_api.idempotency import Answer, Claimed, Idempotency, InFlight, KeyReused
from frontend_api.kafka_producer import NotAccepted, Published
from frontend_api.overlay import Index, Overlay, OverlayState
from frontend_api.redis_access import RedisAccess
from schema.commands import Author, Command, Mutation
from schema.envelope import Record
from schema.identifiers import new_command_id, new_row_id, user_id_for
from schema.overlay import SETTLE, SWEEP, EntryState, index_prefix
from schema.redis_keys import RedisKeys, short_id
from schema.scopes import Scope
from tests.fakes import FakeOverlay
from tests.installation import Installation, eventually_async

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]

ADA = Author(user_id_for("ada"), "ada")


def counter(name: str) -> Counter:
    return Counter(name, "for a test", registry=CollectorRegistry())


@pytest.fixture
async def redis(installation: Installation) -> AsyncIterator[RedisAccess]:
    access = RedisAccess(installation.services.redis_url, 2.0, counter("failures"))
    yield access
    await access.close()


@pytest.fixture
def keys(installation: Installation) -> RedisKeys:
    return RedisKeys(installation.name)


@pytest.fixture(params=["redis", "fake"])
def overlay(
    request: pytest.FixtureRequest, redis: RedisAccess, keys: RedisKeys
) -> Overlay | FakeOverlay:
    return Overlay(redis, keys) if request.param == "redis" else FakeOverlay()


def made(row_id: uuid.UUID | None = None) -> Command:
    row = new_row_id() if row_id is None else row_id
    mutation = Mutation("create", "post", row, {"body": "\u2028 é 👍"})  # type: ignore[arg-type]
    now = datetime.now(tz=UTC)
    return Command(new_command_id(), new_row_id(), ADA, now, (mutation,))


def scopes(keys: RedisKeys, command: Command, parent: uuid.UUID) -> list[Scope]:
    row = command.mutations[0].id
    return [
        Scope(keys.row(ADA.id, "post", row), str(command.command_id)),
        Scope(keys.list(ADA.id, "posts", parent), f"{row}:{command.command_id}"),
        Scope(keys.count(ADA.id, "topic", parent), f"post_count:1:{command.command_id}"),
    ]


async def test_put_read_confirm_withdraw(overlay: Overlay | FakeOverlay, keys: RedisKeys) -> None:
    parent, other = new_row_id(), Author(user_id_for("eve"), "eve")
    commands = [made() for _ in range(7)]
    for command in commands:
        await overlay.put(command, scopes(keys, command, parent))
        await overlay.put(command, scopes(keys, command, parent))  # a repeat changes nothing
    assert await overlay.confirm(commands[0], 0, 41)
    assert await overlay.confirm(commands[1], None, None)
    assert not await overlay.confirm(made(), 0, 42)
    row = Index(keys.row(ADA.id, "post", commands[0].mutations[0].id), "row")
    index = keys.list(ADA.id, "posts", parent)
    found = await overlay.read(
        ADA.id, [row, Index(index, "asc", "-", 3), Index(index, "desc", "+", 2)]
    )
    rows = sorted(str(c.mutations[0].id) for c in commands)
    assert [m[:36] for m in found.members[1]] == rows[:3]
    assert [m[:36] for m in found.members[2]] == rows[:-3:-1]
    first = found.entries[commands[0].command_id]
    assert first.command == commands[0]
    assert (first.status.state, first.status.lane, first.status.offset) == (
        EntryState.PENDING,
        0,
        41,
    )
    behind = await overlay.read(ADA.id, [Index(index, "asc", f"({rows[2]};", 100)])
    assert [m[:36] for m in behind.members[0]] == rows[3:]
    assert (await overlay.read(other.id, [Index(index, "asc", "-", 3)])).empty
    await overlay.withdraw(commands[0])  # confirmed: it stays
    await overlay.withdraw(commands[2])
    await overlay.forget(ADA.id, commands[3].command_id)
    left = await overlay.read(ADA.id, [Index(index, "asc", "-", 100)])
    assert len(left.members[0]) == 5
    assert await overlay.look(ADA.id, commands[2].command_id) == (None, OverlayState.COMPLETE)
    entry, _ = await overlay.look(ADA.id, commands[0].command_id)
    assert entry is not None
    newest, _ = await overlay.newest(ADA.id, 3)
    assert [e.command for e in newest] == commands[:3:-1]
    older, _ = await overlay.newest(ADA.id, 3, newest[-1].command.command_id)
    assert [e.command for e in older] == commands[1::-1]
    (count,), _ = await overlay.counts(ADA.id, [keys.count(ADA.id, "topic", parent)], {0: 42})
    assert sum(count.certain.values()) + len(count.open) == 5


async def test_a_page_never_ends_inside_a_row(
    overlay: Overlay | FakeOverlay, keys: RedisKeys
) -> None:
    parent, row = new_row_id(), new_row_id()
    commands = [made(row) for _ in range(9)]
    for command in [*commands, made(), made()]:
        await overlay.put(command, scopes(keys, command, parent))
    index = keys.list(ADA.id, "posts", parent)
    found = await overlay.read(ADA.id, [Index(index, "asc", "-", 2), Index(index, "desc", "+", 3)])
    assert len(found.members[0]) == 9
    assert len(found.members[1]) == 11


async def test_it_is_told_which_counters_are_added_to(
    overlay: Overlay | FakeOverlay, keys: RedisKeys
) -> None:
    parents = [new_row_id() for _ in range(2)]
    commands = [made() for _ in range(4)]
    for at, command in enumerate(commands):
        await overlay.put(command, scopes(keys, command, parents[at % 2]))
    assert (await overlay.read(ADA.id, [])).counters is None, "nobody asked"
    found = await overlay.read(ADA.id, [], counters=True)
    names = [index_prefix(f"count:topic:{short_id(p)}") for p in parents]
    assert found.counters == frozenset(names)
    for command in commands[::2]:
        await overlay.withdraw(command)
    left = await overlay.read(ADA.id, [], counters=True)
    assert left.counters == frozenset(names[1:])
    assert (await overlay.read(user_id_for("eve"), [], counters=True)).counters == frozenset()


async def test_an_overlay_that_is_large_is_not_looked_through_for_counters(
    redis: RedisAccess, keys: RedisKeys
) -> None:
    overlay, parent = Overlay(redis, keys), new_row_id()
    for _ in range(250):
        command = made()
        await overlay.put(command, scopes(keys, command, parent)[1:])
    assert (await overlay.read(ADA.id, [], counters=True)).counters is not None
    await overlay.put(command := made(), scopes(keys, command, parent)[1:])
    assert (await overlay.read(ADA.id, [], counters=True)).counters is None


async def test_counts_are_summed_where_the_writer_has_not_been(
    redis: RedisAccess, keys: RedisKeys
) -> None:
    overlay, parent = Overlay(redis, keys), new_row_id()
    commands = [made() for _ in range(1200)]
    for offset, command in enumerate(commands):
        await overlay.put(command, scopes(keys, command, parent)[2:])
        await overlay.confirm(command, 0, offset)
    key = keys.count(ADA.id, "topic", parent)
    (count,), _ = await overlay.counts(ADA.id, [key], {0: 5})
    assert count.certain == {"post_count": 1195}
    assert [c for _, _, c, _ in count.open] == [c.command_id for c in commands[:5]]
    entries = keys.entries(ADA.id)
    await redis.run(SETTLE, [entries], [short_id(commands[0].command_id), "rejected", 0, 0, 1])
    (count,), _ = await overlay.counts(ADA.id, [key], {0: 5})
    assert len(count.open) == 4
    await redis.run(SWEEP, [entries, keys.index(ADA.id)], [short_id(commands[0].command_id)])
    assert await overlay.look(ADA.id, commands[0].command_id) == (None, OverlayState.COMPLETE)


async def test_claims(redis: RedisAccess, keys: RedisKeys) -> None:
    claims = Idempotency(redis, keys, stale_ms=60_000, ttl_s=60)
    ids = [uuid.uuid4(), uuid.uuid4()]
    assert await claims.claim(ADA.id, "k", "f", ids) == Claimed(tuple(ids))
    with pytest.raises(InFlight):
        await claims.claim(ADA.id, "k", "f", [uuid.uuid4()])
    with pytest.raises(KeyReused):
        await claims.claim(ADA.id, "k", "g", [uuid.uuid4()])
    await claims.reopen(ADA.id, "k", ids)
    others = [uuid.uuid4(), uuid.uuid4()]
    taken = await claims.claim(ADA.id, "k", "f", others)
    assert taken == Claimed(tuple(ids), again=True)
    with pytest.raises(InFlight):
        await claims.claim(ADA.id, "k", "f", others)
    await claims.release(ADA.id, "k", others)  # not theirs to release
    answer = Answer(202, {"Location": "/x"}, {"id": "é"})
    await claims.answer(ADA.id, "k", ids, answer)
    assert await claims.claim(ADA.id, "k", "f", others) == answer
    await claims.release(ADA.id, "k", ids)
    assert await claims.claim(ADA.id, "k", "g", others) == Claimed(tuple(others))


async def test_one_of_many_at_once_gets_the_claim(redis: RedisAccess, keys: RedisKeys) -> None:
    claims = Idempotency(redis, keys, stale_ms=60_000, ttl_s=60)
    tries = [claims.claim(ADA.id, "k", "f", [uuid.uuid4()]) for _ in range(50)]
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(r, Claimed) for r in results) == 1
    assert sum(isinstance(r, InFlight) for r in results) == 49


async def test_a_dead_holders_claim_is_taken_over(redis: RedisAccess, keys: RedisKeys) -> None:
    claims = Idempotency(redis, keys, stale_ms=1, ttl_s=60)
    ids = [uuid.uuid4()]
    await claims.claim(ADA.id, "k", "f", ids)

    async def taken_over() -> bool:
        try:
            taken = await claims.claim(ADA.id, "k", "f", [uuid.uuid4()])
        except InFlight:
            return False
        return taken == Claimed(tuple(ids), again=True)

    await eventually_async(taken_over, 5, "the claim to grow stale")


@pytest.fixture
async def publisher(installation: Installation) -> AsyncIterator[CommandPublisher]:
    registry = CollectorRegistry()
    made = CommandPublisher(
        installation.services.kafka_bootstrap,
        f"{installation.name}.commands",
        seconds=Histogram("seconds", "for a test", registry=registry),
        replacements=counter("replacements"),
    )
    made.start()
    await eventually_async(made.reachable, 20, "Kafka to answer")
    yield made
    await made.close()


def never(_: Published) -> None:
    raise AssertionError("nothing was late")


async def test_a_record_too_large_for_the_broker_burns_no_lane(
    installation: Installation, publisher: CommandPublisher
) -> None:
    topic = f"{installation.name}.commands"
    admin = AIOKafkaAdminClient(bootstrap_servers=installation.services.kafka_bootstrap)
    await admin.start()
    try:
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": "2000"})
        await admin.alter_configs([resource])
    finally:
        await admin.close()
    small, large = Record(b"k", b"v", ()), Record(b"k", b"v" * 50_000, ())
    first = await _offset_after_refusing(installation.services.kafka_bootstrap, topic, large)
    assert await publisher.publish(small, 0, 5, never) == Published(0, first)
    with pytest.raises(NotAccepted):
        await publisher.publish(large, 0, 5, never)
    for offset in (1, 2):
        assert await publisher.publish(small, 0, 5, never) == Published(0, first + offset)
    with pytest.raises(NotAccepted):
        await publisher.publish(Record(b"k", b"v" * 600_000, ()), 0, 5, never)
    assert await publisher.publish(small, 0, 5, never) == Published(0, first + 3)


async def _offset_after_refusing(bootstrap: str, topic: str, large: Record) -> int:
    """Wait until the broker, told a new limit, keeps it; returns the next offset of lane 0."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    taken: list[int] = [-1]
    try:

        async def refused() -> bool:
            try:
                taken.append((await producer.send_and_wait(topic, large.value, partition=0)).offset)
            except MessageSizeTooLargeError:
                return True
            return False

        await eventually_async(refused, 10, "the broker to keep its new limit")
    finally:
        await producer.stop()
    return taken[-1] + 1


async def test_a_dead_sender_is_replaced(publisher: CommandPublisher) -> None:
    record = Record(b"k", b"v", ())
    assert await publisher.publish(record, 0, 5, never) == Published(0, 0)
    producer = publisher._producer
    assert producer is not None
    sender = producer._sender_task
    assert sender is not None
    sender.cancel()
    await asyncio.wait({sender})
    assert await publisher.publish(record, 0, 5, never) == Published(0, 1)


async def test_a_lane_that_is_not_there_is_not_accepted(publisher: CommandPublisher) -> None:
    with pytest.raises(NotAccepted):
        await publisher.publish(Record(b"k", b"v", ()), 7, 2, never)
