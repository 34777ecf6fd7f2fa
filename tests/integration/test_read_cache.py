"""The read cache on a real server: what it gives back, to whom, and how much it may take."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter
from redis.asyncio import Redis

from frontend_api import read_cache
from frontend_api.read_cache import ENTRY_BYTES, ReadCache
from frontend_api.redis_access import RedisAccess
from frontend_api.view import CachedPage, LanePosition
from schema.catalog import load_catalog
from schema.content import Row
from schema.identifiers import new_row_id
from schema.redis_keys import RedisKeys
from tests.installation import eventually_async, fresh_name
from tests.services import Services

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

CATALOG = load_catalog("schema.forum")
TOPIC, POST, NOTICE = CATALOG["topic"], CATALOG["post"], CATALOG["notice"]
POSTS, NOTICES = CATALOG.lists["topic_posts"], CATALOG.lists["notices"]
ADA, EVE = uuid.uuid4(), uuid.uuid4()
AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
POSITIONS = {0: LanePosition(17, 3, frozenset({4, 9})), 5: LanePosition(0, 0)}


def post(topic: uuid.UUID, body: str = "B") -> Row:
    return {
        "id": uuid.UUID(str(new_row_id())),
        "version": 3,
        "created_at": AT,
        "updated_at": AT,
        "topic_id": topic,
        "author_id": ADA,
        "reply_to": None,
        "body": body,
        "reaction_count": 2,
    }


def notice(owner: uuid.UUID) -> Row:
    return {
        "id": uuid.UUID(str(new_row_id())),
        "version": 1,
        "created_at": AT,
        "updated_at": AT,
        "user_id": owner,
        "kind": "rejected",
        "command_id": uuid.uuid4(),
        "code": "forbidden",
        "detail": "D",
        "returned": {"values": {"body": "secret \u2028 👍"}},
        "read": False,
    }


@dataclass
class Site:
    """One server, and as many processes with a cache as a test wants."""

    redis: RedisAccess
    raw: Any
    keys: RedisKeys
    results: Counter
    now: float = 1_700_000_000.0

    def cache(self, entries: int = 1000, ttl_s: float = 3600) -> ReadCache:
        return ReadCache(
            self.redis,
            self.keys,
            self.results,
            entries=entries,
            ttl_s=ttl_s,
            clock=lambda: self.now,
        )

    def counted(self, result: str) -> float:
        return float(self.results.labels(result)._value.get())

    async def done(self, entries: int) -> None:
        """Wait until so many entries have been kept or dropped, all in all."""

        async def all_done() -> bool:
            return self.counted("kept") + self.counted("dropped") >= entries

        await eventually_async(all_done, 10, f"{entries} entries to be stored")

    async def fields(self) -> dict[str, str]:
        found: dict[str, str] = {}
        async for key in self.raw.scan_iter(f"{self.keys.prefix}:cache:*:values"):
            found |= await self.raw.hgetall(key)
        found.pop("bytes", None)
        return found


@pytest.fixture
async def site(services: Services) -> AsyncIterator[Site]:
    def counter(*labels: str) -> Counter:
        return Counter("c", "for a test", labels, registry=CollectorRegistry())

    redis = RedisAccess(services.redis_url, 2.0, counter())
    raw = Redis.from_url(services.redis_url, decode_responses=True)
    yield Site(redis, raw, RedisKeys(fresh_name()), counter("result"))
    await raw.aclose()
    await redis.close()


async def test_rows_come_back_as_they_were_with_their_positions_and_age(site: Site) -> None:
    row, gone = post(new_row_id(), "\x01 \u2028 é 👍 |"), new_row_id()
    site.cache().keep_rows({(POST, row["id"]): row, (POST, gone): None}, POSITIONS, ADA)
    await site.done(2)
    site.now += 12.5
    found = await site.cache().rows(
        [(POST, row["id"]), (POST, gone), (TOPIC, gone), (POST, new_row_id())], EVE
    )
    assert set(found) == {("post", row["id"]), ("post", gone)}
    assert found["post", row["id"]].row == row
    assert found["post", gone].row is None
    assert all(f.positions == POSITIONS and f.age_s == 12.5 for f in found.values())
    assert (site.counted("hit"), site.counted("miss"), site.counted("kept")) == (2, 2, 2)


async def test_a_page_comes_back_whole_or_in_part(site: Site) -> None:
    topic, other = new_row_id(), new_row_id()
    rows = [post(topic, str(n)) for n in range(5)]
    site.cache().keep_page(POSTS, topic, None, ADA, 5, rows, POSITIONS)
    site.cache().keep_page(POSTS, other, rows[4]["id"], ADA, 6, rows, POSITIONS)
    await site.done(12)

    async def page(parent: uuid.UUID, after: uuid.UUID | None, limit: int) -> CachedPage | None:
        return await site.cache().page(POSTS, parent, after, EVE, limit)

    assert await page(topic, None, 5) == CachedPage(rows, False, POSITIONS, 0)
    assert await page(topic, None, 9) == CachedPage(rows, False, POSITIONS, 0)
    assert await page(topic, None, 4) == CachedPage(rows[:4], False, POSITIONS, 0)
    assert await page(other, rows[4]["id"], 6) == CachedPage(rows, True, POSITIONS, 0)
    assert await page(other, rows[4]["id"], 5) == CachedPage(rows, True, POSITIONS, 0)
    assert await page(other, rows[4]["id"], 4) == CachedPage(rows[:4], False, POSITIONS, 0)
    assert await page(other, None, 4) is None
    assert await page(topic, rows[0]["id"], 4) is None
    single = await site.cache().rows([(POST, rows[2]["id"])], EVE)
    assert single["post", rows[2]["id"]].row == rows[2]


async def test_what_is_private_is_given_to_its_owner_only(site: Site) -> None:
    mine, his = notice(ADA), notice(EVE)
    cache = site.cache()
    cache.keep_page(NOTICES, None, None, ADA, 10, [mine], POSITIONS)
    cache.keep_rows({(NOTICE, his["id"]): his, (NOTICE, new_row_id()): None}, POSITIONS, ADA)
    await site.done(3)
    refs = [(NOTICE, mine["id"]), (NOTICE, his["id"])]
    seen = {reader: await site.cache().rows(refs, reader) for reader in (ADA, EVE, uuid.uuid4())}
    assert [list(found) for found in seen.values()] == [
        [("notice", mine["id"])],
        [("notice", his["id"])],
        [],
    ]
    assert seen[ADA]["notice", mine["id"]].row == mine
    assert (await cache.page(NOTICES, None, None, ADA, 10)) is not None
    assert (await cache.page(NOTICES, None, None, EVE, 10)) is None
    assert len(await site.fields()) == 3


async def test_it_never_holds_more_than_allowed_and_the_oldest_go_first(site: Site) -> None:
    cache = site.cache(entries=40)
    rows = [post(new_row_id()) for _ in range(300)]
    for at in range(0, 300, 10):
        site.now += 1
        cache.keep_rows({(POST, r["id"]): r for r in rows[at : at + 10]}, POSITIONS, ADA)
        await site.done(at + 10)
    left = {field.split(":")[2] for field in await site.fields()}
    ages = [at for at, row in enumerate(rows) if str(row["id"]) in left]
    assert 30 <= len(ages) <= 40
    assert min(ages) > 150


async def test_large_rows_count_by_their_bytes(site: Site) -> None:
    cache = site.cache(entries=80)
    for number in range(1, 31):
        row = post(new_row_id(), "👍" * 4000)
        cache.keep_rows({(POST, row["id"]): row}, POSITIONS, ADA)
        await site.done(number)
    sizes = [len(value.encode()) for value in (await site.fields()).values()]
    assert sum(sizes) <= 80 * ENTRY_BYTES
    assert len(sizes) >= 8
    page = [post(new_row_id(), "x" * 60_000) for _ in range(9)]
    site.cache().keep_page(POSTS, page[0]["topic_id"], None, ADA, 10, page, POSITIONS)
    await site.done(40)
    assert all(len(value) < 300_000 for value in (await site.fields()).values())
    for shard in range(8):
        values = await site.raw.hgetall(site.keys.cache_values(shard))
        told = int(values.pop("bytes", 0))
        assert told == sum(len(value.encode()) for value in values.values())


async def test_a_page_too_large_is_kept_as_far_as_it_fits(site: Site) -> None:
    topic = new_row_id()
    rows = [post(topic, "x" * 60_000) for _ in range(9)]
    site.cache(entries=10_000).keep_page(POSTS, topic, None, ADA, 10, rows, POSITIONS)
    await site.done(10)
    page = await site.cache(entries=10_000).page(POSTS, topic, None, ADA, 10)
    assert page == CachedPage(rows[:4], False, POSITIONS, 0)


async def test_a_page_that_is_read_often_is_kept_rarely(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, topic = site.cache(), new_row_id()
    rows = [post(topic), post(topic)]
    for _ in range(1000):
        if cache.wants_page(POSTS, topic, None, ADA):
            cache.keep_page(POSTS, topic, None, ADA, 3, rows, POSITIONS)
        assert not cache.wants_rows([(POST, rows[0]["id"])], ADA)
    cache.keep_page(POSTS, topic, None, ADA, 3, rows, POSITIONS)
    await site.done(3)
    assert (site.counted("kept"), site.counted("dropped")) == (3, 0)
    assert cache.wants_rows([(POST, rows[0]["id"]), (POST, topic)], ADA)
    monkeypatch.setattr(read_cache, "AGAIN_S", 0.0)
    assert cache.wants_page(POSTS, topic, None, ADA)
    assert cache.wants_rows([(POST, rows[0]["id"])], ADA)
    assert not cache.wants_rows([(POST, rows[0]["id"])], ADA, seldom=True)
    assert cache.wants_rows([(POST, topic)], ADA, seldom=True)
    monkeypatch.setattr(read_cache, "SELDOM_S", 0.0)
    assert cache.wants_rows([(POST, rows[0]["id"])], ADA, seldom=True)


async def test_a_smaller_or_older_one_does_not_take_the_place_of_a_better(site: Site) -> None:
    topic = new_row_id()
    rows = [post(topic, str(n)) for n in range(6)]

    async def keep(asked: int, rows: list[Row], done: int) -> CachedPage:
        cache = site.cache()  # each time another process
        cache.keep_page(POSTS, topic, None, ADA, asked, rows, {})
        await site.done(done)
        page = await cache.page(POSTS, topic, None, ADA, 100)
        assert page is not None
        return page

    assert len((await keep(5, rows[:5], 6)).rows) == 5
    site.now += 1
    assert len((await keep(2, rows[:2], 9)).rows) == 5
    site.now += 1
    assert (await keep(5, rows[1:], 15)).rows == rows[1:]
    site.now += 1
    assert (await keep(3, rows[:2], 18)).complete  # it holds all there is
    site.now -= 10
    assert (await keep(5, rows[:5], 24)).complete
    site.now += 60
    assert (await keep(2, rows[:2], 27)).rows == rows[:2]


async def test_what_is_too_old_is_not_found_and_leaves(site: Site) -> None:
    cache, row = site.cache(entries=8, ttl_s=60), post(new_row_id())
    cache.keep_rows({(POST, row["id"]): row}, POSITIONS, ADA)
    await site.done(1)
    site.now += 61
    assert await cache.rows([(POST, row["id"])], ADA) == {}
    for shard in range(8):
        for key in (site.keys.cache_values(shard), site.keys.cache_kept(shard)):
            assert await site.raw.exists(key) == 0 or 0 < await site.raw.pttl(key) <= 60_000


async def test_off_keeps_nothing(site: Site) -> None:
    cache, row = site.cache(entries=0), post(new_row_id())
    assert not cache.wants_rows([(POST, row["id"])], ADA)
    cache.keep_rows({(POST, row["id"]): row}, POSITIONS, ADA)
    assert await cache.rows([(POST, row["id"])], ADA) == {}
    assert await cache.page(POSTS, row["topic_id"], None, ADA, 5) is None
    assert await site.fields() == {}


async def test_another_declaration_of_the_type_is_not_misread(site: Site) -> None:
    row = post(new_row_id())
    site.cache().keep_rows({(POST, row["id"]): row}, POSITIONS, ADA)
    await site.done(1)
    ((field, value),) = (await site.fields()).items()
    head, _, text = value.partition("|")
    said: dict[str, Any] = json.loads(text)
    for change in ({"body": None, "new": 1}, {"version": None}):
        said["row"] = {k: v for k, v in (said["row"] | change).items() if v is not None}
        async for key in site.raw.scan_iter(f"{site.keys.prefix}:cache:*:values"):
            await site.raw.hset(key, field, f"{head}|{json.dumps(said)}")
        assert await site.cache().rows([(POST, row["id"])], ADA) == {}


async def test_with_redis_away_nothing_is_found_and_nothing_raised(site: Site) -> None:
    failures = Counter("f", "for a test", registry=CollectorRegistry())
    away = RedisAccess("redis://127.0.0.1:1/0", 0.2, failures)
    cache = ReadCache(away, site.keys, site.results, entries=10, ttl_s=60)
    row = post(new_row_id())
    cache.keep_rows({(POST, row["id"]): row}, POSITIONS, ADA)
    await site.done(1)
    assert site.counted("dropped") == 1
    assert await cache.rows([(POST, row["id"])], ADA) == {}
    assert await cache.page(POSTS, row["topic_id"], None, ADA, 5) is None
    assert not cache.wants_rows([(POST, row["id"])], ADA)  # while it is left alone
    await cache.close()
    await away.close()


async def test_a_full_redis_gets_the_room_back_and_is_not_taken_for_away(site: Site) -> None:
    cache = site.cache()
    row, other = post(new_row_id()), post(new_row_id(), "y" * 60_000)
    cache.keep_rows({(POST, row["id"]): row}, POSITIONS, ADA)
    await site.done(1)
    before = (await site.raw.config_get("maxmemory"))["maxmemory"]
    await site.raw.config_set("maxmemory", 1)
    try:
        cache = site.cache(entries=1)
        cache.keep_rows({(POST, other["id"]): other}, POSITIONS, ADA)
        await site.done(2)
    finally:
        await site.raw.config_set("maxmemory", before)
    assert site.redis.available
    assert site.counted("dropped") == 1
    assert await site.raw.exists(site.keys.cache_values(0), site.keys.cache_kept(0)) == 0


async def test_a_key_that_was_evicted_takes_the_other_one_with_it(site: Site) -> None:
    rows = [post(new_row_id()) for _ in range(3)]
    for number, row in enumerate(rows[:2]):
        site.cache(entries=1).keep_rows({(POST, row["id"]): row}, POSITIONS, ADA)
        await site.done(number + 1)
        await site.raw.delete([site.keys.cache_kept(0), site.keys.cache_values(0)][number])
    site.cache(entries=1).keep_rows({(POST, rows[2]["id"]): rows[2]}, POSITIONS, ADA)
    await site.done(3)
    assert len(await site.fields()) == 1
    assert await site.raw.zcard(site.keys.cache_kept(0)) == 1


async def test_a_flood_is_dropped_and_not_piled_up(site: Site) -> None:
    cache = site.cache(entries=10_000)
    for _ in range(500):
        row = post(new_row_id())
        cache.keep_rows({(POST, row["id"]): row}, POSITIONS, ADA)
    assert not cache.wants_rows([(POST, new_row_id())], ADA)
    await site.done(500)
    assert 0 < site.counted("kept") < 100
    await asyncio.wait_for(cache.close(), 1)
