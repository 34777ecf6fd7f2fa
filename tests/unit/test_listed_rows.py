"""Rows of a page are written in one go, and look as every other row does."""

import json
import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import uuid6
from asyncpg.pgproto import pgproto

from frontend_api.merge import Shown
from frontend_api.presentation import json_response, row_json, row_listed
from schema.catalog import load_catalog
from schema.identifiers import CommandId
from schema.outcomes import State

pytestmark = pytest.mark.unit

FORUM = load_catalog("schema.forum")
TIMES = [
    datetime(2026, 1, 2, 3, 4, 5, 120_000, tzinfo=UTC),
    datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    datetime(2026, 1, 2, 3, 4, 5, 1, tzinfo=timezone(timedelta(hours=2))),
]


def a_row(name: str, at: datetime, id_type: type[Any]) -> dict[str, Any]:
    values: dict[str, Any] = {
        "id": id_type(str(uuid.uuid4())),
        "version": 3,
        "created_at": at,
        "updated_at": at,
    }
    some = {
        "uuid": id_type(str(uuid.uuid4())),
        "text": "\u2028 \x7f <é😀>",
        "bool": True,
        "json": '{"a": [1.5]}',
    }
    kind = FORUM[name]
    return (
        values
        | {f.name: some[f.kind] for f in kind.fields.values()}
        | dict.fromkeys(kind.counters, 7)
    )


@pytest.mark.parametrize("id_type", [uuid.UUID, uuid6.UUID, pgproto.UUID])
@pytest.mark.parametrize("at", TIMES, ids=str)
@pytest.mark.parametrize("name", [kind.name for kind in FORUM])
def test_a_listed_row_is_written_as_every_other(
    name: str, at: datetime, id_type: type[Any]
) -> None:
    for shown in (
        Shown(a_row(name, at, id_type)),
        Shown(a_row(name, at, id_type), State.PENDING, CommandId(id_type(str(uuid.uuid4())))),
    ):
        listed = bytes(json_response(row_listed(FORUM[name], shown)).body)
        plain = json.dumps(row_json(FORUM[name], shown), ensure_ascii=False, separators=(",", ":"))
        assert listed.decode() == plain
