"""What Kafka has is confirmed in the overlay: before the answer where that matters, else soon."""

import asyncio
from typing import Any

import pytest

from frontend_api.kafka_producer import Published
from schema.identifiers import user_id_for
from schema.overlay import EntryState, Status
from tests.frontend import FrontEnd, front_end

pytestmark = pytest.mark.unit

ADA = user_id_for("ada")


async def _topic(site: FrontEnd) -> dict[str, Any]:
    async with site.client() as ada:
        answer = await ada.post("/v1/topics", json={"title": "T", "body": "B"})
    assert answer.status_code == 202
    body: dict[str, Any] = answer.json()
    return body


def _statuses(site: FrontEnd) -> list[Status]:
    return [status for _, status in site.backends.overlay.entries.get(ADA, {}).values()]


async def _end(site: FrontEnd) -> None:
    """Wait for what nobody waits for."""
    await asyncio.gather(*site.backends.services.submissions.late)


async def test_the_answer_does_not_wait_until_new_rows_are_confirmed() -> None:
    async with front_end() as site:
        made = [await _topic(site) for _ in range(3)]
        states = [status.state for status in _statuses(site)]
        assert states[-1] is EntryState.UNCONFIRMED
        async with site.client() as ada:
            command = (await ada.get(f"/v1/commands/{made[-1]['command']}")).json()
            assert command["state"] == "pending"
            listed = (await ada.get("/v1/topics")).json()["items"]
            assert {item["id"] for item in listed} == {topic["id"] for topic in made}
            assert {item["state"] for item in listed} == {"pending"}
        await _end(site)
        found = [(status.state, status.lane, status.offset) for status in _statuses(site)]
        assert found == [(EntryState.PENDING, 0, offset) for offset in range(3)]


async def test_of_changes_to_a_row_their_places_are_known_before_the_answer() -> None:
    async with front_end() as site:
        made = await _topic(site)
        await _end(site)
        async with site.client() as ada:
            headers = {"If-Match": "*"}
            path = f"/v1/topics/{made['id']}"
            assert (await ada.patch(path, json={"title": "U"}, headers=headers)).status_code == 202
            assert [status.offset for status in _statuses(site)] == [0, 1]


async def test_what_was_settled_first_stays_settled() -> None:
    async with front_end() as site:
        await _topic(site)
        site.backends.apply_next()
        site.backends.settle_next()
        await _end(site)
        assert [status.state for status in _statuses(site)] == [EntryState.SAVED]


async def test_what_redis_lost_before_it_was_confirmed_is_laid_again() -> None:
    async with front_end() as site:
        await _topic(site)
        site.backends.overlay.lose()
        await _end(site)
        assert [(s.state, s.offset) for s in _statuses(site)] == [(EntryState.PENDING, 0)]


async def test_while_redis_does_not_take_it_reads_are_not_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with front_end() as site:
        overlay, submissions = site.backends.overlay, site.backends.services.submissions
        publish, wake, sleep = site.backends.log.publish, asyncio.Event(), asyncio.sleep

        async def losing(*args: Any) -> Published:
            published = await publish(*args)
            overlay.available = False
            return published

        async def asleep(seconds: float) -> None:
            await (wake.wait() if seconds >= 1 else sleep(seconds))

        monkeypatch.setattr(asyncio, "sleep", asleep)
        monkeypatch.setattr(site.backends.log, "publish", losing)
        await _topic(site)
        async with asyncio.timeout(10):
            while not submissions.owed:
                await sleep(0.001)
        overlay.available = True
        overlay.lose()
        wake.set()
        await _end(site)
        await _end(site)
        assert not submissions.owed
        assert [(s.state, s.offset) for s in _statuses(site)] == [(EntryState.PENDING, 0)]
