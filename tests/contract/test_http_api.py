"""What the API answers to good requests, over fakes: shapes, headers, permissions, retries."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from schema.identifiers import new_row_id, user_id_for
from schema.overlay import EntryState
from tests.frontend import FrontEnd, front_end

pytestmark = pytest.mark.contract

GOOD = {"title": "A title", "body": "A body"}


@pytest.fixture
async def site() -> AsyncIterator[FrontEnd]:
    async with front_end() as made:
        yield made


def drain(site: FrontEnd) -> None:
    while site.backends.apply_next() or site.backends.settle_next():
        pass


async def test_the_answer_to_a_topic(site: FrontEnd) -> None:
    async with site.client() as client:
        answer = await client.post("/v1/topics", json=GOOD)
    assert answer.status_code == 202
    body = answer.json()
    assert uuid.UUID(body["id"]).version == 7
    assert (body["version"], body["state"], body["title"]) == (1, "pending", "A title")
    assert body["post"]["topic_id"] == body["id"]
    assert body["author_id"] == str(user_id_for("ada"))
    assert answer.headers["location"] == f"/v1/topics/{body['id']}"
    assert answer.headers["link"] == f'</v1/commands/{body["command"]}>; rel="monitor"'
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["etag"] == '"v1"'
    (command,) = site.backends.log.commands()
    assert [str(m.id) for m in command.mutations] == [body["id"], body["post"]["id"]]
    assert str(command.stream) == body["id"]


async def test_permissions_are_asked_early(site: FrontEnd) -> None:
    async with (
        site.client("ada") as ada,
        site.client("eve") as eve,
        site.client("mo", "moderator") as mo,
    ):
        topic = (await ada.post("/v1/topics", json=GOOD)).json()
        drain(site)
        address, post = f"/v1/topics/{topic['id']}", f"/v1/posts/{topic['post']['id']}"
        refused = [
            await eve.patch(address, json={"title": "x"}),
            await eve.delete(post),
            await ada.patch(address, json={"locked": True}),
            await ada.post("/v1/topics", json={**GOOD, "locked": True}),
        ]
        assert [a.status_code for a in refused] == [403] * 4
        assert (await mo.patch(address, json={"locked": True})).status_code == 202
        drain(site)
        assert (await eve.post(f"{address}/posts", json={"body": "x"})).status_code == 403
        assert (await mo.post(f"{address}/posts", json={"body": "x"})).status_code == 202
    assert len(site.backends.log.records) == 3


async def test_what_is_not_there(site: FrontEnd) -> None:
    missing = new_row_id()
    async with site.client() as client:
        topic = (await client.post("/v1/topics", json=GOOD)).json()
        posts = f"/v1/topics/{topic['id']}/posts"
        answer = await client.post(f"/v1/topics/{missing}/posts", json={"body": "x"})
        assert answer.status_code == 404
        answer = await client.post(posts, json={"body": "x", "reply_to": str(missing)})
        assert (answer.status_code, answer.json()["code"]) == (422, "target_missing")
        assert answer.json()["errors"][0]["pointer"] == "/reply_to"
        answer = await client.post(posts, json={"body": "x", "reply_to": topic["post"]["id"]})
        assert answer.status_code == 202
        assert (await client.put(f"/v1/posts/{missing}/reactions/x")).status_code == 404


async def test_several_mutations_are_one_command(site: FrontEnd) -> None:
    topic, post = str(new_row_id()), str(new_row_id())
    mutations: list[dict[str, Any]] = [
        {"op": "create", "type": "topic", "id": topic, "values": {"title": "T"}},
        {"op": "create", "type": "post", "id": post, "values": {"topic_id": topic, "body": "1"}},
        {"op": "update", "type": "post", "id": post, "values": {"body": "2"}},
        {"op": "create", "type": "reaction", "values": {"post_id": post, "emoji": "x"}},
    ]
    async with site.client() as client:
        answer = await client.post("/v1/commands", json={"mutations": mutations})
        assert answer.status_code == 202, answer.text
        assert [row["type"] for row in answer.json()["rows"]] == [
            "topic",
            "post",
            "post",
            "reaction",
        ]
        read = (await client.get(f"/v1/posts/{post}")).json()
        assert (read["body"], read["version"], read["reaction_count"]) == ("2", 2, 1)
        command = (await client.get(answer.headers["location"])).json()
        assert (command["state"], command["settled_at"]) == ("pending", None)
        drain(site)
        command = (await client.get(answer.headers["location"])).json()
        assert (command["state"], command["outcome"]) == ("saved", "saved")
    assert len(site.backends.log.records) == 1


async def test_refused_by_kafka_leaves_nothing(site: FrontEnd) -> None:
    site.backends.log.mode = "refuse"
    key = {"Idempotency-Key": "k1"}
    async with site.client() as client:
        answer = await client.post("/v1/topics", json=GOOD, headers=key)
        assert (answer.status_code, answer.json()["code"]) == (503, "not_accepted")
        assert answer.headers["retry-after"]
        assert (await client.get("/v1/topics")).json()["items"] == []
        site.backends.log.mode = "ok"
        assert (await client.post("/v1/topics", json=GOOD, headers=key)).status_code == 202


@pytest.mark.parametrize("mode", ["lose", "hide"])
async def test_an_unknown_outcome_is_repeated_with_the_same_ids(site: FrontEnd, mode: str) -> None:
    site.backends.log.mode = mode
    key = {"Idempotency-Key": "k1"}
    async with site.client() as client:
        answer = await client.post("/v1/topics", json=GOOD, headers=key)
        assert (answer.status_code, answer.json()["code"]) == (503, "outcome_unknown")
        (shown,) = (await client.get("/v1/topics")).json()["items"]
        assert shown["state"] == "pending"
        site.backends.log.mode = "refuse"  # a failed repeat must not take the first one back
        answer = await client.post("/v1/topics", json=GOOD, headers=key)
        assert answer.json()["code"] == "outcome_unknown"
        site.backends.log.mode = "ok"
        again = await client.post("/v1/topics", json=GOOD, headers=key)
        assert again.status_code == 202
        assert again.json()["id"] == shown["id"]
        assert {str(c.command_id) for c in site.backends.log.commands()} == {
            again.json()["command"]
        }
        assert len((await client.get("/v1/topics")).json()["items"]) == 1


async def test_a_late_confirmation_reaches_the_overlay(site: FrontEnd) -> None:
    from frontend_api.kafka_producer import Published

    site.backends.log.mode = "hide"
    async with site.client() as client:
        command = (await client.post("/v1/topics", json=GOOD)).json()["command"]
    entries = site.backends.overlay.entries[user_id_for("ada")]
    assert entries[uuid.UUID(command)][1].state is EntryState.UNCONFIRMED
    site.backends.log.late[0](Published(0, None))
    await asyncio.gather(*site.backends.services.submissions.late)
    status = entries[uuid.UUID(command)][1]
    assert (status.state, status.offset) == (EntryState.PENDING, None)


async def test_without_redis_it_is_accepted_and_said(site: FrontEnd) -> None:
    site.backends.overlay.available = False
    async with site.client() as client:
        answer = await client.post("/v1/topics", json=GOOD)
        assert (answer.status_code, answer.json()["display"]) == (202, "delayed")
        assert (await client.get("/v1/topics")).json()["overlay"] == "unavailable"


async def test_without_the_database_rules_are_left_to_the_writer(site: FrontEnd) -> None:
    async with site.client("ada") as ada, site.client("eve") as eve:
        topic = (await ada.post("/v1/topics", json=GOOD)).json()
        drain(site)
        site.backends.database.available = False
        post = f"/v1/posts/{topic['post']['id']}"
        assert (await eve.patch(post, json={"body": "not mine"})).status_code == 202
        assert (await eve.get("/v1/topics")).status_code == 503
        assert (await eve.get(post)).json()["code"] == "database_unavailable"


async def test_streams_are_remembered_for_when_the_database_is_away() -> None:
    async with front_end(lanes=4) as site, site.client() as client:
        topic = (await client.post("/v1/topics", json=GOOD)).json()
        drain(site)
        for command in site.backends.log.commands():
            site.backends.overlay.sweep(command)
        site.backends.database.available = False
        post = topic["post"]["id"]
        assert (await client.patch(f"/v1/posts/{post}", json={"body": "x"})).status_code == 202
        assert str(site.backends.log.commands()[-1].stream) == topic["id"]
        unknown = await client.patch(f"/v1/posts/{new_row_id()}", json={"body": "x"})
        assert (unknown.status_code, unknown.json()["code"]) == (503, "not_accepted")


async def test_if_match(site: FrontEnd) -> None:
    async with site.client() as client:
        topic = (await client.post("/v1/topics", json=GOOD)).json()
        address = f"/v1/topics/{topic['id']}"
        for tag, status in (('"v2"', 412), ("v1", 400), ('"v1"', 202), ('"v1"', 412), ("*", 202)):
            answer = await client.patch(address, json={"title": "x"}, headers={"If-Match": tag})
            assert answer.status_code == status, tag
        assert (await client.get(address)).headers["etag"] == '"v3"'
        versions = [c.mutations[0].expected_version for c in site.backends.log.commands()]
        assert versions == [None, 1, None]


@pytest.mark.parametrize("outcome", ["saved", "rejected"])
async def test_waiting_for_the_outcome(site: FrontEnd, outcome: str) -> None:
    problem = {"type": "urn:x", "title": "x", "status": 422, "detail": "x", "code": "expired"}
    async with site.client() as client:
        request = asyncio.create_task(
            client.post("/v1/topics", json=GOOD, headers={"Prefer": "respond-async, wait=20"})
        )
        while not site.backends.log.records:  # noqa: ASYNC110 - the fake has no event to wait for
            await asyncio.sleep(0)
        site.backends.apply_next(reject=outcome == "rejected")
        (command,) = site.backends.log.commands()
        future = site.backends.outcomes.waiting[command.command_id]
        future.set_result({"outcome": outcome, "problem": problem})
        answer = await request
    assert answer.headers["preference-applied"] == "wait=20"
    if outcome == "saved":
        assert (answer.status_code, answer.json()["state"]) == (201, "saved")
        assert answer.headers["location"] == f"/v1/topics/{answer.json()['id']}"
    else:
        assert (answer.status_code, answer.json()["code"]) == (422, "expired")


async def test_waiting_in_vain_is_a_202(site: FrontEnd) -> None:
    async with site.client() as client:
        answer = await client.post("/v1/topics", json=GOOD, headers={"Prefer": "wait=0"})
        assert answer.status_code == 202


async def test_a_row_that_is_private_is_not_there_for_others(site: FrontEnd) -> None:
    ada = user_id_for("ada")
    notice_id = new_row_id()
    row: dict[str, Any] = dict.fromkeys(site.backends.catalog["notice"].columns)
    from datetime import UTC, datetime

    now = datetime.now(tz=UTC)
    row |= {"id": notice_id, "version": 1, "created_at": now, "updated_at": now, "user_id": ada}
    row |= {
        "kind": "rejected",
        "command_id": uuid.uuid4(),
        "code": "c",
        "detail": "d",
        "read": False,
    }
    site.backends.database.tables.table("notice")[notice_id] = row
    async with site.client("ada") as mine, site.client("eve", "admin") as eve:
        address = f"/v1/notices/{notice_id}"
        assert (await mine.get(address)).status_code == 200
        assert len((await mine.get("/v1/notices")).json()["items"]) == 1
        assert (await eve.get(address)).status_code == 404
        assert (await eve.get("/v1/notices")).json()["items"] == []
        assert (await eve.patch(address, json={"read": True})).status_code == 404
        assert (await mine.patch(address, json={"read": True})).status_code == 202
        assert (await mine.get(address)).json()["read"] is True


async def test_operation_needs_no_token(site: FrontEnd) -> None:
    async with site.client(None) as client:
        assert (await client.get("/livez")).json() == {"status": "ok"}
        assert (await client.get("/readyz")).json()["status"] == "ok"
        site.backends.database.available = False
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["degraded"]) == (200, ["database"])
        site.backends.log.mode = "refuse"
        assert (await client.get("/readyz")).status_code == 503
        assert "afterwrite_submissions_total" in (await client.get("/metrics")).text


async def test_openapi_describes_every_route(site: FrontEnd) -> None:
    async with site.client(None) as client:
        document = (await client.get("/openapi.json")).json()
    described = {(m.upper(), p) for p, item in document["paths"].items() for m in item}
    for expected in [
        ("POST", "/v1/topics"), ("GET", "/v1/topics"), ("GET", "/v1/topics/{id}"),
        ("PATCH", "/v1/topics/{id}"), ("DELETE", "/v1/topics/{id}"),
        ("GET", "/v1/topics/{id}/posts"), ("POST", "/v1/topics/{id}/posts"),
        ("GET", "/v1/posts/{id}"), ("PATCH", "/v1/posts/{id}"), ("DELETE", "/v1/posts/{id}"),
        ("PUT", "/v1/posts/{id}/reactions/{emoji}"), ("DELETE", "/v1/posts/{id}/reactions/{emoji}"),
        ("GET", "/v1/notices"), ("PATCH", "/v1/notices/{id}"), ("GET", "/v1/users/{id}"),
        ("POST", "/v1/commands"), ("GET", "/v1/commands/{id}"),
    ]:  # fmt: skip
        assert expected in described
    assert ("POST", "/v1/notices") not in described
    assert ("DELETE", "/v1/users/{id}") not in described
