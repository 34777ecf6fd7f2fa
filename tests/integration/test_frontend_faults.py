"""The front end while one of its servers is away: what it still does, and how long it takes."""

import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest

from tests.installation import Installation, eventually_async
from tests.services import ServiceName

pytestmark = [pytest.mark.integration, pytest.mark.once, pytest.mark.timeout(120)]

DEADLINE_S = 3.0
SLACK_S = 1.5  # of a busy machine


@asynccontextmanager
async def away(installation: Installation, name: ServiceName, how: str) -> AsyncIterator[None]:
    """The server is killed, or hangs, inside; it serves again afterwards."""
    if how == "killed":
        installation.services.kill(name)
    else:
        installation.services.pause(name)
    try:
        yield
    finally:
        if how == "killed":
            installation.services.restart(name)
        else:
            installation.services.resume(name)


async def timed_post(client: httpx2.AsyncClient, body: str) -> tuple[httpx2.Response, float]:
    begun = time.perf_counter()
    answer = await client.post("/v1/topics", json={"title": "T", "body": body})
    return answer, time.perf_counter() - begun


async def titles(client: httpx2.AsyncClient) -> int:
    return len((await client.get("/v1/topics")).json()["items"])


@pytest.mark.parametrize("how", ["killed", "hanging"])
async def test_without_postgresql(installation: Installation, how: str) -> None:
    await installation.start("api").ready()
    async with installation.client("ada") as ada:
        topic = (await ada.post("/v1/topics", json={"title": "T", "body": "B"})).json()
        async with away(installation, "postgres", how):
            slowest = 0.0
            for number in range(10):
                answer, seconds = await timed_post(ada, str(number))
                assert answer.status_code == 202, answer.text
                slowest = max(slowest, seconds)
            assert slowest < DEADLINE_S
            _, seconds = await timed_post(ada, "once the breaker is open")
            assert seconds < 0.25 + SLACK_S
            read = await ada.get(f"/v1/topics/{topic['id']}")
            assert (read.status_code, read.json()["title"]) == (200, "T")
            edit = await ada.patch(f"/v1/posts/{topic['post']['id']}", json={"body": "edited"})
            assert edit.status_code == 202
            assert (await ada.get(f"/v1/posts/{topic['post']['id']}")).json()["body"] == "edited"
            begun = time.perf_counter()
            listed = await ada.get("/v1/topics")
            assert time.perf_counter() - begun < 1 + SLACK_S
            assert (listed.status_code, listed.json()["code"]) == (503, "database_unavailable")
            ready = await ada.get("/readyz")
            assert (ready.status_code, ready.json()["status"]) == (200, "degraded")

        async def lists_again() -> bool:
            return (await ada.get("/v1/topics")).status_code == 200

        await eventually_async(lists_again, 20, "the list to be read again")
        assert await titles(ada) == 12


@pytest.mark.parametrize("how", ["killed", "hanging"])
async def test_without_redis(installation: Installation, how: str) -> None:
    installation.start("writer")
    await installation.start("api").ready()
    async with installation.client("ada") as ada:
        await timed_post(ada, "before")
        async with away(installation, "redis", how):
            answer, seconds = await timed_post(ada, "during")
            assert answer.status_code == 202, answer.text
            assert answer.json()["display"] == "delayed"
            assert seconds < DEADLINE_S + SLACK_S

            async def listed() -> bool:
                page = (await ada.get("/v1/topics")).json()
                return len(page["items"]) == 2 and page["overlay"] == "unavailable"

            await eventually_async(listed, 20, "both topics to be saved and listed")

        async def back() -> bool:
            answer, _ = await timed_post(ada, "after")
            return "display" not in answer.json()

        await eventually_async(back, 20, "the overlay to be written again")


async def test_kafka_killed_leaves_nothing_behind(installation: Installation) -> None:
    await installation.start("api").ready()
    async with installation.client("ada") as ada:
        await timed_post(ada, "before")
        async with away(installation, "kafka", "killed"):
            for _ in range(3):
                answer, seconds = await timed_post(ada, "during")
                assert answer.status_code == 503
                assert answer.headers["retry-after"]
                assert seconds < DEADLINE_S + SLACK_S
            assert answer.json()["code"] == "not_accepted"
            assert await titles(ada) == 1

        async def accepted() -> bool:
            return (await timed_post(ada, "after"))[0].status_code == 202

        await eventually_async(accepted, 30, "commands to be accepted again")
        assert await titles(ada) == 2


async def test_kafka_hanging_is_an_unknown_outcome_that_a_repeat_resolves(
    installation: Installation,
) -> None:
    await installation.start("api").ready()
    async with installation.client("ada") as ada:
        await timed_post(ada, "before")
        key = {"Idempotency-Key": str(uuid.uuid4())}
        request = {"json": {"title": "T", "body": "during"}, "headers": key}
        async with away(installation, "kafka", "hanging"):
            begun = time.perf_counter()
            answer = await ada.post("/v1/topics", **request)  # type: ignore[arg-type]
            assert time.perf_counter() - begun < DEADLINE_S + SLACK_S
            assert (answer.status_code, answer.json()["code"]) == (503, "outcome_unknown")
            assert await titles(ada) == 2  # shown to its author: it may well be in the log
            other, seconds = await timed_post(ada, "behind the stuck one")
            assert (other.status_code, other.json()["code"]) == (503, "not_accepted")
            assert seconds < 1 + SLACK_S
        installation.start("writer")

        async def repeated() -> bool:
            again = await ada.post("/v1/topics", **request)  # type: ignore[arg-type]
            return again.status_code == 202

        await eventually_async(repeated, 30, "the repeat to be accepted")

        async def settled() -> bool:
            items = (await ada.get("/v1/topics")).json()["items"]
            return len(items) == 2 and all(item["state"] == "saved" for item in items)

        await eventually_async(settled, 30, "one topic each to be saved")
        await eventually_async(lambda: _accepts(ada), 20, "commands to be accepted again")


async def _accepts(client: httpx2.AsyncClient) -> bool:
    return (await timed_post(client, "after"))[0].status_code == 202


async def test_starting_with_everything_away(installation: Installation) -> None:
    nowhere = "127.0.0.1:1"
    api = installation.start(
        "api",
        redis_url=f"redis://{nowhere}/0",
        kafka_bootstrap=nowhere,
        frontend_database_url=f"postgresql://nobody@{nowhere}/none",
    )
    async with installation.client("ada") as ada:

        async def alive() -> bool:
            try:
                return (await ada.get("/livez")).status_code == 200
            except httpx2.HTTPError:
                return False

        await eventually_async(alive, 30, "the process to answer")
        assert (await ada.get("/readyz")).status_code == 503
        answer, seconds = await timed_post(ada, "nothing works")
        assert (answer.status_code, answer.json()["code"]) == (503, "not_accepted")
        assert seconds < DEADLINE_S + SLACK_S
        assert (await ada.get("/v1/topics")).status_code == 503
    assert api.terminate() == 0
