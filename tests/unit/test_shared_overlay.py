"""What everyone may see while it is pending: only that, and only once Kafka has confirmed it."""

import asyncio
import json
from typing import Any

import pytest

from frontend_api.kafka_producer import Published
from frontend_api.overlay import Laid
from frontend_api.planning import public_part
from schema.catalog import load_catalog
from schema.identifiers import user_id_for
from schema.overlay import EntryState
from schema.redis_keys import SHARED, short_id
from tests.commands import author, command, reaction, topic_with_post, update
from tests.frontend import FrontEnd, front_end

pytestmark = pytest.mark.unit

OPEN = "tests.content_open"
ADA = user_id_for("ada")


async def _topic(site: FrontEnd, status: int = 202) -> dict[str, Any]:
    async with site.client() as ada:
        headers = {"Idempotency-Key": "a-secret-between-ada-and-us"}
        answer = await ada.post("/v1/topics", json={"title": "T", "body": "B"}, headers=headers)
    assert answer.status_code == status
    body: dict[str, Any] = answer.json()
    return body


async def _seen_by(site: FrontEnd, user: str) -> list[str]:
    async with site.client(user) as client:
        return [item["id"] for item in (await client.get("/v1/topics")).json()["items"]]


async def test_others_see_it_once_kafka_has_confirmed() -> None:
    async with front_end(content=OPEN) as site:
        made = await _topic(site)
        assert await _seen_by(site, "eve") == await _seen_by(site, "ada") == [made["id"]]
        async with site.client("eve") as eve:
            topic = (await eve.get(f"/v1/topics/{made['id']}")).json()
            assert (topic["state"], topic["post_count"]) == ("pending", 1)
            posts = (await eve.get(f"/v1/topics/{made['id']}/posts")).json()["items"]
            assert [post["body"] for post in posts] == ["B"]


@pytest.mark.parametrize("mode", ["lose", "hide", "refuse"])
async def test_others_see_nothing_that_kafka_has_not_confirmed(mode: str) -> None:
    async with front_end(content=OPEN) as site:
        site.backends.log.mode = mode
        await _topic(site, 503)
        assert SHARED not in site.backends.overlay.entries
        assert await _seen_by(site, "eve") == []
        if mode == "hide":
            (late,) = site.backends.log.late
            late(Published(0, 0))
            await asyncio.gather(*site.backends.services.submissions.late)
            assert len(await _seen_by(site, "eve")) == 1


async def test_a_rejected_one_is_gone_for_others() -> None:
    async with front_end(content=OPEN) as site:
        await _topic(site)
        site.backends.apply_next(reject=True)
        site.backends.settle_next()
        assert await _seen_by(site, "eve") == []


async def test_only_its_public_part_is_shared() -> None:
    async with front_end(content=OPEN) as site:
        made = await _topic(site)
        async with site.client() as ada:
            post = (await ada.get(f"/v1/topics/{made['id']}/posts")).json()["items"][0]
            emoji = await ada.put(f"/v1/posts/{post['id']}/reactions/x")
            assert emoji.status_code == 202
        overlay = site.backends.overlay
        assert len(overlay.entries[ADA]) == 2
        ((shared, status),) = overlay.entries[SHARED].values()
        assert {m.type for m in shared.mutations} == {"topic", "post"}
        assert status.state is EntryState.PENDING
        text = json.dumps(shared.to_json())
        assert "a-secret-between" not in text
        assert "fingerprint" not in text
        keys = " ".join(
            k for k, members in overlay.indexes.items() if members and short_id(SHARED) in k
        )
        assert "topic" in keys
        assert "reaction" not in keys


async def test_without_types_that_everyone_sees_nothing_is_ever_shared() -> None:
    async with front_end() as site:
        await _topic(site)
        assert set(site.backends.overlay.entries) == {ADA}
        assert not any(short_id(SHARED) in key for key in site.backends.overlay.indexes)
        assert await _seen_by(site, "eve") == []


def test_the_public_part_of_a_command() -> None:
    catalog = load_catalog(OPEN)
    ada, (topic, post) = author("ada", "admin"), topic_with_post()
    emoji = reaction(post.id, ada, "x")
    mixed = command(
        ada, topic, post, emoji, update("post", post.id, 1, body="b"), key="k", fingerprint="f"
    )
    public = public_part(catalog, mixed)
    assert public is not None
    assert public.mutations == (topic, post, update("post", post.id, body="b"))
    assert (public.command_id, public.author.id) == (mixed.command_id, mixed.author.id)
    assert public.author.roles == ()
    assert (public.idempotency_key, public.fingerprint, public.replays) == (None, None, None)
    assert public_part(catalog, command(ada, emoji)) is None
    assert public_part(load_catalog("schema.forum"), mixed) is None


# -- Redis away, or emptied, in the middle of it ---------------------------------------------------


async def test_what_redis_lost_before_it_was_confirmed_is_laid_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with front_end(content=OPEN) as site:
        overlay, publish = site.backends.overlay, site.backends.log.publish

        async def losing(*args: Any) -> Published:
            published = await publish(*args)
            overlay.lose()
            return published

        monkeypatch.setattr(site.backends.log, "publish", losing)
        made = await _topic(site)
        assert await _seen_by(site, "ada") == await _seen_by(site, "eve") == [made["id"]]
        ((_, status),) = overlay.entries[ADA].values()
        assert (status.state, status.offset) == (EntryState.PENDING, 0)


async def test_what_redis_did_not_take_in_time_is_laid_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asleep, wake = asyncio.Event(), asyncio.Event()

    async def sleep(_: float) -> None:
        asleep.set()
        await wake.wait()

    monkeypatch.setattr(asyncio, "sleep", sleep)
    async with front_end(content=OPEN) as site:
        overlay, submissions = site.backends.overlay, site.backends.services.submissions
        overlay.available = False
        made = await _topic(site)
        await asleep.wait()
        assert len(submissions.owed) == 1
        overlay.available = True
        wake.set()
        await asyncio.gather(*submissions.late)
        assert not submissions.owed
        assert await _seen_by(site, "ada") == await _seen_by(site, "eve") == [made["id"]]


async def test_what_was_settled_meanwhile_stays_away() -> None:
    async with front_end(content=OPEN) as site:
        await _topic(site)
        overlay = site.backends.overlay
        ((held, _),) = overlay.entries[ADA].values()
        overlay.lose()
        overlay.settle(held, EntryState.SAVED, 0, 0)
        assert await overlay.confirm(held, 0, 0)
        await overlay.put(held, [])
        assert await overlay.lay(Laid(held, []))
        assert await overlay.lay(Laid(held, [], None, SHARED))
        assert not any(overlay.entries.values())
