"""Redis keys: one hash tag per author, so that a cluster keeps together what one script changes."""

import uuid
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.redis_keys import ID_CHARS, RedisKeys, long_id, short_id

pytestmark = pytest.mark.unit

KEYS = RedisKeys("afterwrite")
OF_AN_AUTHOR: dict[str, Callable[[uuid.UUID, str], str]] = {
    "entries": lambda author, text: KEYS.entries(author),
    "index": lambda author, text: KEYS.index(author),
    "row": lambda author, text: KEYS.row(author, text, uuid.uuid4()),
    "list": lambda author, text: KEYS.list(author, text, uuid.uuid4()),
    "list of all": lambda author, text: KEYS.list(author, text, None),
    "count": lambda author, text: KEYS.count(author, text, uuid.uuid4()),
    "idempotency": KEYS.idempotency,
    "rate": lambda author, text: KEYS.rate(author, len(text)),
}


def crc16(data: bytes) -> int:
    """CRC-16/XMODEM, as the cluster specification defines it."""
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1) ^ 0x1021 if crc & 0x8000 else crc << 1
            crc &= 0xFFFF
    return crc


def slot(key: str) -> int:
    """The cluster slot of a key: of what stands in its first braces, if anything does."""
    start = key.find("{")
    if start >= 0:
        end = key.find("}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return crc16(key.encode()) % 16384


def test_the_slot_is_computed_as_the_specification_says() -> None:
    assert crc16(b"123456789") == 0x31C3
    assert slot("{user1000}.following") == slot("{user1000}.followers")
    assert slot("foo{}{bar}") == crc16(b"foo{}{bar}") % 16384


@given(st.uuids(), st.sampled_from(["topic", "post", "topic_posts"]))
def test_all_keys_of_an_author_live_in_one_slot(author: uuid.UUID, name: str) -> None:
    assert {slot(make(author, name)) for make in OF_AN_AUTHOR.values()} == {slot(short_id(author))}


@given(st.uuids(), st.text(st.characters(codec=None), max_size=300))
def test_an_idempotency_key_of_any_text_gives_a_short_plain_key(
    author: uuid.UUID, text: str
) -> None:
    key = KEYS.idempotency(author, text)
    assert key.isascii()
    assert len(key) < 150
    assert slot(key) == slot(short_id(author))


@given(st.uuids(), st.uuids(), st.text(), st.text())
def test_different_things_have_different_keys(
    one: uuid.UUID, other: uuid.UUID, text: str, another: str
) -> None:
    assert (KEYS.entries(one) == KEYS.entries(other)) is (one == other)
    assert (KEYS.idempotency(one, text) == KEYS.idempotency(one, another)) is (text == another)
    assert (KEYS.row(one, "post", one) == KEYS.row(one, "post", other)) is (one == other)


def test_no_two_kinds_of_keys_can_be_the_same() -> None:
    author = uuid.uuid4()
    made = [make(author, "post") for make in OF_AN_AUTHOR.values()]
    made += [KEYS.stream(author), KEYS.sweep(), KEYS.cache_values(1), KEYS.cache_kept(1)]
    assert len(set(made)) == len(made)


@given(st.uuids(), st.uuids())
def test_a_short_id_is_the_same_id_in_the_same_order(one: uuid.UUID, other: uuid.UUID) -> None:
    assert long_id(short_id(one)) == one
    assert len(short_id(one)) == ID_CHARS
    assert (short_id(one) < short_id(other)) is (one.int < other.int)


def test_both_keys_of_a_shard_of_the_cache_live_together() -> None:
    assert slot(KEYS.cache_values(3)) == slot(KEYS.cache_kept(3))


def test_the_marker_and_who_rebuilds_live_together() -> None:
    """One script looks whether it is still the rebuilder and sets the marker."""
    assert slot(KEYS.marker()) == slot(KEYS.rebuilder())
    assert len({KEYS.marker(), KEYS.rebuilder(), KEYS.sweep()}) == 3


def test_every_key_carries_the_prefix_so_that_two_sites_can_share_a_server() -> None:
    author = uuid.uuid4()
    made = [make(author, "post") for make in OF_AN_AUTHOR.values()]
    assert all(key.startswith("afterwrite:") for key in [*made, KEYS.stream(author), KEYS.sweep()])
    assert RedisKeys("b").entries(author) != KEYS.entries(author)


def test_all_keys_are_looked_at_here() -> None:
    """A new kind of key must be added to these tests, and belong to an author or to nobody."""
    public = {name for name in vars(RedisKeys) if not name.startswith("_")}
    mine = {name.split()[0] for name in OF_AN_AUTHOR}
    of_nobody = {"stream", "sweep", "cache_values", "cache_kept", "marker", "rebuilder"}
    assert public == mine | of_nobody | {"base"}
    assert all(getattr(RedisKeys, name).__doc__ for name in public)
