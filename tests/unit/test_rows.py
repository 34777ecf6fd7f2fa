"""Rows in memory: what vanishes with a row is what refers to it, however the rows came to be known."""

import uuid
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schema.catalog import load_catalog
from schema.content import Row
from writer.rows import Key, Rows, StagedRows

pytestmark = pytest.mark.unit

CATALOG = load_catalog("schema.forum")
IDS = [uuid.UUID(int=n) for n in range(3)]
ids = st.sampled_from(IDS)
steps = st.tuples(
    st.sampled_from(["read", "put", "put", "put", "remove"]),
    st.sampled_from(["topic", "post", "post", "reaction"]),
    ids,
    ids,
    st.booleans(),
)


def _row(type_: str, row_id: uuid.UUID, parent: uuid.UUID) -> Row:
    return {"id": row_id, "topic_id": parent, "post_id": parent, "reply_to": None, "type": type_}


def _below(rows: dict[Key, Row | None], parent: Key) -> set[Key]:
    """What hangs on a row, found by looking at every row."""
    ref = {"topic": ("post", "topic_id"), "post": ("reaction", "post_id")}.get(parent[0])
    found: set[Key] = set()
    for key, row in rows.items():
        if ref is not None and row is not None and key[0] == ref[0] and row[ref[1]] == parent[1]:
            found |= {key} | _below(rows, key)
    return found


@settings(max_examples=400)
@given(st.lists(steps, min_size=6, max_size=30))
def test_what_hangs_on_a_row_vanishes_with_it(todo: list[tuple[str, str, Any, Any, bool]]) -> None:
    rows = Rows({(name, i): None for name in ("topic", "post", "reaction") for i in IDS[:2]})
    model: dict[Key, Row | None] = dict(rows.known)
    staged = StagedRows(CATALOG, rows)
    for step, type_, row_id, parent, keep in todo:
        key: Key = (type_, row_id)
        if step == "remove" and model.get(key) is not None:
            staged.remove(CATALOG[type_], row_id)
            model |= dict.fromkeys(_below(model, key) | {key})
        elif step == "put":
            staged.put(CATALOG[type_], _row(type_, row_id, parent))
            model[key] = _row(type_, row_id, parent)
        elif step == "read" and key not in model:  # the loader reads on, between two commands
            model[key] = rows.known[key] = _row(type_, row_id, parent)
        if keep:
            staged.keep()
            staged = StagedRows(CATALOG, rows)
    for key, row in model.items():
        assert staged.get(*key) == row
