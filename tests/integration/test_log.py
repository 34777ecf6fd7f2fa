"""The log is opened only where it goes on: at a position inside it, behind the command applied last."""

import uuid

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from tests.commands import KEYRING, author, command, publish, sealed, topic_with_post
from tests.installation import Installation, eventually_async
from writer.failures import LogMismatch
from writer.log import open_log

pytestmark = [pytest.mark.integration, pytest.mark.once]


async def _filled(installation: Installation) -> tuple[str, list[uuid.UUID]]:
    topic = f"{installation.name}.commands"
    log_id = await installation.value("SELECT log_id FROM afterwrite.lane")
    commands = [command(author("ada"), *topic_with_post()) for _ in range(3)]
    records = [sealed(c, log_id) for c in commands]
    await publish(installation.services.kafka_bootstrap, topic, records)
    return topic, [c.command_id for c in commands]


async def test_it_goes_on_behind_the_command_applied_last(installation: Installation) -> None:
    topic, ids = await _filled(installation)
    log, end = await open_log(installation.services.kafka_bootstrap, topic, 0, 2, ids[1], KEYRING)
    try:
        records = await log.fetch(10, 10)
    finally:
        await log.close()
    assert end == 3
    assert [(r.offset, r.command.command_id) for r in records] == [(2, ids[2])]


async def test_a_log_made_anew_is_noticed_although_it_is_long_enough(
    installation: Installation,
) -> None:
    topic, ids = await _filled(installation)
    with pytest.raises(LogMismatch, match="made anew"):
        await open_log(installation.services.kafka_bootstrap, topic, 0, 2, ids[0], KEYRING)


async def test_a_position_behind_the_end_is_noticed(installation: Installation) -> None:
    topic, _ = await _filled(installation)
    with pytest.raises(LogMismatch, match="lost or made anew"):
        await open_log(installation.services.kafka_bootstrap, topic, 0, 4, None, KEYRING)


async def test_a_lost_command_topic_is_not_made_again_in_silence(
    installation: Installation,
) -> None:
    await installation.fetch("UPDATE afterwrite.lane SET position = 7 RETURNING 1")
    admin = AIOKafkaAdminClient(bootstrap_servers=installation.services.kafka_bootstrap)
    await admin.start()
    try:
        topic = f"{installation.name}.commands"
        await admin.delete_topics([topic])

        async def gone() -> bool:
            (found,) = await admin.describe_topics([topic])
            return bool(found["error_code"] != 0)

        await eventually_async(gone, 20, "the topic to be gone")
    finally:
        await admin.close()
    migrated = installation.run("migrate")
    assert migrated.returncode == 1
    assert "The command topic is gone, although 7 commands" in migrated.stderr
