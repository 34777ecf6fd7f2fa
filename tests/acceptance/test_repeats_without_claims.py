"""A request that is repeated while Redis cannot tell that it is a repetition: seen once all the same."""

import asyncio
import signal
from uuid import UUID

import asyncpg
import pytest
from redis.asyncio import Redis

from tests.acceptance.helpers import Site, hung
from tests.installation import Installation, eventually_async

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(120)]


async def whole(site: Site, topic: UUID) -> bool:
    answer = await site.ask("ada", "GET", f"/v1/topics/{topic}")
    return answer.status_code == 200 and not {"overlay", "stale_s"} & set(answer.json())


async def seen_once(site: Site, topic: UUID) -> None:
    for _ in range(5):
        shown = [post["body"] for post in await site.posts("ada", topic)]
        assert shown == ["The first post", "only once"]
        row = (await site.ask("ada", "GET", f"/v1/topics/{topic}")).json()
        assert row["post_count"] == 2
        await asyncio.sleep(0.1)


async def test_repeated_while_redis_hangs_it_is_shown_once(installation: Installation) -> None:
    """And once more when Redis has forgotten all of it, and finds both in the log."""
    async with Site(installation) as site:
        await site.start()
        topic = (await site.accepted("ada", "The first post")).topic
        await site.drained()
        installation.processes["writer"].signal(signal.SIGSTOP)
        first = await site.send_post("ada", topic, "only once", Idempotency_Key="the-same")
        assert first.status_code == 202
        with hung(installation.services, "redis"):
            again = await site.send_post("ada", topic, "only once", Idempotency_Key="the-same")
            assert (again.status_code, again.json()["display"]) == (202, "delayed")
            assert again.json()["id"] != first.json()["id"]
        await eventually_async(lambda: whole(site, topic), 30, "the overlay to be whole again")
        await seen_once(site, topic)
        async with Redis.from_url(installation.services.redis_url) as redis:
            await redis.flushall()
        await eventually_async(lambda: whole(site, topic), 30, "the overlay to be rebuilt")
        await seen_once(site, topic)
        repeated = await site.send_post("ada", topic, "only once", Idempotency_Key="the-same")
        assert (repeated.status_code, repeated.json()["id"]) == (202, first.json()["id"])
        installation.processes["writer"].signal(signal.SIGCONT)
        await site.reaches("ada", again.json()["command"], "saved")
        await seen_once(site, topic)
        assert (await site.ask("ada", "GET", f"/v1/posts/{again.json()['id']}")).status_code == 404
        await site.audited()


async def test_sent_first_while_redis_hangs_it_is_shown_when_redis_is_back(
    installation: Installation,
) -> None:
    async with Site(installation) as site:
        await site.start()
        topic = (await site.accepted("ada", "The first post")).topic
        await site.drained()
        installation.processes["writer"].signal(signal.SIGSTOP)
        with hung(installation.services, "redis"):
            first = await site.send_post("ada", topic, "only once", Idempotency_Key="the-same")
            assert (first.status_code, first.json()["display"]) == (202, "delayed")
        await eventually_async(lambda: whole(site, topic), 30, "it to be laid into Redis")
        await seen_once(site, topic)

        async def same_again() -> bool:
            answer = await site.send_post("ada", topic, "only once", Idempotency_Key="the-same")
            return answer.status_code == 202 and bool(answer.json()["id"] == first.json()["id"])

        await eventually_async(same_again, 10, "a repeat to find its first ids")
        await seen_once(site, topic)


async def test_repeated_while_claims_are_lost_it_is_shown_once(installation: Installation) -> None:
    """Redis has forgotten, and cannot be filled again as long as PostgreSQL cannot be asked.

    What is sent for the first time then is shown at once all the same, and only once when it is.
    """
    async with Site(installation) as site:
        await site.start()
        topic = (await site.accepted("ada", "The first post")).topic
        await site.drained()
        installation.processes["writer"].signal(signal.SIGSTOP)
        first = await site.send_post("ada", topic, "only once", Idempotency_Key="the-same")
        await site.ask("ada", "GET", f"/v1/topics/{topic}")
        lock = await asyncpg.connect(installation.owner_url)
        try:
            async with lock.transaction():
                # Who rebuilds asks for the lanes first.
                await lock.execute("LOCK TABLE afterwrite.lane IN ACCESS EXCLUSIVE MODE")
                async with Redis.from_url(installation.services.redis_url) as redis:
                    await redis.flushall()
                again = await site.send_post("ada", topic, "only once", Idempotency_Key="the-same")
                other = await site.send_post("ada", topic, "another", Idempotency_Key="another")
                assert (again.status_code, other.status_code) == (202, 202)
                assert again.json()["id"] != first.json()["id"]
                mine = await site.ask("ada", "GET", f"/v1/posts/{other.json()['id']}")
                assert (mine.status_code, mine.json()["state"]) == (200, "pending")
        finally:
            await lock.close()

        async def rebuilt() -> bool:
            done = await whole(site, topic)
            shown = [post["body"] for post in await site.posts("ada", topic)]
            assert max(map(shown.count, shown)) == 1, shown  # not even while it is rebuilt
            return done

        await eventually_async(rebuilt, 40, "the overlay to be rebuilt")
        for _ in range(5):
            shown = [post["body"] for post in await site.posts("ada", topic)]
            assert shown == ["The first post", "only once", "another"]
            await asyncio.sleep(0.1)
        installation.processes["writer"].signal(signal.SIGCONT)
        await site.reaches("ada", other.json()["command"], "saved")
        await site.audited()
