"""AsyncAPI 3: what flows through Kafka, from the same declarations as everything else."""

from collections.abc import Mapping
from typing import Any, Final

from schema.asyncapi_alerts import alert_message
from schema.asyncapi_mail import mail_dead_letter_message, mail_message
from schema.asyncapi_messages import (
    BINDING,
    act_message,
    command_message,
    dead_letter_message,
    notice_message,
    outcome_message,
)
from schema.catalog import Catalog
from schema.envelope import CONTENT_TYPE, VERSION
from schema.json_schema import Component, hoisted, purpose
from schema.topics import Topic, Topics

ASYNCAPI_VERSION: Final = "3.1.0"
_DESCRIPTION: Final = """\
The front end appends commands; one writer a lane applies them to PostgreSQL in order and publishes
what became of each. Follow the outcomes to know what was saved. Nothing but the front end may
append commands: each is signed, and the writer takes no other.
"""


def asyncapi_document(catalog: Catalog, topics: Topics) -> dict[str, Any]:
    """The document of an installation with these content types and topics."""
    channels = {
        "commands": _channel(
            topics.commands,
            "Accepted commands, one lane a partition. Never trimmed before they are applied.",
            {"command": command_message(catalog)},
        ),
        "deadLetters": _channel(
            topics.dead_letters,
            "A mirror of the dead letters: records that were rejected, byte for byte.",
            {"deadLetter": dead_letter_message(topics)},
        ),
        "outcomes": _channel(
            topics.outcomes,
            "What became of each command. At least once: a repetition has the same lane and seq. What "
            "has a `kind` is no outcome; pass over those that you do not know.",
            {
                "outcome": outcome_message(catalog),
                "notice": notice_message(catalog),
                "act": act_message(),
            },
        ),
        "mail": _channel(
            topics.mail,
            "Mails to users. Any application may queue one; each is sent once.",
            {"mail": mail_message()},
        ),
        "mailDeadLetters": _channel(
            topics.mail_dead_letters,
            "Mails that were not sent, byte for byte.",
            {"mailDeadLetter": mail_dead_letter_message(topics)},
        ),
        "alerts": _channel(
            topics.alerts,
            "Copies of the alerts that the channels of administrators were given.",
            {"alert": alert_message()},
        ),
    }
    operations = {
        "sendCommand": _operation("send", "commands", "The front end appends a command."),
        "receiveCommand": _operation("receive", "commands", "A writer applies a lane in order."),
        "sendOutcome": _operation(
            "send", "outcomes", "A writer tells what became of a command, a notifier that it waits."
        ),
        "receiveOutcome": _operation(
            "receive", "outcomes", "The front end tells authors; any application may follow."
        ),
        "sendDeadLetter": _operation(
            "send", "deadLetters", "A writer mirrors what it rejected, for other tools."
        ),
        "sendAlert": _operation("send", "alerts", "A notifier tells administrators."),
        "receiveAlert": _operation(
            "receive", "alerts", "The pages of operators show them; any application may follow."
        ),
        "sendMail": _operation("send", "mail", "A notifier queues a mail to a user."),
        "receiveMail": _operation("receive", "mail", "A mail worker renders it and sends it."),
        "sendMailDeadLetter": _operation(
            "send", "mailDeadLetters", "A mail worker puts aside what it cannot send."
        ),
    }
    components: dict[str, dict[str, Any]] = {}
    found = hoisted({"channels": channels}, components)
    return {
        "asyncapi": ASYNCAPI_VERSION,
        "info": {
            "title": "Afterwrite",
            "version": str(VERSION),
            "description": _DESCRIPTION,
            "license": {"name": "Apache License 2.0"},
            "tags": [
                {"name": kind.plural, "description": purpose(kind)}
                for kind in catalog
                if any(kind.rules.values())
            ],
        },
        "defaultContentType": CONTENT_TYPE.decode(),
        "servers": {
            "kafka": {
                "host": "{bootstrap}",
                "protocol": "kafka",
                "description": "The brokers of the installation.",
                "variables": {
                    "bootstrap": {
                        "default": "127.0.0.1:9092",
                        "description": "`AFTERWRITE_KAFKA_BOOTSTRAP`",
                    }
                },
            }
        },
        "channels": found["channels"],
        "operations": operations,
        "components": {
            section: {name: parts[name] for name in sorted(parts)}
            for section, parts in sorted(components.items())
        },
    }


def _channel(topic: Topic, description: str, messages: Mapping[str, Component]) -> dict[str, Any]:
    numbers = ("retention.ms", "retention.bytes", "max.message.bytes")
    config: dict[str, Any] = {
        name: int(value) if name in numbers else value for name, value in topic.config.items()
    }
    config["cleanup.policy"] = config["cleanup.policy"].split(",")
    binding = {
        "topic": topic.name,
        "partitions": topic.partitions,
        "topicConfiguration": config,
        "bindingVersion": BINDING,
    }
    return {
        "address": topic.name,
        "description": description,
        "messages": dict(messages),
        "bindings": {"kafka": binding},
    }


def _operation(action: str, channel: str, summary: str) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": summary,
    }
