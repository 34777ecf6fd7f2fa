"""Reads served from a lagging replica: the author finds all that he did, at each moment and in each view."""

import asyncio
import signal
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from schema.identifiers import user_id_for
from schema.redis_keys import RedisKeys
from tests.acceptance.helpers import Site, down
from tests.installation import Installation, eventually, eventually_async
from tests.replica import Replica, replica_of

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(180)]

GRACE_S = 10


@pytest.fixture
async def replica(installation: Installation) -> AsyncIterator[Replica]:
    """An installation whose API reads from a replica; the writer works on the primary."""
    async with replica_of(installation.services) as made:
        url = made.url_like(installation.frontend_url)
        installation.extra |= {
            "AFTERWRITE_FRONTEND_DATABASE_URL": url,
            "AFTERWRITE_SETTLED_GRACE_S": str(GRACE_S),
            # No answer may say that it is not whole. One does so rightly when a server took too long,
            # which on a busy machine proves nothing: here they may take longer.
            "AFTERWRITE_REDIS_TIMEOUT_S": "5",
            "AFTERWRITE_READ_TIMEOUT_S": "5",
        }
        yield made
        await made.release()


@dataclass
class Post:
    id: str
    body: str
    version: int = 1
    reactions: int = 0


@dataclass
class Expected:
    """What one author must see of one topic in which nobody else writes."""

    site: Site
    user: str
    topic: str = ""
    title: str = ""
    version: int = 1
    posts: list[Post] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)

    # -- what he does -----------------------------------------------------------------------

    async def do(self, method: str, path: str, body: object = None, **headers: str) -> Any:
        headers.setdefault("If_Match", "*")
        answer = await self.site.ask(self.user, method, path, body, **headers)
        assert answer.status_code == 202, (method, path, answer.text)
        self.commands.append(answer.json().get("command") or answer.json()["id"])
        return answer.json()

    async def open(self, title: str, body: str) -> None:
        made = await self.do("POST", "/v1/topics", {"title": title, "body": body})
        self.topic, self.title, self.version = made["id"], title, 1
        self.posts = [Post(made["post"]["id"], body)]

    async def say(self, body: str) -> Post:
        made = await self.do("POST", f"/v1/topics/{self.topic}/posts", {"body": body})
        self.posts.append(Post(made["id"], body))
        return self.posts[-1]

    async def rename(self, title: str) -> None:
        path = f"/v1/topics/{self.topic}"
        await self.do("PATCH", path, {"title": title}, If_Match=f'"v{self.version}"')
        self.title, self.version = title, self.version + 1

    async def edit(self, post: Post, body: str) -> None:
        path = f"/v1/posts/{post.id}"
        await self.do("PATCH", path, {"body": body}, If_Match=f'"v{post.version}"')
        post.body, post.version = body, post.version + 1

    async def delete(self, post: Post) -> None:
        await self.do("DELETE", f"/v1/posts/{post.id}", If_Match=f'"v{post.version}"')
        self.posts.remove(post)

    async def react(self, post: Post, emoji: str) -> None:
        await self.do("PUT", f"/v1/posts/{post.id}/reactions/{emoji}")
        post.reactions += 1

    async def take_back(self, post: Post, emoji: str) -> None:
        await self.do("DELETE", f"/v1/posts/{post.id}/reactions/{emoji}")
        post.reactions -= 1

    async def everything_at_once(self) -> None:
        """One of each kind of change, some of them upon each other."""
        first, second, third = self.posts[:3]
        await self.edit(first, "edited once")
        await self.edit(first, "edited twice")
        await self.delete(second)
        await self.react(third, "👍")
        await self.react(third, "🎉")
        await self.take_back(third, "👍")
        added = await self.say("added")
        await self.edit(added, "added and edited")
        await self.react(added, "👍")
        gone = await self.say("added and deleted")
        await self.delete(gone)
        await self.rename("renamed")
        change: dict[str, object] = {"op": "update", "type": "post", "id": third.id}
        change |= {"values": {"body": "by a command"}, "expected_version": third.version}
        values = {"topic_id": self.topic, "body": "with it"}
        both = [change, {"op": "create", "type": "post", "values": values}]
        made = await self.do("POST", "/v1/commands", {"mutations": both})
        third.body, third.version = "by a command", third.version + 1
        self.posts.append(Post(made["rows"][1]["id"], "with it"))

    # -- what he must see -------------------------------------------------------------------

    async def holds(self, states: set[str]) -> None:
        """Every kind of read agrees, now. `states`: those that rows may be in."""
        ask = self.site.ask
        answer = await ask(self.user, "GET", f"/v1/topics/{self.topic}")
        assert answer.status_code == 200
        topic = answer.json()
        self._is_whole(topic)
        assert answer.headers["etag"] == f'"v{self.version}"'
        wanted = (self.title, self.version, len(self.posts))
        assert (topic["title"], topic["version"], topic["post_count"]) == wanted
        assert topic["state"] in states
        listed = await self._pages("/v1/topics", 3)
        assert [_plain(t) for t in listed if t["id"] == self.topic] == [_plain(topic)]
        rows = [(p.id, p.body, p.version, p.reactions) for p in self.posts]
        for limit in (1, 2, 100):
            found = await self._pages(f"/v1/topics/{self.topic}/posts", limit)
            seen = [(p["id"], p["body"], p["version"], p["reaction_count"]) for p in found]
            assert seen == rows, limit
            assert {p["state"] for p in found} <= states
        for post, shown in zip(self.posts, found, strict=True):
            await self._post_holds(post, shown)

    async def _post_holds(self, post: Post, listed: dict[str, Any]) -> None:
        answer = await self.site.ask(self.user, "GET", f"/v1/posts/{post.id}")
        assert answer.status_code == 200
        assert _plain(answer.json()) == _plain(listed)
        assert answer.headers["etag"] == f'"v{post.version}"'
        reactions = await self._pages(f"/v1/posts/{post.id}/reactions", 1)
        assert len(reactions) == post.reactions

    async def _pages(self, path: str, limit: int) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        following: str | None = f"{path}?limit={limit}"
        while following is not None:
            page = await self.site.ask(self.user, "GET", following)
            assert page.status_code == 200, page.text
            self._is_whole(page.json())
            assert len(page.json()["items"]) <= limit
            items += page.json()["items"]
            link = page.headers.get("link")
            following = link[1 : link.index(">")] if link else None
        ids = [item["id"] for item in items]
        assert len(set(ids)) == len(ids)
        return items

    def _is_whole(self, body: dict[str, Any]) -> None:
        """It says nothing to the contrary; else the API's log tells why it did."""
        marks = {mark: body[mark] for mark in ("overlay", "stale_s") if mark in body}
        if marks:
            events = self.site.installation.processes["api"].events()
            pytest.fail(f"{marks}: {[e for e in events if e['level'] != 'info'][-5:]}")

    async def decided(self) -> None:
        """Every command of his is settled, on the primary."""

        async def there() -> bool:
            known = await self.site.installation.value(
                "SELECT count(*) FROM afterwrite.ledger WHERE command_id = ANY($1) "
                "AND outcome = 'saved'",
                [uuid.UUID(c) for c in self.commands],
            )
            open_ = await self.site.installation.value(
                "SELECT sum(outcome_seq - settled_seq) FROM afterwrite.lane"
            )
            return bool(known == len(self.commands) and open_ == 0)

        await eventually_async(there, 30, "the author's commands to be settled")


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Without what may change between two requests."""
    return {key: value for key, value in row.items() if key not in ("state", "command")}


async def swept(installation: Installation, user: str) -> None:
    """Wait until nothing of the user's overlay is left."""
    entries = RedisKeys(installation.name).entries(user_id_for(user))
    async with Redis.from_url(installation.services.redis_url) as redis:

        async def gone() -> bool:
            return bool(await redis.hlen(entries) == 0)

        await eventually_async(gone, GRACE_S + 20, "the overlay to be swept")


async def opened(site: Site, replica: Replica) -> Expected:
    """A topic of Ada's with four posts, saved and replayed."""
    ada = Expected(site, "ada")
    await ada.open("the title", "first")
    for body in ("second", "third", "fourth"):
        await ada.say(body)
    await ada.react(ada.posts[2], "🔥")
    await ada.decided()
    await replica.caught_up()
    await ada.holds({"saved"})
    return ada


async def test_every_kind_of_change_is_there_at_every_stage(
    installation: Installation, replica: Replica
) -> None:
    async with Site(installation) as site:
        await site.start()
        ada = await opened(site, replica)
        before = await site.posts("bob", uuid.UUID(ada.topic))
        writer = installation.processes["writer"]
        writer.signal(signal.SIGSTOP)
        await replica.hold()
        await ada.everything_at_once()
        await ada.holds({"pending", "saved"})  # accepted only
        assert await site.posts("bob", uuid.UUID(ada.topic)) == before
        writer.signal(signal.SIGCONT)
        await ada.decided()
        for _ in range(3):
            await ada.holds({"saved"})  # on the primary, settled, and not on the replica
        assert await site.posts("bob", uuid.UUID(ada.topic)) == before
        for command in ada.commands[-3:]:
            found = (await site.ask("ada", "GET", f"/v1/commands/{command}")).json()
            assert found["state"] == "saved"
        await replica.release()
        await replica.caught_up()
        await ada.holds({"saved"})  # on the replica, and in the overlay still
        shown = [p["body"] for p in await site.posts("bob", uuid.UUID(ada.topic))]
        assert shown == [p.body for p in ada.posts]
        await swept(installation, "ada")
        await ada.holds({"saved"})  # on the replica only
        await ada.everything_at_once()  # and the same again upon that
        await ada.holds({"pending", "saved"})
        await ada.decided()
        await site.audited()


async def test_with_two_seconds_of_lag_no_read_ever_differs(
    installation: Installation, replica: Replica
) -> None:
    """Read without a pause, from the acceptance until the overlay has been swept."""
    async with Site(installation) as site:
        await site.start()
        ada = await opened(site, replica)
        await replica.delay(2)
        await ada.everything_at_once()
        reads = 0

        async def meanwhile(what: Callable[[], Awaitable[None]]) -> None:
            nonlocal reads
            until = asyncio.ensure_future(what())
            while not until.done():
                await ada.holds({"pending", "saved"})
                reads += 1
            await until

        await meanwhile(ada.decided)
        await meanwhile(replica.caught_up)
        await meanwhile(lambda: swept(installation, "ada"))
        await ada.holds({"saved"})
        assert reads > 10
        await site.audited()


async def test_a_rejected_change_is_gone_before_the_replica_knows_of_it(
    installation: Installation, replica: Replica
) -> None:
    async with Site(installation) as site:
        await site.start()
        ada = await opened(site, replica)
        writer = installation.processes["writer"]
        writer.signal(signal.SIGSTOP)
        await replica.hold()
        async with installation.client("mod", "moderator") as mod:
            locked = await mod.patch(
                f"/v1/topics/{ada.topic}", json={"locked": True}, headers={"If-Match": "*"}
            )
            assert locked.status_code == 202
        path = f"/v1/topics/{ada.topic}/posts"
        late = (await site.ask("ada", "POST", path, {"body": "too late"})).json()
        assert "too late" in [p["body"] for p in await site.posts("ada", uuid.UUID(ada.topic))]
        writer.signal(signal.SIGCONT)
        await site.reaches("ada", late["command"], "rejected")
        await ada.holds({"saved"})
        assert (await site.ask("ada", "GET", f"/v1/posts/{late['id']}")).status_code == 404
        await replica.release()
        await replica.caught_up()
        ada.version += 1  # the moderator's
        await ada.holds({"saved"})
        notices = (await site.ask("ada", "GET", "/v1/notices")).json()["items"]
        assert [n["command_id"] for n in notices] == [late["command"]]
        assert "too late" in str(notices[0]["returned"])
        assert (await site.ask("bob", "GET", "/v1/notices")).json()["items"] == []
        await site.audited()


async def test_waiting_for_the_outcome_does_not_wait_for_the_replica(
    installation: Installation, replica: Replica
) -> None:
    async with Site(installation) as site:
        await site.start()
        ada = await opened(site, replica)
        await replica.hold()
        path = f"/v1/topics/{ada.topic}/posts"
        answer = await site.ask("ada", "POST", path, {"body": "waited for"}, Prefer="wait=20")
        assert (answer.status_code, answer.json()["state"]) == (201, "saved")
        ada.posts.append(Post(answer.json()["id"], "waited for"))
        await ada.holds({"saved"})
        post = ada.posts[-1]
        await ada.edit(post, "at once edited")
        await ada.holds({"pending", "saved"})


async def test_the_primary_may_be_away_and_so_may_the_replica(
    installation: Installation, replica: Replica
) -> None:
    async with Site(installation) as site:
        await site.start()
        ada = await opened(site, replica)
        with down(installation.services, "postgres"):
            await ada.everything_at_once()
            await ada.holds({"pending", "saved"})
        await ada.decided()
        await replica.caught_up()
        await ada.holds({"saved"})
        replica.kill()
        added = await ada.say("while the replica is away")
        shown = await site.ask("ada", "GET", f"/v1/posts/{added.id}")
        assert (shown.status_code, shown.json()["body"]) == (200, added.body)
        await ada.decided()
        await replica.restart()

        async def reads_again() -> bool:
            answer = await site.ask("ada", "GET", f"/v1/topics/{ada.topic}")
            return answer.status_code == 200 and "stale_s" not in answer.json()

        await eventually_async(reads_again, 20, "the replica to be read again")
        await ada.holds({"pending", "saved"})
        await replica.caught_up()
        await ada.holds({"saved"})
        await site.audited()


async def test_a_read_survives_a_conflict_with_recovery(
    installation: Installation, replica: Replica
) -> None:
    """A read on a replica is cancelled (40001) when it is in the way of what is cleaned up.

    What the primary locks exclusively is locked at the replica, too. So a read can be made to wait
    for the lanes, which it reads last, and then to be in the way with the topic it has read before.
    """
    await replica.restart(max_standby_streaming_delay="0")
    async with Site(installation) as site:
        await site.start()
        ada = await opened(site, replica)
        await ada.rename("with something pending, or the ledger would not be asked")
        await ada.decided()
        await replica.caught_up()
        reading: list[asyncio.Task[Any]] = []
        owner = await asyncpg.connect(installation.owner_url)
        try:
            async with owner.transaction():
                await owner.execute("LOCK TABLE afterwrite.lane IN ACCESS EXCLUSIVE MODE")
                await replica.caught_up()
                reading += [
                    asyncio.create_task(site.ask("ada", "GET", f"/v1/topics/{ada.topic}"))
                    for _ in range(3)
                ]
                await _waiting_for_a_lock(replica, 3)
                await owner.execute("LOCK TABLE public.topic IN ACCESS EXCLUSIVE MODE")
                await replica.caught_up()

                await eventually(lambda: replica.cancelled() >= 3, 10, "the reads to be cancelled")
            answers = await asyncio.gather(*reading)
        finally:
            for task in reading:
                task.cancel()
            await owner.close()
        assert [a.status_code for a in answers] == [200, 200, 200], answers[0].text
        assert {a.json()["title"] for a in answers} == {ada.title}
        assert not [a for a in answers if "stale_s" in a.json()]
        await ada.holds({"saved"})


async def _waiting_for_a_lock(replica: Replica, count: int) -> None:
    async def waiting() -> bool:
        found = await replica.value(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = 'afterwrite_frontend' "
            "AND wait_event_type = 'Lock'"
        )
        return bool(found >= count)

    await eventually_async(waiting, 10, "the reads to wait for the lock")


async def test_the_role_is_proven_on_a_replica_too(
    installation: Installation, replica: Replica
) -> None:
    async with Site(installation) as site:
        await site.start()
        proven = await installation.processes["api"].logged("role_proven")
        assert proven["writes_denied"] == 0  # nothing can be tried there: its catalogs tell
        refused = installation.start(
            "api", "writable", frontend_database_url=replica.url_like(installation.writer_url)
        )
        assert await refused.ended() == 78
        stopping = [e for e in refused.events() if e["event"] == "stopping" and "why" in e]
        assert "writes " in stopping[0]["why"]
