"""A mail that cannot be sent: key, value and headers byte for byte, what was wrong in further headers."""

from datetime import datetime

from schema.fields import render_time
from schema.mail import MailFailure
from writer.mail.window import MailRecord
from writer.publisher import Message


def dead_letter(
    topic: str,
    source: str,
    record: MailRecord,
    code: MailFailure,
    detail: str,
    attempts: int,
    died_at: datetime,
) -> Message:
    """The message for the dead-letter topic. `detail` has no text of users."""
    told = {
        "__connect.errors.topic": source,
        "__connect.errors.partition": record.partition,
        "__connect.errors.offset": record.offset,
        "__connect.errors.stage": "send",
        "__connect.errors.exception.message": detail[:1000],
        "kafka_dlt-original-topic": source,
        "afterwrite-dlq-code": code,
        "afterwrite-dlq-attempts": attempts,
        "afterwrite-dlq-died-at": render_time(died_at),
    }
    headers = [*record.headers, *((name, str(value).encode()) for name, value in told.items())]
    return Message(topic, record.key, record.value, tuple(headers))
