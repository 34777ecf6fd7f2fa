"""The producer's batches: what goes together, and what each record's fate is said to be."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.errors import (
    KafkaError,
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumber,
    ProducerClosed,
)
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from frontend_api.kafka_producer import (
    NotAccepted,
    OutcomeUnknown,
    Producer,
    ProducerBurned,
    Published,
)
from schema.envelope import Record

pytestmark = pytest.mark.unit

SOON_S = 0.05


class Kafka:
    """aiokafka as far as the producer uses it; a test says what becomes of each batch."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, list[bytes]]] = []
        self.futures: list[asyncio.Future[Any]] = []
        self.refuse: Exception | None = None
        self.reachable = asyncio.Event()
        self.reachable.set()
        self.hold = asyncio.Event()
        self.hold.set()
        self._sender = SimpleNamespace(sender_task=None)
        cluster = SimpleNamespace(leader_for_partition=lambda tp: 1 if tp.partition < 4 else None)
        self.client = SimpleNamespace(
            cluster=cluster, ready=self._ready, fetch_all_metadata=self._metadata
        )

    async def _ready(self, _: int) -> bool:
        await self.reachable.wait()
        return True

    async def _metadata(self) -> Any:
        return SimpleNamespace(partitions_for_topic=lambda _: {0, 1})

    async def partitions_for(self, _: str) -> set[int]:
        return {0, 1}

    def create_batch(self) -> BatchBuilder:
        return BatchBuilder(16_384, 0)

    async def send_batch(
        self, batch: BatchBuilder, _: str, *, partition: int
    ) -> "asyncio.Future[Any]":
        assert batch.closed(), "aiokafka must not add to it"
        await self.hold.wait()
        if self.refuse is not None:
            raise self.refuse
        records = MemoryRecords(bytes(batch._build())).next_batch()
        assert records is not None
        self.batches.append((partition, [record.value or b"" for record in records]))
        self.futures.append(asyncio.get_running_loop().create_future())
        return self.futures[-1]

    def answer(self, at: int, first: int) -> None:
        self.futures[at].set_result(SimpleNamespace(offset=first))


class World:
    def __init__(self, kafka: Kafka) -> None:
        self.kafka = kafka
        self.producer = Producer("127.0.0.1:1", "topic")
        self.late: list[Published] = []
        self.tasks: list[asyncio.Task[Published]] = []

    def send(self, value: bytes, lane: int = 0, within_s: float = 5.0) -> "asyncio.Task[Published]":
        until = asyncio.get_running_loop().time() + within_s
        record = Record(b"k", value, (("h", b"v"),))
        task = asyncio.create_task(self.producer.send(record, lane, until, self.late.append))
        self.tasks.append(task)
        return task


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    kafka = Kafka()
    monkeypatch.setattr("frontend_api.kafka_producer.AIOKafkaProducer", lambda **_: kafka)
    made = World(kafka)
    yield made
    for task in made.tasks:
        task.cancel()
    await asyncio.gather(*made.tasks, return_exceptions=True)


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_comes_in_one_turn_goes_together_and_each_is_told_its_place(
    world: World,
) -> None:
    sent = [world.send(b"%d" % n) for n in range(5)]
    await turns()
    assert world.kafka.batches == [(0, [b"0", b"1", b"2", b"3", b"4"])]
    world.kafka.answer(0, 70)
    assert await asyncio.gather(*sent) == [Published(0, 70 + n) for n in range(5)]
    assert world.producer._held == world.producer._unconfirmed == 0


async def test_while_a_batch_is_under_way_the_next_one_fills_lane_by_lane(world: World) -> None:
    first = world.send(b"first")
    await turns()
    behind = [world.send(b"second"), world.send(b"third")]
    other = world.send(b"other", lane=1)
    await turns()
    assert world.kafka.batches == [(0, [b"first"]), (1, [b"other"])]
    world.kafka.answer(0, 7)
    await turns()
    assert world.kafka.batches[2:] == [(0, [b"second", b"third"])]
    world.kafka.answer(1, 90)
    world.kafka.answer(2, 8)
    assert await asyncio.gather(first, *behind, other) == [
        Published(0, 7), Published(0, 8), Published(0, 9), Published(1, 90),
    ]  # fmt: skip


async def test_a_batch_is_bounded_and_the_rest_keeps_its_order(world: World) -> None:
    sent = [world.send(b"%03d" % n + b"x" * 1000) for n in range(40)]
    for at in range(3):
        await turns()
        assert len(world.kafka.batches) == at + 1
        world.kafka.answer(at, 16 * at)
    await asyncio.gather(*sent)
    assert [len(values) <= 16 for _, values in world.kafka.batches] == [True] * 3
    found = [int(value[:3]) for _, values in world.kafka.batches for value in values]
    assert found == list(range(40))


async def test_a_place_that_is_not_told_is_unknown_for_all_of_the_batch(world: World) -> None:
    sent = [world.send(b"a"), world.send(b"b")]
    await turns()
    world.kafka.answer(0, -1)
    assert await asyncio.gather(*sent) == [Published(0, None)] * 2


async def test_a_batch_without_an_answer_is_unknown_and_what_waits_was_not_sent(
    world: World,
) -> None:
    overdue = world.send(b"overdue", within_s=SOON_S)
    await turns()
    patient = world.send(b"in the same lane")
    with pytest.raises(OutcomeUnknown):
        await overdue
    with pytest.raises(NotAccepted):
        await asyncio.wait_for(patient, 1)
    assert world.producer.stuck
    with pytest.raises(NotAccepted):
        await world.send(b"while it is stuck", lane=1)
    world.kafka.answer(0, 3)
    await turns()
    assert world.late == [Published(0, None)]
    assert not world.producer.stuck
    assert world.kafka.batches == [(0, [b"overdue"])], "what was not accepted was never sent"
    again = world.send(b"again")
    await turns()
    world.kafka.answer(1, 4)
    assert await again == Published(0, 4)


async def test_who_waits_behind_a_batch_is_not_accepted_when_its_own_time_is_up(
    world: World,
) -> None:
    first = world.send(b"first")
    await turns()
    with pytest.raises(NotAccepted):
        await world.send(b"impatient", within_s=SOON_S)
    assert not world.producer.stuck
    world.kafka.answer(0, 1)
    assert await first == Published(0, 1)
    await turns()
    assert len(world.kafka.batches) == 1
    assert world.producer._held == 0


async def test_without_a_broker_in_time_nothing_is_sent(world: World) -> None:
    world.kafka.reachable.clear()
    with pytest.raises(NotAccepted):
        await world.send(b"too early", within_s=SOON_S)
    world.kafka.reachable.set()
    later = world.send(b"later")
    await turns()
    world.kafka.answer(0, 0)
    assert await later == Published(0, 0)
    assert world.kafka.batches == [(0, [b"later"])]


async def test_without_any_time_left_nothing_is_sent_and_nothing_is_stuck(world: World) -> None:
    with pytest.raises(NotAccepted):
        await world.send(b"too late", within_s=0.0)
    await turns()
    assert world.kafka.batches == []
    assert not world.producer.stuck


async def test_one_whose_time_is_up_takes_nobody_with_him(world: World) -> None:
    world.kafka.reachable.clear()
    patient = world.send(b"patient")
    with pytest.raises(NotAccepted):
        await world.send(b"impatient", within_s=SOON_S)
    with pytest.raises(NotAccepted):
        await world.send(b"too late", within_s=0.0)
    world.kafka.reachable.set()
    await turns()
    world.kafka.answer(0, 0)
    assert await patient == Published(0, 0)
    assert world.kafka.batches == [(0, [b"patient"])]


async def test_a_broker_that_cannot_be_reached_for_long_is_tried_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("frontend_api.kafka_producer._HAND_OVER_LIMIT_S", SOON_S / 2)
    world.kafka.reachable.clear()
    patient = world.send(b"patient")
    with pytest.raises(NotAccepted):
        await world.send(b"impatient", within_s=SOON_S)
    with pytest.raises(NotAccepted):
        await asyncio.wait_for(patient, 1)
    world.kafka.reachable.set()
    later = world.send(b"later")
    await turns()
    world.kafka.answer(0, 0)
    assert await later == Published(0, 0)


async def test_each_is_told_when_his_own_time_is_up(world: World) -> None:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    longer = world.send(b"longer", within_s=4 * SOON_S)
    shorter = world.send(b"shorter", within_s=SOON_S)
    for task, within_s in ((shorter, SOON_S), (longer, 4 * SOON_S)):
        with pytest.raises(OutcomeUnknown):
            await asyncio.wait_for(task, 2)
        assert loop.time() - begun >= within_s - 0.01


async def test_time_that_is_up_while_it_is_handed_over_leaves_it_open(world: World) -> None:
    """It may still be taken: so it must not be said that it was not accepted."""
    world.kafka.hold.clear()
    first, longer = world.send(b"first"), world.send(b"second", within_s=SOON_S)
    with pytest.raises(OutcomeUnknown):
        await longer
    world.kafka.hold.set()
    await turns()
    world.kafka.answer(0, 5)
    assert await first == Published(0, 5)
    assert world.late == [Published(0, None)]
    assert not world.producer.stuck


async def test_what_aiokafka_does_not_take_is_not_accepted_and_leaves_nothing_stuck(
    world: World,
) -> None:
    world.kafka.hold.clear()
    world.kafka.refuse = KafkaError("no")
    first, longer = world.send(b"first"), world.send(b"second", within_s=SOON_S)
    with pytest.raises(OutcomeUnknown):
        await longer
    world.kafka.hold.set()
    with pytest.raises(NotAccepted):
        await first
    assert not world.producer.stuck
    assert world.producer._held == 0


@pytest.mark.parametrize("lane", [0, 7])
async def test_a_surprise_in_between_leaves_no_lane_dead(world: World, lane: int) -> None:
    world.kafka.refuse = TypeError("a surprise")
    with pytest.raises((OutcomeUnknown, NotAccepted)):
        await world.send(b"first", lane)
    world.kafka.refuse = None
    other = world.send(b"second", lane)
    await turns()
    if lane == 0:
        world.kafka.answer(0, 0)
        assert await other == Published(0, 0)
    else:
        with pytest.raises(NotAccepted):
            await other


async def test_a_producer_that_is_burned_had_its_batch_and_not_what_waits(world: World) -> None:
    sent = [world.send(b"a"), world.send(b"b")]
    await turns()
    behind = world.send(b"behind")
    await turns()
    world.kafka.futures[0].set_exception(OutOfOrderSequenceNumber())
    found = await asyncio.gather(*sent, behind, return_exceptions=True)
    assert [cast("ProducerBurned", error).queued for error in found] == [True, True, False]
    assert found[0] is not found[1], "each has an exception of his own"
    with pytest.raises(ProducerBurned) as after:
        await world.send(b"after")
    assert not after.value.queued
    assert len(world.kafka.batches) == 1


async def test_a_batch_refused_by_size_is_not_accepted_and_the_producer_is_spent(
    world: World,
) -> None:
    sent = world.send(b"a")
    await turns()
    behind = world.send(b"behind")
    await turns()
    world.kafka.futures[0].set_exception(MessageSizeTooLargeError())
    with pytest.raises(NotAccepted):
        await sent
    with pytest.raises(ProducerBurned) as waiting:
        await behind
    assert not waiting.value.queued
    assert world.producer.refused_by_size


async def test_a_failure_that_says_nothing_is_unknown(world: World) -> None:
    sent = world.send(b"a")
    await turns()
    world.kafka.futures[0].set_exception(KafkaError("?"))
    with pytest.raises(OutcomeUnknown):
        await sent
    again = world.send(b"again")
    await turns()
    world.kafka.answer(1, 0)
    assert await again == Published(0, 0)


async def test_a_closed_producer_has_taken_nothing(world: World) -> None:
    world.kafka.refuse = ProducerClosed()
    with pytest.raises(ProducerBurned) as closed:
        await world.send(b"a")
    assert not closed.value.queued


async def test_a_dead_sender_takes_nothing_and_what_it_had_is_open(world: World) -> None:
    sent = world.send(b"a")
    await turns()
    dead: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    dead.set_result(None)
    world.kafka._sender.sender_task = dead
    world.kafka.futures[0].set_exception(KafkaError("it died"))
    with pytest.raises(ProducerBurned) as had:
        await sent
    assert had.value.queued
    with pytest.raises(ProducerBurned) as after:
        await world.send(b"b")
    assert not after.value.queued


async def test_who_goes_before_it_is_sent_sends_nothing(world: World) -> None:
    first = world.send(b"first")
    await turns()
    gone, stays = world.send(b"gone"), world.send(b"stays")
    await turns()
    gone.cancel()
    world.kafka.answer(0, 0)
    await turns()
    assert world.kafka.batches[1:] == [(0, [b"stays"])]
    world.kafka.answer(1, 1)
    assert [await first, await stays] == [Published(0, 0), Published(0, 1)]
    assert world.producer._held == 0


async def test_only_so_many_are_held_and_none_that_is_too_large(world: World) -> None:
    held = [world.send(b"x") for _ in range(1000)]
    await turns(3)
    with pytest.raises(NotAccepted, match="too many"):
        await world.send(b"one too many")
    with pytest.raises(NotAccepted, match="too large"):
        await world.send(b"x" * 600_000)
    while not all(task.done() for task in held):
        await turns(3)
        for future in world.kafka.futures:
            if not future.done():
                future.set_result(SimpleNamespace(offset=0))
    assert world.producer._held == 0


async def test_stopping_gives_back_what_waits(world: World) -> None:
    stopped: list[bool] = []

    async def stop() -> None:
        stopped.append(True)

    world.kafka.stop = stop  # type: ignore[attr-defined]
    first = world.send(b"first")
    await turns()
    behind = world.send(b"behind")
    await turns()
    await world.producer.stop()
    assert stopped
    with pytest.raises(ProducerBurned) as waiting:
        await behind
    assert not waiting.value.queued
    world.kafka.futures[0].cancel()
    with pytest.raises(OutcomeUnknown):
        await first
