"""What authors are told while PostgreSQL is away, on the real processes: at once, once, and for good."""

import asyncio
import json
import uuid
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from prometheus_client import CollectorRegistry, Counter
from redis.asyncio import Redis

from frontend_api.overlay import Laid, Overlay
from frontend_api.redis_access import RedisAccess
from schema.catalog import load_catalog
from schema.commands import Command
from schema.redis_keys import RedisKeys
from schema.scopes import Touch, scopes_of_touches
from tests.acceptance.helpers import Site, hung
from tests.commands import author, notice_to, publish, sealed
from tests.contract.test_http_notices import told_of
from tests.installation import Installation, eventually_async
from tests.streams import EventSource

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(120)]

ADA = author("ada")


async def notify(installation: Installation, notice: Command, log_id: uuid.UUID) -> str:
    """What the notifier does, by hand: into the overlay, into the log, onto the outcomes topic."""
    catalog, keys, m = (
        load_catalog("schema.forum"),
        RedisKeys(installation.name),
        notice.mutations[0],
    )
    kind = catalog[m.type]
    touch = Touch(kind, m.id, kind.from_json(m.values), 1)
    failures = Counter("failures", "for a test", registry=CollectorRegistry())
    access = RedisAccess(installation.services.redis_url, 10.0, failures)
    bootstrap = installation.services.kafka_bootstrap
    await publish(bootstrap, f"{installation.name}.commands", [sealed(notice, log_id)], lane=0)
    try:
        scopes = scopes_of_touches(catalog, keys, notice, [touch])
        assert await Overlay(access, keys).lay(Laid(notice, scopes))
    finally:
        await access.close()
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    try:
        key = str(notice.author.id).encode()
        topic = f"{installation.name}.outcomes"
        await producer.send_and_wait(topic, key=key, value=told_of(notice))
    finally:
        await producer.stop()
    return str(m.id)


async def test_an_author_is_told_while_postgresql_and_then_redis_have_nothing_to_say(
    installation: Installation,
) -> None:
    async with Site(installation) as site:
        installation.start("writer")
        await site.start_api(delay_notice_after="1", horizon_s="3600")
        await installation.processes["writer"].ready()
        first = await site.accepted("ada", "Saved before")
        await site.drained()
        log_id = await installation.value("SELECT log_id FROM afterwrite.lane")
        with hung(installation.services, "postgres"):
            waits = await site.accepted("ada", "Waits", first.topic)
            late = await site.reaches("ada", waits.command, "delayed")
            assert late["keeps_trying_until"] > late["accepted_at"]
            async with EventSource(installation, "ada") as stream:
                notice = notice_to(ADA, waits.command)
                row_id = await notify(installation, notice, log_id)
                name, told = await stream.next()
                assert (name, told["notice"], told["command"]) == (
                    "notice", row_id, str(waits.command),
                )  # fmt: skip
                await _reads(site, row_id, read=False)
                assert (await _notices(site))["items"] == [told["row"]]
            marked = await site.ask("ada", "PUT", f"/v1/notices/{row_id}/read")
            assert marked.status_code == 202
            wish = await site.ask("ada", "PUT", "/v1/preferences", {"mail": False})
            assert wish.status_code == 202
            redis = Redis.from_url(installation.services.redis_url)
            await redis.flushall()
            await redis.aclose()
            await _reads(site, row_id, read=True)  # made again from the log
            assert (await _notices(site))["older"] == "unavailable"
            listed = (await site.ask("ada", "GET", "/v1/commands")).json()["items"]
            assert str(notice.command_id) not in [c["id"] for c in listed]
            assert str(waits.command) in [c["id"] for c in listed]
            await stream_again(installation, stream.last, row_id)
        await site.reaches("ada", waits.command, "saved")
        await site.reaches("ada", wish.json()["command"], "saved")
        saved = await installation.fetch("SELECT id::text, read, kind FROM notice")
        assert [tuple(row) for row in saved] == [(row_id, True, "delayed")]
        (item,) = (await _notices(site))["items"]
        assert (item["id"], item["read"], item["state"]) == (row_id, True, "saved")
        listed = (await site.ask("ada", "GET", "/v1/commands")).json()["items"]
        assert str(notice.command_id) not in [c["id"] for c in listed]
        chosen = {"mail": True, "locale": "de"}
        second = await site.ask("ada", "PUT", "/v1/preferences", chosen, Prefer="wait=20")
        assert (second.status_code, second.json()["state"]) == (201, "saved")
        assert (second.json()["version"], second.json()["locale"]) == (3, "de")
        rows = await installation.fetch("SELECT user_id, mail, locale FROM preference")
        assert [tuple(row) for row in rows] == [(ADA.id, True, "de")]
        await site.prove()


async def stream_again(installation: Installation, last: str | None, row_id: str) -> None:
    """A stream that begins in front of the notice is told of it again."""
    partition, _, offset = str(last).partition("-")
    before = f"{partition}-{int(offset) - 1}" if int(offset) else f"{partition}-"
    async with EventSource(installation, "ada", last=before) as again:
        name, told = await asyncio.wait_for(again.next(), 5)
        assert (name, told["notice"]) == ("notice", row_id)


async def _notices(site: Site) -> dict[str, Any]:
    answer = await site.ask("ada", "GET", "/v1/notices")
    body: dict[str, Any] = answer.json()
    return body if answer.status_code == 200 else {"items": [], "problem": json.dumps(body)}


async def _reads(site: Site, row_id: str, *, read: bool) -> None:
    found: dict[str, Any] = {}

    async def there() -> bool:
        found.update(await _notices(site))
        return [(n["id"], n["read"]) for n in found["items"]] == [(row_id, read)]

    await eventually_async(there, 15, f"the notice to be there, read {read}; there is {found}")
