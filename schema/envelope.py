"""The envelope: bytes in Kafka ↔ a command.

CloudEvents 1.0 in the binary mode of its Kafka binding: attributes as `ce_*` headers, the command as
a JSON value, the stream's id as key. `ce_signature` is an HMAC-SHA-256 over type, key and value,
exactly as they are in the log, so that only a holder of the key can command the writer.

A header costs its bytes in every record, so what key and value say is not said again: optional
attributes are left out, and the signature is in base64. Records from before that have `ce_time` and
`ce_partitionkey`, and hexadecimal signatures: they are read as ever.

    EnvelopeError
    ├── Malformed         not one of ours: bytes that cannot be read
    ├── BadSignature      readable, but not signed with a key we know
    └── UnknownVersion    ours and genuine, but newer than this code: stop, do not reject
"""

import binascii
import hashlib
import hmac
import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from schema.commands import Command
from schema.identifiers import IdReader
from schema.strict_json import JsonError, decode
from schema.structs import struct

VERSION: Final = 1
TYPE_PREFIX: Final = "org.afterwrite.command.v"
CONTENT_TYPE: Final = b"application/json"
_TYPE: Final = f"{TYPE_PREFIX}{VERSION}".encode()
_HEX: Final = "hex:"

Headers = tuple[tuple[str, bytes], ...]


class EnvelopeError(Exception):
    """Bytes that are no command of ours. `code` goes into the dead letter."""

    code = "undecodable"


class Malformed(EnvelopeError):
    code = "malformed"


class BadSignature(EnvelopeError):
    code = "bad_signature"


class UnknownVersion(EnvelopeError):
    code = "unknown_version"


@dataclass(frozen=True)
class Keyring:
    """The signing keys: the first one signs, all of them verify, so that keys can be rotated."""

    keys: Mapping[str, bytes] = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> "Keyring":
        """From `KID:SECRET[,KID:SECRET…]`."""
        pairs = (part.partition(":") for part in text.split(","))
        return cls({kid: secret.encode() for kid, _, secret in pairs})

    def sign(self, type_: bytes, key: bytes, value: bytes) -> bytes:
        kid = next(iter(self.keys))
        return kid.encode() + b":" + _base64(self._mac(kid, type_, key, value))

    def verify(self, signature: bytes, type_: bytes, key: bytes, value: bytes) -> bool:
        name, _, mac = signature.partition(b":")
        kid = name.decode("ascii", errors="replace")
        if kid not in self.keys:
            return False
        digest = self._mac(kid, type_, key, value)
        # Its length tells how it is written, and a forger gains nothing by choosing.
        return hmac.compare_digest(
            mac, binascii.hexlify(digest) if len(mac) == 2 * len(digest) else _base64(digest)
        )

    def _mac(self, kid: str, type_: bytes, key: bytes, value: bytes) -> bytes:
        mac = self._begun[kid].copy()
        # Lengths are signed too, so that no byte can move from one part to the next.
        mac.update(b"".join((_length(type_), type_, _length(key), key, _length(value), value)))
        return mac.digest()

    @cached_property
    def _begun(self) -> dict[str, hmac.HMAC]:
        """For each key the HMAC before its first byte; a copy saves hashing the key, 0.5 µs."""
        return {kid: hmac.new(key, digestmod=hashlib.sha256) for kid, key in self.keys.items()}


def _base64(digest: bytes) -> bytes:
    return binascii.b2a_base64(digest, newline=False)


def _length(part: bytes) -> bytes:
    return len(part).to_bytes(8, "big")


@struct(frozen=True)
class Envelope:
    """A command with what travels beside it. `log_id` names the log it was published to."""

    command: Command
    log_id: uuid.UUID
    traceparent: str | None = None
    tracestate: str | None = None

    @property
    def trace_id(self) -> str | None:
        """For the log: which request this came with."""
        parts = (self.traceparent or "").split("-")
        return parts[1] if len(parts) == 4 else None


@struct(frozen=True)
class Record:
    """Key, value and headers of one Kafka record, byte for byte."""

    key: bytes
    value: bytes
    headers: Headers


def seal(envelope: Envelope, keyring: Keyring, source: str) -> Record:
    """The signed record of an envelope. `source` is the CloudEvents source, a URI reference."""
    command = envelope.command
    key = str(command.stream).encode()
    head, tail = command.halves
    value = f'{{{head},"log_id":"{envelope.log_id}",{tail},"v":{VERSION}}}'.encode()
    headers: list[tuple[str, bytes]] = [
        ("ce_specversion", b"1.0"),
        ("ce_id", str(command.command_id).encode()),
        ("ce_source", source.encode()),
        ("ce_type", _TYPE),
        ("content-type", CONTENT_TYPE),
        ("ce_signature", keyring.sign(_TYPE, key, value)),
    ]
    traced = (("traceparent", envelope.traceparent), ("tracestate", envelope.tracestate))
    headers += [(name, value.encode()) for name, value in traced if value is not None]
    return Record(key, value, tuple(headers))


def open_record(
    key: bytes | None,
    value: bytes | None,
    headers: Iterable[tuple[str, bytes | None]],
    keyring: Keyring,
    read_id: IdReader = uuid.UUID,
) -> Envelope:
    """The envelope of a record. Raises `EnvelopeError`; never anything else."""
    by_name = {name: content for name, content in headers if content is not None}
    data = genuine(key, value, by_name, keyring, _TYPE, VERSION)
    try:
        command, log_id = Command.from_json(data, read_id), read_id(data["log_id"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Malformed(f"not a command: {type(error).__name__}") from error
    if key != str(command.stream).encode():
        raise Malformed("the key is not the command's stream")
    return Envelope(command, log_id, _trace(by_name, "traceparent"), _trace(by_name, "tracestate"))


def genuine(
    key: bytes | None,
    value: bytes | None,
    headers: Mapping[str, bytes],
    keyring: Keyring,
    wanted: bytes,
    version: int,
) -> dict[str, Any]:
    """What a record says, once it is known to be signed by one of us, and of the wanted type.

    `wanted` ends with the version. Raises `EnvelopeError`.
    """
    type_, signature = headers.get("ce_type"), headers.get("ce_signature")
    if key is None or value is None or type_ is None or signature is None:
        raise Malformed("no key, no value, no ce_type or no ce_signature")
    if not keyring.verify(signature, type_, key, value):
        raise BadSignature("the signature does not match type, key and value")
    if type_ != wanted:
        if not type_.startswith(wanted[: -len(str(version))]):
            raise Malformed("its type is another")  # ours and genuine, but something else
        raise UnknownVersion(f"this writer reads version {version}")
    data = _decode(value)
    if data.get("v") != version:
        raise UnknownVersion(f"this writer reads version {version}")
    return data


def _trace(headers: Mapping[str, bytes], name: str) -> str | None:
    found = headers.get(name)
    return found.decode("ascii", errors="replace") if found else None


def _decode(value: bytes) -> dict[str, Any]:
    try:
        data = decode(value)
    except JsonError as error:
        raise Malformed(f"the value is {error}") from error
    if not isinstance(data, dict):
        raise Malformed("the value is not a JSON object")
    return data


def headers_to_json(headers: Iterable[tuple[str, bytes | None]]) -> str:
    """Headers for the database; `headers_from_json` gives the same back.

    What jsonb cannot hold as text is kept as hexadecimal. U+0000 in a name becomes U+FFFD.
    """
    return json.dumps(
        [[name.replace("\0", "\ufffd"), _shown(content)] for name, content in headers]
    )


def headers_from_json(text: str) -> list[tuple[str, bytes | None]]:
    return [(name, None if shown is None else _content(shown)) for name, shown in json.loads(text)]


def _shown(content: bytes | None) -> str | None:
    if content is None:
        return None
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return f"{_HEX}{content.hex()}"
    return f"{_HEX}{content.hex()}" if "\0" in text or text.startswith(_HEX) else text


def _content(shown: str) -> bytes:
    return bytes.fromhex(shown[len(_HEX) :]) if shown.startswith(_HEX) else shown.encode()
