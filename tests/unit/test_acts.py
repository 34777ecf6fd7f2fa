"""Acts: what an operator orders travels signed, is read strictly, and is never taken for a command."""

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from schema.acts import MAX_LETTERS, Act, Letters, Operator, open_act, seal_act
from schema.envelope import BadSignature, EnvelopeError, Keyring, Malformed, UnknownVersion
from schema.envelope import open_record as open_command
from schema.identifiers import new_id
from schema.strict_json import decode, encode
from tests.commands import KEYRING, author, command, create, sealed

pytestmark = pytest.mark.unit

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
OLGA = Operator(uuid.uuid4(), "Olga", ("operator",))


def act(kind: str = "replay", **members: Any) -> Act:
    given = {"letters": Letters(places=((0, 7), (1, 3)))} if kind in ("replay", "discard") else {}
    return Act(new_id(), kind, OLGA, NOW, **(given | members))  # type: ignore[arg-type]


EVERYTHING = Letters(
    code="check_violation",
    type="post",
    author=uuid.uuid4(),
    since=NOW - timedelta(days=1),
    until=NOW,
    limit=50,
)
ACTS = [
    act(),
    act(letters=EVERYTHING, rate=2.5, reason="the constraint was wrong"),
    act("discard", reason="spam"),
    act("edit", letters=Letters(places=((0, 7),)), values={0: {"body": "mended", "x": None}}),
    act("edit", letters=Letters(places=((0, 7),)), any_version=True),
    act("pause", lane=0, reason="maintenance"),
    act("resume"),
    act("continue", lane=1),
    act(dry_run=True),
    act("retry_parked", letters=Letters(places=((0, 9),))),
    act("retry_parked", lane=3),
]


@pytest.mark.parametrize("meant", ACTS, ids=lambda a: a.kind)
def test_an_act_arrives_as_it_was_ordered(meant: Act) -> None:
    record = seal_act(meant, KEYRING, "/afterwrite/admin")
    assert open_act(record.key, record.value, record.headers, KEYRING) == meant


@pytest.mark.parametrize(
    ("kind", "members"),
    [
        ("discard", {}),
        ("discard", {"reason": "  "}),
        ("discard", {"reason": "x" * 1001}),
        ("pause", {}),
        ("replay", {"letters": None}),
        ("replay", {"letters": Letters()}),
        ("replay", {"letters": Letters(code="invalid")}),
        ("replay", {"letters": Letters(limit=MAX_LETTERS + 1)}),
        ("replay", {"letters": Letters(places=((0, 1),) * (MAX_LETTERS + 1))}),
        ("replay", {"rate": 0.0}),
        ("replay", {"values": {0: {"body": "x"}}}),
        ("edit", {"letters": Letters(places=((0, 1),))}),
        ("edit", {"letters": Letters(places=((0, 1), (0, 2))), "any_version": True}),
        ("edit", {"letters": Letters(limit=1), "any_version": True}),
        ("pause", {"reason": "x", "dry_run": True}),
        ("continue", {}),
        ("retry_parked", {"letters": Letters(code="x")}),
        ("retry_parked", {"letters": Letters(places=())}),
    ],
)
def test_an_act_that_cannot_be_meant_is_none(kind: str, members: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        act(kind, **members)


def test_an_act_is_known_by_a_uuid_of_version_7() -> None:
    with pytest.raises(ValueError):
        replace(act(), act_id=uuid.uuid4())


def _resealed(changed: dict[str, Any]) -> Any:
    """A genuine signature over something that is no act."""
    made = seal_act(act(letters=EVERYTHING, rate=1), KEYRING, "/x")
    value = encode(decode(made.value) | changed)
    signature = KEYRING.sign(b"org.afterwrite.act.v1", made.key, value)
    headers = [(n, signature if n == "ce_signature" else c) for n, c in made.headers]
    return open_act(made.key, value, headers, KEYRING)


@pytest.mark.parametrize(
    "changed",
    [
        {"kind": "drop"},
        {"act_id": str(uuid.uuid4())},
        {"act_id": str(new_id())},
        {"act_id": 1},
        {"at": "yesterday"},
        {"at": "2026-03-01T12:00:00"},
        {"who": {"id": str(OLGA.id), "name": "x"}},
        {"who": {"id": str(OLGA.id), "name": "x", "roles": "admin"}},
        {"who": {"id": str(OLGA.id), "name": "x", "roles": [], "more": 1}},
        {"letters": {"places": [[0, 1, 2]]}},
        {"letters": {"places": [[0, -1]]}},
        {"letters": {"places": [[True, 1]]}},
        {"letters": {"places": [["0", "1"]]}},
        {"letters": {"limit": 1.5}},
        {"letters": {"limit": 0}},
        {"letters": {"everything": True}},
        {"letters": [[0, 1]]},
        {"lane": -1},
        {"lane": "0"},
        {"rate": "fast"},
        {"rate": True},
        {"reason": 5},
        {"values": []},
        {"kind": "edit", "letters": {"places": [[0, 1]]}, "values": {"-1": {"body": "x"}}},
        {"kind": "edit", "letters": {"places": [[0, 1]]}, "values": {"0": 5}},
        {"more": 1},
    ],
)
def test_what_is_not_an_act_to_the_letter_is_none(changed: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        _resealed(changed)


def test_of_a_newer_version_is_not_malformed() -> None:
    with pytest.raises(UnknownVersion):
        _resealed({"v": 2})


def test_an_act_is_never_taken_for_a_command_nor_a_command_for_an_act() -> None:
    """Both are signed with the same keys. An act in the log must not halt the lane either, as a
    command of a newer version does."""
    made = seal_act(act(), KEYRING, "/x")
    with pytest.raises(Malformed):
        open_command(made.key, made.value, made.headers, KEYRING)
    record = sealed(command(author("ada"), create("topic", title="x")), uuid.uuid4())
    with pytest.raises(Malformed):
        open_act(record.key, record.value, record.headers, KEYRING)
    for ours, theirs, opened in ((made, record, open_command), (record, made, open_act)):
        headers = dict(ours.headers) | {"ce_type": dict(theirs.headers)["ce_type"]}
        with pytest.raises(BadSignature):
            opened(ours.key, ours.value, list(headers.items()), KEYRING)


@pytest.mark.parametrize("part", ["key", "value", "ce_type", "ce_signature"])
def test_nothing_signed_may_be_changed_or_missing(part: str) -> None:
    made = seal_act(act(), KEYRING, "/x")
    fields: dict[str, Any] = {"key": made.key, "value": made.value} | dict(made.headers)
    for changed in (None, fields[part] + b" "):
        given = fields | {part: changed}
        headers = [(n, c) for n, c in given.items() if n not in ("key", "value")]
        with pytest.raises(EnvelopeError):
            open_act(given["key"], given["value"], headers, KEYRING)
    with pytest.raises(BadSignature):
        open_act(made.key, made.value, made.headers, Keyring({"k1": b"another" * 8}))


def test_who_may_act() -> None:
    may = [replace(OLGA, roles=roles).may_act for roles in ((), ("viewer",), ("x", "admin"))]
    assert may == [False, False, True]
