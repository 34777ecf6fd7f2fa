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
    fault = f"org.afterwrite.{code.title().replace('_', '')}"
    told: dict[str, object] = {
        "__connect.errors.topic": source,
        "__connect.errors.partition": record.partition,
        "__connect.errors.offset": record.offset,
        "__connect.errors.connector.name": "afterwrite-mail",
        "__connect.errors.task.id": record.partition,
        "__connect.errors.stage": "VALUE_CONVERTER" if code == "unreadable" else "TASK_PUT",
        "__connect.errors.exception.class.name": fault,
        "__connect.errors.exception.message": detail[:1000],
        "kafka_dlt-original-topic": source,
        "kafka_dlt-original-partition": record.partition.to_bytes(4, "big"),
        "kafka_dlt-original-offset": record.offset.to_bytes(8, "big"),
        "kafka_dlt-exception-fqcn": fault,
        "kafka_dlt-exception-message": detail[:1000],
        "afterwrite-dlq-code": code,
        "afterwrite-dlq-attempts": attempts,
        "afterwrite-dlq-last-failed-at": render_time(died_at),
    }
    said = [(n, v if isinstance(v, bytes) else str(v).encode()) for n, v in told.items()]
    return Message(topic, record.key, record.value, (*record.headers, *said))
