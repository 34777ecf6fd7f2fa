"""Lag tools see the positions, although nobody joins the group."""

import asyncio

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError

from schema.telemetry import Log
from tests.installation import Installation, eventually_async
from writer.lag_hint import LagHint

pytestmark = [pytest.mark.integration, pytest.mark.once]


async def test_positions_become_offsets_of_a_group(installation: Installation) -> None:
    topic, group = f"{installation.name}.commands", f"{installation.name}.writer"
    bootstrap = installation.services.kafka_bootstrap
    hint = LagHint(bootstrap, topic, group, Log("test"))
    hint.note(0, 41)
    hint.note(0, 42)
    committing = asyncio.create_task(hint.commit_forever(every_s=0.05))
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()

    async def committed() -> bool:
        try:
            offsets = await admin.list_consumer_group_offsets(group)
        except GroupCoordinatorNotAvailableError:  # the broker makes its offsets topic at first use
            return False
        at = offsets.get(TopicPartition(topic, 0))
        return at is not None and at.offset == 42

    try:
        await eventually_async(committed, 20, "the offset to be committed")
    finally:
        committing.cancel()
        await asyncio.gather(committing, return_exceptions=True)
        await admin.close()
