"""The early check: what it asks for, in how many rounds, and what it says when a part is not known."""

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from frontend_api.early_check import Checked, EarlyCheck
from frontend_api.merge import Shown
from frontend_api.overlay import OverlayState
from frontend_api.overlay_rows import RowRef
from frontend_api.planning import Plan, Planner
from frontend_api.problems import ProblemError
from frontend_api.reading import Reader
from frontend_api.seen import Freshness, View
from schema.catalog import load_catalog
from schema.commands import Author, Command
from schema.content import Kind, Row
from schema.identifiers import CommandId, RowId, user_id_for

pytestmark = pytest.mark.unit

FORUM = load_catalog("schema.forum")
ADA = Author(user_id_for("ada"), "ada")
NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
TOPIC, OTHER_TOPIC, POST, ANSWERED = (uuid.UUID(int=n) for n in range(1, 5))


def row(kind: str, row_id: uuid.UUID, **values: Any) -> Row:
    declared = {n: f.default for n, f in FORUM[kind].fields.items()}
    counters = dict.fromkeys(FORUM[kind].counters, 0)
    standard = {"id": row_id, "version": 1, "created_at": NOW, "updated_at": NOW}
    return {**declared, **counters, **standard, **values}


WORLD: Mapping[RowRef, Row] = {
    ("user", ADA.id): row("user", ADA.id, name="ada", banned=False, moderator=False),
    ("topic", TOPIC): row("topic", TOPIC, author_id=ADA.id, title="T", locked=False),
    ("topic", OTHER_TOPIC): row("topic", OTHER_TOPIC, author_id=ADA.id, title="T", locked=False),
    ("post", POST): row("post", POST, topic_id=TOPIC, author_id=ADA.id, body="b"),
    ("post", ANSWERED): row("post", ANSWERED, topic_id=OTHER_TOPIC, author_id=ADA.id, body="b"),
}


class FakeReader:
    """Reads from a world of rows, and remembers what it was asked, round by round."""

    def __init__(self, world: Mapping[RowRef, Row] = WORLD) -> None:
        self.world = world
        self.state = OverlayState.COMPLETE
        self.away = False
        self.rounds: list[set[RowRef]] = []

    async def rows(
        self, author: uuid.UUID, wanted: Sequence[tuple[Kind, uuid.UUID]], *_: object, **__: object
    ) -> View:
        self.rounds.append({(kind.name, row_id) for kind, row_id in wanted})
        assert len(wanted) == len(self.rounds[-1])
        rows: dict[RowRef, Shown | None] = {}
        for kind, row_id in wanted if not self.away else ():
            found = self.world.get((kind.name, row_id))
            rows[kind.name, row_id] = Shown(found) if found is not None else None
        return View(rows, Freshness(self.state), database_read=not self.away)


class NoStreams:
    async def get(self, row_id: uuid.UUID) -> uuid.UUID | None:
        return None


def planner() -> Planner:
    return Planner(FORUM, ADA)


def post(into: Planner, topic: uuid.UUID = TOPIC, **values: Any) -> Plan:
    into.create(FORUM["post"], {"topic_id": str(topic), "body": "b", **values}, at="/0")
    return into.plan(None, "")


async def check(plan: Plan, reader: FakeReader, *, again: bool = False) -> Checked:
    early = EarlyCheck(FORUM, cast(Reader, reader), NoStreams(), lanes=1)
    mutations = tuple(p.mutation for p in plan.mutations)
    made = plan.command_id
    draft = Command(CommandId(made), RowId(made), plan.author, NOW, mutations)
    return await early.check(plan, draft, again=again)


async def refusal(plan: Plan, reader: FakeReader) -> str:
    with pytest.raises(ProblemError) as refused:
        await check(plan, reader)
    return refused.value.problem.code


async def test_a_new_row_takes_one_round() -> None:
    reader = FakeReader()
    checked = await check(post(planner(), reply_to=str(POST)), reader)
    assert reader.rounds == [{("user", ADA.id), ("topic", TOPIC), ("post", POST)}]
    assert checked.stream == TOPIC
    (effect,) = checked.effects
    assert effect.before_known
    assert effect.before is None
    assert effect.after is not None
    assert (effect.after["topic_id"], effect.after["author_id"]) == (TOPIC, ADA.id)


async def test_what_only_another_row_tells_takes_a_second_round() -> None:
    reader = FakeReader()
    reaction = planner()
    made = reaction.create(FORUM["reaction"], {"post_id": str(POST), "emoji": "+"})
    assert (await check(reaction.plan(None, ""), reader)).stream == TOPIC
    assert reader.rounds == [{("user", ADA.id), ("post", POST), ("reaction", made)}]
    taken_back = planner()
    taken_back.delete(FORUM["reaction"], made, None)
    there = row("reaction", made, post_id=POST, author_id=ADA.id, emoji="+")
    reader = FakeReader(dict(WORLD) | {("reaction", made): there})
    assert (await check(taken_back.plan(None, ""), reader)).stream == TOPIC
    assert reader.rounds == [{("user", ADA.id), ("reaction", made)}, {("post", POST)}]
    # What is there says what it refers to, and so the stream; and that is all there is to ask.
    change = planner()
    change.change(FORUM["post"], POST, {"body": "c"}, None)
    reader = FakeReader()
    assert (await check(change.plan(None, ""), reader)).stream == TOPIC
    assert reader.rounds == [{("user", ADA.id), ("post", POST)}]


async def test_a_row_with_an_id_of_the_clients_is_looked_for() -> None:
    chosen = planner()
    chosen.create(FORUM["post"], {"topic_id": str(TOPIC), "body": "b"}, row_id=POST)
    reader = FakeReader()
    assert await refusal(chosen.plan(None, ""), reader) == "id_taken"
    assert ("post", POST) in reader.rounds[0]


async def test_a_chain_of_parents_is_followed_to_the_rules_that_read_it() -> None:
    reader = FakeReader()
    elsewhere = post(planner(), reply_to=str(ANSWERED))
    assert await refusal(elsewhere, reader) == "forbidden"
    missing = post(planner(), reply_to=str(uuid.UUID(int=99)))
    assert await refusal(missing, FakeReader()) == "target_missing"
    locked = dict(WORLD) | {("topic", TOPIC): {**WORLD["topic", TOPIC], "locked": True}}
    assert await refusal(post(planner()), FakeReader(locked)) == "forbidden"
    banned = dict(WORLD) | {("user", ADA.id): {**WORLD["user", ADA.id], "banned": True}}
    assert await refusal(post(planner()), FakeReader(banned)) == "forbidden"


async def test_mutations_meet_what_the_ones_before_them_leave() -> None:
    several = planner()
    topic = several.create(FORUM["topic"], {"title": "T", "body": "b"})
    reader = FakeReader()
    opened, first = (await check(several.plan(None, ""), reader)).effects
    assert reader.rounds == [{("user", ADA.id)}]
    assert opened.after is not None
    assert first.after is not None
    assert (opened.after["post_count"], first.after["topic_id"]) == (1, topic)
    gone = planner()
    gone.delete(FORUM["post"], POST, None)
    gone.change(FORUM["post"], POST, {"body": "c"}, None)
    assert await refusal(gone.plan(None, ""), FakeReader()) == "not_found"


async def test_what_cannot_be_read_is_left_to_the_writer() -> None:
    reader = FakeReader({})
    reader.away = True
    checked = await check(post(planner()), reader)
    assert len(reader.rounds) == 1
    assert checked.stream == TOPIC
    # Without the whole overlay nothing is refused: what is missing there might allow it.
    reader = FakeReader({})
    reader.state = OverlayState.REBUILDING
    assert (await check(post(planner()), reader)).stream == TOPIC
    assert await refusal(post(planner()), FakeReader({})) == "target_missing"


async def test_what_may_be_in_the_log_already_is_not_refused_for_its_own_effects() -> None:
    plan = post(planner())
    made = plan.mutations[0].mutation.id
    there = dict(WORLD) | {("post", made): row("post", made, topic_id=TOPIC, author_id=ADA.id)}
    chosen = planner()
    chosen.create(FORUM["post"], {"topic_id": str(TOPIC), "body": "b"}, row_id=made)
    assert await refusal(chosen.plan(None, ""), FakeReader(there)) == "id_taken"
    checked = await check(chosen.plan(None, ""), FakeReader(there), again=True)
    assert checked.effects[0].before == there["post", made]


async def test_what_is_there_does_not_vouch_for_other_parents() -> None:
    """A natural key names a row that is there; what was sent may still refer to what is not."""
    values = {"post_id": str(uuid.UUID(int=98)), "emoji": "+"}
    reaction = planner()
    made = reaction.create(FORUM["reaction"], values)
    there = row("reaction", made, post_id=POST, author_id=ADA.id, emoji="+")
    world = dict(WORLD) | {("reaction", made): there}
    assert await refusal(reaction.plan(None, ""), FakeReader(world)) == "target_missing"
