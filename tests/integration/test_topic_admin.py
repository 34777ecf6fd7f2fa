"""Topics: made as they are declared, grown with the lanes, and their faults reported."""

from collections.abc import AsyncIterator

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from schema.settings import Settings
from schema.topics import Topics, topics
from tests.installation import eventually_async, fresh_name
from tests.services import Services
from writer.topic_admin import migrate_topics, topic_faults

pytestmark = [pytest.mark.integration, pytest.mark.once]


@pytest.fixture
def settings(services: Services) -> Settings:
    return Settings.model_validate(
        {"kafka_bootstrap": services.kafka_bootstrap, "prefix": fresh_name(), "lanes": 2}
    )


@pytest.fixture
async def admin(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await client.start()
    declared = [topic.name for topic in topics(settings).all()]
    yield client
    await client.delete_topics([t for t in await client.list_topics() if t in declared])
    await client.close()


async def _migrate(settings: Settings) -> list[str]:
    said: list[str] = []
    await migrate_topics(settings, 1, 1, said.append)
    return said


async def _partitions(admin: AIOKafkaAdminClient, declared: Topics) -> dict[str, int]:
    found = await admin.describe_topics([topic.name for topic in declared.all()])
    return {t["topic"]: len(t["partitions"]) for t in found if t["error_code"] == 0}


async def _config(admin: AIOKafkaAdminClient, topic: str) -> dict[str, str]:
    answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    return {entry[0]: entry[1] for answer in answers for entry in answer.resources[0][4]}


async def _no_faults(settings: Settings) -> None:
    """A broker tells of what it has just made only a moment later."""

    async def none() -> bool:
        return await topic_faults(settings, 1) == []

    await eventually_async(none, 20, "the topics to be as they are declared")


async def test_topics_are_made_as_they_are_declared(
    settings: Settings, admin: AIOKafkaAdminClient
) -> None:
    declared = topics(settings)
    assert await _migrate(settings) == [f"creating topic {t.name}" for t in declared.all()]
    await _no_faults(settings)
    assert await _partitions(admin, declared) == {t.name: t.partitions for t in declared.all()}
    for topic in declared.all():
        config = await _config(admin, topic.name)
        assert {name: config.get(name) for name in topic.config} == topic.config


async def test_making_them_again_changes_nothing(
    settings: Settings, admin: AIOKafkaAdminClient
) -> None:
    await _migrate(settings)
    await _no_faults(settings)
    assert await _migrate(settings) == []
    await _no_faults(settings)


async def test_more_lanes_add_partitions_and_fewer_take_none_away(
    settings: Settings, admin: AIOKafkaAdminClient
) -> None:
    await _migrate(settings)
    await _no_faults(settings)
    more = settings.model_copy(update={"lanes": 5})
    declared = topics(more)
    assert await topic_faults(more, 1) == [
        f"topic {declared.commands.name} has 2 partitions",
        f"topic {declared.outcomes.name} has 2 partitions",
    ]
    assert await _migrate(more) == [
        f"adding partitions to {declared.commands.name}",
        f"adding partitions to {declared.outcomes.name}",
    ]
    await _no_faults(more)
    assert await _migrate(settings) == []
    assert (await _partitions(admin, declared))[declared.commands.name] == 5


async def test_missing_topics_are_reported_with_what_to_do(settings: Settings) -> None:
    assert await topic_faults(settings, 1) == [
        f"topic {topic.name} is missing: run `afterwrite migrate`"
        for topic in topics(settings).all()
    ]


async def test_a_topic_that_would_lose_commands_is_reported(
    settings: Settings, admin: AIOKafkaAdminClient
) -> None:
    """Made by hand, or by a broker's auto-creation, with a broker's defaults."""
    name = topics(settings).commands.name
    careless = {"retention.ms": "604800000", "message.timestamp.type": "CreateTime"}
    await admin.create_topics([NewTopic(name, 2, 1, topic_configs=careless)])
    await _migrate(settings)
    faults: list[str] = []

    async def all_are_there() -> bool:
        faults[:] = await topic_faults(settings, 1)
        return not any("is missing" in fault for fault in faults)

    await eventually_async(all_are_there, 20, "the topics to be there")
    assert f"topic {name}: retention.ms is 604800000, must be -1" in faults
    assert f"topic {name}: message.timestamp.type is CreateTime, must be LogAppendTime" in faults
    assert all(fault.startswith(f"topic {name}: ") for fault in faults)


async def test_too_few_confirming_replicas_are_reported(
    settings: Settings, admin: AIOKafkaAdminClient
) -> None:
    await _migrate(settings)
    await _no_faults(settings)
    faults = await topic_faults(settings, 2)
    assert faults == [
        f"topic {topic.name}: min.insync.replicas is 1, must be 2"
        for topic in topics(settings).all()
    ]
