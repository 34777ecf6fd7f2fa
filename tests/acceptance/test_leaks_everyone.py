"""Content that everyone may see while it is pending: what others see of it, and what they don't."""

import signal
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from schema.identifiers import user_id_for
from tests.acceptance.helpers import Site, hung
from tests.installation import Installation, eventually_async
from tests.leaks import Stranger, every_type, leaks, made_up, secret, told_apart

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(120)]

READERS = ("bob", "carol")


@asynccontextmanager
async def forum(installation: Installation, content: str) -> AsyncIterator[tuple[Site, uuid.UUID]]:
    """A forum with these content types, and a saved topic of Ada's."""
    installation.extra["AFTERWRITE_CONTENT"] = content
    installation.emails["ada"] = f"{secret('mail')}@example.org"
    async with Site(installation) as site:
        await site.start()
        topic = (await site.accepted("ada", "The first post")).topic
        await site.drained()
        installation.processes["writer"].signal(signal.SIGSTOP)
        yield site, topic


async def bodies(site: Site, user: str, topic: uuid.UUID | str) -> list[str]:
    return [post["body"] for post in await site.posts(user, uuid.UUID(str(topic)))]


async def count(site: Site, user: str, topic: uuid.UUID | str) -> int:
    answer = await site.ask(user, "GET", f"/v1/topics/{topic}")
    return int(answer.json()["post_count"])


async def accepted(site: Site, method: str, path: str, body: object = None) -> Any:
    answer = await site.ask("ada", method, path, body, If_Match="*")
    assert answer.status_code == 202, answer.text
    return answer.json()


async def test_others_see_what_is_pending_and_not_whose_command_it_is(
    installation: Installation,
) -> None:
    async with forum(installation, "tests.content_open") as (site, topic):
        post = await accepted(site, "POST", f"/v1/topics/{topic}/posts", {"body": "pending"})
        gone = await accepted(site, "POST", f"/v1/topics/{topic}/posts", {"body": "then deleted"})
        await accepted(site, "PATCH", f"/v1/posts/{post['id']}", {"body": "and edited"})
        await accepted(site, "DELETE", f"/v1/posts/{gone['id']}")
        opened = await accepted(site, "POST", "/v1/topics", {"title": "Another", "body": "One"})
        for reader in ("ada", *READERS):
            assert await bodies(site, reader, topic) == ["The first post", "and edited"]
            assert await count(site, reader, topic) == 2
            one = await site.ask(reader, "GET", f"/v1/posts/{post['id']}")
            assert (one.json()["body"], one.headers["etag"]) == ("and edited", '"v2"')
            assert one.json()["state"] == "pending"
            assert ("command" in one.json()) is (reader == "ada")
            absent = await site.ask(reader, "GET", f"/v1/posts/{gone['id']}")
            assert absent.status_code == 404
            listed = (await site.ask(reader, "GET", "/v1/topics")).json()["items"]
            assert [t["id"] for t in listed] == [opened["id"], str(topic)]
            assert listed[0]["post_count"] == 1
            assert await bodies(site, reader, opened["id"]) == ["One"]
        commands = [post["command"], gone["command"], opened["command"]]
        secrets = [*commands, installation.emails["ada"]]
        for name in (*READERS, None):
            stranger = Stranger(installation, name)
            rows = {"topic": [str(topic), opened["id"]], "post": [post["id"]], "command": commands}
            assert not leaks(await stranger.everything(rows), secrets)


async def test_what_kafka_has_not_confirmed_is_shown_to_its_author_only(
    installation: Installation,
) -> None:
    async with forum(installation, "tests.content_open") as (site, topic):
        unsure, title = secret("unsure"), secret("topic")
        with hung(installation.services, "kafka"):
            answer = await site.send_post("ada", topic, unsure, Idempotency_Key="one")
            assert (answer.status_code, answer.json()["code"]) == (503, "outcome_unknown")
            body = {"title": title, "body": unsure}
            await site.ask("ada", "POST", "/v1/topics", body, Idempotency_Key="two")
            assert unsure in await bodies(site, "ada", topic)
            ids = {"topic": [str(topic)], "command": [answer.json()["command"]]}
            for reader in READERS:
                assert not leaks(
                    await Stranger(installation, reader).everything(ids), [unsure, title]
                )
                assert await count(site, reader, topic) == 1

        async def shown_to_all() -> bool:
            return all([unsure in await bodies(site, reader, topic) for reader in READERS])

        # Once Kafka has confirmed it after all it is everybody's, although nothing is saved yet.
        await eventually_async(shown_to_all, 30, "the late confirmation to be known")
        assert await count(site, "bob", topic) == 2


async def test_a_lock_that_is_pending_is_everybodys_as_well(installation: Installation) -> None:
    async with forum(installation, "tests.content_open") as (site, topic):
        async with installation.client("mod", "moderator") as mod:
            locked = await mod.patch(f"/v1/topics/{topic}", json={"locked": True})
            assert locked.status_code == 202
        assert (await site.ask("bob", "GET", f"/v1/topics/{topic}")).json()["locked"] is True
        refused = await site.ask("ada", "POST", f"/v1/topics/{topic}/posts", {"body": "late"})
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")


async def test_a_rejected_post_was_shown_and_is_gone_for_everybody(
    installation: Installation,
) -> None:
    async with forum(installation, "tests.content_half_open") as (site, topic):
        async with installation.client("mod", "moderator") as mod:
            locked = await mod.patch(f"/v1/topics/{topic}", json={"locked": True})
            assert locked.status_code == 202
        late = secret("too late")
        post = await accepted(site, "POST", f"/v1/topics/{topic}/posts", {"body": late})
        edit = await accepted(site, "PATCH", f"/v1/posts/{post['id']}", {"body": f"{late} edited"})
        for reader in READERS:
            assert await bodies(site, reader, topic) == ["The first post", f"{late} edited"]
            assert await count(site, reader, topic) == 2
        installation.processes["writer"].signal(signal.SIGCONT)
        for command in (post["command"], edit["command"]):
            await site.reaches("ada", command, "rejected")
        ids = {"topic": [str(topic)], "post": [post["id"]], "command": [post["command"]]}
        for reader in READERS:
            assert await count(site, reader, topic) == 1
            answers = await Stranger(installation, reader).everything(ids)
            assert not leaks(answers, [late, post["command"], edit["command"]])
        assert await bodies(site, "ada", topic) == ["The first post"]


async def test_what_stands_in_something_hidden_is_hidden_too(installation: Installation) -> None:
    """A post is everybody's, the topic it stands in is not: neither it nor its topic is found."""
    async with forum(installation, "tests.content_half_open") as (site, topic):
        title, first, second = secret("title"), secret("first"), secret("second")
        opened = await accepted(site, "POST", "/v1/topics", {"title": title, "body": first})
        added = await accepted(site, "POST", f"/v1/topics/{opened['id']}/posts", {"body": second})
        reacted = await accepted(site, "PUT", f"/v1/posts/{added['id']}/reactions/x")
        ids = {
            "topic": [opened["id"]],
            "post": [opened["post"]["id"], added["id"]],
            "reaction": [reacted["id"]],
            "command": [opened["command"], added["command"]],
        }
        unknown = made_up()
        hidden = {t: [*ids.get(t, ()), unknown] for t in every_type("")}
        secrets = [title, first, second, *(i for found in ids.values() for i in found)]
        for reader in (*READERS, None):
            answers = await Stranger(installation, reader).everything(hidden)
            assert not leaks(answers, secrets)
            assert not told_apart(answers, [i for f in ids.values() for i in f], unknown)
        # Nor does one command carry the one along with the other.
        renamed, shown = secret("renamed"), secret("shown")
        version = (await site.ask("ada", "GET", f"/v1/topics/{topic}")).json()["version"]
        change = {"op": "update", "type": "topic", "id": str(topic), "values": {"title": renamed}}
        create = {"op": "create", "type": "post", "values": {"topic_id": str(topic), "body": shown}}
        mutations = [{**change, "expected_version": version}, create]
        await accepted(site, "POST", "/v1/commands", {"mutations": mutations})
        for reader in READERS:
            assert await bodies(site, reader, topic) == ["The first post", shown]
            there = {"topic": [str(topic)], "user": [str(user_id_for("ada"))]}
            assert not leaks(await Stranger(installation, reader).everything(there), [renamed])
        # A topic that its author deletes is there for all others until it is deleted, posts and all.
        await accepted(site, "DELETE", f"/v1/topics/{topic}")
        assert (await site.ask("ada", "GET", f"/v1/topics/{topic}")).status_code == 404
        for reader in READERS:
            assert await bodies(site, reader, topic) == ["The first post", shown]
