"""Redis loses its memory, in every way it can: what authors wrote is there again, exactly."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.acceptance.helpers import Site, figure, send
from tests.commands import author, command, create, topic_with_post, update
from tests.installation import Installation, eventually_async

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(180)]


@asynccontextmanager
async def redis_of(installation: Installation) -> AsyncIterator["Redis"]:
    client: Redis = Redis.from_url(installation.services.redis_url, decode_responses=True)
    try:
        yield client
    finally:
        await client.aclose()


async def whole(site: Site, user: str = "ada", timeout: float = 20) -> None:
    """Wait until answers say nothing of an overlay that is not whole."""

    async def said() -> bool:
        answer = await site.ask(user, "GET", "/v1/topics")
        return answer.status_code == 200 and "overlay" not in answer.json()

    await eventually_async(said, timeout, "the overlay to be whole")


async def seen(site: Site, user: str, topics: list[str]) -> dict[str, Any]:
    """All that a user sees, without what may differ: the age of answers."""
    found: dict[str, Any] = {}
    listed = await site.ask(user, "GET", "/v1/topics?limit=100")
    assert listed.status_code == 200, listed.text
    found["topics"] = listed.json()["items"]
    for topic in topics:
        one = await site.ask(user, "GET", f"/v1/topics/{topic}")
        found[topic] = (one.status_code, one.json() if one.status_code == 200 else None)
        posts = await site.ask(user, "GET", f"/v1/topics/{topic}/posts?limit=100")
        found[f"{topic} posts"] = posts.json().get("items")
        for post in found[f"{topic} posts"] or ():
            reactions = await site.ask(user, "GET", f"/v1/posts/{post['id']}/reactions")
            found[f"{post['id']} reactions"] = reactions.json()["items"]
    return found


async def changes_of_all_kinds(site: Site) -> list[str]:
    """Two authors; some of it saved before the writer stops, the rest pending."""
    saved = await site.many(5)
    other = await site.accepted("bob", "Bob opens", None)
    await site.drained()
    site.installation.processes["writer"].kill()
    topic, posts = str(saved[0].topic), [str(s.post) for s in saved]

    async def ok(user: str, method: str, path: str, body: object = None) -> Any:
        answer = await site.ask(user, method, path, body)
        assert answer.status_code == 202, answer.text
        return answer.json()

    await ok("ada", "PATCH", f"/v1/posts/{posts[1]}", {"body": "Edited once"})
    await ok("ada", "PATCH", f"/v1/posts/{posts[1]}", {"body": "Edited twice"})
    await ok("ada", "DELETE", f"/v1/posts/{posts[2]}")
    await ok("ada", "PUT", f"/v1/posts/{posts[3]}/reactions/%F0%9F%91%8D")
    await ok("ada", "PUT", f"/v1/posts/{other.post}/reactions/%F0%9F%91%8D")
    await ok("bob", "PUT", f"/v1/posts/{posts[3]}/reactions/%F0%9F%91%8D")
    made = await ok("ada", "POST", f"/v1/topics/{topic}/posts", {"body": "Pending"})
    await ok("ada", "PATCH", f"/v1/posts/{made['id']}", {"body": "Pending, edited"})
    gone = await ok("ada", "POST", f"/v1/topics/{topic}/posts", {"body": "Pending, deleted"})
    await ok("ada", "DELETE", f"/v1/posts/{gone['id']}")
    new = await ok("bob", "POST", "/v1/topics", {"title": "Bob's", "body": "New"})
    await ok("bob", "POST", f"/v1/topics/{new['id']}/posts", {"body": "And more"})
    await ok("ada", "PATCH", f"/v1/topics/{topic}", {"title": "Another title"})
    await ok("bob", "DELETE", f"/v1/topics/{other.topic}")
    return [topic, str(other.topic), str(new["id"])]


async def test_flushed_it_is_exact_again(installation: Installation) -> None:
    async with Site(installation) as site:
        await site.start()
        topics = await changes_of_all_kinds(site)
        before = {user: await seen(site, user, topics) for user in ("ada", "bob", "eve")}
        async with redis_of(installation) as redis:
            await redis.flushall()
            said = (await site.ask("ada", "GET", f"/v1/topics/{topics[0]}")).json()
            assert said.get("overlay") == "rebuilding"
        await whole(site)
        for user, what in before.items():
            assert await seen(site, user, topics) == what, user
        rebuilt = await installation.processes["api"].logged("overlay_rebuilt")
        figure("rebuilt", {k: rebuilt[k] for k in ("commands", "seconds")})
        installation.start("writer")
        await site.drained()
        await site.audited()
        for user in before:
            after = await seen(site, user, topics)
            states = {row["state"] for row in after["topics"]}
            assert states <= {"saved"}


async def test_ten_thousand_pending_commands_are_rebuilt_in_time(
    installation: Installation,
) -> None:
    """Of a hundred authors; one author's 10,000 take as long."""
    authors = [author(f"author-{n}") for n in range(100)]
    topics = [topic_with_post(f"Topic {n}", "The first post " * 10) for n in range(100)]
    made = [command(authors[n], *topics[n]) for n in range(100)]
    for n in range(9_900):
        who, (topic, first) = authors[n % 100], topics[n % 100]
        mutation = (
            update("post", first.id, body=f"Edited {n}")
            if n % 5 == 0
            else create("post", topic_id=str(topic.id), body=f"Post {n} " * 20)
        )
        made.append(command(who, mutation, stream=topic.id))
    async with Site(installation) as site:
        await site.start_api()
        api = installation.processes["api"]
        await api.logged("overlay_rebuilt", commands=0)
        await send(installation, *made)
        async with redis_of(installation) as redis:
            started = time.monotonic()
            await redis.flushall()
            rebuilt = await api.logged("overlay_rebuilt", timeout=60, commands=10_000)
            seconds = time.monotonic() - started
        figure("rebuilt_10000_s", round(seconds, 2))
        figure("rebuilt_10000_s_as_said", rebuilt["seconds"])
        await whole(site, "author-7")
        topic = topics[7][0].id
        shown = (await site.ask("author-7", "GET", f"/v1/topics/{topic}")).json()
        posts = await site.posts("author-7", topic)
        assert (
            shown["post_count"] == len(posts) == 1 + sum(1 for n in range(7, 9_900, 100) if n % 5)
        )
        assert all(p["state"] == "pending" for p in posts)
        assert seconds <= 10
