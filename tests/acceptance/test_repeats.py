"""Requests that come again: with the memory of the first one lost, and too often."""

import pytest
from redis.asyncio import Redis

from tests.installation import Installation, eventually_async

pytestmark = pytest.mark.acceptance


async def _forget_claims(installation: Installation) -> None:
    """Redis has the claims no more, as when their time is over; its marker says nothing of it."""
    redis: Redis = Redis.from_url(installation.services.redis_url)
    try:
        async for key in redis.scan_iter(match=f"{installation.name}:idempotency:*", count=1000):
            await redis.delete(key)
    finally:
        await redis.aclose()


async def test_a_key_holds_when_redis_has_forgotten_it(installation: Installation) -> None:
    await installation.start("api").ready()
    await installation.start("writer").ready()
    topic = {"title": "Once", "body": "Only once"}
    key = {"Idempotency-Key": "the-same"}
    async with installation.client("ada") as ada:
        first = await ada.post("/v1/topics", json=topic, headers={**key, "Prefer": "wait=10"})
        assert first.status_code == 201
        await _forget_claims(installation)
        again = await ada.post("/v1/topics", json=topic, headers=key)
        assert again.status_code == 202

        async def settled() -> bool:
            command = await ada.get(f"/v1/commands/{again.json()['command']}")
            return bool(command.json()["state"] == "saved")

        await eventually_async(settled, 20, "the repeat to be settled")
        command = (await ada.get(f"/v1/commands/{again.json()['command']}")).json()
        assert command["duplicate_of"] != command["id"]
        assert first.json()["id"] in [row["id"] for row in command["rows"]]
        listed = (await ada.get("/v1/topics")).json()["items"]
    assert [row["id"] for row in listed] == [first.json()["id"]]
    assert await installation.value("SELECT count(*) FROM topic") == 1
    assert await installation.value("SELECT count(*) FROM post") == 1
    assert installation.run("audit").returncode == 0


async def test_who_sends_too_much_is_told_when_to_come_back(installation: Installation) -> None:
    await installation.start("api", writes_per_minute="3").ready()
    async with installation.client("ada") as ada, installation.client("bob") as bob:
        answers = [
            await ada.post("/v1/topics", json={"title": "Hello", "body": "Hello"}) for _ in range(7)
        ]
        other = await bob.post("/v1/topics", json={"title": "Hello", "body": "Hello"})
    codes = [answer.status_code for answer in answers]
    # A minute may end between two of them; each minute takes three.
    assert codes.count(202) in (3, 6)
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["code"] == "rate_limited"
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert other.status_code == 202
