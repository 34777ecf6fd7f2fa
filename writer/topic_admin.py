"""Kafka topics: made by `afterwrite migrate`, never by auto-creation; checked by `doctor`."""

from collections.abc import AsyncIterator, Callable, Sequence
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
        known = await _partitions(admin, wanted)
        missing = [topic for topic in wanted if topic.name not in known]
        for topic in missing:
            say(f"creating topic {topic.name}")
        if missing:
            await _create(admin, missing, replication_factor)
        for topic in wanted:
            if known.get(topic.name, topic.partitions) < topic.partitions:
                say(f"adding partitions to {topic.name}")
                await admin.create_partitions({topic.name: NewPartitions(topic.partitions)})


@asynccontextmanager
async def _admin(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    """A started client; what it has opened is closed, also when it cannot start."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap, client_id="afterwrite")
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()


async def _partitions(admin: AIOKafkaAdminClient, wanted: Sequence[Topic]) -> dict[str, int]:
    """How many partitions each topic has; one that is not there is left out."""
    found = await admin.describe_topics([topic.name for topic in wanted])
    return {t["topic"]: len(t["partitions"]) for t in found if t["error_code"] == 0}


async def _create(
    admin: AIOKafkaAdminClient, missing: Sequence[Topic], replication_factor: int
) -> None:
    """In one request: a broker takes about as long for all of them as for one."""
    answer = await admin.create_topics(
        [
            NewTopic(t.name, t.partitions, replication_factor, topic_configs=t.config)
            for t in missing
        ],
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
        known = await _partitions(admin, wanted)
        configs = await _configs(admin, [topic for topic in wanted if topic.name in known])
        for topic in wanted:
            if topic.name not in known:
                faults.append(f"topic {topic.name} is missing: run `afterwrite migrate`")
                continue
            if known[topic.name] < topic.partitions:
                faults.append(f"topic {topic.name} has {known[topic.name]} partitions")
            is_ = configs.get(topic.name, {})
            faults += [
                f"topic {topic.name}: {name} is {is_.get(name)}, must be {value}"
                for name, value in topic.config.items()
                if is_.get(name) != value
            ]
        return faults


async def _configs(
    admin: AIOKafkaAdminClient, present: Sequence[Topic]
) -> dict[str, dict[str, str]]:
    """The settings of each topic, by name."""
    if not present:
        return {}
    resources = [ConfigResource(ConfigResourceType.TOPIC, topic.name) for topic in present]
    return {
        name: {entry[0]: entry[1] for entry in entries}
        for answer in await admin.describe_configs(resources)
        for _, _, _, name, entries in answer.resources
    }
