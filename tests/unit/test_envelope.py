"""The envelope: sealing and opening is identity, and whatever was touched on the way is refused."""

import base64
import hmac
import json
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.commands import Command
from schema.envelope import (
    TYPE_PREFIX,
    VERSION,
    BadSignature,
    Envelope,
    EnvelopeError,
    Headers,
    Keyring,
    Malformed,
    Record,
    UnknownVersion,
    headers_from_json,
    headers_to_json,
    open_record,
    seal,
)
from schema.strict_json import encode
from tests.commands import author, command, create
from tests.strategies import commands

pytestmark = pytest.mark.unit

OLD, NEW = b"old-secret-0123456789abcdef-0123456789", b"new-secret-0123456789abcdef-0123456789"
KEYRING = Keyring({"new": NEW, "old": OLD})
LOG_ID = uuid.UUID(int=7)
COMMAND = command(author("ada"), create("topic", title="A topic"))
RECORD = seal(Envelope(COMMAND, LOG_ID), KEYRING, "/test")
TYPE = f"{TYPE_PREFIX}{VERSION}".encode()


def _headers(**changed: bytes | None) -> Headers:
    """The headers of RECORD with some changed, or dropped where None."""
    by_name = dict(RECORD.headers) | {n: v for n, v in changed.items() if v is not None}
    return tuple((n, v) for n, v in by_name.items() if changed.get(n, v) is not None)


def _signed(value: bytes, type_: bytes = TYPE, key: bytes = RECORD.key) -> Record:
    """A record with a genuine signature over whatever it is given."""
    signature = KEYRING.sign(type_, key, value)
    return Record(key, value, (("ce_type", type_), ("ce_signature", signature)))


def _open(record: Record, keyring: Keyring = KEYRING) -> Envelope:
    return open_record(record.key, record.value, record.headers, keyring)


@given(commands(), st.uuids(), st.none() | st.text("0123456789abcdef-", max_size=55))
def test_opening_what_was_sealed_gives_the_same(
    what: Command, log_id: uuid.UUID, trace: str | None
) -> None:
    envelope = Envelope(what, log_id, trace or None)
    record = seal(envelope, KEYRING, "/test")
    assert _open(record) == envelope
    assert record.key == str(what.stream).encode()
    assert seal(_open(record), KEYRING, "/test") == record, "the same command has the same bytes"


def test_the_headers_are_those_of_cloudevents_in_kafka() -> None:
    by_name = dict(seal(Envelope(COMMAND, LOG_ID, "00-a-b-01"), KEYRING, "/afterwrite/api").headers)
    assert by_name.pop("ce_signature").startswith(b"new:")
    assert by_name == {
        "ce_specversion": b"1.0",
        "ce_id": str(COMMAND.command_id).encode(),
        "ce_source": b"/afterwrite/api",
        "ce_type": b"org.afterwrite.command.v1",
        "content-type": b"application/json",
        "traceparent": b"00-a-b-01",
    }


@pytest.mark.parametrize("part", ["key", "value", "ce_type", "ce_signature"])
def test_any_flipped_bit_is_noticed(part: str) -> None:
    genuine = {"key": RECORD.key, "value": RECORD.value} | dict(RECORD.headers)
    whole = genuine[part]
    for at in range(len(whole)):
        for bit in (0x01, 0x20, 0x80):
            broken = whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :]
            key = broken if part == "key" else RECORD.key
            value = broken if part == "value" else RECORD.value
            headers = RECORD.headers if part in ("key", "value") else _headers(**{part: broken})
            with pytest.raises((BadSignature, Malformed)):
                open_record(key, value, headers, KEYRING)


def _mac(text: bytes = b"") -> bytes:
    """The bytes of RECORD's MAC, with this in front of what is hashed."""
    parts = (TYPE, RECORD.key, RECORD.value)
    framed = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    return hmac.digest(NEW, text + framed, "sha256")


def test_a_signature_is_the_mac_in_base64_and_was_in_hexadecimal() -> None:
    """Worked out here again, so that other programs can check it by the description alone."""
    assert dict(RECORD.headers)["ce_signature"] == b"new:" + base64.b64encode(_mac())
    by_hex = _headers(ce_signature=b"new:" + _mac().hex().encode())
    assert open_record(RECORD.key, RECORD.value, by_hex, KEYRING) == _open(RECORD)


@pytest.mark.parametrize(
    "shown",
    [
        base64.b64encode(_mac(b"x")),
        _mac(b"x").hex().encode(),
        _mac().hex().upper().encode(),
        base64.b64encode(_mac())[:-1],
        base64.b64encode(_mac())[:43] + b"==",
        base64.b64encode(base64.b64encode(_mac()))[:64],
        _mac(),
        _mac().hex().encode()[:44],
    ],
    ids=["another", "another in hex", "capitals", "short", "padded", "twice", "raw", "cut"],
)
def test_a_signature_in_any_other_form_is_none(shown: bytes) -> None:
    with pytest.raises(BadSignature):
        open_record(RECORD.key, RECORD.value, _headers(ce_signature=b"new:" + shown), KEYRING)


@given(st.integers(1, 60))
def test_bytes_cannot_move_from_one_part_to_the_next(count: int) -> None:
    with pytest.raises(BadSignature):
        open_record(
            RECORD.key[:-count], RECORD.key[-count:] + RECORD.value, RECORD.headers, KEYRING
        )
    with pytest.raises(BadSignature):
        open_record(
            RECORD.key + RECORD.value[:count], RECORD.value[count:], RECORD.headers, KEYRING
        )


headers = st.lists(
    st.tuples(
        st.sampled_from(["ce_type", "ce_signature", "traceparent", "ce_id", ""]) | st.text(),
        st.none() | st.binary(max_size=100) | st.sampled_from([v for _, v in RECORD.headers]),
    ),
    max_size=8,
)
bodies = st.none() | st.binary(max_size=200) | st.sampled_from([RECORD.key, RECORD.value])


@given(bodies, bodies, headers)
def test_any_record_is_a_command_or_an_envelope_error(
    key: bytes | None, value: bytes | None, found: list[tuple[str, bytes | None]]
) -> None:
    try:
        opened = open_record(key, value, found, KEYRING)
    except EnvelopeError:
        return
    assert opened.command == COMMAND, "nothing but the genuine record may be opened"


@given(st.binary(max_size=300))
def test_genuine_signatures_over_anything_are_no_other_error(value: bytes) -> None:
    with pytest.raises((Malformed, UnknownVersion)):
        _open(_signed(value))


@pytest.mark.parametrize("part", ["ce_type", "ce_signature"])
def test_a_record_without_a_needed_header_is_malformed(part: str) -> None:
    with pytest.raises(Malformed):
        open_record(RECORD.key, RECORD.value, _headers(**{part: None}), KEYRING)


def test_a_record_without_key_or_value_is_malformed() -> None:
    for key, value in ((None, RECORD.value), (RECORD.key, None), (None, None)):
        with pytest.raises(Malformed):
            open_record(key, value, RECORD.headers, KEYRING)


def test_keys_can_be_rotated_without_a_pause() -> None:
    """First the new key is known everywhere, then it signs, then the old one is dropped."""
    before, during = Keyring({"old": OLD, "new": NEW}), Keyring({"new": NEW, "old": OLD})
    after = Keyring({"new": NEW})
    by_old, by_new = (seal(Envelope(COMMAND, LOG_ID), k, "/test") for k in (before, during))
    assert dict(by_old.headers)["ce_signature"].startswith(b"old:")
    assert dict(by_new.headers)["ce_signature"].startswith(b"new:")
    for keyring in (before, during):
        assert _open(by_old, keyring) == _open(by_new, keyring)
    assert _open(by_new, after).command == COMMAND
    with pytest.raises(BadSignature):
        _open(by_old, after)


def test_a_key_of_the_same_name_but_another_secret_does_not_verify() -> None:
    with pytest.raises(BadSignature):
        _open(RECORD, Keyring({"new": OLD}))


@pytest.mark.parametrize(
    "signature", [b"", b"new", b"new:", b":", b"new:\xff", b"none:00", b"\xff:"]
)
def test_a_signature_of_any_form_is_just_not_genuine(signature: bytes) -> None:
    with pytest.raises(BadSignature):
        open_record(RECORD.key, RECORD.value, _headers(ce_signature=signature), KEYRING)


def test_a_genuine_command_of_another_version_is_unknown_not_malformed() -> None:
    """It must stop an old writer; rejecting it would lose what a newer one can save."""
    newer = json.loads(RECORD.value) | {"v": VERSION + 1}
    with pytest.raises(UnknownVersion):
        _open(_signed(encode(newer), type_=f"{TYPE_PREFIX}{VERSION + 1}".encode()))
    with pytest.raises(UnknownVersion):
        _open(_signed(encode(newer)))
    with pytest.raises(UnknownVersion):
        _open(_signed(encode({"from": "the future"})))


def test_a_forged_version_does_not_stop_the_writer() -> None:
    with pytest.raises(BadSignature):
        open_record(
            RECORD.key, RECORD.value, _headers(ce_type=b"org.afterwrite.command.v2"), KEYRING
        )


@pytest.mark.parametrize(
    "change",
    [
        {"log_id": "no uuid"},
        {"log_id": None},
        {"stream": str(uuid.UUID(int=99))},
        {"mutations": []},
        {"author": {}},
        {"accepted_at": "9999-12-31T23:59:59-14:00"},
    ],
    ids=str,
)
def test_a_genuine_signature_does_not_make_it_a_command(change: dict[str, object]) -> None:
    with pytest.raises(Malformed):
        _open(_signed(encode(json.loads(RECORD.value) | change)))


def test_a_value_that_is_no_object_is_malformed() -> None:
    for value in (b"[]", b"1", b"null", b'"x"', b"", b"{", b"\xff"):
        with pytest.raises(Malformed):
            _open(_signed(value))


def test_a_keyring_shows_no_secret_and_is_read_from_its_setting() -> None:
    keyring = Keyring.parse("k2:secret:with:colons,k1:other")
    assert list(keyring.keys.items()) == [("k2", b"secret:with:colons"), ("k1", b"other")]
    assert "secret" not in repr(keyring)


contents = st.none() | st.binary(max_size=20) | st.sampled_from([b"hex:", b"hex:zz", b"a\0b"])


@given(st.lists(st.tuples(st.text(max_size=10), contents), max_size=5))
def test_headers_keep_through_the_database(found: list[tuple[str, bytes | None]]) -> None:
    """Whoever can write to the topic chooses them; none may break the writer."""
    text = headers_to_json(found)
    assert "\\u0000" not in text, "jsonb refuses it"
    kept = headers_from_json(text)
    assert kept == [(name.replace("\0", "\ufffd"), content) for name, content in found]
