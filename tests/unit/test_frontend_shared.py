"""What others see of pending content: nothing, unless its type says `everyone` and Kafka has it."""

import uuid
from typing import Any

import pytest

from frontend_api.merge import Shown
from frontend_api.metrics import build_metrics
from frontend_api.overlay import Count, OverlayState
from frontend_api.planning import Planner
from frontend_api.problems import ProblemError
from frontend_api.redis_access import RedisUnavailable
from frontend_api.seen import OverlayIncomplete
from frontend_api.submission import Accepted
from frontend_api.view import DatabaseUnavailable
from schema import forum
from schema.catalog import Catalog
from schema.commands import Author
from schema.identifiers import user_id_for
from schema.outcomes import State
from tests.fakes import FakeBackends, frontend_settings

pytestmark = pytest.mark.unit

ADA, BEN = (Author(user_id_for(name), name) for name in ("ada", "ben"))


class Post(forum.Post):
    """A post that everybody may see at once."""

    visible_while_pending = "everyone"


OPEN = Catalog([forum.User, forum.Topic, Post, forum.Reaction, forum.Notice])


class Site:
    """Two authors, one front end over fakes."""

    def __init__(self) -> None:
        self.backends = FakeBackends(frontend_settings(), OPEN, build_metrics())
        self.reader = self.backends.services.reader

    async def send(self, author: Author, what: str, type_: str, *values: Any) -> uuid.UUID:
        planner = Planner(OPEN, author)
        getattr(planner, what)(OPEN[type_], *values)
        accepted = await self.backends.services.submissions.submit(planner.plan(None, ""))
        assert isinstance(accepted, Accepted)
        return uuid.UUID(str(accepted.effects[0].planned.mutation.id))

    async def topic(self, author: Author = ADA) -> uuid.UUID:
        return await self.send(author, "create", "topic", {"title": "t", "body": "first"})

    async def post(self, topic: uuid.UUID, body: str, author: Author = ADA) -> uuid.UUID:
        return await self.send(author, "create", "post", {"topic_id": str(topic), "body": body})

    def save_all(self) -> None:
        while self.backends.apply_next() or self.backends.settle_next():
            pass

    async def posts(self, reader: Author, topic: uuid.UUID) -> list[Shown]:
        page = await self.reader.page(reader.id, OPEN.lists["topic_posts"], topic, None, 50)
        assert page is not None
        return list(page.page.items)

    async def bodies(self, reader: Author, topic: uuid.UUID) -> list[str]:
        return [shown.row["body"] for shown in await self.posts(reader, topic)]

    async def count(self, reader: Author, topic: uuid.UUID) -> int:
        shown, _ = await self.reader.row(reader.id, OPEN["topic"], topic)
        assert shown is not None
        return int(shown.row["post_count"])


async def test_a_pending_post_is_there_for_everybody_and_its_command_for_its_author_only() -> None:
    site = Site()
    topic = await site.topic()
    site.save_all()
    post = await site.post(topic, "open")
    for reader in (ADA, BEN):
        assert await site.bodies(reader, topic) == ["first", "open"]
        assert await site.count(reader, topic) == 2
    theirs, _ = await site.reader.row(BEN.id, OPEN["post"], post)
    assert theirs is not None
    assert (theirs.state, theirs.command) == (State.PENDING, None)
    own, _ = await site.reader.row(ADA.id, OPEN["post"], post)
    assert own is not None
    assert own.command is not None
    site.save_all()
    for reader in (ADA, BEN):
        assert await site.bodies(reader, topic) == ["first", "open"]
        assert await site.count(reader, topic) == 2


async def test_edits_and_deletes_are_shared_too_and_stacked_in_the_order_of_the_log() -> None:
    site = Site()
    topic = await site.topic()
    site.save_all()
    post = await site.post(topic, "one")
    await site.send(ADA, "change", "post", post, {"body": "two"}, None)
    assert await site.bodies(BEN, topic) == ["first", "two"]
    await site.send(ADA, "delete", "post", post, None)
    assert await site.bodies(BEN, topic) == ["first"]
    assert await site.count(BEN, topic) == 1


async def test_until_kafka_has_confirmed_it_is_its_authors_alone() -> None:
    site = Site()
    topic = await site.topic()
    site.save_all()
    site.backends.log.mode = "hide"
    with pytest.raises(ProblemError):
        await site.post(topic, "perhaps")
    assert await site.bodies(ADA, topic) == ["first", "perhaps"]
    assert await site.bodies(BEN, topic) == ["first"]
    assert await site.count(BEN, topic) == 1


async def test_a_rejected_one_is_gone_for_everybody() -> None:
    site = Site()
    topic = await site.topic()
    site.save_all()
    await site.post(topic, "no")
    assert site.backends.apply_next(reject=True)
    for reader in (ADA, BEN):  # at once, before the overlay has heard of it
        assert await site.bodies(reader, topic) == ["first"]
        assert await site.count(reader, topic) == 1
    site.save_all()
    for reader in (ADA, BEN):
        assert await site.bodies(reader, topic) == ["first"]


async def test_what_is_shared_within_something_that_is_not_stays_hidden() -> None:
    site = Site()
    topic = await site.topic()  # its first post is shared, the topic itself is not
    post = (await site.posts(ADA, topic))[0].row["id"]
    shown, _ = await site.reader.row(BEN.id, OPEN["post"], post)
    assert shown is None
    assert await site.reader.page(BEN.id, OPEN.lists["topic_posts"], topic, None, 50) is None
    site.backends.database.available = False
    shown, _ = await site.reader.row(ADA.id, OPEN["post"], post)
    assert shown is not None


async def test_pages_neither_skip_nor_repeat_what_two_authors_share() -> None:
    site = Site()
    topic = await site.topic()
    site.save_all()
    made = [await site.post(topic, f"{n}", (ADA, BEN)[n % 2]) for n in range(40)]
    for reader in (ADA, BEN):
        seen: list[uuid.UUID] = []
        after = None
        while True:
            page = await site.reader.page(reader.id, OPEN.lists["topic_posts"], topic, after, 3)
            assert page is not None
            seen += [s.row["id"] for s in page.page.items]
            after = page.page.next_after
            if after is None:
                break
        assert seen[1:] == sorted(made)
        assert await site.count(reader, topic) == 41


async def test_what_may_be_pending_is_not_said_to_be_missing() -> None:
    site = Site()
    topic = await site.topic()
    site.save_all()
    site.backends.overlay.state = OverlayState.REBUILDING
    unknown = uuid.uuid4()
    with pytest.raises(OverlayIncomplete):
        await site.reader.row(ADA.id, OPEN["topic"], unknown)
    with pytest.raises(OverlayIncomplete):
        await site.reader.page(ADA.id, OPEN.lists["topic_posts"], unknown, None, 5)
    shown, view = await site.reader.row(ADA.id, OPEN["topic"], topic)
    assert shown is not None
    assert not view.freshness.whole
    # An edit of what cannot be seen now is taken: the writer knows whether it is there.
    await site.send(ADA, "change", "topic", unknown, {"title": "later"}, 7)


async def test_cached_rows_are_merged_by_the_place_of_their_snapshot() -> None:
    site = Site()
    topic = await site.topic()
    site.save_all()
    post = await site.post(topic, "one")
    await site.send(ADA, "change", "post", post, {"body": "two"}, None)
    assert site.backends.apply_next()  # the post is saved, its edit is not
    assert await site.bodies(ADA, topic) == ["first", "two"]  # and kept as it is now
    await site.reader.row(ADA.id, OPEN["topic"], topic)
    site.save_all()
    site.backends.database.available = False
    late = await site.post(topic, "three")
    page = await site.reader.page(ADA.id, OPEN.lists["topic_posts"], topic, None, 50)
    assert page is not None
    assert [(s.row["body"], s.version) for s in page.page.items] == [
        ("first", 1),
        ("two", 2),
        ("three", 1),
    ]
    assert page.freshness.stale_s == site.backends.cache.age_s
    assert await site.count(ADA, topic) == 3
    shown, view = await site.reader.row(ADA.id, OPEN["post"], late)
    assert shown is not None
    assert view.freshness.stale_s is not None


async def test_what_was_not_there_when_it_was_cached_is_not_said_to_be_missing_later() -> None:
    site = Site()
    topic = await site.topic()
    reaction = OPEN["reaction"], uuid.uuid4()
    assert (await site.reader.row(BEN.id, *reaction))[0] is None  # its absence is cached
    site.backends.database.available = False
    with pytest.raises(DatabaseUnavailable):
        await site.reader.row(BEN.id, *reaction)
    shown, _ = await site.reader.row(ADA.id, OPEN["topic"], topic)
    assert shown is not None


@pytest.mark.parametrize("state", [OverlayState.UNAVAILABLE, OverlayState.REBUILDING])
async def test_counts_that_are_not_whole_are_said_to_be_so(state: OverlayState) -> None:
    """Redis goes away, or loses its memory, when the rows were read and the counts were not."""
    site = Site()
    topic = await site.topic()
    site.save_all()
    await site.post(topic, "pending")

    async def too_late(*_: Any) -> tuple[list[Count], OverlayState]:
        if state is OverlayState.UNAVAILABLE:
            raise RedisUnavailable
        return [Count()], state

    site.backends.overlay.counts = too_late  # type: ignore[method-assign, assignment]
    for available in (True, False):
        site.backends.database.available = available
        shown, view = await site.reader.row(ADA.id, OPEN["topic"], topic)
        assert shown is not None
        assert view.freshness.overlay is state


async def test_what_is_deleted_unread_is_off_its_counter_and_its_list_all_the_same() -> None:
    """The row cannot be read when the deletion is accepted, but where it belongs was seen before."""
    site = Site()
    topic = await site.topic()
    post = await site.post(topic, "to be deleted")
    site.save_all()
    site.backends.overlay.lose()
    site.backends.streams.remember({post: topic})
    site.backends.database.available = False
    await site.send(ADA, "delete", "post", post, None)
    site.backends.database.available = True
    assert await site.count(ADA, topic) == 1
    assert await site.bodies(ADA, topic) == ["first"]
