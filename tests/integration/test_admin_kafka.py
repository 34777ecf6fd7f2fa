"""What the operators' pages hear and say in Kafka: alerts and mail, the log with PostgreSQL away, acts."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from frontend_api.admin.act_desk import ActDesk, ActPublisher
from frontend_api.admin.facts import Ledger
from frontend_api.admin.log_look import LogLook
from frontend_api.admin.tail import Tail
from frontend_api.admin.watch import Watch
from frontend_api.rebuild_log import CommandLog
from frontend_api.view import DatabaseUnavailable
from schema.acts import Act, Operator, open_act
from schema.alerts import Alert
from schema.identifiers import new_id
from schema.mail import Mail
from schema.settings import Settings
from schema.topics import Topics, topics
from tests.commands import KEYRING, author, command, publish, sealed, topic_with_post
from tests.installation import Installation, eventually

pytestmark = [pytest.mark.integration, pytest.mark.once]

NOW = datetime.now(UTC)


def names(installation: Installation) -> Topics:
    return topics(Settings.model_validate({"prefix": installation.name}))


@asynccontextmanager
async def producer(installation: Installation) -> AsyncIterator[AIOKafkaProducer]:
    made = AIOKafkaProducer(bootstrap_servers=installation.services.kafka_bootstrap)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


class Away:
    async def ledger(self) -> Ledger:
        raise DatabaseUnavailable


async def works() -> None:
    return


async def test_alerts_and_mail_are_followed_from_before_the_beginning(
    installation: Installation,
) -> None:
    there = names(installation)
    alert = Alert(new_id(), "database_down", "opened", "critical", "Away", "", NOW, NOW)
    mail = Mail(new_id(), "rejected", 1, "en", "ada@example.org", {}, NOW)
    state = {"state": "failed", "at": NOW.isoformat(), "attempts": 1}
    tail = Tail(installation.services.kafka_bootstrap, there)
    async with producer(installation) as kafka:

        async def say(topic: str, value: Any, key: str | None = None, **more: Any) -> None:
            content = json.dumps(value).encode() if value is not None else None
            await kafka.send_and_wait(topic, content, key.encode() if key else None, **more)

        await say(there.alerts.name, alert.to_json())
        await say(there.alerts.name, ["no alert"])
        await say(
            there.mail_dead_letters.name, mail.to_json(), headers=[("why", b"550 no such user")]
        )
        await say(there.mail_state.name, state, str(mail.mail_id))
        await say(there.mail_state.name, {"at": NOW.isoformat()}, "address:ada@example.org")
        await say(there.mail_state.name, {"worker": "w"}, "owner:3")
        tail.start()
        try:
            await eventually(lambda: bool(tail.alerts.open), 15, "the alert to be heard")
            await eventually(lambda: bool(tail.mails and tail.states.marked), 15, "the mail")
            assert tail.reading
            assert tail.alerts.open[0].name == "database_down"
            assert tail.mails[0].mail == mail
            assert tail.mails[0].why == {"why": "550 no such user"}
            await eventually(lambda: tail.states.counts() == {"failed": 1}, 15, "its state")
            assert list(tail.states.marked) == ["ada@example.org"]
            closed = alert.to_json() | {"alert_id": str(new_id()), "phase": "closed"}
            await say(there.alerts.name, closed)
            await say(there.mail_state.name, None, "address:ada@example.org")
            await eventually(lambda: not tail.alerts.open, 15, "the incident to close")
            await eventually(lambda: not tail.states.marked, 15, "the address to be cleared")
        finally:
            await tail.close()


async def test_what_waits_is_known_though_postgresql_never_answered(
    installation: Installation,
) -> None:
    """By the lag hint that the writer leaves in Kafka, of which the log is read from there."""
    there, bootstrap = names(installation), installation.services.kafka_bootstrap
    log_id = uuid.uuid4()
    commands = [command(author("ada"), *topic_with_post()) for _ in range(5)]
    await publish(bootstrap, there.commands.name, [sealed(one, log_id) for one in commands])
    group = f"{installation.name}.writer"
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False
    )
    place = TopicPartition(there.commands.name, 0)
    consumer.assign([place])
    await consumer.start()
    await consumer.commit({place: OffsetAndMetadata(2, "")})
    await consumer.stop()
    look = LogLook(CommandLog(bootstrap, there.commands.name, group))
    watch = Watch(Away(), look, works, lambda: True)
    watch.start()
    try:
        await eventually(lambda: watch.picture.log.value is not None, 15, "the log to be looked at")
        picture = watch.picture
        assert picture.ledger.ok is False
        assert picture.waiting == 3
        assert picture.oldest is not None
        assert abs((picture.now - picture.oldest).total_seconds()) < 60
        found, complete = await look.waiting({0: 2}, lambda one: True, 2)
        assert [one.offset for one in found] == [2, 3]
        assert not complete
        record_ = await look.record(0, 4)
        assert record_ is not None
        assert record_.command is not None
        assert await look.record(0, 5) is None
        assert await look.record(7, 0) is None
    finally:
        await watch.close()


async def test_a_log_that_does_not_answer_is_said(installation: Installation) -> None:
    look = LogLook(CommandLog("127.0.0.1:1", "nothing", "nobody"))
    watch = Watch(Away(), look, works, lambda: True)
    watch.start()
    try:
        await eventually(lambda: watch.picture.log.ok is False, 15, "Kafka to be missed")
        assert watch.picture.waiting is None
        await eventually(lambda: watch.picture.redis.ok is True, 15, "Redis to be asked")
    finally:
        await watch.close()


async def test_an_act_arrives_signed_and_whole(installation: Installation) -> None:
    there, bootstrap = names(installation), installation.services.kafka_bootstrap
    publisher = ActPublisher(bootstrap, there.acts.name)
    desk = ActDesk(publisher, KEYRING)
    act = Act(new_id(), "pause", Operator(new_id(), "Ola", ("operator",)), NOW, "Disks", lane=0)
    await desk.order(act)
    await publisher.close()  # it is made anew when it is needed
    await desk.order(act)
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    consumer.assign([TopicPartition(there.acts.name, 0)])
    await consumer.start()
    try:
        async with asyncio.timeout(15):
            records = [await consumer.getone() for _ in range(2)]
    finally:
        await consumer.stop()
        await publisher.close()
    for record in records:
        assert open_act(record.key, record.value, record.headers, KEYRING) == act
