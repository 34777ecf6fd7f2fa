"""Strategies of the property tests: JSON values and commands of any content."""

from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

from schema.commands import Author, Command, Mutation
from schema.identifiers import CommandId, RowId, UserId

TEXTS = st.text(max_size=20)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
)


def json_values(most: int = 8) -> st.SearchStrategy[Any]:
    """JSON values, nested less deep than the limit of strict JSON allows inside a command."""
    return st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
        max_leaves=most,
    )


@st.composite
def mutations(draw: st.DrawFn) -> Mutation:
    op = draw(st.sampled_from(["create", "update", "delete"]))
    values = {} if op == "delete" else draw(st.dictionaries(TEXTS, json_values(), max_size=4))
    version = draw(st.none() | st.integers(0, 2**31 - 1))
    return Mutation(op, draw(TEXTS), RowId(draw(st.uuids())), values, version)  # type: ignore[arg-type]


@st.composite
def commands(draw: st.DrawFn) -> Command:
    author = Author(UserId(draw(st.uuids())), draw(TEXTS), tuple(draw(st.lists(TEXTS, max_size=3))))
    replays = draw(st.none() | st.uuids())
    return Command(
        command_id=CommandId(draw(st.uuids())),
        stream=RowId(draw(st.uuids())),
        author=author,
        accepted_at=draw(st.datetimes(timezones=st.just(UTC), min_value=datetime(1, 1, 2))),  # noqa: DTZ001 - the zone is added
        mutations=tuple(draw(st.lists(mutations(), min_size=1, max_size=4))),
        idempotency_key=draw(st.none() | TEXTS),
        fingerprint=draw(st.none() | TEXTS),
        replays=None if replays is None else CommandId(replays),
    )
