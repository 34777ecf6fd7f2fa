"""Ids as the driver makes them are read from what `uuid.UUID` reads, and are the same ids."""

import uuid
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from frontend_api import ids as of_the_front_end
from frontend_api.ids import quick
from schema.identifiers import IdReader, is_uuid7, month_of, time_of
from writer import ids as of_the_writer

pytestmark = pytest.mark.unit

FORMS = ("{}", "{{{}}}", "urn:uuid:{}", " {}", "{}0", "_{}")
shown = st.uuids().map(str) | st.uuids().map(lambda u: u.hex) | st.uuids().map(lambda u: f"{u}"[1:])
texts = st.builds(lambda form, text: form.format(text), st.sampled_from(FORMS), shown) | st.text()

READERS = [of_the_front_end.read_id, of_the_writer.read_id]


def _read(reader: Any, what: Any) -> uuid.UUID | None:
    try:
        read: uuid.UUID = reader(what)
    except (ValueError, TypeError, AttributeError):
        return None
    return read


@pytest.mark.parametrize("read_id", READERS)
@given(text=texts | st.text("0123456789abcdefABCDEF-", min_size=32, max_size=40))
def test_what_is_read_and_what_is_refused_is_the_same(read_id: IdReader, text: str) -> None:
    assert _read(read_id, text) == _read(uuid.UUID, text)


@pytest.mark.parametrize("read_id", READERS)
@pytest.mark.parametrize("what", [None, 7, 7.0, True, [], {}])
def test_what_is_no_text_is_no_id(read_id: IdReader, what: Any) -> None:
    assert _read(read_id, what) is None


@pytest.mark.parametrize("read_id", [*READERS, lambda text: quick(uuid.UUID(text))])
@given(one=st.uuids())
def test_an_id_is_the_same_whoever_made_it(read_id: IdReader, one: uuid.UUID) -> None:
    other = read_id(str(one))
    assert isinstance(other, uuid.UUID)
    assert (other, hash(other), str(other), other.bytes) == (one, hash(one), str(one), one.bytes)
    assert {one: 1}[other] == 1
    assert one in {other}


@given(st.uuids(), st.integers(0, 2**48 - 1), st.integers(0, 15), st.integers(0, 3))
@example(uuid.UUID(int=0), 2**48 - 1, 7, 0b10)  # beyond the calendar
@example(uuid.UUID(int=0), 253_402_300_799_999, 7, 0b10)
@example(uuid.UUID(int=0), 0, 7, 0b11)
@example(uuid.UUID(int=0), 0, 6, 0b10)
def test_a_month_is_that_of_the_ids_time(
    any_id: uuid.UUID, ms: int, version: int, variant: int
) -> None:
    kept = ~(0xFFFFFFFFFFFFF << 76) & ~(0b11 << 62)
    made = uuid.UUID(int=any_id.int & kept | ms << 80 | version << 76 | variant << 62)
    assert is_uuid7(made) is (made.version == 7 and made.variant == uuid.RFC_4122)
    if is_uuid7(made):
        assert month_of(made) == time_of(made).date().replace(day=1)
    else:
        with pytest.raises(ValueError, match="UUIDv7"):
            month_of(made)
