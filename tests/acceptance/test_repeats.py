"""Requests that come again: with the memory of the first one lost, and too often."""

import asyncio
import re
from contextlib import AsyncExitStack

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


async def test_one_key_from_fifty_connections_at_once_is_one_topic(
    installation: Installation,
) -> None:
    await installation.start("api").ready()
    await installation.start("writer").ready()
    topic, key = {"title": "Once", "body": "Only once"}, {"Idempotency-Key": "the-same"}
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(installation.client("ada")) for _ in range(50)]
        await asyncio.gather(*(client.get("/livez") for client in clients))
        answers = await asyncio.gather(
            *(client.post("/v1/topics", json=topic, headers=key) for client in clients)
        )
        accepted = [a for a in answers if a.status_code == 202]
        others = [a for a in answers if a.status_code != 202]
        assert len([a for a in accepted if "idempotency-replayed" not in a.headers]) == 1
        assert len({a.text for a in accepted}) == 1, "a repeat gets the same answer"
        assert {a.json()["code"] for a in others} <= {"in_flight"}
        again = await clients[0].post("/v1/topics", json=topic, headers=key)
        assert (again.status_code, again.text) == (202, accepted[0].text)
        other = await clients[0].post("/v1/topics", json=topic | {"title": "x"}, headers=key)
        assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
        bob = await stack.enter_async_context(installation.client("bob"))
        assert (await bob.post("/v1/topics", json=topic, headers=key)).status_code == 202

        async def saved() -> bool:
            return bool(await installation.value("SELECT count(*) FROM topic") == 2)

        await eventually_async(saved, 20, "both topics")
    assert await installation.value("SELECT count(*) FROM post") == 2
    assert await installation.value("SELECT count(*) FROM afterwrite.ledger") == 2


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
    assert {a.headers["ratelimit-policy"] for a in answers} == {'"default";q=3;w=60'}
    left = [
        re.fullmatch(r'"default";r=([0-3]);t=([0-9]+)', a.headers["ratelimit"]) for a in answers
    ]
    assert [found is not None and int(found[1]) for found in left[:3]] in (
        [2, 1, 0],
        [2, 1, 2],
        [2, 2, 1],
    )
    assert all(found is not None and 1 <= int(found[2]) <= 60 for found in left)
    assert other.status_code == 202
