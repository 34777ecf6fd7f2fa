"""Addresses and languages: only what can be passed on without any quoting is taken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.contact import MAX_ADDRESS, MAX_LANGUAGE, bare_address, language_tag

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    "address",
    ["ada@example.org", "a.b+c@x-y.example", "o'neil@localhost", f"{'a' * 64}@example.org"],
)
def test_one_bare_address_is_taken(address: str) -> None:
    assert bare_address(address) == address


@pytest.mark.parametrize(
    "address",
    [
        None, 7, [], {}, "", "ada", "@example.org", "ada@", "ada@ex ample.org", " ada@example.org",
        "ada@example.org ", "ada@example.org\n", "ada@example.org\r\nBcc: eve@example.org",
        "ada@example.org,eve@example.org", "ada@example.org;eve@example.org", "a@b@example.org",
        "Ada <ada@example.org>", "<ada@example.org>", '"ada"@example.org', "ada@[127.0.0.1]",
        ".ada@example.org", "ada.@example.org", "a..b@example.org", "ada@-x.example", "ada@x-.example",
        "ada@.example", "ada@example.", "ada@example..org", "ädä@example.org", "ada@exämple.org",
        "ada@example.org\x00", f"{'a' * 65}@example.org", f"a@{'b' * 64}.org",
        f"a@{'b' * 60}.{'c' * 60}.{'d' * 60}.{'e' * 60}.{'f' * 60}",
    ],
)  # fmt: skip
def test_whatever_is_more_or_less_than_one_address_is_not(address: object) -> None:
    assert bare_address(address) is None


@given(st.text(max_size=300))
def test_what_is_taken_needs_no_quoting_anywhere(text: str) -> None:
    address = bare_address(text)
    if address is not None:
        assert address == text
        assert len(address) <= MAX_ADDRESS
        assert address.isascii()
        assert address.isprintable()
        assert address.count("@") == 1
        assert not set(address) & set(' ,;:<>()[]\\"')


@pytest.mark.parametrize("tag", ["de", "en-GB", "zh-Hant-TW", "sl-rozaj-biske", "x" * 8])
def test_a_language_is_taken(tag: str) -> None:
    assert language_tag(tag) == tag


def test_a_language_with_underscores_is_mended() -> None:
    assert language_tag("en_US") == "en-US"


@pytest.mark.parametrize(
    "tag",
    [None, 1, "", "d", "de-", "-de", "de--x", "de\n", "d e", "de-abcdefghi", "deutsch-d\u00e4",
     "../etc", "en-" * (MAX_LANGUAGE // 3) + "en-x"],
)  # fmt: skip
def test_what_is_no_language_is_not_taken(tag: object) -> None:
    assert language_tag(tag) is None
