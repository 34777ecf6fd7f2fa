"""One notice for what a rejection takes along; and what Afterwrite itself may tell an author."""

import uuid
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from schema.commands import Author, Command, Mutation
from schema.content import Row
from schema.identifiers import new_row_id
from schema.outcomes import Outcome
from tests.commands import command, create, delete, reaction, topic_with_post, update
from tests.deciding import ADA, BOB, CATALOG, NOW, Lane
from writer.decisions import Decision
from writer.failures import Halt
from writer.notices import MOST_BYTES, MOST_MUTATIONS
from writer.planner import _taken

pytestmark = pytest.mark.unit


@pytest.fixture
def lane() -> Lane:
    return Lane()


def _reply(topic: Mutation, body: str = "A reply") -> Mutation:
    return create("post", topic_id=str(topic.id), body=body)


def _told(decision: Decision) -> Row:
    assert decision.outcome is Outcome.REJECTED
    assert decision.notice is not None
    return decision.notice


def _bodies(notice: Row) -> list[str]:
    return [m["values"].get("body") for m in notice["returned"]["mutations"]]


# -- what hangs on a rejected command ---------------------------------------------------------------


def test_what_an_author_built_on_his_own_rejected_command_comes_back_in_one_notice(
    lane: Lane,
) -> None:
    topic, post = topic_with_post("", "first")
    parent = _told(lane.decide(ADA, topic, post))
    one = lane.decide(ADA, _reply(topic, "second"), stream=topic.id)
    two = lane.decide(ADA, _reply(topic, "third"), stream=topic.id)
    notice = _told(two)
    assert notice["id"] == _told(one)["id"] == parent["id"]
    assert (notice["version"], notice["code"]) == (3, "invalid")
    assert notice["command_id"] == parent["command_id"]
    assert _bodies(notice) == [None, "first", "second", "third"]
    assert notice["detail"].splitlines() == [
        parent["detail"],
        "2 more changes needed it, and could not be saved either.",
    ]
    assert [c.op for c in two.changes] == ["update"]
    assert [e["version"] for e in two.effects] == [3]


def test_what_hangs_on_a_dependant_hangs_on_the_first(lane: Lane) -> None:
    topic, post = topic_with_post("")
    parent = _told(lane.decide(ADA, topic, post))
    reply = _reply(topic)
    lane.decide(ADA, reply, stream=topic.id)
    last = lane.decide(ADA, update("post", reply.id, body="Better"), stream=reply.id)
    assert _told(last)["id"] == parent["id"]
    assert last.problem is not None
    assert last.problem.code == "parent_rejected"
    assert last.problem.extra == {"parent_command": str(parent["command_id"])}


def test_another_author_gets_one_notice_of_his_own(lane: Lane) -> None:
    topic, post = topic_with_post("")
    parent = _told(lane.decide(ADA, topic, post))
    first = _told(lane.decide(BOB, _reply(topic, "one"), stream=topic.id))
    second = _told(lane.decide(BOB, _reply(topic, "two"), stream=topic.id))
    assert first["id"] == second["id"] != parent["id"]
    assert second["user_id"] == BOB.id
    assert second["code"] == "parent_rejected"
    assert _bodies(second) == ["one", "two"]
    assert "The topic that this needs could not be saved." in second["detail"]


def test_two_rejections_are_two_notices(lane: Lane) -> None:
    notices = {_told(lane.decide(ADA, *topic_with_post("")))["id"] for _ in range(2)}
    assert len(notices) == 2


def test_to_a_notice_that_was_read_nothing_is_added(lane: Lane) -> None:
    topic, post = topic_with_post("")
    parent = _told(lane.decide(ADA, topic, post))
    lane.saved(ADA, update("notice", parent["id"], read=True))
    late = _told(lane.decide(ADA, _reply(topic, "late"), stream=topic.id))
    assert late["id"] != parent["id"]
    assert (late["version"], late["code"]) == (1, "parent_rejected")
    later = _told(lane.decide(ADA, _reply(topic, "later"), stream=topic.id))
    assert later["id"] == late["id"], "the next one joins the notice that is unread"


def test_a_notice_that_was_deleted_is_made_anew(lane: Lane) -> None:
    topic, post = topic_with_post("")
    parent = _told(lane.decide(ADA, topic, post))
    lane.rows.known["notice", parent["id"]] = None
    assert _told(lane.decide(ADA, _reply(topic), stream=topic.id))["version"] == 1


@pytest.mark.parametrize("body", ["x" * 60_000, "short"], ids=["bytes", "mutations"])
def test_a_notice_does_not_grow_without_bounds(lane: Lane, body: str) -> None:
    topic, post = topic_with_post("")
    lane.decide(ADA, topic, post)
    notices = [
        _told(lane.decide(ADA, _reply(topic, body), stream=topic.id))
        for _ in range(120 if body == "short" else 9)
    ]
    assert len({n["id"] for n in notices}) == (2 if body == "short" else 3)
    for notice in notices:
        assert len(notice["returned"]["mutations"]) <= MOST_MUTATIONS
        assert len(str(notice["returned"])) <= MOST_BYTES
    last = {n["id"]: n for n in notices}.values()
    assert sum(_bodies(n).count(body) for n in last) == len(notices), "each text came back once"


def test_what_was_deleted_is_nobodys_fault(lane: Lane) -> None:
    topic, post = topic_with_post()
    lane.saved(ADA, topic, post)
    lane.saved(ADA, delete("topic", topic.id))
    late = [lane.decide(BOB, _reply(topic), stream=topic.id) for _ in range(2)]
    assert len({_told(d)["id"] for d in late}) == 2


# -- the horizon --------------------------------------------------------------------------------------


def test_a_command_at_its_horizon_is_given_up_and_its_text_returned(lane: Lane) -> None:
    lane.now = NOW + timedelta(days=5) - timedelta(microseconds=1)
    lane.saved(ADA, *topic_with_post())
    lane.now = NOW + timedelta(days=5)
    topic, post = topic_with_post("Too late", "A text that took long")
    decision = lane.decide(ADA, topic, post)
    notice = _told(decision)
    assert (notice["kind"], notice["code"]) == ("rejected", "expired")
    assert notice["detail"] == (
        "It was tried since 2026-05-01 12:00 UTC and could not be saved in time."
    )
    assert notice["returned"] == {"mutations": [topic.to_json(), post.to_json()]}
    assert decision.denied == (topic.id, post.id)


def test_a_parked_command_is_given_up_at_its_horizon_and_so_is_what_waits_behind(
    lane: Lane,
) -> None:
    topic, _ = topic_with_post()
    first = lane.decide(BOB, _reply(topic), stream=topic.id)
    lane.decide(BOB, _reply(topic), stream=topic.id)
    held = lane.knowledge.parked[topic.id]
    lane.now = NOW + timedelta(days=5)
    decisions = [lane.planner().decide(parked.record, parked) for parked in held]
    assert [_told(d)["code"] for d in decisions] == ["expired", "expired"]
    assert all(d.was_parked for d in decisions)
    assert first.park is not None
    assert first.park.retry_at == NOW + timedelta(minutes=15)


def test_a_wait_ends_at_the_horizon_not_after_it(lane: Lane) -> None:
    lane.now = NOW + timedelta(days=5) - timedelta(minutes=1)
    parked = lane.decide(BOB, _reply(topic_with_post()[0]), stream=new_row_id())
    assert parked.park is not None
    assert parked.park.retry_at == NOW + timedelta(days=5)


def test_a_repetition_of_what_was_saved_does_not_expire(lane: Lane) -> None:
    what = command(ADA, *topic_with_post())
    lane.decided(what)
    lane.now = NOW + timedelta(days=9)
    assert lane.decided(what).outcome is Outcome.DUPLICATE


# -- what Afterwrite itself tells ---------------------------------------------------------------------


def _notice(who: Author, **changed: Any) -> Mutation:
    values = {
        "user_id": str(who.id),
        "kind": "delayed",
        "command_id": str(uuid.UUID(int=1)),
        "code": "delayed",
        "detail": "3 changes are safe and wait.",
    }
    return create("notice", **(values | changed))


def _system(who: Author, *mutations: Mutation) -> Command:
    return replace(command(who, *mutations, stream=who.id), system=True)


def test_a_notice_of_afterwrite_itself_is_saved_as_it_is(lane: Lane) -> None:
    mutation = _notice(ADA)
    decision = lane.decided(_system(ADA, mutation))
    assert decision.outcome is Outcome.SAVED, decision.problem
    assert [(c.op, c.kind.name) for c in decision.changes] == [("create", "notice")]
    row = lane.row("notice", mutation.id)
    assert (row["user_id"], row["kind"], row["read"], row["returned"]) == (
        ADA.id, "delayed", False, None,
    )  # fmt: skip
    CATALOG.notice.model.model_validate({n: row[n] for n in CATALOG.notice.fields})
    assert not lane.has("user", ADA.id), "nothing refers to the author's row"


def test_it_is_saved_once(lane: Lane) -> None:
    what = _system(ADA, _notice(ADA))
    assert lane.decided(what).outcome is Outcome.SAVED
    assert lane.decided(what).outcome is Outcome.DUPLICATE


def test_it_waits_behind_nobody_and_never_expires(lane: Lane) -> None:
    lane.decide(BOB, create("post", topic_id=str(ADA.id), body="x"), stream=ADA.id)
    assert ADA.id in lane.knowledge.parked
    lane.now = NOW + timedelta(days=30)
    assert lane.decided(_system(ADA, _notice(ADA))).outcome is Outcome.SAVED


@pytest.mark.parametrize(
    ("mutations", "code"),
    [
        (topic_with_post(), "forbidden"),
        ((_notice(ADA), create("topic", title="t")), "forbidden"),
        ((update("notice", new_row_id(), read=True),), "forbidden"),
        ((delete("notice", new_row_id()),), "forbidden"),
        ((_notice(BOB),), "forbidden"),
        ((_notice(ADA, user_id="no uuid"),), "invalid"),
        ((_notice(ADA, detail=""),), "invalid"),
        ((create("notice", user_id=str(ADA.id)),), "invalid"),
    ],
    ids=["content", "content, too", "update", "delete", "another's", "no id", "empty", "bare"],
)
def test_whatever_else_it_orders_is_rejected_and_nobody_is_told(
    lane: Lane, mutations: tuple[Mutation, ...], code: str
) -> None:
    decision = lane.decided(_system(ADA, *mutations))
    assert decision.outcome is Outcome.REJECTED
    assert decision.problem is not None
    assert (decision.problem.code, decision.problem.extra) == (code, {"system": True})
    assert decision.changes == []
    assert not any(row for row in lane.rows.known.values())


def test_a_field_of_a_newer_notifier_stops_the_lane(lane: Lane) -> None:
    with pytest.raises(Halt, match="notice has no field 'colour' here; upgrade the writer"):
        lane.decided(_system(ADA, _notice(ADA, colour="red")))


def test_an_author_cannot_make_a_notice(lane: Lane) -> None:
    decision = lane.decide(ADA, _notice(ADA))
    assert decision.problem is not None
    assert decision.problem.code in ("forbidden", "invalid")


# -- rows that vanish with others, ids that are taken ---------------------------------------------------


def test_what_was_seen_to_vanish_is_known_to_be_gone(lane: Lane) -> None:
    """Rows that nobody has read, but which hang on the one that goes."""
    topic, post = topic_with_post()
    lane.saved(ADA, topic, post)
    other, below = new_row_id(), new_row_id()
    lane.rows.hanging["topic", topic.id] = [("post", other)]
    lane.rows.hanging["post", other] = [("reaction", below)]
    decision = lane.saved(ADA, delete("topic", topic.id))
    assert decision.denied == (topic.id, *sorted([post.id, other, below]))
    late = lane.decide(ADA, update("post", other, body="x"), stream=other)
    assert late.problem is not None
    assert late.problem.code == "not_found"


def test_what_went_before_does_not_go_twice(lane: Lane) -> None:
    topic, post = topic_with_post()
    lane.saved(ADA, topic, post)
    lane.rows.hanging["topic", topic.id] = [("post", post.id)]
    lane.saved(ADA, delete("post", post.id))
    assert lane.saved(ADA, delete("topic", topic.id)).denied == (topic.id,)


def test_of_very_many_that_vanish_so_many_are_remembered(lane: Lane) -> None:
    topic, _ = topic_with_post()
    lane.saved(ADA, topic)
    lane.rows.hanging["topic", topic.id] = [("post", new_row_id()) for _ in range(3000)]
    assert len(lane.saved(ADA, delete("topic", topic.id)).denied) == 1001


def test_who_may_not_create_is_not_told_whether_it_is_there(lane: Lane) -> None:
    topic, post = topic_with_post()
    lane.saved(ADA, topic, post)
    lane.saved(BOB, *topic_with_post())
    lane.row("user", BOB.id)["banned"] = True
    taken = create("post", post.id, topic_id=str(topic.id), body="x")
    assert lane.refused(BOB, taken).code == "forbidden"
    lane.row("user", BOB.id)["banned"] = False
    assert lane.refused(BOB, taken).code == "id_taken"


def test_putting_what_is_there_needs_the_same_right_as_putting_it(lane: Lane) -> None:
    topic, post = topic_with_post()
    lane.saved(ADA, topic, post)
    put = reaction(post.id, BOB, "+1")
    lane.saved(BOB, put)
    lane.row("user", BOB.id)["banned"] = True
    assert lane.refused(BOB, put).code == "forbidden"


def test_of_a_row_that_one_may_not_read_one_is_not_told_that_it_is_there() -> None:
    row = {"user_id": ADA.id}
    for who, code in ((ADA, "id_taken"), (BOB, "invalid")):
        assert _taken(CATALOG.notice, row, command(who, create("notice"))).code == code
    assert _taken(CATALOG["topic"], {}, command(BOB, create("topic"))).code == "id_taken"
