"""What is asked of Redis in one turn goes there together, and each gets its own answer."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry, Counter
from redis.asyncio import Redis

from frontend_api.redis_access import RedisAccess, RedisUnavailable
from tests.services import Services

pytestmark = [pytest.mark.integration, pytest.mark.once]

ECHO = "return {KEYS[1], ARGV[1]}"
APPEND = "redis.call('RPUSH', KEYS[1], ARGV[1]) return redis.call('LRANGE', KEYS[1], 0, -1)"
WRONG = "return redis.call('NOSUCH')"


@pytest.fixture
async def access(services: Services) -> AsyncIterator[RedisAccess]:
    failures = Counter("failures", "of Redis", registry=CollectorRegistry())
    made = RedisAccess(services.redis_url, 5.0, failures)
    yield made
    await made.close()


@pytest.fixture
async def client(services: Services) -> AsyncIterator["Redis"]:
    made: Redis = Redis.from_url(services.redis_url, decode_responses=True)
    yield made
    await made.aclose()


async def test_a_thousand_answers_come_to_those_who_asked(access: RedisAccess) -> None:
    asked = [access.run(ECHO, [f"{{k}}{n}"], ["x" * (n % 2000)]) for n in range(1000)]
    answers = await asyncio.gather(*asked)
    assert answers == [[f"{{k}}{n}", "x" * (n % 2000)] for n in range(1000)]


async def test_one_turn_is_one_round_trip(access: RedisAccess, client: "Redis") -> None:
    await access.ping()
    before = (await client.info("clients"))["connected_clients"]
    await asyncio.gather(*(access.run(ECHO, ["{k}"], [n]) for n in range(200)))
    assert (await client.info("clients"))["connected_clients"] == before


async def test_an_unknown_script_is_loaded_and_its_order_kept(
    access: RedisAccess, client: "Redis"
) -> None:
    await client.delete("{b}list")
    await access.run(ECHO, ["{b}"], ["known"])
    calls = [(ECHO, ["{b}"], ["first"]), (APPEND, ["{b}list"], ["second"])]
    *_, found = await access.run_all(calls)
    assert found[-1] == "second"
    await client.script_flush()
    *_, found = await access.run_all(calls)
    assert found[-1] == "second"


async def test_a_refusal_is_told_to_him_who_asked_for_it(access: RedisAccess) -> None:
    good = access.run_all([(ECHO, ["{k}"], ["good"])])
    bad = access.run_all([(WRONG, ["{k}"], [])])
    assert (await good)[0][1] == "good"
    with pytest.raises(RedisUnavailable):
        await bad


async def test_who_has_gone_disturbs_nobody(access: RedisAccess) -> None:
    gone = asyncio.ensure_future(access.run(ECHO, ["{k}"], ["gone"]))
    stays = asyncio.ensure_future(access.run(ECHO, ["{k}"], ["stays"]))
    await asyncio.sleep(0)
    gone.cancel()
    assert (await stays)[1] == "stays"


@pytest.mark.parametrize("connected", [True, False])
async def test_a_process_that_stood_still_does_not_take_redis_for_away(
    services: Services, *, connected: bool
) -> None:
    """On a machine that is busy it may not run for as long as Redis may take."""
    failures = Counter("failures", "of Redis", registry=CollectorRegistry())
    access = RedisAccess(services.redis_url, 0.3, failures)
    try:
        if connected:
            await access.ping()
        asked = access.run_all([(ECHO, ["{k}"], ["asked before"])])
        time.sleep(0.5)  # noqa: ASYNC251 - this is what is tested: nothing runs here meanwhile
        assert (await asked)[0][1] == "asked before"
        assert access.available
        assert failures._value.get() == 0
    finally:
        await access.close()


@pytest.mark.parametrize("connected", [True, False])
async def test_a_redis_that_hangs_is_given_up_even_then(
    services: Services, *, connected: bool
) -> None:
    failures = Counter("failures", "of Redis", registry=CollectorRegistry())
    access = RedisAccess(services.redis_url, 0.3, failures)
    try:
        if connected:
            await access.ping()
        services.pause("redis")
        asked = access.run_all([(ECHO, ["{k}"], ["never"])])
        time.sleep(0.5)  # noqa: ASYNC251
        async with asyncio.timeout(5):
            with pytest.raises(RedisUnavailable):
                await asked
        assert not access.available
    finally:
        services.resume("redis")
        await access.close()
