"""Redis and Kafka killed, frozen and started again, under load."""

import asyncio
import time
import uuid

import pytest

from tests.acceptance.helpers import Site, down, figure, hung
from tests.installation import Installation, eventually_async

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(180)]

DEADLINE_S = 3.0


async def test_without_redis_it_is_accepted_shown_later_and_saved(
    installation: Installation,
) -> None:
    async with Site(installation) as site:
        await site.start()
        async with site.load() as load:
            with down(installation.services, "redis"):
                answer = await site.send_topic("ada", "Without Redis")
                assert answer.status_code == 202
                assert answer.json()["display"] == "delayed"
                times = await load.more(15)
                assert max(times) < DEADLINE_S + 0.5
            with hung(installation.services, "redis"):
                assert max(await load.more(4)) < DEADLINE_S + 0.5

            async def shown_at_once() -> bool:
                again = await site.send_topic("ada", f"With Redis {uuid.uuid4()}")
                return again.status_code == 202 and "display" not in again.json()

            await eventually_async(shown_at_once, 20, "the display to be back")
        await site.prove()


async def test_without_kafka_it_is_refused_in_time_and_heals_by_itself(
    installation: Installation,
) -> None:
    async with Site(installation) as site:
        await site.start()
        opened = await site.accepted("ada", "The topic")
        await site.drained()
        bodies = [f"While Kafka is down {n}" for n in range(6)]
        with down(installation.services, "kafka"):
            slowest = 0.0
            for number, body in enumerate(bodies):
                started = time.monotonic()
                answer = await site.send_post(
                    "ada", opened.topic, body, Idempotency_Key=f"key-{number}"
                )
                slowest = max(slowest, time.monotonic() - started)
                assert answer.status_code == 503
                assert answer.json()["code"] in ("not_accepted", "outcome_unknown")
                assert int(answer.headers["retry-after"]) > 0
            figure("refused_s", round(slowest, 2))
            assert slowest < DEADLINE_S + 0.5
            refused = [b for b in bodies if b not in site.unsure]
            assert refused  # the broker is known to be away: some of them were definite
            shown = {p["body"]: p["state"] for p in await site.posts("ada", opened.topic)}
            assert not set(refused) & set(shown)
            assert all(shown.get(body) in (None, "pending") for body in site.unsure)
            assert (await site.ask("ada", "GET", f"/v1/posts/{opened.post}")).status_code == 200

        await site.accepted("ada", "After Kafka came back", opened.topic)
        # Repeating the uncertain ones with their keys makes each of them one.
        for number, body in enumerate(bodies):
            if body in site.unsure:
                await _again(site, opened.topic, body, f"key-{number}")
        assert not site.unsure
        async with site.load() as load:
            await load.more(20)
        await site.drained()
        found = [r["body"] for r in await installation.fetch("SELECT body FROM post")]
        assert not set(refused) & set(found)
        assert len(found) == len(set(found))
        await site.audited()


async def _again(site: Site, topic: uuid.UUID, body: str, key: str) -> None:
    async def accepted() -> bool:
        answer = await site.send_post("ada", topic, body, Idempotency_Key=key)
        return answer.status_code == 202

    await eventually_async(accepted, 30, f"{body} to be accepted")


async def test_a_hanging_kafka_leaves_it_open_and_a_repeat_makes_it_one(
    installation: Installation,
) -> None:
    async with Site(installation) as site:
        await site.start()
        opened = await site.accepted("ada", "The topic")
        await site.drained()
        bodies = [f"While Kafka hangs {n}" for n in range(3)]
        with hung(installation.services, "kafka"):
            started = time.monotonic()
            answers = await asyncio.gather(
                *(
                    site.send_post("ada", opened.topic, body, Idempotency_Key=body[-1])
                    for body in bodies
                )
            )
            assert time.monotonic() - started < DEADLINE_S + 0.5
            assert {a.status_code for a in answers} == {503}
            codes = {a.json()["code"] for a in answers}
            assert "outcome_unknown" in codes, codes
            shown = await site.posts("ada", opened.topic)
            assert {p["body"] for p in shown if p["state"] == "saved"} == {"The topic"}
        unknown = [
            b for b, a in zip(bodies, answers, strict=True) if a.json()["code"] != "not_accepted"
        ]
        for body in unknown:
            await _again(site, opened.topic, body, body[-1])
        await site.accepted("ada", "After it hung", opened.topic)
        site.sent.sort(key=lambda sent: sent.post)  # the late ones were sent first
        await site.drained()
        rows = await installation.fetch("SELECT body FROM post ORDER BY id")
        assert sorted(r["body"] for r in rows) == sorted(["The topic", *unknown, "After it hung"])
        await site.audited()


async def test_kafka_killed_under_load_loses_and_doubles_nothing(
    installation: Installation,
) -> None:
    """And so does one that hangs. Authors repeat with the same key until they are told 202."""
    async with Site(installation) as site:
        await site.start()
        async with site.load() as load:
            for fault in (down, hung):
                refused = site.statuses[503]
                with fault(installation.services, "kafka"):

                    async def met(refused: int = refused) -> bool:
                        return site.statuses[503] > refused + 3

                    await eventually_async(met, 20, "the load to be refused")
                await load.more(15, 60)
        await site.prove()
