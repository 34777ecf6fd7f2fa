"""Notices that are owed: published first of all, shown when Redis can, told to their users last."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from redis.exceptions import ConnectionError as RedisAway

from schema.catalog import load_catalog
from schema.commands import Command
from schema.identifiers import new_id
from schema.settings import Settings
from schema.telemetry import Log
from schema.topics import topics
from tests.commands import KEYRING
from tests.unit.test_telling import NOW, author, delay, teller
from writer.failures import LogUnavailable
from writer.notifier.memory import Memory, Role
from writer.notifier.publishing import Outbox
from writer.publisher import Message

pytestmark = pytest.mark.unit


@dataclass
class Servers:
    """Kafka and Redis, that may be away; and what they were given, in order."""

    redis: bool = True
    kafka: bool = True
    given: list[tuple[str, Any]] = field(default_factory=list)
    asked: int = 0

    async def put(self, command: Command) -> None:
        self._redis("put", command)

    async def lay(self, command: Command, lane: int | None, offset: int | None) -> None:
        self._redis("lay", (command.author.name, lane, offset))

    def _redis(self, what: str, value: Any) -> None:
        self.asked += 1
        if not self.redis:
            raise RedisAway
        self.given.append((what, value))

    async def publish(self, messages: Sequence[Message]) -> list[int | None]:
        if not self.kafka:
            raise LogUnavailable("away")
        self.given += [(message.topic, message) for message in messages]
        return list(range(len(messages)))

    @property
    def steps(self) -> list[str]:
        return [what for what, _ in self.given]


class Written(Memory):
    """What is put is written down at once."""

    async def written(self, within_s: float) -> bool:
        return True


def outbox(servers: Servers, users: int = 1) -> Outbox:
    memory = Written("127.0.0.1:1", "notices", "notifier", Log("test"), role=Role.LEADING)
    made = Outbox(
        memory, servers, cast(Any, servers), load_catalog("schema.forum"), KEYRING,
        topics(Settings()), Log("test"), new_id(),
    )  # fmt: skip
    for n in range(users):
        made.owe(teller({}).delayed(delay(author(f"user {n}")), NOW, {}))
    return made


async def test_lay_publish_confirm_tell() -> None:
    servers = Servers()
    made = outbox(servers)
    assert await made.notices() == ["delayed"]
    assert servers.steps == ["put", "afterwrite.commands", "lay", "afterwrite.outcomes"]
    assert servers.given[2][1] == ("user 0", 0, 0)
    assert not made.memory.below("notice:")
    assert await made.notices() == []


async def test_what_redis_does_not_take_is_laid_later_and_published_once() -> None:
    servers = Servers(redis=False)
    made = outbox(servers, users=50)
    assert len(await made.notices()) == 50
    assert servers.asked == 2  # it is not asked fifty times while it is away
    assert await made.notices() == []
    servers.redis = True
    made.owe(teller({}).delayed(delay(author("late")), NOW, {}))
    assert len(await made.notices()) == 1  # not behind those that are only to be shown
    assert servers.steps.count("afterwrite.commands") == 51
    assert servers.steps.count("lay") == 51
    assert not made.memory.below("notice:")


async def test_while_kafka_is_away_it_stays_owed_and_is_the_same_command_later() -> None:
    servers = Servers(kafka=False)
    made = outbox(servers)
    (key,) = made.memory.below("notice:")
    with pytest.raises(LogUnavailable):
        await made.notices()
    assert list(made.memory.below("notice:")) == [key]
    servers.kafka = True
    await made.notices()
    record = next(m for topic, m in servers.given if topic == "afterwrite.commands")
    assert dict(record.headers)["ce_id"].decode() == key.removeprefix("notice:")
    # It may be in the log twice now: which place decides, only the ledger knows.
    assert ("lay", ("user 0", 0, None)) in servers.given


async def test_without_the_identity_of_the_log_nothing_is_published() -> None:
    servers = Servers()
    made = outbox(servers)
    made.log_id = None
    assert await made.notices() == []
    assert made.memory.below("notice:")
