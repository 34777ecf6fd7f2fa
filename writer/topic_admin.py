"""Kafka topics: made by `afterwrite migrate`, never by auto-creation; checked by `doctor`."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from schema.settings import Settings
from schema.topics import Topic, topics


async def migrate_topics(
    settings: Settings,
    replication_factor: int,
    min_insync_replicas: int,
    say: Callable[[str], None],
) -> None:
    """Make the topics that are missing, and the partitions that more lanes need."""
    async with _admin(settings) as admin:
        wanted = topics(settings, min_insync_replicas).all()
        known = {t["topic"]: t for t in await admin.describe_topics([t.name for t in wanted])}
        for topic in wanted:
            await _bring_up(admin, topic, known.get(topic.name), replication_factor, say)


@asynccontextmanager
async def _admin(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    """A started client; what it has opened is closed, also when it cannot start."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap, client_id="afterwrite")
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()


async def _bring_up(
    admin: AIOKafkaAdminClient,
    topic: Topic,
    known: dict[str, object] | None,
    replication_factor: int,
    say: Callable[[str], None],
) -> None:
    partitions = known["partitions"] if known and known.get("error_code") == 0 else None
    if not isinstance(partitions, list):
        say(f"creating topic {topic.name}")
        await _create(admin, topic, replication_factor)
    elif len(partitions) < topic.partitions:
        say(f"adding partitions to {topic.name}")
        await admin.create_partitions({topic.name: NewPartitions(topic.partitions)})


async def _create(admin: AIOKafkaAdminClient, topic: Topic, replication_factor: int) -> None:
    answer = await admin.create_topics(
        [NewTopic(topic.name, topic.partitions, replication_factor, topic_configs=topic.config)],
        timeout_ms=20_000,
    )
    for name, code, *rest in answer.topic_errors:
        if code not in (0, 36):  # 36: it exists already, made by somebody at the same time
            raise RuntimeError(f"topic {name} could not be made: error {code} {rest}")


async def has_command_topic(settings: Settings) -> bool:
    async with _admin(settings) as admin:
        (found,) = await admin.describe_topics([topics(settings).commands.name])
        return bool(found["error_code"] == 0)


async def topic_faults(settings: Settings, min_insync_replicas: int) -> list[str]:
    """What differs between the topics as they are and as they are declared."""
    async with _admin(settings) as admin:
        faults: list[str] = []
        wanted = topics(settings, min_insync_replicas).all()
        known = {t["topic"]: t for t in await admin.describe_topics([t.name for t in wanted])}
        for topic in wanted:
            found = known.get(topic.name)
            if found is None or found["error_code"] != 0:
                faults.append(f"topic {topic.name} is missing: run `afterwrite migrate`")
                continue
            if len(found["partitions"]) < topic.partitions:
                faults.append(f"topic {topic.name} has {len(found['partitions'])} partitions")
            faults += await _config_faults(admin, topic)
        return faults


async def _config_faults(admin: AIOKafkaAdminClient, topic: Topic) -> list[str]:
    resource = ConfigResource(ConfigResourceType.TOPIC, topic.name)
    is_: dict[str, str] = {}
    for answer in await admin.describe_configs([resource]):
        for entry in answer.resources[0][4]:
            is_[entry[0]] = entry[1]
    return [
        f"topic {topic.name}: {name} is {is_.get(name)}, must be {value}"
        for name, value in topic.config.items()
        if is_.get(name) != value
    ]
