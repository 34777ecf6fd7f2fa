"""The messages of the AsyncAPI description: commands, outcomes, dead letters, with examples.

The example of a command is a real record, sealed as the front end seals. Schemas are JSON Schema as
of draft 7, which is what AsyncAPI reads when nothing else is said.
"""

import uuid
from collections.abc import Mapping
from typing import Any, Final

from schema.catalog import Catalog
from schema.commands import MAX_MUTATIONS, Author, Command, Mutation, Op
from schema.content import Kind
from schema.envelope import CONTENT_TYPE, TYPE_PREFIX, VERSION, Envelope, Keyring, Record, seal
from schema.fields import parse_time
from schema.identifiers import CommandId, RowId, UserId
from schema.json_schema import (
    EXAMPLE_TIME,
    TIME,
    UUID,
    Component,
    Schema,
    camel,
    change_values,
    create_values,
    created_fields,
    described,
    example_id,
    example_row,
    example_values,
    named,
    row_properties,
)
from schema.outcomes import Outcome, Problem
from schema.problem_schema import PROBLEM
from schema.strict_json import decode
from schema.topics import Topics

BINDING: Final = "0.5.0"
"""Version of the Kafka binding."""
_TRACE: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
_KEYRING: Final = Keyring({"example": b"an-example-key-0123456789abcdefghij"})


def kafka_message(name: str, content: Mapping[str, Any], key: Schema) -> Component:
    """A message with its key, as the Kafka binding says it."""
    binding = {"key": key, "bindingVersion": BINDING}
    return Component("messages", name, {"name": name, **content, "bindings": {"kafka": binding}})


# -- commands ---------------------------------------------------------------------------------


def command_message(catalog: Catalog) -> Component:
    """One command: its envelope's headers, and the mutations that content types permit."""
    record = example_record(catalog)
    headers = {name: content.decode() for name, content in record.headers}
    return kafka_message(
        "Command",
        {
            "title": "An accepted command",
            "summary": "CloudEvents 1.0, binary mode. The key is the command's stream.",
            "contentType": CONTENT_TYPE.decode(),
            "headers": named("CommandHeaders", _command_headers()),
            "payload": named("Command", _command(catalog)),
            "examples": [{"name": "created", "headers": headers, "payload": decode(record.value)}],
        },
        described(UUID, "The id of the stream: commands of one stream keep their order."),
    )


def _command_headers() -> Schema:
    text: Schema = {"type": "string"}
    members = {
        "ce_specversion": text | {"const": "1.0"},
        "ce_id": described(UUID, "The command's id."),
        "ce_source": text | {"format": "uri-reference"},
        "ce_type": text | {"const": f"{TYPE_PREFIX}{VERSION}"},
        "content-type": text | {"const": CONTENT_TYPE.decode()},
        "ce_signature": text
        | {
            "pattern": "^[^:]+:([0-9A-Za-z+/]{43}=|[0-9a-f]{64})$",
            "description": "HMAC-SHA-256 over type, key and value, with the id of its key: in base64; "
            "in older records in hexadecimal.",
        },
    }
    older = {
        "ce_time": described(TIME, "In older records: when it was accepted."),
        "ce_partitionkey": described(UUID, "In older records: the key of the record."),
    }
    trace = text | {"description": "W3C trace context of the request."}
    state = text | {"description": "What the client's own systems added to it."}
    return {
        "type": "object",
        "required": list(members),
        "properties": members | {"traceparent": trace, "tracestate": state} | older,
    }


def _command(catalog: Catalog) -> Schema:
    text: Schema = {"type": "string"}
    author = {
        "type": "object",
        "required": ["id", "name", "roles"],
        "properties": {
            "id": UUID,
            "name": text,
            "roles": {"type": "array", "items": text},
            "email": described(text, "Where mail to him goes; one bare address."),
            "locale": described(text, "The language he is told in (BCP 47)."),
        },
        "description": "Who commands, as his token said.",
    }
    members = {
        "v": {"type": "integer", "const": VERSION},
        "log_id": described(UUID, "The log it was published to; a writer takes no other's."),
        "command_id": UUID,
        "stream": UUID,
        "author": author,
        "accepted_at": TIME,
        "mutations": {
            "type": "array",
            "minItems": 1,
            "maxItems": MAX_MUTATIONS,
            "items": {"oneOf": _mutations(catalog)},
        },
    }
    optional = {
        "idempotency_key": described(text, "The client's; unique per author."),
        "fingerprint": described(text, "SHA-256 of the request that came with the key."),
        "replays": described(UUID, "The rejected command that this one repeats."),
        "system": {
            "type": "boolean",
            "const": True,
            "description": "Afterwrite made it, to tell its author something: it creates notices only.",
        },
    }
    return {"type": "object", "required": list(members), "properties": members | optional}


def _mutations(catalog: Catalog) -> list[Component]:
    ops: tuple[Op, ...] = ("create", "update", "delete")
    return [
        named(f"{op.capitalize()}{camel(kind.name)}", _mutation(kind, op))
        for kind in catalog
        for op in ops
        if kind.rules[op] is not None
    ]


def _mutation(kind: Kind, op: Op) -> Schema:
    members: dict[str, Schema] = {
        "op": {"type": "string", "const": op},
        "type": {"type": "string", "const": kind.name},
        "id": UUID,
    }
    if op != "delete":
        members["values"] = create_values(kind) if op == "create" else change_values(kind)
    required = list(members)
    if op != "create":
        expected = {"type": "integer", "minimum": 0, "description": "The version its author saw."}
        members["expected_version"] = expected
    return {"type": "object", "required": required, "properties": members}


def example_record(catalog: Catalog) -> Record:
    """The first creation that somebody may make, sealed."""
    kind = next(kind for kind in catalog if kind.rules["create"] is not None)
    values = example_values(kind, created_fields(kind))
    command = Command(
        command_id=CommandId(uuid.UUID(example_id("command"))),
        stream=RowId(uuid.UUID(example_id(catalog.root_of(kind).name))),
        author=Author(UserId(uuid.UUID(example_id("user"))), "Ada"),
        accepted_at=parse_time(EXAMPLE_TIME),
        mutations=(Mutation("create", kind.name, RowId(uuid.UUID(example_id(kind.name))), values),),
    )
    log_id = uuid.UUID(example_id("log"))
    return seal(Envelope(command, log_id, _TRACE), _KEYRING, "/afterwrite/api")


# -- outcomes ---------------------------------------------------------------------------------


def outcome_message(catalog: Catalog) -> Component:
    """What became of one command."""
    kind = next(kind for kind in catalog if kind.rules["create"] is not None)
    saved = {
        "command_id": example_id("command"),
        "author_id": example_id("user"),
        "outcome": "saved",
        "lane": 0,
        "offset": 41,
        "seq": 42,
        "rows": [{"type": kind.name, "id": example_id(kind.name), "op": "create", "version": 1}],
        "notice": None,
        "problem": None,
        "duplicate_of": None,
    }
    notice = {"type": catalog.notice.name, "id": example_id("notice"), "op": "create", "version": 1}
    rejected = saved | {
        "outcome": "rejected",
        "rows": [notice],
        "notice": example_id("notice"),
        "problem": Problem("forbidden", f"You may not create this {kind.name}.").to_json(),
    }
    return kafka_message(
        "Outcome",
        {
            "title": "What became of a command",
            "contentType": CONTENT_TYPE.decode(),
            "payload": named("Outcome", _outcome(catalog)),
            "examples": [
                {"name": "saved", "payload": saved},
                {"name": "rejected", "payload": rejected},
            ],
        },
        described(UUID, "The id of the author: his outcomes keep their order."),
    )


def _outcome(catalog: Catalog) -> Schema:
    number = {"type": "integer", "minimum": 0}
    row = {
        "type": "object",
        "required": ["type", "id", "op", "version"],
        "properties": {
            "type": {"type": "string", "enum": [kind.name for kind in catalog]},
            "id": UUID,
            "op": {"type": "string", "enum": ["create", "update", "delete"]},
            "version": {"type": ["integer", "null"]},
        },
    }
    optional_id = {**UUID, "type": ["string", "null"]}
    members = {
        "command_id": UUID,
        "author_id": UUID,
        "outcome": {"type": "string", "enum": [o.value for o in Outcome if o is not Outcome.DEAD]},
        "lane": described(number, "The partition of the command."),
        "offset": described(number, "Where the command is in its lane."),
        "seq": described(number, "Counts the outcomes of a lane: who knows one has had it."),
        "rows": {"type": "array", "items": named("OutcomeRow", row)},
        "notice": described(optional_id, "The notice that tells the author of a rejection."),
        "problem": {
            "description": "Why it was rejected, or waits.",
            "oneOf": [{"type": "null"}, PROBLEM],
        },
        "duplicate_of": described(optional_id, "The command that this one repeats."),
    }
    return {"type": "object", "required": list(members), "properties": members}


def notice_message(catalog: Catalog) -> Component:
    """A notice that was made for a user, and is not saved yet."""
    row = named("NoticeRow", {"type": "object", "properties": row_properties(catalog.notice)})
    members = {
        "kind": {"type": "string", "const": "notice"},
        "author": described(UUID, "Whom it tells."),
        "command": described(UUID, "The command that makes it."),
        "notice": row,
        "at": TIME,
    }
    waits = {"kind": "delayed", "code": "delayed", "command_id": example_id("command")}
    told = {
        "kind": "notice",
        "author": example_id("user"),
        "command": example_id("system command"),
        "notice": example_row(catalog.notice) | waits,
        "at": EXAMPLE_TIME,
    }
    return kafka_message(
        "NoticeMade",
        {
            "title": "A notice to a user, before it is saved",
            "contentType": CONTENT_TYPE.decode(),
            "payload": named(
                "NoticeMade",
                {"type": "object", "required": list(members), "properties": members},
            ),
            "examples": [{"name": "delayed", "payload": told}],
        },
        described(UUID, "The id of the user."),
    )


def act_message() -> Component:
    """What became of an act that an operator ordered by the page."""
    members = {
        "kind": {"type": "string", "const": "act"},
        "act_id": UUID,
        "ok": {"type": "boolean", "description": "Whether it was done."},
        "result": {"type": "object", "additionalProperties": True},
    }
    done = {"kind": "act", "act_id": example_id("act"), "ok": True, "result": {}}
    return kafka_message(
        "ActDone",
        {
            "title": "What became of an act of an operator",
            "contentType": CONTENT_TYPE.decode(),
            "payload": named(
                "ActDone", {"type": "object", "required": list(members), "properties": members}
            ),
            "examples": [{"name": "done", "payload": done}],
        },
        described(UUID, "The id of the operator."),
    )


# -- dead letters -----------------------------------------------------------------------------


def dead_letter_message(topics: Topics) -> Component:
    """A record that was rejected; what was wrong is in further headers."""
    text: Schema = {"type": "string"}
    whole: Schema = {"type": "string", "pattern": "^[0-9]+$"}
    binary: Schema = {"type": "string", "description": "A big-endian number, as Spring writes it."}
    headers = {
        "__connect.errors.topic": described(text, "Where the record was."),
        "__connect.errors.partition": whole,
        "__connect.errors.offset": whole,
        "__connect.errors.connector.name": text,
        "__connect.errors.task.id": whole,
        "__connect.errors.stage": {"enum": ["VALUE_CONVERTER", "TASK_PUT"]},
        "__connect.errors.exception.class.name": text,
        "__connect.errors.exception.message": text,
        "kafka_dlt-original-topic": text,
        "kafka_dlt-original-partition": binary,
        "kafka_dlt-original-offset": binary,
        "kafka_dlt-exception-fqcn": text,
        "kafka_dlt-exception-message": text,
        "afterwrite-dlq-id": described(text, "The letter's name for `afterwrite dead`."),
        "afterwrite-dlq-code": described(text, "A problem's code, or why it was no command."),
        "afterwrite-dlq-attempts": whole,
        "afterwrite-dlq-first-failed-at": described(
            TIME, "When it died; of a replay, when the first of its kind did."
        ),
        "afterwrite-dlq-last-failed-at": TIME,
    }
    optional = {
        "kafka_dlt-original-consumer-group": text,
        "afterwrite-dlq-sqlstate": described(
            text, "PostgreSQL's, if it was the database that refused."
        ),
        "afterwrite-dlq-constraint": text,
        "afterwrite-dlq-replay-of": described(text, "The command that this one repeated."),
    }
    example = {
        "__connect.errors.topic": topics.commands.name,
        "__connect.errors.partition": "0",
        "__connect.errors.offset": "41",
        "__connect.errors.connector.name": "afterwrite-writer",
        "__connect.errors.task.id": "0",
        "__connect.errors.stage": "TASK_PUT",
        "__connect.errors.exception.class.name": "org.afterwrite.Forbidden",
        "__connect.errors.exception.message": "You may not create this.",
        "kafka_dlt-original-topic": topics.commands.name,
        "kafka_dlt-original-partition": "\0\0\0\0",
        "kafka_dlt-original-offset": "\0\0\0\0\0\0\0)",
        "kafka_dlt-exception-fqcn": "org.afterwrite.Forbidden",
        "kafka_dlt-exception-message": "You may not create this.",
        "afterwrite-dlq-id": "0:41",
        "afterwrite-dlq-code": "forbidden",
        "afterwrite-dlq-attempts": "1",
        "afterwrite-dlq-first-failed-at": EXAMPLE_TIME,
        "afterwrite-dlq-last-failed-at": EXAMPLE_TIME,
    }
    return kafka_message(
        "DeadLetter",
        {
            "title": "A record that was rejected",
            "summary": "Key, value and headers as they were. The value may be anything at all.",
            "contentType": "application/octet-stream",
            "headers": named(
                "DeadLetterHeaders",
                {
                    "type": "object",
                    "required": list(headers),
                    "properties": headers | optional,
                },
            ),
            "payload": {"description": "The bytes of the record, usually those of a command."},
            "examples": [{"name": "refused", "headers": example}],
        },
        {"description": "The key of the record, if it had one."},
    )
