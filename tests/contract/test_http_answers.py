"""How a client may have its answers, and what it can ask about what it has sent."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from schema.identifiers import new_row_id, user_id_for
from tests.frontend import FrontEnd, front_end

pytestmark = pytest.mark.contract

GOOD = {"title": "A title", "body": "A body"}


# -- preferences ------------------------------------------------------------------------------


async def test_respond_async_is_what_is_done_anyway() -> None:
    async with front_end() as site, site.client() as ada:
        for prefer, applied in (
            ("respond-async", "respond-async"),
            ("handling=lenient, respond-async", "respond-async"),
            ("respond-async; x=1, wait=0.5", "respond-async"),
            ("return=minimal, respond-async", "respond-async, return=minimal"),
            ("return=representation", None), ("wait=x", None), ("unknown=1", None), ("", None),
        ):  # fmt: skip
            answer = await ada.post("/v1/topics", json=GOOD, headers={"Prefer": prefer})
            assert answer.status_code == 202
            assert answer.headers.get("preference-applied") == applied, prefer


async def test_a_minimal_answer_has_what_is_needed_to_go_on() -> None:
    little = {"Prefer": "return=minimal"}
    async with front_end() as site, site.client() as ada:
        made = await ada.post("/v1/topics", json=GOOD, headers=little)
        assert made.json().keys() == {"id", "version", "state", "command"}
        assert made.headers["location"].endswith(made.json()["id"])
        assert "content-location" not in made.headers
        address = made.headers["location"]
        gone = await ada.delete(address, headers=little)
        assert gone.json().keys() == {"id", "version", "state", "command", "deleted"}
        sent = {"mutations": [{"op": "create", "type": "topic", "values": {"title": "T"}}]}
        command = await ada.post("/v1/commands", json=sent, headers=little)
        assert command.json().keys() == {"id", "state"}
        refused = await ada.post("/v1/topics", json={}, headers=little)
        assert refused.json()["errors"]


async def test_a_minimal_answer_is_kept_whole_for_repeats() -> None:
    key = {"Idempotency-Key": "k"}
    async with front_end() as site, site.client() as ada:
        first = await ada.post("/v1/topics", json=GOOD, headers=key | {"Prefer": "return=minimal"})
        again = await ada.post("/v1/topics", json=GOOD, headers=key)
        assert (again.json()["id"], again.json()["title"]) == (first.json()["id"], "A title")
        assert again.headers["idempotency-replayed"] == "true"
        assert "preference-applied" not in again.headers


async def test_answers_say_where_what_they_show_can_be_read() -> None:
    async with front_end() as site, site.client() as ada:
        topic = (await ada.post("/v1/topics", json=GOOD)).json()
        changed = await ada.patch(f"/v1/topics/{topic['id']}", json={"title": "B"})
        post = await ada.post(f"/v1/topics/{topic['id']}/posts", json={"body": "x"})
        sent = {"mutations": [{"op": "create", "type": "topic", "values": {"title": "T"}}]}
        command = await ada.post("/v1/commands", json=sent)
        for answer in (changed, post, command):
            shown = await ada.get(answer.headers["content-location"])
            assert shown.json()["id"] == answer.json()["id"]
            assert answer.headers["content-location"] == answer.headers["location"]
        gone = await ada.delete(f"/v1/posts/{post.json()['id']}")
        assert "content-location" not in gone.headers


# -- the caller's commands --------------------------------------------------------------------


async def test_the_callers_commands_page_by_page() -> None:
    async with front_end() as site, site.client() as ada, site.client("eve") as eve:
        commands = []
        for _ in range(5):
            commands.append((await ada.post("/v1/topics", json=GOOD)).json()["command"])
            await eve.post("/v1/topics", json=GOOD)
        while site.backends.apply_next():
            pass
        seen: list[dict[str, Any]] = []
        path: str | None = "/v1/commands?limit=2"
        while path is not None:
            page = await ada.get(path)
            assert len(page.json()["items"]) <= 2
            seen += page.json()["items"]
            link = page.headers.get("link")
            assert (link is None) == (page.json()["next"] is None)
            path = link[1 : link.index(">")] if link else None
        assert [c["id"] for c in seen] == commands[::-1]
        assert {c["state"] for c in seen} == {"saved"}

        cursor = (await ada.get("/v1/commands?limit=2")).json()["next"]
        foreign = await eve.get(f"/v1/commands?after={cursor}")
        assert (foreign.status_code, foreign.json()["code"]) == (422, "invalid")
        assert (await ada.get("/v1/commands?limit=0")).status_code == 422


async def test_commands_without_postgresql_are_those_of_the_overlay_and_that_is_said() -> None:
    async with front_end() as site, site.client() as ada:
        sent = await ada.post("/v1/topics", json=GOOD)
        site.backends.database.available = False
        page = (await ada.get("/v1/commands")).json()
        assert [c["id"] for c in page["items"]] == [sent.json()["command"]]
        assert page["ledger"] == "unavailable"
        site.backends.overlay.available = False
        nothing = await ada.get("/v1/commands")
        assert (nothing.status_code, nothing.json()["code"]) == (503, "database_unavailable")


# -- notices ----------------------------------------------------------------------------------


def give_notice(site: FrontEnd, **more: Any) -> str:
    """Let the writer have made a notice for ada."""
    kind = site.backends.catalog.notice
    row = {f.name: f.default for f in kind.fields.values()} | {
        "id": new_row_id(), "version": 1, "user_id": user_id_for("ada"), "kind": "rejected",
        "command_id": new_row_id(), "code": "forbidden", "detail": "No.",
        "created_at": datetime.now(tz=UTC), "updated_at": datetime.now(tz=UTC),
    } | more  # fmt: skip
    site.backends.database.tables.table("notice")[row["id"]] = row
    return str(row["id"])


async def test_a_notice_is_marked_as_read_once() -> None:
    async with front_end() as site, site.client() as ada, site.client("eve") as eve:
        address = f"/v1/notices/{give_notice(site)}"
        ada.event_hooks["request"] = []  # and needs no version
        assert (await eve.put(f"{address}/read")).status_code == 404
        marked = await ada.put(f"{address}/read")
        assert marked.status_code == 202
        assert (marked.json()["read"], marked.json()["state"]) == (True, "pending")
        assert (await ada.get(address)).json()["read"] is True
        again = await ada.put(f"{address}/read")
        assert (again.status_code, again.json()["read"]) == (200, True)
        assert again.headers["etag"] == '"v2"'
        assert "ratelimit" not in again.headers
        assert len(site.backends.log.records) == 1
        assert site.backends.apply_next()
        assert site.backends.settle_next()
        assert (await ada.put(f"{address}/read")).status_code == 200
        assert (await eve.put(f"{address}/read")).status_code == 404, "read or not, it is not hers"
        assert (await ada.put(f"/v1/notices/{new_row_id()}/read")).status_code == 404


async def test_a_notice_is_marked_as_read_while_postgresql_is_away() -> None:
    async with front_end() as site, site.client() as ada:
        address = f"/v1/notices/{give_notice(site)}"
        site.backends.database.available = False
        assert (await ada.put(f"{address}/read")).status_code == 202


# -- repeats ----------------------------------------------------------------------------------


async def test_fifty_at_once_with_one_key_are_one() -> None:
    async with front_end() as site, site.client() as ada:
        publish, entered, go_on = site.backends.log.publish, asyncio.Event(), asyncio.Event()

        async def slow(*args: Any) -> Any:
            entered.set()
            await go_on.wait()
            return await publish(*args)

        site.backends.log.publish = slow  # type: ignore[method-assign, assignment]
        key = {"Idempotency-Key": "k"}
        asked = [
            asyncio.create_task(ada.post("/v1/topics", json=GOOD, headers=key)) for _ in range(50)
        ]
        await entered.wait()
        other = await ada.post("/v1/topics", json=GOOD | {"title": "Other"}, headers=key)
        assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
        go_on.set()
        answers = await asyncio.gather(*asked)
        statuses = [a.status_code for a in answers]
        assert set(statuses) == {202, 409}
        assert len({a.json()["id"] for a in answers if a.status_code == 202}) == 1
        assert {a.json()["code"] for a in answers if a.status_code == 409} == {"in_flight"}
        assert len(site.backends.log.records) == 1
