"""Whether Kafka records are as the AsyncAPI description says: key, headers, value.

As strict as `tests.conformance` is with answers: no member and no header that is not described,
but for dead letters, which keep what they came with.
"""

import json
from collections.abc import Mapping
from typing import Any

import jsonschema_rs
from aiokafka import AIOKafkaConsumer, TopicPartition

from schema.envelope import Record
from tests.conformance import closed
from tests.installation import Installation


class NotDescribed(AssertionError):
    """A record that contradicts the description."""


class Messages:
    """Checks records against an AsyncAPI document, by the name of their channel."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._validators: dict[int, jsonschema_rs.Draft7Validator] = {}
        self._components = {"components": {"schemas": closed(document["components"]["schemas"])}}

    def check(self, channel: str, record: Record) -> None:
        """Raises `NotDescribed`."""
        described = self._document["channels"][channel]["messages"]
        kind = json.loads(record.value).get("kind") if len(described) > 1 else None
        reference = described.get(kind) or next(iter(described.values()))
        message = self._document["components"]["messages"][reference["$ref"].rsplit("/", 1)[1]]
        self._validate(_text(record.key), message["bindings"]["kafka"]["key"], "key")
        if "headers" in message:
            self._check_headers(dict(record.headers), message["headers"], channel)
        if message["contentType"] == "application/json":
            self._validate(json.loads(record.value), message["payload"], "value")

    def check_example(self, message: Mapping[str, Any], example: Mapping[str, Any]) -> None:
        """Raises `NotDescribed` when an example is not what its message describes."""
        for part in ("headers", "payload"):
            if part in example and part in message:
                self._validate(example[part], message[part], part)

    def _check_headers(
        self, headers: Mapping[str, bytes], schema: Mapping[str, Any], channel: str
    ) -> None:
        known = self._document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
        kept = channel == "deadLetters"  # whatever headers the record had before
        found = {n: _text(v) for n, v in headers.items() if n in known["properties"] or not kept}
        self._validate(found, schema, "headers")

    def _validate(self, value: Any, schema: Mapping[str, Any], what: str) -> None:
        validator = self._validators.get(id(schema))  # a part of the document, which stays
        if validator is None:
            whole = {"allOf": [closed(schema)], **self._components}
            validator = jsonschema_rs.Draft7Validator(whole, validate_formats=True)
            self._validators[id(schema)] = validator
        errors = [error.message for error in validator.iter_errors(value)]
        if errors:
            raise NotDescribed(f"{what}: {'; '.join(errors[:3])}: {json.dumps(value)[:600]}")


def _text(content: bytes) -> str:
    return content.decode("utf-8", errors="replace")


async def records_as_described(
    installation: Installation, document: Mapping[str, Any]
) -> dict[str, int]:
    """Hold all that went through Kafka against the description. Channel → how many records.

    Raises `NotDescribed`.
    """
    messages = Messages(document)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=installation.services.kafka_bootstrap, auto_offset_reset="earliest"
    )
    await consumer.start()
    checked: dict[str, int] = {}
    try:
        for channel, described in document["channels"].items():
            partition = TopicPartition(described["address"], 0)
            consumer.assign([partition])
            end = (await consumer.end_offsets([partition]))[partition]
            checked[channel] = 0
            while await consumer.position(partition) < end:
                for record in (await consumer.getmany(timeout_ms=1000)).get(partition, []):
                    headers = tuple((name, value) for name, value in record.headers)
                    messages.check(channel, Record(record.key, record.value, headers))
                    checked[channel] += 1
    finally:
        await consumer.stop()
    return checked
