"""A Redis that was started again is used again at once, however many connections there were."""

import asyncio
import time

import pytest
from prometheus_client import CollectorRegistry, Counter

from frontend_api.redis_access import RedisAccess, RedisUnavailable
from tests.installation import eventually_async
from tests.services import Services

pytestmark = pytest.mark.integration

MANY = 20


async def test_dead_connections_cost_one_failure_and_not_one_each(services: Services) -> None:
    failures = Counter("failures", "of Redis", registry=CollectorRegistry())
    access = RedisAccess(services.redis_url, 5.0, failures)
    try:
        await _many_at_once(access, services)
        services.kill("redis")
        services.restart("redis")
        begun = time.monotonic()

        async def answers() -> bool:
            try:
                await access.ping()
            except RedisUnavailable:
                return False
            return True

        await eventually_async(answers, 30, "Redis to be used again")
        assert time.monotonic() - begun < 3
        await _many_at_once(access, services)
        assert failures._value.get() <= 2
    finally:
        await access.close()


async def _many_at_once(access: RedisAccess, services: Services) -> None:
    """Each of them needs a connection of its own: none is answered before all are sent."""
    services.pause("redis")
    asking = [asyncio.create_task(access.ping()) for _ in range(MANY)]
    try:
        await asyncio.wait(asking, timeout=0.2)
    finally:
        services.resume("redis")
    await asyncio.gather(*asking)


async def test_a_crowd_waits_for_its_turn_and_does_not_take_redis_for_away(
    services: Services,
) -> None:
    failures = Counter("failures", "of Redis", registry=CollectorRegistry())
    access = RedisAccess(services.redis_url, 5.0, failures)
    try:
        await asyncio.gather(*(access.ping() for _ in range(1000)))
        assert failures._value.get() == 0
    finally:
        await access.close()
