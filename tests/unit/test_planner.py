"""The planner decides on rows in memory: permissions, versions, natural keys, parking, fates."""

import uuid
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from schema.commands import Author, Command, Mutation
from schema.envelope import Malformed
from schema.identifiers import RowId, derived_id, new_row_id
from schema.outcomes import Outcome, Problem
from tests.commands import author, command, create, delete, reaction, topic_with_post, update
from tests.deciding import ADA, BOB, CATALOG, MOD, NOW, POLICY, Lane
from writer.applier import _Queue
from writer.decisions import Decision
from writer.failures import Halt
from writer.knowledge import Knowledge, ParkedCommand
from writer.record import LaneRecord

pytestmark = pytest.mark.unit


@pytest.fixture
def lane() -> Lane:
    return Lane()


@pytest.fixture
def discussion(lane: Lane) -> tuple[Mutation, Mutation]:
    """Ada's topic with its first post, saved."""
    made = topic_with_post()
    lane.saved(ADA, *made)
    return made


def _reply(topic: Mutation, body: str = "A reply", **values: Any) -> Mutation:
    return create("post", topic_id=str(topic.id), body=body, **values)


# -- what is saved ------------------------------------------------------------------------------


def test_a_command_makes_its_authors_row_and_all_of_its_own(lane: Lane) -> None:
    topic, post = topic_with_post("Title", "Body")
    decision = lane.saved(ADA, topic, post)
    made = [(c.op, c.kind.name, c.row["id"]) for c in decision.changes]
    assert made == [
        ("create", "user", ADA.id),
        ("create", "topic", topic.id),
        ("create", "post", post.id),
    ]
    assert decision.stream == topic.id
    accepted = decision.record.command.accepted_at
    assert lane.row("topic", topic.id) == {
        "id": topic.id,
        "version": 1,
        "created_at": accepted,
        "updated_at": accepted,
        "author_id": ADA.id,
        "title": "Title",
        "locked": False,
    }
    assert lane.row("user", ADA.id)["name"] == "ada"


def test_an_authors_row_is_made_once(lane: Lane) -> None:
    first, second = lane.saved(ADA, *topic_with_post()), lane.saved(ADA, *topic_with_post())
    assert first.changes[0].kind.name == "user"
    assert "user" not in {c.kind.name for c in second.changes}


def test_counters_of_parents_move_with_creations_and_deletions(
    lane: Lane, discussion: tuple[Mutation, Mutation]
) -> None:
    topic, _ = discussion
    reply = _reply(topic)
    made, gone = lane.saved(BOB, reply), lane.saved(BOB, delete("post", reply.id))
    assert [c.counted for c in made.changes if c.kind.name == "post"] == [
        ((CATALOG["topic"], topic.id, "post_count", 1),)
    ]
    assert [c.counted for c in gone.changes] == [((CATALOG["topic"], topic.id, "post_count", -1),)]


def test_an_update_raises_the_version_and_keeps_the_rest(
    lane: Lane, discussion: tuple[Mutation, Mutation]
) -> None:
    _, post = discussion
    before = lane.row("post", post.id)
    decision = lane.saved(ADA, update("post", post.id, 1, body="Better"))
    assert lane.row("post", post.id) == before | {
        "version": 2,
        "body": "Better",
        "updated_at": decision.record.command.accepted_at,
    }


def test_later_mutations_of_a_command_meet_what_earlier_ones_did(lane: Lane) -> None:
    topic, post = topic_with_post()
    decision = lane.saved(ADA, topic, post, update("post", post.id, 1, body="At once better"))
    assert lane.row("post", post.id)["version"] == 2
    effects = {(e["type"], e["op"], e["version"]) for e in decision.effects}
    assert effects == {("user", "create", 1), ("topic", "create", 1), ("post", "update", 2)}


def test_a_command_takes_effect_as_a_whole_or_not_at_all(lane: Lane) -> None:
    topic, post = topic_with_post()
    problem = lane.refused(ADA, topic, post, update("topic", topic.id, locked=True))
    assert problem.code == "forbidden"
    assert not any(lane.has(*key) for key in lane.rows.known if key[0] != "notice")


# -- permission, at the writer, on the rows as they are now -----------------------------------------


def test_a_banned_author_writes_nothing(lane: Lane, discussion: tuple[Mutation, Mutation]) -> None:
    topic, post = discussion
    lane.row("user", ADA.id)["banned"] = True
    assert lane.refused(ADA, *topic_with_post()).code == "forbidden"
    assert lane.refused(ADA, _reply(topic)).code == "forbidden"
    assert lane.refused(ADA, update("post", post.id, body="x")).code == "forbidden"
    assert lane.refused(ADA, delete("post", post.id)).code == "forbidden"
    assert lane.refused(author("eve", "banned"), *topic_with_post()).code == "forbidden"


def test_a_ban_counts_from_the_very_next_command(lane: Lane) -> None:
    lane.saved(BOB, *topic_with_post())
    lane.saved(MOD, update("user", BOB.id, banned=True))
    assert lane.refused(BOB, *topic_with_post()).code == "forbidden"
    lane.saved(MOD, update("user", BOB.id, banned=False))
    lane.saved(BOB, *topic_with_post())


def test_a_locked_topic_takes_posts_of_moderators_only(
    lane: Lane, discussion: tuple[Mutation, Mutation]
) -> None:
    topic, _ = discussion
    lane.saved(MOD, update("topic", topic.id, locked=True))
    assert lane.refused(BOB, _reply(topic)).code == "forbidden"
    assert lane.refused(ADA, _reply(topic)).code == "forbidden"
    lane.saved(MOD, _reply(topic))


def test_only_the_author_or_a_moderator_changes_a_row(
    lane: Lane, discussion: tuple[Mutation, Mutation]
) -> None:
    topic, post = discussion
    for mutation in (
        update("post", post.id, body="Not mine"),
        update("topic", topic.id, title="Not mine"),
        delete("post", post.id),
        delete("topic", topic.id),
    ):
        assert lane.refused(BOB, mutation).code == "forbidden"
    lane.saved(MOD, update("post", post.id, body="Moderated"))
    assert lane.row("post", post.id)["author_id"] == ADA.id


def test_a_field_with_a_rule_of_its_own_is_set_by_whom_it_permits(
    lane: Lane, discussion: tuple[Mutation, Mutation]
) -> None:
    topic, _ = discussion
    assert lane.refused(ADA, update("topic", topic.id, locked=True)).code == "forbidden"
    assert lane.refused(ADA, create("topic", title="t", locked=True)).code == "forbidden"
    assert lane.refused(ADA, update("user", ADA.id, moderator=True)).code == "forbidden"
    assert lane.refused(MOD, update("user", ADA.id, moderator=True)).code == "forbidden"
    lane.saved(ADA, update("topic", topic.id, title="Same lock", locked=False))
    lane.saved(author("root", "admin"), update("user", ADA.id, moderator=True))
    lane.saved(ADA, update("topic", topic.id, locked=True))


def test_a_reply_stays_within_its_topic(lane: Lane, discussion: tuple[Mutation, Mutation]) -> None:
    topic, post = discussion
    other = topic_with_post()
    lane.saved(ADA, *other)
    lane.saved(BOB, _reply(topic, reply_to=str(post.id)))
    assert lane.refused(BOB, _reply(topic, reply_to=str(other[1].id))).code == "forbidden"


def test_nobody_makes_the_types_that_are_the_writers_own(lane: Lane) -> None:
    someone = create("user", name="eve")
    assert lane.refused(MOD, someone).code == "forbidden"
    notice = create("notice", read=False)
    assert lane.refused(MOD, notice).code in {"forbidden", "invalid"}
    lane.saved(ADA, *topic_with_post())
    assert lane.refused(ADA, delete("user", ADA.id)).code == "forbidden"


# -- versions, ids, values --------------------------------------------------------------------------


def test_a_version_that_has_passed_is_refused_and_told(
    lane: Lane, discussion: tuple[Mutation, Mutation]
) -> None:
    _, post = discussion
    lane.saved(ADA, update("post", post.id, 1, body="Second"))
    for late in (update("post", post.id, 1, body="Late"), delete("post", post.id, 1)):
        problem = lane.refused(ADA, late)
        assert (problem.code, problem.extra) == ("version_conflict", {"current_version": 2})
    assert lane.row("post", post.id)["body"] == "Second"
    lane.saved(ADA, update("post", post.id, body="Whatever its version"))
    lane.saved(ADA, delete("post", post.id, 3))


def test_an_id_is_given_once(lane: Lane, discussion: tuple[Mutation, Mutation]) -> None:
    topic, post = discussion
    taken = create("post", post.id, topic_id=str(topic.id), body="Another")
    assert lane.refused(BOB, taken).code == "id_taken"
    assert lane.row("post", post.id)["author_id"] == ADA.id


@pytest.mark.parametrize(
    ("values", "pointer", "code"),
    [
        ({"body": ""}, "/body", "text_short"),
        ({"body": "a\0b"}, "/body", "text_nul"),
        ({"body": "\ud800"}, "/body", "text_surrogate"),
        ({"body": "x" * 65_537}, "/body", "text_long"),
        ({"body": 7}, "/body", "string_type"),
        ({"body": None}, "/body", "string_type"),
        ({}, "/body", "string_type"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_values_are_validated_again(
    lane: Lane,
    discussion: tuple[Mutation, Mutation],
    values: dict[str, Any],
    pointer: str,
    code: str,
) -> None:
    topic, _ = discussion
    post = Mutation("create", "post", new_row_id(), {"topic_id": str(topic.id)} | values)
    problem = lane.refused(BOB, post)
    assert problem.code == "invalid"
    assert [(e["pointer"], e["code"]) for e in problem.errors] == [(pointer, code)]


@pytest.mark.parametrize("value", ["no uuid", 7, {"a": 1}, ""], ids=repr)
def test_a_reference_that_is_no_id_is_refused(lane: Lane, value: object) -> None:
    post = Mutation("create", "post", new_row_id(), {"topic_id": value, "body": "x"})
    assert lane.refused(ADA, post).code == "invalid"


@pytest.mark.parametrize(
    ("type_", "values"),
    [
        ("post", {"topic_id": str(uuid.UUID(int=1))}),
        ("post", {"author_id": str(BOB.id)}),
        ("notice", {"detail": "forged"}),
    ],
)
def test_what_never_changes_cannot_be_set(
    lane: Lane, discussion: tuple[Mutation, Mutation], type_: str, values: dict[str, Any]
) -> None:
    _, post = discussion
    lane.rows.known["notice", post.id] = {"id": post.id, "version": 1, "user_id": ADA.id}
    problem = lane.refused(ADA, update(type_, post.id, **values))
    assert (problem.code, problem.detail) == ("invalid", f"{next(iter(values))} cannot be set.")


def test_what_a_newer_front_end_knows_stops_the_lane_and_rejects_nothing(
    lane: Lane, discussion: tuple[Mutation, Mutation]
) -> None:
    _, post = discussion
    with pytest.raises(Halt, match="content type 'poll' is not known here; upgrade the writer"):
        lane.decide(ADA, create("poll", title="?"))
    with pytest.raises(Halt, match="post has no field 'colour' here; upgrade the writer"):
        lane.decide(ADA, update("post", post.id, colour="red"))


# -- natural keys -----------------------------------------------------------------------------------


def test_putting_a_reaction_twice_is_one_row_and_taking_it_back_twice_none(
    lane: Lane, discussion: tuple[Mutation, Mutation]
) -> None:
    _, post = discussion
    put = reaction(post.id, BOB, "+1")
    assert len([c for c in lane.saved(BOB, put).changes if c.kind.name == "reaction"]) == 1
    assert lane.saved(BOB, put).changes == []
    take_back = delete("reaction", put.id)
    assert [c.op for c in lane.saved(BOB, take_back).changes] == ["delete"]
    assert lane.saved(BOB, take_back).changes == []


def test_the_id_of_a_natural_key_cannot_be_chosen(
    lane: Lane, discussion: tuple[Mutation, Mutation]
) -> None:
    _, post = discussion
    values = {"post_id": str(post.id), "emoji": "+1"}
    of_ada = derived_id("reaction", str(post.id), str(ADA.id), "+1")
    for row_id in (new_row_id(), of_ada):
        problem = lane.refused(BOB, Mutation("create", "reaction", RowId(row_id), values))
        assert problem.code == "invalid"


def test_one_cannot_take_back_the_reaction_of_another(
    lane: Lane, discussion: tuple[Mutation, Mutation]
) -> None:
    _, post = discussion
    put = reaction(post.id, ADA, "+1")
    lane.saved(ADA, put)
    assert lane.refused(BOB, delete("reaction", put.id)).code == "forbidden"


# -- deletions, and what hangs on them ---------------------------------------------------------------


def test_a_deleted_topic_takes_its_posts_and_their_reactions_along(
    lane: Lane, discussion: tuple[Mutation, Mutation]
) -> None:
    topic, post = discussion
    other, put = topic_with_post(), reaction(post.id, BOB, "+1")
    lane.saved(ADA, *other)
    lane.saved(BOB, put)
    decision = lane.saved(ADA, delete("topic", topic.id))
    assert decision.denied == (topic.id, *sorted([post.id, put.id]))
    gone = [("topic", topic.id), ("post", post.id), ("reaction", put.id)]
    assert not any(lane.has(*key) for key in gone)
    assert lane.has("post", other[1].id)


def test_what_comes_after_a_deletion_is_rejected_at_once_not_parked(
    lane: Lane, discussion: tuple[Mutation, Mutation]
) -> None:
    topic, post = discussion
    lane.saved(ADA, delete("topic", topic.id))
    stream = topic.id
    assert lane.refused(ADA, update("topic", topic.id, title="x")).code == "not_found"
    assert lane.refused(ADA, delete("topic", topic.id)).code == "not_found"
    assert lane.refused(BOB, _reply(topic), stream=stream).code == "target_missing"
    assert lane.refused(ADA, update("post", post.id, body="x"), stream=stream).code == "not_found"


def test_a_weak_reference_may_dangle_later_but_not_at_first(
    lane: Lane, discussion: tuple[Mutation, Mutation]
) -> None:
    topic, post = discussion
    reply = _reply(topic, reply_to=str(post.id))
    lane.saved(BOB, reply)
    lane.saved(ADA, delete("post", post.id))
    assert lane.has("post", reply.id)
    lane.saved(BOB, update("post", reply.id, body="Still mine"))
    assert lane.refused(BOB, _reply(topic, reply_to=str(post.id))).code == "target_missing"


# -- what is missing: parking and fates ----------------------------------------------------------------


def test_a_command_that_overtakes_its_parent_is_parked(lane: Lane) -> None:
    topic, _ = topic_with_post()
    decision = lane.decide(BOB, _reply(topic), stream=topic.id)
    assert decision.outcome is Outcome.PARKED
    assert decision.park is not None
    assert decision.park.waits_for == {topic.id}
    assert decision.park.retry_at == NOW + POLICY.dependency_wait
    assert decision.problem is None
    assert decision.notice is None
    assert decision.changes == []
    assert not lane.has("user", BOB.id), "a parked command changes nothing, not even its author"


def test_behind_a_parked_command_its_stream_waits_and_others_go_on(lane: Lane) -> None:
    topic, _ = topic_with_post()
    lane.decide(BOB, _reply(topic), stream=topic.id)
    behind = lane.decide(ADA, _reply(topic), stream=topic.id)
    assert behind.outcome is Outcome.PARKED
    assert behind.park is not None
    assert (behind.park.code, behind.park.retry_at) == ("waits_behind", None)
    lane.saved(ADA, *topic_with_post())


def _run(lane: Lane, *commands: Command) -> list[Decision]:
    """A batch as the applier decides it: what a saved command releases goes before what follows."""
    queue = _Queue(lane.knowledge, [lane.record(c) for c in commands])
    planner, decisions = lane.planner(), []
    for record, parked in queue:
        decision = planner.decide(record, parked)
        queue.done(decision, parked)
        decisions.append(decision)
    return decisions


def _told(decisions: list[Decision]) -> list[tuple[int, str]]:
    return [(d.record.offset, d.outcome.value) for d in decisions]


def test_the_parent_releases_what_waited_in_its_order_before_what_follows(lane: Lane) -> None:
    topic, post = topic_with_post()
    first, second, third = _reply(topic, "1"), _reply(topic, "2"), _reply(topic, "3")
    decisions = _run(
        lane,
        command(BOB, first, stream=topic.id),
        command(BOB, update("post", first.id, body="1b"), stream=topic.id),
        command(BOB, second, stream=topic.id),
        command(ADA, topic, post),
        command(BOB, third, stream=topic.id),
    )
    assert _told(decisions) == [
        (0, "parked"), (1, "parked"), (2, "parked"),
        (3, "saved"), (0, "saved"), (1, "saved"), (2, "saved"), (4, "saved"),
    ]  # fmt: skip
    assert [d.was_parked for d in decisions] == [False] * 4 + [True] * 3 + [False]
    assert lane.row("post", first.id)["body"] == "1b"
    assert not lane.knowledge.parked


def test_a_released_command_that_misses_something_else_keeps_its_stream_back(lane: Lane) -> None:
    topic, post = topic_with_post()
    missing = new_row_id()
    decisions = _run(
        lane,
        command(BOB, _reply(topic, "1", reply_to=str(missing)), stream=topic.id),
        command(BOB, _reply(topic, "2"), stream=topic.id),
        command(ADA, topic, post),
        command(BOB, _reply(topic, "3"), stream=topic.id),
    )
    assert _told(decisions) == [
        (0, "parked"), (1, "parked"), (2, "saved"), (0, "parked"), (3, "parked"),
    ]  # fmt: skip
    held = lane.knowledge.parked[topic.id]
    assert [p.record.offset for p in held] == [0, 1, 3]
    assert held[0].waits_for == {missing}
    assert held[0].attempts == 1


def test_what_never_comes_is_given_up_after_the_wait(lane: Lane) -> None:
    topic, _ = topic_with_post()
    parked = lane.decide(BOB, _reply(topic), stream=topic.id)
    held: ParkedCommand = lane.knowledge.parked[topic.id][0]
    lane.now = NOW + POLICY.dependency_wait - timedelta(seconds=1)
    again = lane.planner().decide(parked.record, held)
    assert again.outcome is Outcome.PARKED
    assert again.park is not None
    assert again.park.parked_at == NOW, "the wait counts from the first time"
    lane.now = NOW + POLICY.dependency_wait
    given_up = lane.planner().decide(parked.record, held)
    assert given_up.outcome is Outcome.REJECTED
    assert given_up.was_parked
    assert given_up.problem is not None
    assert given_up.problem.code == "target_missing"
    assert given_up.notice is not None


def test_what_hangs_on_a_rejected_creation_is_rejected_for_that_reason(lane: Lane) -> None:
    topic, post = topic_with_post(title="")
    rejected = lane.decide(ADA, topic, post)
    assert rejected.denied == (topic.id, post.id)
    reply = _reply(topic)
    assert lane.refused(BOB, reply, stream=topic.id).code == "parent_rejected"
    assert lane.refused(BOB, update("post", reply.id, body="x"), stream=topic.id).code == (
        "parent_rejected"
    )
    assert lane.refused(BOB, reaction(post.id, BOB, "+1"), stream=topic.id).code == (
        "parent_rejected"
    )


def test_a_second_creation_may_bring_what_the_first_could_not(lane: Lane) -> None:
    topic, post = topic_with_post(title="")
    lane.decide(ADA, topic, post)
    lane.saved(ADA, create("topic", topic.id, title="Now with one"))
    lane.saved(BOB, _reply(topic), stream=topic.id)


def test_a_fate_that_may_still_change_parks() -> None:
    known, row, one, other = Knowledge(), uuid.uuid4(), uuid.uuid4(), uuid.uuid4()
    assert known.fate(row) is None
    known.deny(row, one, Outcome.REJECTED)
    assert known.fate(row) is Outcome.REJECTED
    known.deny(row, other, Outcome.PARKED)
    assert known.fate(row) is Outcome.PARKED, "a parked creation may still bring it"
    known.allow(row, other)
    known.deny(row, other, Outcome.SAVED)
    assert known.fate(row) is Outcome.SAVED, "it was there, and was deleted"
    known.allow(row, other)
    known.allow(row, one)
    assert known.fate(row) is None


# -- repetitions -----------------------------------------------------------------------------------


def test_a_command_that_comes_again_is_a_duplicate_of_itself(lane: Lane) -> None:
    what = command(ADA, *topic_with_post())
    first, again = (lane.planner().decide(lane.record(what)) for _ in range(2))
    assert first.outcome is Outcome.SAVED
    assert again.outcome is Outcome.DUPLICATE
    assert again.duplicate_of == what.command_id
    assert again.changes == []
    assert again.notice is None


def test_a_rejected_command_that_comes_again_is_not_rejected_twice(lane: Lane) -> None:
    what = command(ADA, *topic_with_post(title=""))
    lane.planner().decide(lane.record(what))
    assert lane.planner().decide(lane.record(what)).outcome is Outcome.DUPLICATE


def test_a_request_repeated_under_its_key_is_a_duplicate_of_the_first(lane: Lane) -> None:
    first = lane.saved(ADA, *topic_with_post(), key="k", fingerprint="f")
    again = lane.decide(ADA, *topic_with_post(), key="k", fingerprint="f")
    assert again.outcome is Outcome.DUPLICATE
    assert again.duplicate_of == first.record.command.command_id
    lane.saved(BOB, *topic_with_post(), key="k", fingerprint="f")
    lane.saved(ADA, *topic_with_post(), key="another", fingerprint="f")


def test_another_request_under_the_same_key_is_refused_and_leaves_the_key_to_the_first(
    lane: Lane,
) -> None:
    first = lane.saved(ADA, *topic_with_post(), key="k", fingerprint="f")
    other = topic_with_post()
    assert lane.refused(ADA, *other, key="k", fingerprint="g").code == "idempotency_key_reused"
    assert not lane.has("topic", other[0].id)
    again = lane.decide(ADA, *topic_with_post(), key="k", fingerprint="f")
    assert again.duplicate_of == first.record.command.command_id


def test_a_key_of_a_rejected_command_stays_used(lane: Lane) -> None:
    rejected = lane.decide(ADA, *topic_with_post(title=""), key="k", fingerprint="f")
    assert rejected.outcome is Outcome.REJECTED
    again = lane.decide(ADA, *topic_with_post(title=""), key="k", fingerprint="f")
    assert again.outcome is Outcome.DUPLICATE


# -- what is told ----------------------------------------------------------------------------------


def test_a_rejection_returns_everything_its_author_sent(lane: Lane) -> None:
    topic, post = topic_with_post("", "A long text that must not be lost")
    decision = lane.decide(ADA, topic, post)
    notice = decision.notice
    assert notice is not None
    assert notice["user_id"] == ADA.id
    assert notice["command_id"] == decision.record.command.command_id
    assert (notice["kind"], notice["code"], notice["read"]) == ("rejected", "invalid", False)
    assert notice["returned"] == {"mutations": [topic.to_json(), post.to_json()]}
    CATALOG.notice.model.model_validate({n: notice[n] for n in CATALOG.notice.fields})


def test_bytes_that_are_no_command_are_dead_and_tell_no_author(lane: Lane) -> None:
    record = LaneRecord(0, 0, 0, b"k", b"v", (), None, Malformed("not a command"))
    decision = lane.planner().decide(record)
    assert decision.outcome is Outcome.DEAD
    assert decision.stream is None
    assert decision.notice is None
    assert decision.problem is not None
    assert "not a command" in decision.problem.detail


def test_a_decision_that_the_database_refuses_becomes_a_rejection(lane: Lane) -> None:
    topic, post = topic_with_post()
    saved = lane.saved(ADA, topic, post)
    problem = Problem("unique_violation", "Something like this exists already.")
    rejected = lane.planner().reject(saved, problem)
    assert rejected.outcome is Outcome.REJECTED
    assert rejected.notice is not None
    assert [c.row for c in rejected.changes] == [rejected.notice]
    assert rejected.denied == (topic.id, post.id)
    assert lane.knowledge.fate(topic.id) is Outcome.REJECTED


# -- a batch ------------------------------------------------------------------------------------


def test_what_an_author_may_do_can_change_within_a_batch(
    lane: Lane, discussion: tuple[Mutation, Mutation]
) -> None:
    """Facts of an author are kept for a batch: not longer than his row and his token's roles stay."""
    topic, _ = discussion
    planner = lane.planner()

    def outcome(who: Author, *mutations: Mutation) -> Outcome:
        return planner.decide(lane.record(command(who, *mutations))).outcome

    assert outcome(BOB, _reply(topic)) is Outcome.SAVED
    assert outcome(MOD, update("user", BOB.id, banned=True)) is Outcome.SAVED
    assert outcome(BOB, _reply(topic)) is Outcome.REJECTED
    assert outcome(MOD, update("user", BOB.id, banned=False)) is Outcome.SAVED
    assert outcome(BOB, _reply(topic)) is Outcome.SAVED
    assert outcome(BOB, update("topic", topic.id, locked=True)) is Outcome.REJECTED
    promoted = replace(BOB, roles=("moderator",))
    assert outcome(promoted, update("topic", topic.id, locked=True)) is Outcome.SAVED
    assert outcome(BOB, update("topic", topic.id, locked=False)) is Outcome.REJECTED


def test_a_new_row_tells_its_stream_whatever_the_front_end_guessed(
    lane: Lane, discussion: tuple[Mutation, Mutation]
) -> None:
    topic, post = discussion
    for guessed in (topic.id, post.id, new_row_id()):
        assert lane.saved(BOB, _reply(topic), stream=guessed).stream == topic.id
