"""The author's view equals a plain model, whatever happens between log, database and overlay."""

import asyncio
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frontend_api import reading
from frontend_api.idempotency import Answer
from frontend_api.merge import Shown
from frontend_api.metrics import build_metrics
from frontend_api.planning import Planner
from frontend_api.problems import ProblemError
from frontend_api.view import DatabaseUnavailable
from schema.catalog import load_catalog
from schema.commands import Author, Command
from schema.identifiers import user_id_for
from schema.outcomes import State
from tests.fakes import FakeBackends, frontend_settings

pytestmark = pytest.mark.unit

ADA = Author(user_id_for("ada"), "ada")
CATALOG = load_catalog("schema.forum")
TOPIC, POST, REACTION = CATALOG["topic"], CATALOG["post"], CATALOG["reaction"]


@pytest.fixture(autouse=True, scope="module")
def short_reads() -> Iterator[None]:
    """Few members at a time, so that a handful of changes is more than one read returns."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_SPARE_MEMBERS", 1)
        yield


@dataclass
class Model:
    """What the author must see: all accepted commands in order, without those known as rejected."""

    topics: dict[uuid.UUID, str] = field(default_factory=dict)
    posts: dict[uuid.UUID, tuple[uuid.UUID, str, int]] = field(default_factory=dict)
    reactions: dict[uuid.UUID, uuid.UUID] = field(default_factory=dict)

    def apply(self, command: Command) -> None:
        for m in command.mutations:
            getattr(self, f"_{m.op}_{m.type}")(m.id, m.values)

    def _create_topic(self, row_id: uuid.UUID, values: Any) -> None:
        self.topics[row_id] = values["title"]

    def _delete_topic(self, row_id: uuid.UUID, values: Any) -> None:
        self.topics.pop(row_id, None)

    def _create_post(self, row_id: uuid.UUID, values: Any) -> None:
        self.posts[row_id] = (uuid.UUID(values["topic_id"]), values["body"], 1)

    def _update_post(self, row_id: uuid.UUID, values: Any) -> None:
        if row_id in self.posts:
            topic, _, version = self.posts[row_id]
            self.posts[row_id] = (topic, values["body"], version + 1)

    def _delete_post(self, row_id: uuid.UUID, values: Any) -> None:
        self.posts.pop(row_id, None)

    def _create_reaction(self, row_id: uuid.UUID, values: Any) -> None:
        self.reactions[row_id] = uuid.UUID(values["post_id"])

    def _delete_reaction(self, row_id: uuid.UUID, values: Any) -> None:
        self.reactions.pop(row_id, None)

    def posts_of(self, topic: uuid.UUID) -> list[tuple[uuid.UUID, str, int]]:
        return sorted((i, body, v) for i, (t, body, v) in self.posts.items() if t == topic)


class World:
    """The front end over fakes, and what was accepted so far."""

    def __init__(self) -> None:
        self.backends = FakeBackends(frontend_settings(), CATALOG, build_metrics())
        self.rejected: set[uuid.UUID] = set()
        self.swept = 0

    def model(self) -> Model:
        """Rejections count once the snapshot that is read, or the overlay, knows them."""
        model = Model()
        database = self.backends.database
        seen = database.history[max(0, len(database.history) - 1 - database.lag)]
        for number, command in enumerate(self.backends.log.commands()):
            known = command.command_id in seen.ledger or number < self.backends.settled
            if command.command_id in self.rejected and known:
                continue
            model.apply(command)
        return model

    async def act(self, what: str, pick: int) -> None:
        model = self.model()
        planner = Planner(CATALOG, ADA)
        topics, posts = list(model.topics), list(model.posts)
        topic = topics[pick % len(topics)] if topics else None
        post = posts[pick % len(posts)] if posts else None
        match what:
            case "topic":
                planner.create(TOPIC, {"title": f"t{pick}", "body": f"b{pick}"})
            case "post" if topic:
                planner.create(POST, {"topic_id": str(topic), "body": f"p{pick}"})
            case "edit" if post:
                planner.change(POST, post, {"body": f"e{pick}"}, None)
            case "delete" if post:
                planner.delete(POST, post, None)
            case "react" if post:
                planner.create(REACTION, {"post_id": str(post), "emoji": f"e{pick % 3}"})
            case "unreact" if model.reactions:
                planner.delete(REACTION, list(model.reactions)[pick % len(model.reactions)], None)
            case _:
                self._pass_on(what, pick)
        if len(planner):
            try:
                await self.backends.services.submissions.submit(planner.plan(None, ""))
            except ProblemError as error:
                assert error.problem.code in ("not_found", "target_missing"), error.problem  # noqa: PT017

    def _pass_on(self, what: str, pick: int) -> None:
        match what:
            case "apply" | "reject":
                self._apply(reject=what == "reject")
            case "settle":
                self.backends.settle_next()
            case "sweep":
                self._sweep()
            case "lag":
                self.backends.database.lag = pick % 4

    def _apply(self, *, reject: bool) -> None:
        commands = self.backends.log.commands()
        if self.backends.applied >= len(commands):
            return
        command = commands[self.backends.applied]
        # Only what nothing else depends on is rejected here: the model knows no consequences.
        leaf = all(m.type == "post" and m.op == "update" for m in command.mutations)
        self.backends.apply_next(reject=reject and leaf)
        outcome = self.backends.database.tables.ledger[command.command_id]["outcome"]
        if outcome == "rejected":
            self.rejected.add(command.command_id)

    def _sweep(self) -> None:
        """A settled entry outlives every replica's lag."""
        if self.swept < self.backends.settled and self.swept < self.backends.applied - 4:
            self.backends.overlay.sweep(self.backends.log.commands()[self.swept])
            self.swept += 1

    async def check(self) -> None:
        model = self.model()
        topics = await self._list("topics", None)
        assert {s.row["id"]: s.row["title"] for s in topics} == model.topics
        assert [s.row["id"] for s in topics] == sorted(model.topics, reverse=True)
        for shown in topics:
            topic = shown.row["id"]
            posts = await self._list("topic_posts", topic)
            seen = [(s.row["id"], s.row["body"], s.version) for s in posts]
            assert seen == model.posts_of(topic)
            assert shown.row["post_count"] == len(seen)
            for one in posts:
                count = sum(post == one.row["id"] for post in model.reactions.values())
                assert one.row["reaction_count"] == count
                alone, _ = await self.backends.services.reader.row(ADA.id, POST, one.row["id"])
                assert alone == one
                assert (one.command is None) == (one.state is State.SAVED)

    async def _list(self, name: str, parent: uuid.UUID | None) -> list[Shown]:
        """All pages, by two."""
        found: list[Shown] = []
        after = None
        while True:
            page = await self.backends.services.reader.page(
                ADA.id, CATALOG.lists[name], parent, after, 2
            )
            assert page is not None
            found += page.page.items
            if page.page.next_after is None:
                return found
            after = page.page.next_after


ACTIONS = st.sampled_from(
    [
        "topic",
        "post",
        "post",
        "edit",
        "delete",
        "react",
        "unreact",
        "apply",
        "apply",
        "reject",
        "settle",
        "sweep",
        "lag",
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(ACTIONS, st.integers(0, 30)), max_size=40))
def test_the_view_equals_the_model(actions: list[tuple[str, int]]) -> None:
    async def run() -> None:
        world = World()
        await world.act("topic", 0)
        for what, pick in actions:
            await world.act(what, pick)
            await world.check()

    asyncio.run(run())


async def test_a_page_ends_where_the_overlay_was_read_to() -> None:
    world = World()
    await world.act("topic", 0)
    topic = next(iter(world.model().topics))
    for number in range(300):
        planner = Planner(CATALOG, ADA)
        planner.create(POST, {"topic_id": str(topic), "body": str(number)})
        accepted = await world.backends.services.submissions.submit(planner.plan(None, ""))
        assert not isinstance(accepted, Answer)
    page = await world.backends.services.reader.page(
        ADA.id, CATALOG.lists["topic_posts"], topic, None, 50
    )
    assert page is not None
    assert len(page.page.items) == 50
    assert page.page.next_after == page.page.items[-1].row["id"]


async def test_without_the_database_the_author_still_reads_what_he_wrote() -> None:
    world = World()
    await world.act("topic", 1)
    topic = next(iter(world.model().topics))
    world.backends.database.available = False
    await world.act("post", 2)
    post = next(i for i, (_, body, _) in world.model().posts.items() if body == "p2")
    await world.act("edit", list(world.model().posts).index(post))
    reader = world.backends.services.reader
    shown, view = await reader.row(ADA.id, POST, post)
    assert shown is not None
    assert shown.row["body"].startswith("e")
    assert not view.database_read
    shown, _ = await reader.row(ADA.id, TOPIC, topic)
    assert shown is not None
    assert shown.row["post_count"] == 2
    with pytest.raises(DatabaseUnavailable):
        await reader.row(ADA.id, TOPIC, uuid.uuid4())


async def test_an_edit_whose_list_is_not_known_still_shows_in_its_list() -> None:
    world = World()
    await world.act("topic", 0)
    while world.backends.apply_next() or world.backends.settle_next():
        pass
    for command in world.backends.log.commands():
        world.backends.overlay.sweep(command)
    post = next(iter(world.model().posts))
    world.backends.database.available = False
    await world.act("edit", list(world.model().posts).index(post))
    world.backends.database.available = True
    await world.check()
