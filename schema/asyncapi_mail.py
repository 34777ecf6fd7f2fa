"""The messages about mail in the AsyncAPI description: mails as they are queued, and dead ones.

What a template needs is taken from its parameters' own declaration.
"""

import uuid
from datetime import timedelta
from typing import Any, Final, get_args

from schema.asyncapi_messages import kafka_message
from schema.envelope import CONTENT_TYPE
from schema.fields import parse_time
from schema.json_schema import (
    EXAMPLE_TIME,
    TIME,
    UUID,
    Component,
    Schema,
    camel,
    described,
    example_id,
    named,
)
from schema.mail import MailFailure
from schema.mail_templates import LOCALES, TEMPLATES, Delayed, Parameters, queue
from schema.topics import Topics

_TEXT: Final[Schema] = {"type": "string"}
_WHOLE: Final[Schema] = {"type": "string", "pattern": "^[0-9]+$"}
_BINARY: Final[Schema] = {
    "type": "string",
    "description": "A big-endian number, as Spring writes it.",
}


def mail_message() -> Component:
    """One queued mail."""
    return kafka_message(
        "Mail",
        {
            "title": "A mail to a user, as a template and its parameters",
            "summary": "Sent once by one of the mail workers. Texts of users reach the body only.",
            "contentType": CONTENT_TYPE.decode(),
            "payload": named("Mail", {"oneOf": [_one(kind) for kind in TEMPLATES.values()]}),
            "examples": [{"name": "delayed", "payload": _example()}],
        },
        described(UUID, "The mail's id: the same mail queued twice is sent once."),
    )


def mail_dead_letter_message(topics: Topics) -> Component:
    """A mail that was not sent; what was wrong is in further headers."""
    headers = {
        "__connect.errors.topic": described(_TEXT, "Where the record was."),
        "__connect.errors.partition": _WHOLE,
        "__connect.errors.offset": _WHOLE,
        "__connect.errors.connector.name": _TEXT,
        "__connect.errors.task.id": _WHOLE,
        "__connect.errors.stage": {"enum": ["VALUE_CONVERTER", "TASK_PUT"]},
        "__connect.errors.exception.class.name": _TEXT,
        "__connect.errors.exception.message": described(_TEXT, "With the server's answer, if any."),
        "kafka_dlt-original-topic": _TEXT,
        "kafka_dlt-original-partition": _BINARY,
        "kafka_dlt-original-offset": _BINARY,
        "kafka_dlt-exception-fqcn": _TEXT,
        "kafka_dlt-exception-message": _TEXT,
        "afterwrite-dlq-code": {"type": "string", "enum": list(get_args(MailFailure))},
        "afterwrite-dlq-attempts": _WHOLE,
        "afterwrite-dlq-last-failed-at": TIME,
    }
    example = {
        "__connect.errors.topic": topics.mail.name,
        "__connect.errors.partition": "3",
        "__connect.errors.offset": "41",
        "__connect.errors.connector.name": "afterwrite-mail",
        "__connect.errors.task.id": "3",
        "__connect.errors.stage": "TASK_PUT",
        "__connect.errors.exception.class.name": "org.afterwrite.Refused",
        "__connect.errors.exception.message": "550 5.1.1 no such user",
        "kafka_dlt-original-topic": topics.mail.name,
        "kafka_dlt-original-partition": "\0\0\0\3",
        "kafka_dlt-original-offset": "\0\0\0\0\0\0\0)",
        "kafka_dlt-exception-fqcn": "org.afterwrite.Refused",
        "kafka_dlt-exception-message": "550 5.1.1 no such user",
        "afterwrite-dlq-code": "refused",
        "afterwrite-dlq-attempts": "1",
        "afterwrite-dlq-last-failed-at": EXAMPLE_TIME,
    }
    return kafka_message(
        "MailDeadLetter",
        {
            "title": "A mail that was not sent",
            "summary": "Key, value and headers as they were. The value may be anything at all.",
            "contentType": "application/octet-stream",
            "headers": named(
                "MailDeadLetterHeaders",
                {"type": "object", "required": list(headers), "properties": headers},
            ),
            "payload": {"description": "The bytes of the record."},
            "examples": [{"name": "refused", "headers": example}],
        },
        {"description": "The key of the record, if it had one."},
    )


def _one(kind: type[Parameters]) -> Component:
    members = {
        "mail_id": UUID,
        "template": {"type": "string", "const": kind.template},
        "version": {"type": "integer", "const": kind.version},
        "locale": described(_TEXT, f"Written in {' or '.join(LOCALES)}; any other is the first."),
        "to": described(_TEXT, "One bare address."),
        "parameters": _parameters(kind),
        "created_at": TIME,
    }
    optional = {"user": described(UUID, "Whom it is for.")}
    name = f"{camel(kind.template)}Mail"
    return named(
        name, {"type": "object", "required": list(members), "properties": members | optional}
    )


def _parameters(kind: type[Parameters]) -> Schema:
    made = kind.model_json_schema(mode="serialization")
    return {
        "type": "object",
        "required": list(kind.model_fields),
        "properties": {name: _plain(field) for name, field in made["properties"].items()},
    }


def _plain(field: dict[str, Any]) -> Schema:
    """Without what only repeats the name, and with points of time as everywhere else."""
    kept = {name: value for name, value in field.items() if name not in ("title", "default")}
    return dict(TIME) if kept.get("format") == "date-time" else kept


def _example() -> dict[str, Any]:
    at = parse_time(EXAMPLE_TIME)
    return queue(
        Delayed(
            name="Ada",
            count=2,
            since=at,
            until=at + timedelta(days=5),
            items=("A post", "A topic"),
            link="https://forum.example/submissions",
        ),
        mail_id=uuid.UUID(example_id("mail")),
        to="ada@example.com",
        locale="en",
        created_at=at,
        user=uuid.UUID(example_id("user")),
    ).to_json()
