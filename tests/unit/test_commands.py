"""Commands keep through JSON, and malformed ones are refused with an expected error."""

import copy
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.commands import MAX_MUTATIONS, Author, Command, Mutation
from schema.identifiers import CommandId, RowId, UserId
from tests.strategies import commands, json_values

pytestmark = pytest.mark.unit

ERRORS = (ValueError, KeyError, TypeError, AttributeError)
COMMAND = Command(
    CommandId(uuid.UUID(int=1)),
    RowId(uuid.UUID(int=2)),
    Author(UserId(uuid.UUID(int=3)), "ada", ("moderator",)),
    datetime(2026, 1, 1, tzinfo=UTC),
    (
        Mutation("create", "post", RowId(uuid.UUID(int=4)), {"body": "text"}),
        Mutation("update", "topic", RowId(uuid.UUID(int=2)), {"title": "t"}, 7),
        Mutation("delete", "post", RowId(uuid.UUID(int=5)), {}, 2),
    ),
    idempotency_key="key",
    fingerprint="f",
    replays=CommandId(uuid.UUID(int=6)),
)


@given(commands())
def test_commands_keep_through_json(command: Command) -> None:
    assert Command.from_json(command.to_json()) == command


def test_the_form_of_a_command() -> None:
    assert COMMAND.to_json() == {
        "command_id": "00000000-0000-0000-0000-000000000001",
        "stream": "00000000-0000-0000-0000-000000000002",
        "author": {
            "id": "00000000-0000-0000-0000-000000000003",
            "name": "ada",
            "roles": ["moderator"],
        },
        "accepted_at": "2026-01-01T00:00:00.000000Z",
        "mutations": [
            {
                "op": "create",
                "type": "post",
                "id": "00000000-0000-0000-0000-000000000004",
                "values": {"body": "text"},
            },
            {
                "op": "update",
                "type": "topic",
                "id": "00000000-0000-0000-0000-000000000002",
                "values": {"title": "t"},
                "expected_version": 7,
            },
            {
                "op": "delete",
                "type": "post",
                "id": "00000000-0000-0000-0000-000000000005",
                "expected_version": 2,
            },
        ],
        "idempotency_key": "key",
        "fingerprint": "f",
        "replays": "00000000-0000-0000-0000-000000000006",
    }


def test_what_is_optional_is_left_out() -> None:
    plain = Command(
        COMMAND.command_id, COMMAND.stream, COMMAND.author, COMMAND.accepted_at, COMMAND.mutations
    )
    assert not {"idempotency_key", "fingerprint", "replays"} & set(plain.to_json())
    assert Command.from_json(plain.to_json()) == plain


PATHS = [
    ("command_id",),
    ("stream",),
    ("author",),
    ("author", "id"),
    ("author", "name"),
    ("author", "roles"),
    ("accepted_at",),
    ("mutations",),
    ("mutations", 0, "op"),
    ("mutations", 0, "type"),
    ("mutations", 0, "id"),
]


def _put(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    data = copy.deepcopy(data)
    at = data
    for step in path[:-1]:
        at = at[step]
    if value is _GONE:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return data


_GONE = "(left out)"


@pytest.mark.parametrize("path", PATHS, ids=str)
@pytest.mark.parametrize("value", [_GONE, None, 7, True, {}, [7], {"a": 1}], ids=repr)
def test_a_part_that_is_missing_or_of_another_kind_is_refused(
    path: tuple[Any, ...], value: Any
) -> None:
    with pytest.raises(ERRORS):
        Command.from_json(_put(COMMAND.to_json(), path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("mutations", 0, "op"), "upsert"),
        (("mutations", 0, "values"), None),
        (("mutations", 0, "values"), [1]),
        (("mutations", 1, "expected_version"), "7"),
        (("mutations", 1, "expected_version"), 7.0),
        (("mutations", 1, "expected_version"), True),
        (("mutations",), []),
        (("mutations",), "create"),
        (("accepted_at",), "2026-01-01T00:00:00"),
        (("idempotency_key",), 7),
        (("fingerprint",), ["f"]),
        (("replays",), "no uuid"),
        (("author", "roles"), [7]),
        (("author", "roles"), "moderator"),
        (("command_id",), "no uuid"),
    ],
    ids=str,
)
def test_a_malformed_value_is_refused(path: tuple[Any, ...], value: Any) -> None:
    with pytest.raises(ERRORS):
        Command.from_json(_put(COMMAND.to_json(), path, value))


def test_a_command_has_no_more_mutations_than_its_limit() -> None:
    data = COMMAND.to_json()
    data["mutations"] = data["mutations"][:1] * MAX_MUTATIONS
    assert len(Command.from_json(data).mutations) == MAX_MUTATIONS
    data["mutations"] = data["mutations"][:1] * (MAX_MUTATIONS + 1)
    with pytest.raises(ValueError, match="1 to 100 mutations"):
        Command.from_json(data)


@given(st.dictionaries(st.sampled_from([*COMMAND.to_json(), "x"]), json_values(5)))
def test_any_json_object_is_a_command_or_refused_with_an_expected_error(data: Any) -> None:
    try:
        Command.from_json(COMMAND.to_json() | data)
    except ERRORS:
        return
