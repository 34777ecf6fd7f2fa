"""Kinds: what the machinery works out of a declaration."""

import hashlib
import json
import uuid
from datetime import UTC, datetime
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator

from schema.content import ContentType, Kind
from schema.fields import Text
from schema.forum import Notice, Post, Reaction, Topic
from schema.identifiers import derived_id
from schema.rules import RuleSyntaxError

pytestmark = pytest.mark.unit

TOPIC, POST, REACTION, NOTICE = Kind(Topic), Kind(Post), Kind(Reaction), Kind(Notice)
NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def _post(**values: Any) -> dict[str, Any]:
    row = {
        "id": uuid.UUID(int=1),
        "version": 1,
        "created_at": NOW,
        "updated_at": NOW,
        "topic_id": uuid.UUID(int=2),
        "author_id": uuid.UUID(int=3),
        "reply_to": None,
        "body": "text",
    }
    return row | values


def test_columns_are_the_standard_ones_then_fields_then_counters() -> None:
    standard = ("id", "version", "created_at", "updated_at")
    assert POST.written_columns == (*standard, "topic_id", "author_id", "reply_to", "body")
    counted = Kind(Post)
    counted.counters = ("reaction_count",)
    assert counted.columns == (*POST.written_columns, "reaction_count")
    assert counted.written_columns == POST.written_columns
    assert counted.column_types()["reaction_count"] == "bigint"


def test_column_types_have_the_names_that_postgresql_gives_them() -> None:
    assert NOTICE.column_types() == {
        "id": "uuid",
        "version": "integer",
        "created_at": "timestamp with time zone",
        "updated_at": "timestamp with time zone",
        "user_id": "uuid",
        "kind": "text",
        "command_id": "uuid",
        "code": "text",
        "detail": "text",
        "returned": "json",
        "read": "boolean",
    }


def test_nullable_required_and_default_follow_the_annotation() -> None:
    reply_to, body = POST.fields["reply_to"], POST.fields["body"]
    assert (reply_to.nullable, reply_to.required, reply_to.default) == (True, False, None)
    assert (body.nullable, body.required) == (False, True)
    assert TOPIC.fields["locked"].default is False


def test_parents_are_the_references_that_are_set() -> None:
    two, four = uuid.UUID(int=2), uuid.UUID(int=4)
    assert POST.parents_of(_post()) == [("topic", "topic", two)]
    assert POST.parents_of(_post(reply_to=four)) == [
        ("topic", "topic", two),
        ("reply_to", "post", four),
    ]


def test_a_natural_id_follows_from_the_key_and_from_nothing_else() -> None:
    post, author = uuid.uuid4(), uuid.uuid4()
    values = {"post_id": post, "author_id": author, "emoji": "+1"}
    assert REACTION.natural_id(values) == derived_id("reaction", str(post), str(author), "+1")
    assert REACTION.natural_id(values | {"id": 1}) == REACTION.natural_id(
        {name: str(value) for name, value in values.items()}
    )
    assert REACTION.natural_id(values | {"emoji": "-1"}) != REACTION.natural_id(values)


@given(
    st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), min_size=1),
    st.integers(1, 2**31),
)
def test_rows_keep_through_json(body: str, version: int) -> None:
    row = _post(body=body, version=version)
    shown = POST.to_json(row)
    assert set(shown) == set(POST.fields)
    assert POST.from_json(shown) == {name: row[name] for name in POST.fields}


@given(st.text(min_size=1), st.text(min_size=1))
def test_a_digest_tells_any_two_contents_apart(one: str, other: str) -> None:
    same = POST.digest(_post(body=one)) == POST.digest(_post(body=other))
    assert same is (one == other)


@pytest.mark.parametrize(
    "change",
    [
        {"body": "text "},
        {"version": 2},
        {"topic_id": uuid.UUID(int=9)},
        {"author_id": uuid.UUID(int=9)},
        {"reply_to": uuid.UUID(int=9)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_digest_covers_every_field_and_the_version(change: dict[str, Any]) -> None:
    assert POST.digest(_post(**change)) != POST.digest(_post())


def test_a_digest_does_not_cover_what_others_change_or_when_it_was() -> None:
    later = _post(updated_at=datetime(2027, 1, 1, tzinfo=UTC), reaction_count=3)
    assert POST.digest(later) == POST.digest(_post())


def test_a_digest_is_the_same_in_every_version_of_this_code() -> None:
    """The ledger keeps it for years; an audit must come to the same."""
    assert POST.digest(_post(body="ä\u2028\U0001f600")) == (
        "cba9b54af855e2cf492d43f7d3c6c402d06ce97272c7bd3e1a8941e3b8e623c3"
    )


def test_a_digest_of_json_is_that_of_its_value_not_of_its_text() -> None:
    row: dict[str, Any] = dict.fromkeys(NOTICE.fields)
    row |= {"version": 1, "read": False}
    as_text, as_value = row | {"returned": '{"b": 1,"a":2}'}, row | {"returned": {"a": 2, "b": 1}}
    assert NOTICE.digest(as_text) == NOTICE.digest(as_value)


class _Base(ContentType):
    table = "thing"
    plural = "things"


def test_text_without_limits_is_refused() -> None:
    class Thing(_Base):
        body: str

    with pytest.raises(TypeError, match="'body' is text without limits"):
        Kind(Thing)


def test_a_type_that_has_no_column_is_refused() -> None:
    class Thing(_Base):
        size: float

    with pytest.raises(TypeError, match="'size' has type"):
        Kind(Thing)


def test_a_rule_that_cannot_be_read_is_refused() -> None:
    class Thing(_Base):
        may_create = "actor.id is"

    with pytest.raises(RuleSyntaxError, match="character 11"):
        Kind(Thing)


def test_an_optional_text_keeps_its_limits() -> None:
    line = Text(max_bytes=10, one_line=True)

    class Thing(_Base):
        note: Annotated[str | None, line] = None
        word: Annotated[str, AfterValidator(line.check), line]

    kind = Kind(Thing)
    assert kind.fields["note"].nullable
    assert kind.fields["note"].kind == "text"
    assert not kind.fields["word"].nullable


class _Everything(ContentType):
    """A field of every kind."""

    table = "everything"
    plural = "everythings"

    an_id: uuid.UUID | None
    words: Annotated[str | None, Text(min_chars=0)]
    whole: int | None
    yes: bool
    moment: datetime | None
    free: dict[str, object] | None


@given(
    st.tuples(
        st.none() | st.uuids(),
        st.none() | st.text(),
        st.none() | st.integers(),
        st.booleans(),
        st.none() | st.datetimes(timezones=st.just(UTC)),
        st.none() | st.dictionaries(st.text(), st.none() | st.integers() | st.text(), max_size=3),
    )
)
def test_a_digest_is_that_of_the_sorted_json_of_the_content(values: tuple[Any, ...]) -> None:
    kind = Kind(_Everything)
    row = dict(zip(kind.fields, values, strict=True)) | {"version": 7}
    content = {name: field.to_json(row[name]) for name, field in kind.fields.items()}
    text = json.dumps(content | {"version": 7}, sort_keys=True, separators=(",", ":"))
    assert kind.digest(row) == hashlib.sha256(text.encode()).hexdigest()
