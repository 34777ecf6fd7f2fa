"""Comparing a dump with a database: every difference is found, and named once."""

import pytest

from deploy.load.verify import Item, match

pytestmark = pytest.mark.unit


def item(where: str, author: str = "a", title: str = "t", body: str = "b") -> Item:
    return Item(where, (author.encode(), title.encode(), body.encode()))


def differences(wanted: list[Item], found: list[Item]) -> list[str]:
    return match("topic", wanted, found)[0]


def test_equal_heaps_have_no_difference() -> None:
    assert differences([item("1"), item("2", "x")], [item("u", "x"), item("v")]) == []


def test_equal_items_are_counted() -> None:
    assert differences([item("1"), item("2")], [item("u"), item("v")]) == []


def test_a_missing_item_is_named() -> None:
    assert differences([item("1")], []) == ["missing: topic of row 1"]


def test_an_extra_item_is_named() -> None:
    assert differences([], [item("u")]) == ["extra: topic u"]


def test_a_double_is_an_extra_item() -> None:
    assert differences([item("1")], [item("u"), item("v")]) == ["extra: topic v"]


@pytest.mark.parametrize(
    ("found", "name"),
    [
        (item("u", author="x"), "author"),
        (item("u", title="x"), "title or parent"),
        (item("u", body="x"), "body"),
    ],
)
def test_a_changed_item_is_one_difference(found: Item, name: str) -> None:
    assert differences([item("1")], [found]) == [f"changed: topic u: its {name} is not row 1's"]


def test_items_with_nothing_in_common_are_not_taken_for_the_same() -> None:
    found = item("u", "x", "y", "b")
    assert differences([item("1")], [found]) == ["missing: topic of row 1", "extra: topic u"]
