"""An API that is killed between its steps, told to stop, given too much, or given too many rights."""

import asyncio
import json
import signal
import uuid
from pathlib import Path

import httpx2
import pytest

from tests.acceptance.helpers import Site
from tests.installation import Installation, eventually, eventually_async

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(150)]

MAX_BODY_BYTES = 131_072
MAX_POST_BYTES = 65_536


@pytest.mark.parametrize("point", ["api_after_overlay", "api_after_publish"])
async def test_an_api_killed_while_accepting_does_it_once_when_asked_again(
    installation: Installation, tmp_path: Path, point: str
) -> None:
    armed = tmp_path / "armed"
    async with Site(installation) as site:
        await installation.start("writer").ready()
        await site.start_api(failpoints=f"{point}={armed}")
        topic = (await site.accepted("ada", "The topic")).topic
        await site.drained()

        bodies = {"again": "Sent, and sent again", "given-up": "Sent once only"}
        for key, body in bodies.items():
            armed.touch()
            with pytest.raises(httpx2.TransportError):
                await site.send_post("ada", topic, body, Idempotency_Key=key)
            assert await installation.processes["api"].ended() == -signal.SIGKILL
            site.unsure.add(body)
            await site.start_api(failpoints=f"{point}={armed}")

        # Nobody repeats the second one. Whether it is saved depends on whether it was published.
        published = point == "api_after_publish"
        if published:
            await _saved(installation, list(bodies.values()))
        await site.answers(f"/v1/topics/{topic}/posts?limit=100")
        shown = {p["body"]: p["state"] for p in await site.posts("ada", topic)}
        assert shown.get("Sent once only") in (("saved",) if published else ("pending", None))

        repeated = await _repeat(site, topic, bodies["again"], "again")
        assert repeated["state"] == "pending"
        first = await site.send_post("ada", topic, bodies["again"], Idempotency_Key="again")
        assert (first.json()["id"], first.json()["command"]) == (
            repeated["id"],
            repeated["command"],
        )
        assert first.headers["Idempotency-Replayed"] == "true"
        assert len({s.post for s in site.sent if s.body == bodies["again"]}) == 1
        await site.reaches("ada", repeated["command"], "saved")
        rows = await installation.fetch("SELECT id, body FROM post WHERE topic_id = $1", topic)
        found = [r["body"] for r in rows]
        assert found.count(bodies["again"]) == 1
        assert found.count(bodies["given-up"]) == (1 if published else 0)
        assert {str(r["id"]) for r in rows} >= {repeated["id"]}
        if published:
            await site.prove()
        else:
            await _forgotten(site, topic, bodies["given-up"])
        await site.audited()


async def _forgotten(site: Site, topic: uuid.UUID, body: str) -> None:
    """What never reached the log is not shown for ever."""

    async def gone() -> bool:
        return body not in [p["body"] for p in await site.posts("ada", topic)]

    await eventually_async(gone, 30, "the ghost to be forgotten")


async def _saved(installation: Installation, bodies: list[str]) -> None:
    async def there() -> bool:
        found = await installation.value("SELECT count(*) FROM post WHERE body = ANY($1)", bodies)
        return bool(found == len(bodies))

    await eventually_async(there, 20, "both to be saved")


async def _repeat(site: Site, topic: uuid.UUID, body: str, key: str) -> dict[str, str]:
    """Repeat a request until the claim of the dead process is taken over."""
    found: dict[str, str] = {}

    async def taken_over() -> bool:
        answer = await site.send_post("ada", topic, body, Idempotency_Key=key)
        assert answer.status_code in (202, 409), answer.text
        found.update(answer.json())
        return answer.status_code == 202

    await eventually_async(taken_over, 15, "the claim to be taken over")
    return found


async def test_an_api_told_to_stop_answers_what_is_in_work(installation: Installation) -> None:
    async with Site(installation) as site:
        await site.start()
        api, writer = installation.processes["api"], installation.processes["writer"]
        await site.accepted("ada", "Before")
        await site.drained()
        writer.signal(signal.SIGSTOP)
        waiting = [
            asyncio.create_task(site.send_topic(f"user-{n}", f"In work {n}", Prefer="wait=10"))
            for n in range(6)
        ]

        def published() -> bool:
            return len([e for e in api.events() if e["event"] == "accepted"]) == 7

        await eventually(published, 20, "six submissions in work")
        api.signal(signal.SIGTERM)
        writer.signal(signal.SIGCONT)
        answers = await asyncio.gather(*waiting)
        assert {a.status_code for a in answers} <= {201, 202}
        assert await api.ended(10) == 0
        await site.start_api()
        for sent in site.sent:
            await site.reaches(sent.user, sent.command, "saved")
        assert await installation.value("SELECT count(*) FROM post") == 7
        await site.audited()


async def test_a_body_at_the_limit_is_taken_and_one_byte_more_is_not(
    installation: Installation,
) -> None:
    async with Site(installation) as site:
        await site.start()
        topic = (await site.accepted("ada", "The topic")).topic
        url = f"/v1/topics/{topic}/posts"
        empty = len('{"body":""}')
        async with installation.client("ada") as client:
            for size, status in ((MAX_POST_BYTES, 202), (MAX_POST_BYTES + 1, 422)):
                answer = await client.post(url, json={"body": "x" * size})
                assert answer.status_code == status, size
            spaces = MAX_BODY_BYTES - empty - 4
            for size, status in ((spaces, 202), (spaces + 1, 413)):
                raw = b'{"body":"four"' + b" " * size + b"}"
                json_type = {"Content-Type": "application/json"}
                answer = await client.post(url, content=raw, headers=json_type)
                assert (len(raw) - MAX_BODY_BYTES, answer.status_code) == (size - spaces, status)
            # The largest command that a request can hold, in two-byte characters.
            posts = [_new_post(topic, "ä" * 32_768), _new_post(topic, "ä" * 32_000)]
            body = json.dumps({"mutations": posts}, ensure_ascii=False).encode()
            answer = await client.post("/v1/commands", content=body, headers=json_type)
            assert (len(body) < MAX_BODY_BYTES, answer.status_code) == (True, 202)
        await site.accepted("ada", "The producer lives", topic)
        await site.drained()
        assert "producer_replaced" not in {
            e["event"] for e in installation.processes["api"].events()
        }
        lengths = await installation.fetch(
            "SELECT octet_length(body) AS n FROM post WHERE topic_id = $1", topic
        )
        assert sorted(row["n"] for row in lengths)[-3:] == [64_000, MAX_POST_BYTES, MAX_POST_BYTES]
        await site.audited()


def _new_post(topic: uuid.UUID, body: str) -> dict[str, object]:
    return {"op": "create", "type": "post", "values": {"topic_id": str(topic), "body": body}}
