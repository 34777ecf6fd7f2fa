"""Commands for tests, and their way into the log without an API."""

import uuid
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from aiokafka import AIOKafkaProducer

from schema.commands import Author, Command, Mutation
from schema.envelope import Envelope, Keyring, Record, seal
from schema.identifiers import RowId, derived_id, new_command_id, new_row_id, user_id_for
from schema.topics import lane_of

KEYRING = Keyring({"k1": b"a-secret-for-tests-only-0123456789abcdef"})


def author(name: str, *roles: str) -> Author:
    return Author(user_id_for(name), name, roles)


def command(
    who: Author,
    *mutations: Mutation,
    stream: uuid.UUID | None = None,
    key: str | None = None,
    fingerprint: str | None = None,
) -> Command:
    return Command(
        new_command_id(),
        RowId(stream or mutations[0].id),
        who,
        datetime.now(UTC),
        mutations,
        idempotency_key=key,
        fingerprint=fingerprint,
    )


def create(type_: str, row_id: uuid.UUID | None = None, **values: object) -> Mutation:
    return Mutation("create", type_, RowId(row_id or new_row_id()), values)


def update(type_: str, row_id: uuid.UUID, version: int | None = None, **values: object) -> Mutation:
    return Mutation("update", type_, RowId(row_id), values, version)


def delete(type_: str, row_id: uuid.UUID, version: int | None = None) -> Mutation:
    return Mutation("delete", type_, RowId(row_id), {}, version)


def topic_with_post(
    title: str = "A topic", body: str = "Its first post"
) -> tuple[Mutation, Mutation]:
    topic = create("topic", title=title)
    return topic, create("post", topic_id=str(topic.id), body=body)


def reaction(post: uuid.UUID, who: Author, emoji: str) -> Mutation:
    row_id = derived_id("reaction", str(post), str(who.id), emoji)
    return Mutation("create", "reaction", row_id, {"post_id": str(post), "emoji": emoji})


def notice_to(
    who: Author, about: uuid.UUID, kind: str = "delayed", detail: str = "It is safe and waits."
) -> Command:
    """What the notifier makes to tell somebody of a command of his."""
    values: dict[str, Any] = {
        "user_id": str(who.id),
        "kind": kind,
        "command_id": str(about),
        "code": kind,
        "detail": detail,
        "returned": None,
    }
    made = command(Author(who.id, who.name), create("notice", **values), stream=who.id)
    return replace(made, system=True)


def sealed(what: Command, log_id: uuid.UUID) -> Record:
    return seal(Envelope(what, log_id), KEYRING, "/afterwrite/test")


async def publish(
    bootstrap: str, topic: str, records: Iterable[Record], lanes: int = 1, lane: int | None = None
) -> None:
    """Put records into the log in this order, as the front end would."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True)
    await producer.start()
    try:
        for record in records:
            at = lane if lane is not None else lane_of(uuid.UUID(record.key.decode()), lanes)
            await producer.send(
                topic,
                key=record.key,
                value=record.value,
                headers=list(record.headers),
                partition=at,
            )
        await producer.flush()
    finally:
        await producer.stop()
