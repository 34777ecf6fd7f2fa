"""What operators do about mail: look at dead mails, clear the mark of an address, send one again.

Reads the dead-letter topic and the state topic from their beginnings to their ends, with nothing kept but
what is asked for. A mail that is sent again is a new mail, with an id derived from the dead one's place:
asking for it twice queues the same mail, which the workers send once.
"""

import uuid
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from schema.fields import parse_time
from schema.mail import Mail
from schema.strict_json import decode
from schema.topics import MAIL_PARTITIONS, Topic, Topics
from writer.kafka_errors import stop_client, translated
from writer.mail.addresses import checked
from writer.mail.state import AddressMark, Memory, address_key, address_partition, encoded
from writer.publisher import Message, OutcomePublisher

_POLL_MS: Final = 500
_RETRIES: Final = uuid.UUID("5f0f6c80-5a0c-5c58-9c39-6a1a6d61696c")
_OURS: Final = ("__connect.", "kafka_dlt-", "afterwrite-dlq-")


@dataclass(frozen=True)
class DeadMail:
    """One dead letter. `number` is its offset there; `again` what became of the mail sent instead of it.

    `mail` is `None` for bytes that are no mail.
    """

    number: int
    code: str
    detail: str
    attempts: int
    died_at: datetime | None
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = field(repr=False)
    again: str | None = None

    @property
    def mail(self) -> Mail | None:
        try:
            return Mail.from_json(decode(self.value or b""))
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    def to_json(self, *, whole: bool = False) -> dict[str, Any]:
        """`whole`: with the parameters, or with the bytes if they are no mail."""
        mail = self.mail
        shown: dict[str, Any] = {
            "number": self.number,
            "mail_id": str(mail.mail_id) if mail else None,
            "template": mail.template if mail else None,
            "to": mail.to if mail else None,
            "code": self.code,
            "detail": self.detail,
            "attempts": self.attempts,
            "died_at": self.died_at.isoformat() if self.died_at else None,
            "again": self.again,
        }
        if whole:
            shown["mail"] = mail.to_json() if mail else None
            shown["value"] = None if mail else (self.value or b"").decode(errors="backslashreplace")
        return shown


async def dead_mails(
    bootstrap: str, topics: Topics, *, limit: int, code: str | None = None, to: str | None = None
) -> list[DeadMail]:
    """The latest ones, oldest first. Raises `LogUnavailable`."""
    memory = await read_memory(bootstrap, topics)
    found: deque[DeadMail] = deque(maxlen=limit)
    async for record in _all(bootstrap, topics.mail_dead_letters):
        dead = _dead(record)
        mail = dead.mail
        if (code and dead.code != code) or (to and (mail is None or mail.to != to)):
            continue
        found.append(_with_again(dead, memory))
    return list(found)


async def dead_mail(bootstrap: str, topics: Topics, wanted: str) -> DeadMail | None:
    """One, by its number or its mail's id (the latest with that id). Raises `LogUnavailable`."""
    memory = await read_memory(bootstrap, topics)
    found: DeadMail | None = None
    async for record in _all(bootstrap, topics.mail_dead_letters):
        dead = _dead(record)
        mail = dead.mail
        if str(dead.number) == wanted or (mail is not None and str(mail.mail_id) == wanted):
            found = _with_again(dead, memory)
    return found


async def marked_addresses(bootstrap: str, topics: Topics) -> dict[str, AddressMark]:
    """Addresses that refused mail. Raises `LogUnavailable`."""
    return (await read_memory(bootstrap, topics)).addresses


async def clear_address(bootstrap: str, topics: Topics, address: str) -> bool:
    """Take the mark off an address; returns whether there was one.

    Raises `BadAddress` or `LogUnavailable`.
    """
    address = checked(address)
    if address not in await marked_addresses(bootstrap, topics):
        return False
    partition = address_partition(address, MAIL_PARTITIONS)
    message = Message(topics.mail_state.name, address_key(address), None, partition=partition)
    await _publish(bootstrap, message)
    return True


async def send_again(bootstrap: str, topics: Topics, dead: DeadMail, now: datetime) -> Mail:
    """Queue it as a new mail, whose horizon begins now. Raises `ValueError` for bytes that are no mail,
    or `LogUnavailable`."""
    mail = dead.mail
    if mail is None:
        raise ValueError("the bytes are no mail")
    again = replace(mail, mail_id=_again_id(dead), created_at=now)
    headers = [(n, v) for n, v in dead.headers if not n.startswith(_OURS)]
    headers.append(("afterwrite-mail-again", str(mail.mail_id).encode()))
    await _publish(
        bootstrap,
        Message(
            topics.mail.name, str(again.mail_id).encode(), encoded(again.to_json()), tuple(headers)
        ),
    )
    return again


def _again_id(dead: DeadMail) -> uuid.UUID:
    return uuid.uuid5(_RETRIES, f"{dead.number}:{(dead.key or b'').hex()}")


def _with_again(dead: DeadMail, memory: Memory) -> DeadMail:
    state = memory.state_of(_again_id(dead))
    return dead if state is None else replace(dead, again=state)


def _dead(record: Any) -> DeadMail:
    headers = {name: value.decode(errors="replace") for name, value in record.headers if value}
    attempts = headers.get("afterwrite-dlq-attempts", "")
    try:
        died_at = parse_time(headers.get("afterwrite-dlq-last-failed-at", ""))
    except ValueError:
        died_at = None
    return DeadMail(
        number=record.offset,
        code=headers.get("afterwrite-dlq-code", "?"),
        detail=headers.get("__connect.errors.exception.message", ""),
        attempts=int(attempts) if attempts.isdigit() else 0,
        died_at=died_at,
        key=record.key,
        value=record.value,
        headers=tuple(record.headers),
    )


async def read_memory(bootstrap: str, topics: Topics) -> Memory:
    """The state topic as it is now. Raises `LogUnavailable`."""
    memory = Memory()
    async for record in _all(bootstrap, topics.mail_state):
        memory.fold(record.partition, record.key, record.value)
    return memory


async def _all(bootstrap: str, topic: Topic) -> AsyncIterator[Any]:
    """Every record of a topic up to its end as it is now."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        client_id="afterwrite-mail-operation",
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        request_timeout_ms=10_000,
    )
    partitions = [TopicPartition(topic.name, number) for number in range(topic.partitions)]
    try:
        with translated():
            await consumer.start()
            consumer.assign(partitions)
            at = await consumer.beginning_offsets(partitions)
            ends = await consumer.end_offsets(partitions)
            for partition in partitions:
                consumer.seek(partition, at[partition])
        while any(at[partition] < ends[partition] for partition in partitions):
            with translated():
                batches = await consumer.getmany(timeout_ms=_POLL_MS)
            for partition, records in batches.items():
                for record in records:
                    yield record
                at[partition] = records[-1].offset + 1 if records else at[partition]
    finally:
        await stop_client(consumer)


async def _publish(bootstrap: str, message: Message) -> None:
    publisher = OutcomePublisher(bootstrap)
    try:
        await publisher.publish([message])
    finally:
        await publisher.close()
