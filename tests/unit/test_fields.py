"""Field kinds: what text is taken, and that values keep through JSON."""

import uuid
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from schema.content import Kind
from schema.fields import PG_TYPES, PYTHON_KINDS, Field, Text, parse_time, render_time
from schema.forum import Notice, Post

pytestmark = pytest.mark.unit

POST, NOTICE = Kind(Post), Kind(Notice)


def _refused(text: Text, value: str) -> str:
    with pytest.raises(PydanticCustomError) as refused:
        text.check(value)
    return refused.value.type


@given(
    st.text(
        alphabet=st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=100
    )
)
def test_text_is_kept_byte_for_byte(value: str) -> None:
    assert Text().check(value) is value


@pytest.mark.parametrize("value", ["\ud800", "a\udfffb", "\udc00\ud800", "\ud800\0"], ids=ascii)
def test_lone_surrogates_are_refused(value: str) -> None:
    assert _refused(Text(), value) == "text_surrogate"


def test_nul_is_refused_wherever_it_stands() -> None:
    for value in ("\0", "a\0", "\0a", "a\0b"):
        assert _refused(Text(), value) == "text_nul"


def test_a_limit_in_bytes_counts_utf_8() -> None:
    limited = Text(max_bytes=8)
    for value in ("12345678", "ääää", "\U0001f600\U0001f600", "e\u0301" * 2):
        assert limited.check(value) == value
    for value in ("123456789", "ääää1", "\U0001f600\U0001f600 "):
        assert _refused(limited, value) == "text_long"


def test_a_limit_in_characters_counts_code_points() -> None:
    limited = Text(max_chars=3)
    assert limited.check("\U0001f600" * 3)
    assert _refused(limited, "abcd") == "text_long"
    assert _refused(limited, "e\u0301" * 2) == "text_long"


def test_a_least_length_counts_code_points() -> None:
    assert _refused(Text(), "") == "text_short"
    assert Text(min_chars=0).check("") == ""
    assert _refused(Text(min_chars=2), "a") == "text_short"


def test_one_line_refuses_every_control_character_and_line_break() -> None:
    line = Text(one_line=True)
    controls = [chr(c) for c in (*range(1, 32), *range(127, 160), 0x2028, 0x2029)]
    for control in controls:
        assert _refused(line, f"a{control}b") == "text_control"
        assert Text().check(f"a{control}b")
    for fine in ("\u00a0", "\u200d", "\u202e", "\ufeff", "~", " "):
        assert line.check(f"a{fine}b")


def test_a_refusal_does_not_repeat_the_text() -> None:
    for text, value in ((Text(max_bytes=3), "Geheimnis"), (Text(one_line=True), "Geheimnis\n")):
        with pytest.raises(PydanticCustomError) as refused:
            text.check(value)
        assert "Geheimnis" not in str(refused.value)


def _field(kind: str) -> Field:
    return Field("f", kind, True, False, None, None, False, False, True, None)


@given(st.datetimes(timezones=st.just(UTC)))
def test_times_keep_through_json(value: datetime) -> None:
    field = _field("time")
    text = field.to_json(value)
    assert text.endswith("Z")
    assert field.from_json(text) == value


@given(
    st.datetimes(datetime(1000, 1, 2), datetime(9998, 1, 1)),  # noqa: DTZ001 - the zone is added
    st.integers(-14 * 60, 14 * 60),
)
def test_times_of_any_zone_are_rendered_in_utc(value: datetime, minutes: int) -> None:
    moment = value.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    assert parse_time(render_time(moment)) == moment
    assert parse_time(moment.isoformat()) == moment
    assert parse_time(moment.isoformat()).tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-01T00:00:00",
        "2026-01-01",
        "",
        "now",
        "2026-13-01T00:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
    ],
)
def test_a_time_that_cannot_be_kept_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_time(text)


@given(st.uuids())
def test_uuids_keep_through_json(value: uuid.UUID) -> None:
    assert _field("uuid").from_json(_field("uuid").to_json(value)) == value


@pytest.mark.parametrize("kind", PG_TYPES)
def test_null_keeps_through_json(kind: str) -> None:
    assert _field(kind).to_json(None) is None
    assert _field(kind).from_json(None) is None


def test_json_is_the_same_whether_the_driver_has_decoded_it_or_not() -> None:
    assert _field("json").to_json('{"a":[1]}') == _field("json").to_json({"a": [1]}) == {"a": [1]}


def test_every_python_kind_has_a_type_in_postgresql() -> None:
    assert set(PYTHON_KINDS.values()) == set(PG_TYPES)


def test_what_may_come_from_input_and_what_may_change() -> None:
    given_ = {f.name for f in POST.fields.values() if f.from_input}
    changed = {f.name for f in POST.fields.values() if f.changeable}
    assert given_ == {"topic_id", "reply_to", "body"}
    assert changed == {"body"}
    assert {f.name for f in NOTICE.fields.values() if f.from_input} == {"read"}


def test_rules_call_a_reference_by_the_name_of_what_it_refers_to() -> None:
    assert POST.fields["topic_id"].parent_name == "topic"
    assert POST.fields["reply_to"].parent_name == "reply_to"
