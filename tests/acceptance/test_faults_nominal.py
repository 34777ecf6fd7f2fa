"""No fault at all: submitted, seen at once, saved once; or refused, and said so."""

import uuid
from typing import Any

import pytest

from tests.acceptance.helpers import Site
from tests.installation import Installation, eventually_async

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(120)]


async def test_the_whole_way_of_every_kind_of_change(installation: Installation) -> None:
    async with Site(installation) as site:
        await site.start()
        answer = await site.send_topic("ada", "The first post")
        assert answer.status_code == 202
        assert (answer.json()["state"], answer.json()["post"]["state"]) == ("pending", "pending")
        opened = site.sent[0]
        seen = (await site.ask("ada", "GET", f"/v1/topics/{opened.topic}")).json()
        assert (seen["title"], seen["post_count"]) == ("About The first post", 1)
        assert [p["body"] for p in await site.posts("ada", opened.topic)] == ["The first post"]
        settled = await site.reaches("ada", opened.command, "saved")
        assert {(r["type"], r["op"]) for r in settled["rows"]} >= {
            ("topic", "create"),
            ("post", "create"),
        }

        post = f"/v1/posts/{opened.post}"
        reply = (await site.send_post("bob", opened.topic, "A reply")).json()
        edited = await site.ask("ada", "PATCH", post, {"body": "Better"}, If_Match='"v1"')
        liked = await site.ask("bob", "PUT", f"{post}/reactions/👍")
        assert (edited.status_code, liked.status_code) == (202, 202)
        now = (await site.ask("ada", "GET", post)).json()
        assert (now["body"], now["version"]) == ("Better", 2)
        for user, sent in (("bob", reply), ("ada", edited.json()), ("bob", liked.json())):
            await site.reaches(user, sent["command"], "saved")
        gone = await site.ask("bob", "DELETE", f"/v1/posts/{reply['id']}")
        assert gone.status_code == 202
        assert (await site.ask("bob", "GET", f"/v1/posts/{reply['id']}")).status_code == 404
        await site.reaches("bob", gone.json()["command"], "saved")

        several = await site.ask("eve", "POST", "/v1/commands", _topic_with_two_posts())
        assert several.status_code == 202
        await site.reaches("eve", several.json()["id"], "saved")
        rows = await installation.fetch("SELECT body, reaction_count FROM post ORDER BY id")
        assert sorted(map(tuple, rows)) == [("Better", 1), ("one", 0), ("two", 0)]
        assert installation.run("audit").returncode == 0


def _topic_with_two_posts() -> dict[str, Any]:
    topic = _new_id()
    return {
        "mutations": [
            {"op": "create", "type": "topic", "id": topic, "values": {"title": "Several at once"}},
            {"op": "create", "type": "post", "values": {"topic_id": topic, "body": "one"}},
            {"op": "create", "type": "post", "values": {"topic_id": topic, "body": "two"}},
        ]
    }


def _new_id() -> str:
    from schema.identifiers import new_row_id

    return str(new_row_id())


async def test_what_the_writer_refuses_is_told_to_its_author(installation: Installation) -> None:
    """The front end could not know: each of these became wrong while it was pending."""
    async with Site(installation) as site:
        await site.start_api()
        writer = await installation.start("writer").ready()
        opened = await site.accepted("ada", "Ada's topic")
        bobs = await site.accepted("bob", "Bob's topic")
        await site.drained()
        assert writer.terminate() == 0

        # While no writer runs, all that follows is accepted and stays pending.
        moderator = installation.client("mod", "moderator")
        async with moderator:
            lock = await moderator.patch(f"/v1/topics/{opened.topic}", json={"locked": True})
            ban = await moderator.patch(f"/v1/users/{_user('cecil')}", json={"banned": True})
        assert lock.status_code == 202
        into_locked = await site.send_post("bob", opened.topic, "Into a locked topic")
        path = f"/v1/posts/{bobs.post}"
        first = await site.ask("bob", "PATCH", path, {"body": "First edit"}, If_Match='"v1"')
        late = await site.ask("bob", "PATCH", path, {"body": "Late edit"}, If_Match='"v1"')
        assert [r.status_code for r in (into_locked, first, late)] == [202, 202, 412]
        assert ban.status_code in (202, 404)  # nobody has seen cecil write yet
        stale = await site.ask("ada", "PATCH", f"/v1/topics/{opened.topic}", {"title": "Mine"})
        assert stale.status_code == 202

        installation.start("writer")
        refused = await site.reaches("bob", into_locked.json()["command"], "rejected")
        assert refused["problem"]["code"] == "forbidden"
        notices = await _notices(site, "bob", 1)
        assert notices[0]["command_id"] == into_locked.json()["command"]
        assert notices[0]["code"] == "forbidden"
        assert "Into a locked topic" in str(notices[0]["returned"])
        assert (
            await site.ask("bob", "GET", f"/v1/posts/{into_locked.json()['id']}")
        ).status_code == 404
        assert "Into a locked topic" not in {
            p["body"] for p in await site.posts("bob", opened.topic)
        }
        await site.reaches("bob", first.json()["command"], "saved")
        await site.reaches("ada", stale.json()["command"], "saved")
        assert await installation.value("SELECT count(*) FROM afterwrite.dead_letter") == 1
        assert installation.run("audit").returncode == 0


async def _notices(site: Site, user: str, count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    async def there() -> bool:
        found[:] = (await site.ask(user, "GET", "/v1/notices")).json()["items"]
        return len(found) >= count

    await eventually_async(there, 20, f"{count} notices for {user}")
    return found


def _user(name: str) -> uuid.UUID:
    from schema.identifiers import user_id_for

    return uuid.UUID(str(user_id_for(name)))
