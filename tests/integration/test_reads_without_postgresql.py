"""Reads while PostgreSQL is away: answered at once, from what it said lately and the overlay.

Twenty readers go on reading while it is paused, killed or lost behind a black hole. Every answer comes
within a second, the first ones too, also of reads that need several queries.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx2
import pytest

from frontend_api.read_cache import AGAIN_S
from schema.identifiers import new_row_id
from tests.acceptance.helpers import figure
from tests.installation import Installation, eventually, eventually_async
from tests.proxy import PostgresProxy

pytestmark = [pytest.mark.integration, pytest.mark.once, pytest.mark.timeout(120)]

LIMIT_S = 1.0
READERS = 20
AWAY_S = 3.0


@asynccontextmanager
async def site(
    installation: Installation, how: str
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """A running API and writer; what is yielded takes PostgreSQL away from the API until the end."""
    services = installation.services
    if how == "blackholed":
        async with PostgresProxy(services.admin_url) as proxy:
            installation.start("writer")
            installation.through("127.0.0.1", proxy.port)
            await installation.start("api").ready()

            async def blackhole() -> None:
                proxy.blackhole()

            yield blackhole
            proxy.heal()
            return
    installation.start("writer")
    await installation.start("api").ready()
    taken = False

    async def away() -> None:
        nonlocal taken
        taken = True
        (services.kill if how == "killed" else services.pause)("postgres")

    try:
        yield away
    finally:
        if taken:
            (services.restart if how == "killed" else services.resume)("postgres")


async def saved_topic(ada: httpx2.AsyncClient) -> dict[str, Any]:
    headers = {"Prefer": "wait=10"}
    made = await ada.post("/v1/topics", json={"title": "T", "body": "B"}, headers=headers)
    assert made.status_code == 201, made.text
    topic: dict[str, Any] = made.json()
    path = f"/v1/topics/{topic['id']}/posts"
    for number in range(5):
        answer = await ada.post(path, json={"body": str(number)}, headers=headers)
        assert answer.status_code == 201, answer.text
    return topic


async def read_on(
    client: httpx2.AsyncClient, paths: list[str], until: float, seen: list[tuple[str, int, float]]
) -> None:
    at = 0
    while time.monotonic() < until:
        path = paths[at % len(paths)]
        begun = time.monotonic()
        answer = await client.get(path)
        seconds = time.monotonic() - begun
        stale = "stale" if "stale_s" in answer.json() else "fresh"
        seen.append((stale, answer.status_code, seconds))
        at += 1
        await asyncio.sleep(0.02)


@pytest.mark.alone
@pytest.mark.parametrize("how", ["paused", "killed", "blackholed"])
async def test_every_read_is_answered_within_a_second(installation: Installation, how: str) -> None:
    async with (
        site(installation, how) as away,
        installation.client("ada") as ada,
        installation.client("eve") as eve,
    ):
        topic = await saved_topic(ada)
        of = f"/v1/topics/{topic['id']}"
        paths = [f"{of}/posts", of, f"/v1/posts/{topic['post']['id']}", "/v1/topics"]
        uncached = [f"/v1/posts/{new_row_id()}" for _ in range(2000)]
        warm: list[tuple[str, int, float]] = []
        until = time.monotonic() + 2 * AGAIN_S  # so that what is read now is what is kept
        await asyncio.gather(*(read_on(c, paths, until, warm) for c in (ada, eve)))
        assert {(stale, status) for stale, status, _ in warm} == {("fresh", 200)}

        cached: list[tuple[str, int, float]] = []
        other: list[tuple[str, int, float]] = []
        until = time.monotonic() + AWAY_S
        readers = [
            *(read_on(ada if n % 2 else eve, paths, until, cached) for n in range(READERS - 5)),
            *(read_on(eve, uncached[n::5], until, other) for n in range(5)),
        ]
        running = asyncio.gather(*readers)
        await eventually(lambda: len(cached) > 3 * READERS, 2, "all readers to read")
        await away()
        await running
        slowest = max(seconds for _, _, seconds in [*cached, *other])
        figure(f"{how}: reads, slowest_s", (len(cached) + len(other), round(slowest, 3)))
        figure(f"{how}: cached", Counter((a, b) for a, b, _ in cached))
        figure(f"{how}: not cached", Counter((a, b) for a, b, _ in other))
        assert {status for _, status, _ in cached} == {200}
        assert {status for _, status, _ in other} == {404, 503}
        assert cached[-1][0] == "stale"
        assert slowest < LIMIT_S

        await what_is_read_is_exact(ada, eve, of)


async def what_is_read_is_exact(ada: httpx2.AsyncClient, eve: httpx2.AsyncClient, of: str) -> None:
    """The author sees what he does meanwhile, and only once; others what was saved, with its age."""
    posted = await ada.post(f"{of}/posts", json={"body": "meanwhile"})
    assert posted.status_code == 202
    mine, others = [(await c.get(f"{of}/posts")).json() for c in (ada, eve)]
    bodies = [item["body"] for item in others["items"]]
    assert bodies == ["B", "0", "1", "2", "3", "4"]
    assert [item["body"] for item in mine["items"]] == [*bodies, "meanwhile"]
    assert mine["stale_s"] >= 0.5
    assert (await ada.get(of)).json()["post_count"] == 7
    answer = await eve.get(of)
    assert answer.json()["post_count"] == 6
    assert answer.json()["stale_s"] >= 0.5
    assert int(answer.headers["age"]) == int(answer.json()["stale_s"])
    own = (await ada.get(f"/v1/posts/{posted.json()['id']}")).json()
    assert own["state"] in ("pending", "saved")  # behind the black hole, the writer goes on
    assert (await eve.get(f"/v1/posts/{posted.json()['id']}")).status_code == 503
    nowhere = await eve.get("/v1/users")
    assert (nowhere.status_code, nowhere.json()["code"]) == (503, "database_unavailable")


async def test_a_slow_query_costs_nobody_else(installation: Installation) -> None:
    """One table is locked: reads of it come from the cache, those of others go on unharmed."""
    async with site(installation, "paused"), installation.client("ada") as ada:
        topic = await saved_topic(ada)
        of = f"/v1/topics/{topic['id']}"
        for path in (of, f"{of}/posts", "/v1/topics"):
            assert "stale_s" not in (await ada.get(path)).json()
        owner = await asyncpg.connect(installation.owner_url)
        try:
            async with owner.transaction():
                await owner.execute("lock table public.post in access exclusive mode")
                for _ in range(3):
                    begun = time.monotonic()
                    posts = await ada.get(f"{of}/posts")
                    assert time.monotonic() - begun < LIMIT_S
                    assert (posts.status_code, len(posts.json()["items"])) == (200, 6)
                    assert posts.json()["stale_s"] > 0
                    await eventually_async(lambda: fresh(ada), 2, "the list of topics to be fresh")
        finally:
            await owner.close()

        async def posts_fresh() -> bool:
            return "stale_s" not in (await ada.get(f"{of}/posts")).json()

        await eventually_async(posts_fresh, 5, "the posts to be read from PostgreSQL again")
        assert [e for e in installation.processes["api"].events() if e["event"] == "role_proven"][
            1:
        ] == []


async def fresh(client: httpx2.AsyncClient) -> bool:
    return "stale_s" not in (await client.get("/v1/topics")).json()
