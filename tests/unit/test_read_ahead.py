"""Reading ahead: of a backlog at most two batches, of a trickle none, and errors in their place."""

import asyncio
import uuid
from collections.abc import Sequence
from typing import Any, cast

import pytest
from aiokafka import ConsumerRecord, TopicPartition

from schema.envelope import Record
from tests.commands import KEYRING, author, command, sealed, topic_with_post
from writer.failures import Halt
from writer.log import Log
from writer.read_ahead import ReadAhead

pytestmark = pytest.mark.unit

FULL = 3
LOG_ID = uuid.UUID(int=7)
PLACE = TopicPartition("commands", 0)


class _Fetches:
    """Gives batches one after the other, and then waits for ever."""

    def __init__(self, *found: list[int] | Exception) -> None:
        self.left = list(found)
        self.given = 0

    async def __call__(self) -> list[int]:
        await asyncio.sleep(0)
        if not self.left:
            await asyncio.Event().wait()
        self.given += 1
        batch = self.left.pop(0)
        if isinstance(batch, Exception):
            raise batch
        return batch


async def _settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_of_a_backlog_two_batches_are_read_ahead_and_come_in_order() -> None:
    fetches = _Fetches(*([n] * FULL for n in range(5)))
    ahead = ReadAhead(fetches, FULL)
    await _settle()
    assert fetches.given == 2
    assert [await ahead.next() for _ in range(5)] == [[n] * FULL for n in range(5)]
    await ahead.close()


async def test_behind_a_batch_that_was_not_full_nothing_is_read_before_it_is_taken() -> None:
    fetches = _Fetches([1], [2], [3] * FULL)
    ahead = ReadAhead(fetches, FULL)
    for number in (1, 2):
        await _settle()
        assert fetches.given == number
        assert await ahead.next() == [number]
    await ahead.close()


async def test_an_error_comes_behind_the_batches_that_were_read_before_it() -> None:
    ahead = ReadAhead(_Fetches([1] * FULL, Halt("newer"), [2]), FULL)
    await _settle()
    assert await ahead.next() == [1] * FULL
    with pytest.raises(Halt, match="newer"):
        await ahead.next()
    await ahead.close()


async def test_closing_ends_reading() -> None:
    ahead = ReadAhead(_Fetches(), FULL)
    await _settle()
    await ahead.close()
    assert len(asyncio.all_tasks()) == 1


class _Consumer:
    """Answers of Kafka that end wherever they end, as they do at a number of bytes."""

    def __init__(self, answers: Sequence[Sequence[Record]], end: int) -> None:
        self.answers = list(answers)
        self.end = end
        self.offset = 0

    async def getmany(self, place: TopicPartition, **limits: Any) -> dict[TopicPartition, Any]:
        if not self.answers:
            raise AssertionError("it was asked for what is not there yet")
        found = []
        for record in self.answers.pop(0)[: limits["max_records"]]:
            found.append(
                ConsumerRecord(
                    place.topic,
                    place.partition,
                    self.offset,
                    0,
                    0,
                    record.key,
                    record.value,
                    None,
                    len(record.key),
                    len(record.value),
                    record.headers,
                )
            )
            self.offset += 1
        return {place: found} if found else {}

    def highwater(self, place: TopicPartition) -> int:
        return self.end


def _records(count: int) -> list[Record]:
    return [sealed(command(author("ada"), *topic_with_post()), LOG_ID) for _ in range(count)]


def _log(consumer: _Consumer) -> Log:
    return Log(cast(Any, consumer), PLACE, KEYRING)


async def test_a_batch_is_filled_from_two_answers_of_kafka() -> None:
    log = _log(_Consumer([_records(2), _records(2)], end=4))
    assert [r.offset for r in await log.fetch(10, 1)] == [0, 1, 2, 3]


async def test_nothing_is_waited_for_that_is_not_in_the_log() -> None:
    log = _log(_Consumer([_records(2)], end=2))
    assert len(await log.fetch(10, 1)) == 2


async def test_a_full_batch_is_not_filled_further() -> None:
    log = _log(_Consumer([_records(2), _records(2)], end=9))
    assert len(await log.fetch(3, 1)) == 3


async def test_what_kafka_holds_back_for_now_keeps_nobody_waiting() -> None:
    log = _log(_Consumer([_records(2), []], end=9))
    assert len(await log.fetch(10, 1)) == 2


async def test_a_batch_of_large_records_is_not_filled_further() -> None:
    (record,) = _records(1)
    large = Record(record.key, b"x" * 1024 * 1024, record.headers)
    log = _log(_Consumer([[large] * 4, [large]], end=5))
    assert len(await log.fetch(10, 1)) == 4
