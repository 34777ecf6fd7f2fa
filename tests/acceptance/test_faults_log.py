"""Poison in the log: what is no command goes to the dead letters; what contradicts the log halts."""

import asyncio
import json
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from schema.envelope import TYPE_PREFIX, Envelope, Headers, Keyring, Record, seal
from tests.acceptance.helpers import applied, outcomes, send
from tests.commands import KEYRING, author, command, sealed, topic_with_post
from tests.installation import Installation, eventually_async

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(120)]

ADA = author("ada")


async def test_bytes_that_are_no_command_are_dead_at_once_and_stop_nobody(
    installation: Installation,
) -> None:
    writer = await installation.start("writer").ready()
    log_id = await installation.value("SELECT log_id FROM afterwrite.lane")
    good = sealed(command(ADA, *topic_with_post()), log_id)
    forger = Keyring({"k1": b"not-the-key-of-this-installation-at-all"})
    stranger = Keyring({"k9": b"a-secret-for-tests-only-0123456789abcdef"})
    envelope = Envelope(command(ADA, *topic_with_post()), log_id)
    poison: list[tuple[bytes | None, bytes | None, Headers]] = [
        (os.urandom(16), os.urandom(300), ()),
        (None, b"", ()),
        (good.key, None, good.headers),
        (good.key, good.value[:-20], good.headers),
        (good.key, good.value.replace(b"first post", b"worst post"), good.headers),
        _parts(seal(envelope, forger, "/forged")),
        _parts(seal(envelope, stranger, "/strange")),
        _signed(good.key, b"[1, 2"),
        _signed(good.key, b'{"v": 1}'),
        _signed(b"another key", good.value),
        (good.key, good.value, (*good.headers[:-1], ("ce_signature", b"\xff\xfe"))),
    ]
    saved = [sealed(command(ADA, *topic_with_post()), log_id) for _ in poison]
    mixed = [part for pair in zip(poison, map(_parts, saved), strict=True) for part in pair]
    await _put(installation, mixed)
    await applied(installation, len(mixed))
    assert await outcomes(installation) == ["dead", "saved"] * len(poison)
    assert await installation.value("SELECT count(*) FROM topic") == len(poison)

    letters = await installation.fetch('SELECT * FROM afterwrite.dead_letter ORDER BY "offset"')
    assert [(r["key"], r["value"]) for r in letters] == [(k, v) for k, v, _ in poison]
    mirrored = await _read(installation, f"{installation.name}.commands.dlq", len(poison))
    assert [(r.key, r.value) for r in mirrored] == [(k, v) for k, v, _ in poison]
    assert writer.popen.poll() is None
    assert sum(e["event"] == "lane_taken" for e in writer.events()) == 1
    audit = installation.run("audit")
    assert audit.returncode == 0, audit.stdout


def _parts(record: Record) -> tuple[bytes, bytes, Headers]:
    return record.key, record.value, record.headers


def _signed(key: bytes, value: bytes, version: int = 1) -> tuple[bytes, bytes, Headers]:
    type_ = f"{TYPE_PREFIX}{version}".encode()
    return key, value, (("ce_type", type_), ("ce_signature", KEYRING.sign(type_, key, value)))


async def test_a_command_of_a_later_version_stops_the_lane(installation: Installation) -> None:
    """An older writer must not refuse what a newer one can save."""
    writer = await installation.start("writer").ready()
    log_id = await installation.value("SELECT log_id FROM afterwrite.lane")
    good = sealed(command(ADA, *topic_with_post()), log_id)
    later = _signed(good.key, good.value.replace(b'"v":1', b'"v":2'), version=2)
    await send(installation, command(ADA, *topic_with_post()))
    await applied(installation, 1)
    await _put(installation, [later])
    await _halted(installation, "version")
    await _put(installation, [_parts(good)])
    assert await outcomes(installation) == ["saved"]
    assert await installation.value("SELECT count(*) FROM afterwrite.dead_letter") == 0
    assert await installation.value("SELECT count(*) FROM notice") == 0
    assert writer.popen.poll() is None


async def test_a_command_of_another_log_stops_the_lane(installation: Installation) -> None:
    await installation.start("writer").ready()
    stray = sealed(command(ADA, *topic_with_post()), uuid.uuid4())
    await send(installation, command(ADA, *topic_with_post()), raw=[stray])
    await _halted(installation, "belongs to log")
    assert "rejected" not in await outcomes(installation)


async def test_commands_deleted_before_they_were_applied_stop_the_lane(
    installation: Installation,
) -> None:
    first = await installation.start("writer").ready()
    await send(installation, *(command(ADA, *topic_with_post()) for _ in range(3)))
    await applied(installation, 3)
    assert first.terminate() == 0
    await send(installation, *(command(ADA, *topic_with_post()) for _ in range(5)))
    await _delete_before(installation, 6)
    installation.start("writer", "next")
    await _halted(installation, "commands from 3 to 5 were deleted")
    assert await outcomes(installation) == ["saved"] * 3


async def _halted(installation: Installation, reason: str) -> dict[str, Any]:
    """Wait until `afterwrite status` says that the lane stands still, and why."""

    async def there() -> bool:
        halted = await installation.value("SELECT halted FROM afterwrite.lane WHERE lane = 0")
        return halted is not None and reason in halted

    await eventually_async(there, 30, f"the lane to halt: {reason}")
    status = await asyncio.to_thread(installation.run, "status", "--json")
    assert status.returncode == 1
    report: dict[str, Any] = json.loads(status.stdout)
    assert not report["healthy"]
    assert reason in report["lanes"][0]["halted"]
    return report


@asynccontextmanager
async def _producer(installation: Installation) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=installation.services.kafka_bootstrap)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def _put(
    installation: Installation, records: list[tuple[bytes | None, bytes | None, Headers]]
) -> None:
    """Records as they are, in this order."""
    topic = f"{installation.name}.commands"
    async with _producer(installation) as producer:
        for key, value, headers in records:
            await producer.send(topic, value, key, partition=0, headers=list(headers))
        await producer.flush()


async def _read(installation: Installation, topic: str, count: int) -> list[Any]:
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=installation.services.kafka_bootstrap,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    try:
        async with asyncio.timeout(20):
            return [await consumer.getone() for _ in range(count)]
    finally:
        await consumer.stop()


async def _delete_before(installation: Installation, offset: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=installation.services.kafka_bootstrap)
    await admin.start()
    try:
        lane = TopicPartition(f"{installation.name}.commands", 0)
        await admin.delete_records({lane: RecordsToDelete(before_offset=offset)})
    finally:
        await admin.close()
