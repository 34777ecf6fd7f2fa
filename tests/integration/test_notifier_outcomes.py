"""What is rejected comes back by mail to who wants it, and is summed up for administrators."""

import json
import uuid
from dataclasses import replace
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from schema.commands import Author, Command
from schema.identifiers import derived_id
from schema.mail import Mail
from schema.mail_templates import Rejected, parameters_of
from schema.topics import MAIL_PARTITIONS
from tests.alerting import answers, serving, until
from tests.commands import author, command, create, publish, sealed, topic_with_post, update
from tests.installation import Installation, eventually_async

pytestmark = [pytest.mark.integration, pytest.mark.once, pytest.mark.timeout(120)]


def reached(name: str, locale: str = "en") -> Author:
    return replace(author(name), email=f"{name}@example.org", locale=locale)


async def queued(installation: Installation) -> list[Mail]:
    """All mails in the mail topic."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=installation.services.kafka_bootstrap, group_id=None
    )
    await consumer.start()
    try:
        places = [
            TopicPartition(f"{installation.name}.mail", part) for part in range(MAIL_PARTITIONS)
        ]
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        found: list[Any] = []
        while batches := await consumer.getmany(timeout_ms=700):
            found += [record for records in batches.values() for record in records]
        return [Mail.from_json(json.loads(record.value)) for record in found]
    finally:
        await consumer.stop()


async def test_what_is_rejected_is_summed_up_and_mailed_to_who_wants_it(
    installation: Installation,
) -> None:
    log_id = await installation.value("SELECT log_id FROM afterwrite.lane WHERE lane = 0")

    async def send(*commands: Command) -> None:
        records = [sealed(c, log_id) for c in commands]
        topic = f"{installation.name}.commands"
        await publish(installation.services.kafka_bootstrap, topic, records, lane=0)

    def wants_no_mail(of: Author) -> Command:
        row_id = derived_id("preference", str(of.id))
        return command(of, create("preference", row_id, mail=False))

    async with serving(answers(200)) as administrators:
        installation.start(
            "notifier",
            rejections_every_s="2",
            alert_urls=f"json://127.0.0.1:{administrators.port}/",
        )
        notifier = installation.processes["notifier"]
        # Somebody had said how he wants to be told before there was a notifier.
        bob = reached("bob")
        await send(wants_no_mail(bob))
        installation.start("writer")
        await notifier.logged("following")
        topic, post = topic_with_post("A topic", "Of ada's")
        ada, cem, dan = reached("ada"), reached("cem", "de-CH"), reached("dan")
        await send(command(ada, topic, post), wants_no_mail(dan))

        def of_others(who: Author, text: str) -> Command:
            return command(who, update("post", post.id, 1, body=text), stream=topic.id)

        async def known() -> bool:
            count = await installation.value("SELECT count(*) FROM preference")
            return bool(count == 2)

        await eventually_async(known, 20, "preferences to be saved")
        await send(*(of_others(who, f"by {who.name}") for who in (bob, cem, dan)))
        await until(lambda: bool(administrators.requests), 20)
        mails: list[Mail] = []

        async def mailed() -> bool:
            mails[:] = await queued(installation)
            return bool(mails)

        await eventually_async(mailed, 20, "a mail to be queued")
        (mail,) = mails
        parameters = parameters_of(mail)
        assert isinstance(parameters, Rejected)
        assert (mail.to, mail.locale, parameters.code) == ("cem@example.org", "de-CH", "forbidden")
        assert parameters.text == "by cem"
        assert parameters.reason == "Das ist Ihnen nicht erlaubt."
        notice = await installation.value("SELECT id FROM notice WHERE user_id = $1", cem.id)
        assert str(notice) in parameters.link
        summaries = [body for body in administrators.bodies() if body["phase"] == "summary"]
        assert len({uuid.UUID(body["alert_id"]) for body in summaries}) == 1
        assert summaries[0]["title"] == "3 commands were rejected"
        assert "3 × forbidden" in summaries[0]["text"]
