"""Strict JSON, against the JSON parsing test suite: our answer to every one of its files is frozen."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.strict_json import MAX_DEPTH, MAX_DIGITS, JsonError, JsonTooDeep, decode, encode

pytestmark = pytest.mark.unit

SUITE = Path(__file__).parent.parent / "data" / "json-test-suite"
PARSING = sorted((SUITE / "test_parsing").iterdir())
TRANSFORM = sorted((SUITE / "test_transform").iterdir())

OURS = {
    # RFC 8259 leaves the same key twice open. We refuse it: one reader would take the first value,
    # another the last, and the author of the request meant neither.
    "y_object_duplicated_key.json": "json_duplicate_key",
    "y_object_duplicated_key_and_value.json": "json_duplicate_key",
}
"""The files that must be accepted by the letter of the RFC, and that our stated limits refuse."""

FREE = {
    # A number that a double cannot hold is refused, one that it rounds to zero is taken.
    "i_number_double_huge_neg_exp.json": "ok",
    "i_number_huge_exp.json": "json_number",
    "i_number_neg_int_huge_exp.json": "json_number",
    "i_number_pos_double_huge_exp.json": "json_number",
    "i_number_real_neg_overflow.json": "json_number",
    "i_number_real_pos_overflow.json": "json_number",
    "i_number_real_underflow.json": "ok",
    # Integers are exact up to the limit of digits; the fields' types bound them further.
    "i_number_too_big_neg_int.json": "ok",
    "i_number_too_big_pos_int.json": "ok",
    "i_number_very_big_negative_int.json": "ok",
    # Escaped lone surrogates are well-formed JSON; as text of a field they are refused (a 422).
    "i_object_key_lone_2nd_surrogate.json": "ok",
    "i_string_1st_surrogate_but_2nd_missing.json": "ok",
    "i_string_1st_valid_surrogate_2nd_invalid.json": "ok",
    "i_string_incomplete_surrogate_and_escape_valid.json": "ok",
    "i_string_incomplete_surrogate_pair.json": "ok",
    "i_string_incomplete_surrogates_escape_valid.json": "ok",
    "i_string_invalid_lonely_surrogate.json": "ok",
    "i_string_invalid_surrogate.json": "ok",
    "i_string_inverted_surrogates_U+1D11E.json": "ok",
    "i_string_lone_second_surrogate.json": "ok",
    # UTF-8 and nothing else, without a byte order mark.
    "i_string_UTF-16LE_with_BOM.json": "json_encoding",
    "i_string_UTF-8_invalid_sequence.json": "json_encoding",
    "i_string_UTF8_surrogate_U+D800.json": "json_encoding",
    "i_string_invalid_utf-8.json": "json_encoding",
    "i_string_iso_latin_1.json": "json_encoding",
    "i_string_lone_utf8_continuation_byte.json": "json_encoding",
    "i_string_not_in_unicode_range.json": "json_encoding",
    "i_string_overlong_sequence_2_bytes.json": "json_encoding",
    "i_string_overlong_sequence_6_bytes.json": "json_encoding",
    "i_string_overlong_sequence_6_bytes_null.json": "json_encoding",
    "i_string_truncated-utf-8.json": "json_encoding",
    "i_string_utf16BE_no_BOM.json": "json_encoding",
    "i_string_utf16LE_no_BOM.json": "json_encoding",
    "i_structure_UTF-8_BOM_empty_object.json": "json_encoding",
    "i_structure_500_nested_arrays.json": "json_depth",
}
"""The files that a parser may take or refuse."""

TRANSFORMED: dict[str, object] = {
    "number_-9223372036854775808.json": [-9223372036854775808],
    "number_-9223372036854775809.json": [-9223372036854775809],
    "number_1.0.json": [1.0],
    "number_1.000000000000000005.json": [1.0],
    "number_1000000000000000.json": [1000000000000000],
    "number_10000000000000000999.json": [10000000000000000999],
    "number_1e-999.json": [0.0],
    "number_1e6.json": [1000000.0],
    "number_9223372036854775807.json": [9223372036854775807],
    "number_9223372036854775808.json": [9223372036854775808],
    # Keys are compared as they are written; nothing is normalized.
    "object_key_nfc_nfd.json": {"\u00e9": "NFC", "e\u0301": "NFD"},
    "object_key_nfd_nfc.json": {"e\u0301": "NFD", "\u00e9": "NFC"},
    "object_same_key_different_values.json": "json_duplicate_key",
    "object_same_key_same_value.json": "json_duplicate_key",
    "object_same_key_unclear_values.json": "json_duplicate_key",
    "string_1_escaped_invalid_codepoint.json": ["\ud800"],
    "string_1_invalid_codepoint.json": "json_encoding",
    "string_2_escaped_invalid_codepoints.json": ["\ud800\ud800"],
    "string_2_invalid_codepoints.json": "json_encoding",
    "string_3_escaped_invalid_codepoints.json": ["\ud800\ud800\ud800"],
    "string_3_invalid_codepoints.json": "json_encoding",
    "string_with_escaped_NULL.json": ["A\u0000B"],
}


def _answer(data: bytes) -> str:
    try:
        decode(data)
    except JsonError as error:
        return error.code
    return "ok"


def _named(prefix: str) -> list[object]:
    return [pytest.param(p, id=p.name) for p in PARSING if p.name.startswith(prefix)]


def test_the_suite_is_whole_and_every_free_answer_is_frozen() -> None:
    count = {prefix: len(_named(prefix)) for prefix in ("y_", "n_", "i_")}
    assert count == {"y_": 95, "n_": 188, "i_": 35}
    assert sorted(FREE) == [p.name for p in PARSING if p.name.startswith("i_")]
    assert sorted(TRANSFORMED) == [p.name for p in TRANSFORM]
    assert set(OURS) <= {p.name for p in PARSING}


@pytest.mark.parametrize("path", _named("y_"))
def test_what_must_be_accepted_is_unless_our_limits_say_otherwise(path: Path) -> None:
    answer = _answer(path.read_bytes())
    assert answer == OURS.get(path.name, "ok")
    if answer == "ok":
        assert decode(path.read_bytes()) == json.loads(path.read_bytes())


@pytest.mark.parametrize("path", _named("n_"))
def test_what_must_be_refused_is(path: Path) -> None:
    assert _answer(path.read_bytes()) != "ok"


@pytest.mark.parametrize("path", _named("i_"))
def test_what_is_free_has_a_frozen_answer(path: Path) -> None:
    assert _answer(path.read_bytes()) == FREE[path.name]


@pytest.mark.parametrize("path", TRANSFORM, ids=lambda path: path.name)
def test_what_parsers_transform_has_a_frozen_value(path: Path) -> None:
    wanted = TRANSFORMED[path.name]
    if isinstance(wanted, str):
        assert _answer(path.read_bytes()) == wanted
    else:
        found = decode(path.read_bytes())
        assert found == wanted
        if isinstance(wanted, list):
            assert isinstance(found, list)
            assert type(found[0]) is type(wanted[0])


def test_nesting_is_bounded_exactly_and_brackets_in_strings_do_not_count() -> None:
    assert _answer(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH) == "ok"
    with pytest.raises(JsonTooDeep):
        decode(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1))
    assert _answer(b'["' + b"[{" * 50 + b'", "\\"[[[[[[[[[[[[[[[[[[[[\\\\", {}]') == "ok"
    assert _answer(b'{"a":' * 17 + b"1" + b"}" * 17) == "json_depth"
    assert _answer(b"[" * 100_000) == "json_depth"


def test_numbers_are_bounded_in_length() -> None:
    assert _answer(b"9" * MAX_DIGITS) == "ok"
    assert _answer(b"9" * (MAX_DIGITS + 1)) == "json_number"
    assert _answer(b"9" * 5000) == "json_number"
    assert _answer(b"0." + b"1" * (MAX_DIGITS - 2)) == "ok"
    assert _answer(b"0." + b"1" * (MAX_DIGITS - 1)) == "json_number"
    for word in (b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999"):
        assert _answer(b"[" + word + b"]") == "json_number"


@pytest.mark.parametrize(
    "data",
    [
        b'"' + b'\\"' * 65_000,
        b'["' + b"\\" * 130_001,
        b'"a' * 65_000,
        b'{"a' * 40_000,
        b'"' * 131_071,
        b"[" + b'"\\u0000",' * 16_000,
    ],
    ids=["escaped quotes", "backslashes", "open strings", "open objects", "quotes", "open array"],
)
def test_malformed_bodies_of_the_largest_size_take_no_time(data: bytes) -> None:
    """Reading is linear: a quadratic scan would take minutes of processor time for the first."""
    started = time.process_time()
    assert _answer(data) != "ok"
    assert time.process_time() - started < 2


@pytest.mark.parametrize("data", [b"", b" ", b"\xef\xbb\xbf{}", b"[1]x", b"{'a':1}", b"[1,]"])
def test_an_error_never_repeats_what_was_sent(data: bytes) -> None:
    with pytest.raises(JsonError) as refused:
        decode(data + b"Geheimnis")
    assert "Geheimnis" not in str(refused.value)
    assert refused.value.__cause__ is None


@given(st.binary(max_size=200))
def test_any_bytes_give_a_value_or_a_json_error(data: bytes) -> None:
    assert _answer(data) in {
        "ok",
        "json_encoding",
        "json_syntax",
        "json_duplicate_key",
        "json_number",
        "json_depth",
    }


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**90), 10**90)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
).filter(lambda value: _depth(value) <= MAX_DEPTH)


def _depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max((_depth(v) for v in value.values()), default=0)
    if isinstance(value, list):
        return 1 + max((_depth(v) for v in value), default=0)
    return 0


@given(values)
def test_what_is_encoded_is_decoded_to_the_same(value: object) -> None:
    assert decode(encode(value)) == value


@given(st.dictionaries(st.text(), st.integers(), min_size=2))
def test_the_same_value_has_the_same_bytes(value: dict[str, int]) -> None:
    assert encode(value) == encode(dict(reversed(value.items())))


def test_encode_refuses_what_decode_would() -> None:
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON compliant"):
            encode(value)
