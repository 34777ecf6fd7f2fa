"""What the overlay alone tells of rows that the database may have otherwise."""

import uuid
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from frontend_api.merge import Entry, in_order, merge_row
from frontend_api.overlay_rows import created_in
from schema.catalog import load_catalog
from schema.commands import Command, Mutation
from schema.identifiers import RowId
from schema.overlay import EntryState, Status
from tests.commands import author, command, notice_to, update

pytestmark = pytest.mark.unit

FORUM = load_catalog("schema.forum")
ADA = author("ada")


def placed(what: Command, seq: int, lane: int | None, offset: int | None) -> Entry:
    return Entry(what, Status(EntryState.PENDING, seq, lane, offset))


@pytest.mark.parametrize("seqs", [(1, 2), (2, 1)])
def test_a_notice_is_made_before_it_is_read_although_that_is_in_another_lane(
    seqs: tuple[int, int],
) -> None:
    notice = notice_to(ADA, uuid.uuid4())
    row_id = notice.mutations[0].id
    read = replace(
        command(ADA, update("notice", row_id, read=True)),
        accepted_at=notice.accepted_at + timedelta(seconds=1),
    )
    # After a rebuild the entries are counted lane by lane.
    made, marked = placed(notice, seqs[0], 2, 900), placed(read, seqs[1], 0, 3)
    assert in_order([marked, made]) == [made, marked]
    shown = merge_row(FORUM["notice"], row_id, None, [marked, made])
    assert shown is not None
    assert shown.row["read"]


def test_within_a_lane_the_log_decides_and_not_the_clock() -> None:
    first = command(ADA, update("topic", uuid.uuid4(), title="1"))
    second = replace(first, accepted_at=first.accepted_at - timedelta(seconds=9))
    one, two = placed(first, 2, 0, 7), placed(second, 1, 0, 8)
    assert in_order([two, one]) == [one, two]


OWN = FORUM["preference"].natural_id({"user_id": ADA.id})


def _create(**values: Any) -> Mutation:
    return Mutation("create", "preference", OWN, values)


@pytest.mark.parametrize(
    ("mutations", "known"),
    [
        ([_create(mail=False)], True),  # whatever was there: an older page of the same
        ([_create(), update("preference", OWN, mail=True, locale="de")], True),
        ([_create(), update("preference", OWN, mail=True)], False),
        (
            [
                _create(),
                update("preference", OWN, mail=True),
                update("preference", OWN, locale=None),
            ],
            True,
        ),
        ([update("preference", OWN, mail=True, locale="de")], False),
    ],
)
def test_what_may_have_been_there_is_known_once_everything_was_said_of_it(
    mutations: list[Mutation], known: bool
) -> None:
    entries = [placed(command(ADA, m), n, 0, n) for n, m in enumerate(mutations, start=1)]
    found = created_in(FORUM["preference"], uuid.UUID(str(RowId(OWN))), entries)
    assert (found is entries[0]) is known
    assert (found is None) is not known
