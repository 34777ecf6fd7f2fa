"""No fault at all: submitted, seen at once, saved once; or refused, and said so."""

from typing import Any

import pytest

from schema.identifiers import new_row_id, user_id_for
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
        await site.audited()


def _topic_with_two_posts() -> dict[str, Any]:
    topic = str(new_row_id())
    return {
        "mutations": [
            {"op": "create", "type": "topic", "id": topic, "values": {"title": "Several at once"}},
            {"op": "create", "type": "post", "values": {"topic_id": topic, "body": "one"}},
            {"op": "create", "type": "post", "values": {"topic_id": topic, "body": "two"}},
        ]
    }


async def test_what_the_writer_refuses_is_told_to_its_author(installation: Installation) -> None:
    """The front end could not know: others made these wrong while nobody had seen it yet."""
    async with Site(installation) as site:
        await site.start()
        adas = await site.accepted("ada", "Ada's topic")
        bobs = await site.accepted("bob", "Bob's topic")
        cecils = await site.accepted("cecil", "Cecil's topic")
        doras = await site.accepted("dora", "Dora's topic")
        await site.drained()
        assert installation.processes["writer"].terminate() == 0

        # While no writer runs, all that follows is accepted and stays pending.
        async with installation.client("mod", "moderator") as moderator:
            for path, change in (
                (f"/v1/topics/{adas.topic}", {"locked": True}),
                (f"/v1/posts/{bobs.post}", {"body": "Moderated"}),
                (f"/v1/posts/{doras.post}", {"body": "Moderated, too"}),
                (f"/v1/users/{user_id_for('cecil')}", {"banned": True}),
            ):
                assert (await moderator.patch(path, json=change)).status_code == 202
        edit = {"body": "Too late"}
        both: list[dict[str, Any]] = [
            {
                "op": "create",
                "type": "post",
                "values": {"topic_id": str(doras.topic), "body": "Half"},
            },
            {"op": "update", "type": "post", "id": str(doras.post), "values": edit}
            | {"expected_version": 1},
        ]
        wrong = {
            "ada": await site.ask(
                "ada", "POST", f"/v1/topics/{adas.topic}/posts", {"body": "Into a locked topic"}
            ),
            "bob": await site.ask("bob", "PATCH", f"/v1/posts/{bobs.post}", edit, If_Match='"v1"'),
            "cecil": await site.ask("cecil", "POST", "/v1/topics", {"title": "Me", "body": "Hi"}),
            "dora": await site.ask("dora", "POST", "/v1/commands", {"mutations": both}),
        }
        assert {answer.status_code for answer in wrong.values()} == {202}
        right = await site.accepted("cecil and friends", "Not banned")

        installation.start("writer", "next")
        codes = {"ada": "forbidden", "bob": "version_conflict", "cecil": "forbidden"}
        codes["dora"] = "version_conflict"
        for user, answer in wrong.items():
            command = answer.json().get("command") or answer.json()["id"]
            refused = await site.reaches(user, command, "rejected")
            assert refused["problem"]["code"] == codes[user]
            notice = (await _notices(site, user, 1))[0]
            assert (notice["command_id"], notice["code"]) == (refused["id"], codes[user])
        assert "Into a locked topic" in str((await _notices(site, "ada", 1))[0]["returned"])
        await site.reaches(right.user, right.command, "saved")
        gone = wrong["ada"].json()["id"]
        assert (await site.ask("ada", "GET", f"/v1/posts/{gone}")).status_code == 404
        assert [p["body"] for p in await site.posts("ada", adas.topic)] == ["Ada's topic"]
        assert [p["body"] for p in await site.posts("bob", bobs.topic)] == ["Moderated"]
        # One change of two was not allowed: neither was made.
        assert [p["body"] for p in await site.posts("dora", doras.topic)] == ["Moderated, too"]
        assert cecils.post in {r["id"] for r in await installation.fetch("SELECT id FROM post")}
        assert await installation.value("SELECT count(*) FROM post") == 5
        assert await installation.value("SELECT count(*) FROM afterwrite.dead_letter") == 4
        await site.audited()


async def _notices(site: Site, user: str, count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    async def there() -> bool:
        found[:] = (await site.ask(user, "GET", "/v1/notices")).json()["items"]
        return len(found) >= count

    await eventually_async(there, 20, f"{count} notices for {user}")
    return found
