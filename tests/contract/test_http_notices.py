"""What authors are told while their changes wait: delayed commands, notices, and how they want it."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from frontend_api.overlay import Laid, OverlayState
from schema import clock
from schema.commands import Command
from schema.fields import parse_time, render_time
from schema.identifiers import derived_id, user_id_for
from schema.overlay import EntryState
from schema.redis_keys import RedisKeys
from schema.scopes import Touch, scopes_of_touches
from tests.commands import author, notice_to, sealed
from tests.frontend import FrontEnd, front_end

pytestmark = pytest.mark.contract

GOOD = {"title": "A title", "body": "A body"}
ADA = author("ada")
DAYS_5 = timedelta(days=5)


@pytest.fixture
async def site() -> AsyncIterator[FrontEnd]:
    async with front_end() as made:
        yield made


@pytest.fixture
def later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call it with the seconds that shall have passed."""
    file = tmp_path / "clock"
    monkeypatch.setattr(clock, "_PATH", str(file))

    def pass_(seconds: float) -> None:
        file.write_text(str(seconds), encoding="utf-8")

    return pass_


def drain(site: FrontEnd) -> None:
    while site.backends.apply_next() or site.backends.settle_next():
        pass


async def lay(site: FrontEnd, notice: Command) -> str:
    """What the notifier does: into the overlay, into the log, onto the outcomes topic."""
    catalog, m = site.backends.catalog, notice.mutations[0]
    kind = catalog[m.type]
    touch = Touch(kind, m.id, kind.from_json(m.values), 1)
    scopes = scopes_of_touches(catalog, RedisKeys("afterwrite"), notice, [touch])
    site.backends.log.records.append(sealed(notice, uuid.uuid4()))
    place = (0, len(site.backends.log.records) - 1)
    await site.backends.overlay.lay(Laid(notice, scopes, place))
    return str(m.id)


def told_of(notice: Command) -> bytes:
    """What the notifier publishes of it."""
    m, at = notice.mutations[0], render_time(notice.accepted_at)
    row = {"id": str(m.id), "version": 1, "created_at": at, "updated_at": at, "read": False}
    value = {
        "kind": "notice",
        "author": str(notice.author.id),
        "command": str(notice.command_id),
        "notice": row | dict(m.values),
        "at": at,
    }
    return json.dumps(value).encode()


# -- delayed commands ---------------------------------------------------------------------------


async def test_a_command_that_waits_too_long_is_delayed_and_says_how_long_it_is_tried(
    site: FrontEnd, later: Any
) -> None:
    async with site.client() as ada:
        made = (await ada.post("/v1/topics", json=GOOD)).json()
        address = f"/v1/commands/{made['command']}"
        await asyncio.gather(*site.backends.services.submissions.late)  # confirmed, too
        later(299)
        fresh = (await ada.get(address)).json()
        assert fresh["state"] == "pending"
        assert "keeps_trying_until" not in fresh
        later(301)
        answer = await ada.get(address)
        late = answer.json()
        assert (late["state"], late["outcome"], late["settled_at"]) == ("delayed", None, None)
        tried = parse_time(late["keeps_trying_until"]) - parse_time(late["accepted_at"])
        assert tried == DAYS_5
        assert answer.headers["retry-after"] == "1"
        assert (await ada.get("/v1/commands")).json()["items"] == [late]
        row = (await ada.get(f"/v1/topics/{made['id']}")).json()
        assert (row["state"], row["command"]) == ("pending", made["command"])
        site.backends.database.available = False
        assert (await ada.get(address)).json() == late
        site.backends.database.available = True
        drain(site)
        saved = (await ada.get(address)).json()
        assert saved["state"] == "saved"
        assert "keeps_trying_until" not in saved


async def test_nothing_is_promised_of_what_kafka_has_not_confirmed(
    site: FrontEnd, later: Any
) -> None:
    async with site.client() as ada:
        site.backends.log.mode = "lose"
        answer = await ada.post("/v1/topics", json=GOOD)
        command = answer.json()["command"]
        later(1000)
        found = (await ada.get(f"/v1/commands/{command}")).json()
        assert found["state"] == "pending"
        assert "keeps_trying_until" not in found


async def test_what_is_held_back_says_how_long_it_is_tried_too(site: FrontEnd) -> None:
    async with site.client() as ada:
        made = (await ada.post("/v1/topics", json=GOOD)).json()
        site.backends.overlay.settle(site.backends.log.commands()[0], EntryState.PARKED, 0, 0)
        found = (await ada.get(f"/v1/commands/{made['command']}")).json()
        assert found["state"] == "parked"
        tried = parse_time(found["keeps_trying_until"]) - parse_time(found["accepted_at"])
        assert tried == DAYS_5


async def test_a_rejection_says_why_although_only_redis_can_be_asked(site: FrontEnd) -> None:
    async with site.client() as ada:
        made = (await ada.post("/v1/topics", json=GOOD)).json()
        problem = {
            "type": "urn:afterwrite:problem:forbidden", "title": "You may not do this",
            "status": 403, "detail": "You may not create this topic.", "code": "forbidden",
        }  # fmt: skip
        outcome = {
            "command_id": made["command"], "author_id": str(ADA.id), "outcome": "rejected",
            "lane": 0, "offset": 0, "seq": 1, "problem": problem,
        }  # fmt: skip
        site.backends.apply_next(reject=True)
        site.backends.settle_next()
        site.backends.database.available = False
        address = f"/v1/commands/{made['command']}"
        assert "problem" not in (await ada.get(address)).json()
        site.backends.events.take(0, 0, json.dumps(outcome).encode())
        found = (await ada.get(address)).json()
        assert (found["state"], found["problem"]) == ("rejected", problem)
    async with site.client("eve") as eve:
        assert (await eve.get(address)).status_code == 503


async def test_an_author_is_there_for_himself_from_his_first_command_on(site: FrontEnd) -> None:
    me = f"/v1/users/{ADA.id}"
    async with site.client() as ada, site.client("eve") as eve:
        assert (await ada.get(me)).status_code == 404
        made = (await ada.post("/v1/topics", json=GOOD)).json()
        answer = await ada.get(me)
        row = answer.json()
        assert (row["name"], row["state"], row["command"]) == ("ada", "pending", made["command"])
        assert (row["version"], answer.headers["etag"]) == (1, '"v1"')
        assert (await eve.get(me)).status_code == 404
        site.backends.apply_next(reject=True)
        assert (await ada.get(me)).status_code == 404
        site.backends.settle_next()
        assert (await ada.get(me)).status_code == 404


# -- notices ------------------------------------------------------------------------------------


async def test_notices_are_there_although_postgresql_was_never_asked_for_them(
    site: FrontEnd,
) -> None:
    first = await lay(site, notice_to(ADA, uuid.uuid4()))
    second = await lay(site, notice_to(ADA, uuid.uuid4(), "saved_after_all"))
    site.backends.database.available = False
    async with site.client() as ada, site.client("eve") as eve:
        answer = await ada.get("/v1/notices")
        body = answer.json()
        assert [(n["id"], n["kind"]) for n in body["items"]] == [
            (second, "saved_after_all"), (first, "delayed"),
        ]  # fmt: skip
        assert {n["state"] for n in body["items"]} == {"pending"}
        assert (body["older"], body["next"]) == ("unavailable", None)
        assert "stale_s" not in body
        assert "age" not in answer.headers
        page = (await ada.get("/v1/notices?limit=1")).json()
        assert [n["id"] for n in page["items"]] == [second]
        rest = (await ada.get(f"/v1/notices?limit=1&after={page['next']}")).json()
        assert [n["id"] for n in rest["items"]] == [first]
        assert (await ada.get(f"/v1/notices/{first}")).json()["kind"] == "delayed"
        assert (await eve.get("/v1/notices")).json() == {
            "items": [], "next": None, "older": "unavailable",
        }  # fmt: skip
        assert (await eve.get(f"/v1/notices/{first}")).status_code == 503
        # Of no other list is a part told as if it were something.
        for path in ("/v1/topics", "/v1/users", "/v1/preferences"):
            assert (await ada.get(path)).status_code == 503


async def test_a_page_of_notices_that_is_known_goes_with_what_is_pending(site: FrontEnd) -> None:
    first = await lay(site, notice_to(ADA, uuid.uuid4()))
    drain(site)
    async with site.client() as ada:
        known = (await ada.get("/v1/notices")).json()
        assert [n["state"] for n in known["items"]] == ["saved"]
        assert "older" not in known
        second = await lay(site, notice_to(ADA, uuid.uuid4()))
        site.backends.database.available = False
        stale = (await ada.get("/v1/notices")).json()
        assert [(n["id"], n["state"]) for n in stale["items"]] == [
            (second, "pending"), (first, "saved"),
        ]  # fmt: skip
        assert stale["stale_s"] == 30
        assert "older" not in stale


async def test_without_redis_and_postgresql_there_is_nothing_to_tell(site: FrontEnd) -> None:
    site.backends.database.available = site.backends.overlay.available = False
    async with site.client() as ada:
        assert (await ada.get("/v1/notices")).status_code == 503


async def test_while_the_overlay_is_rebuilt_both_are_said(site: FrontEnd) -> None:
    site.backends.database.available = False
    site.backends.overlay.state = OverlayState.REBUILDING
    async with site.client() as ada:
        body = (await ada.get("/v1/notices")).json()
    assert body == {"items": [], "next": None, "overlay": "rebuilding", "older": "unavailable"}


@pytest.mark.parametrize("away", [True, False])
async def test_a_notice_that_is_not_saved_yet_can_be_marked_as_read(
    site: FrontEnd, away: bool
) -> None:
    notice = await lay(site, notice_to(ADA, uuid.uuid4()))
    site.backends.database.available = not away
    async with site.client() as ada:
        marked = await ada.put(f"/v1/notices/{notice}/read")
        assert marked.status_code == 202
        assert (marked.json()["read"], marked.json()["state"]) == (True, "pending")
        (item,) = (await ada.get("/v1/notices")).json()["items"]
        assert (item["id"], item["read"], item["version"]) == (notice, True, 2)
        again = await ada.put(f"/v1/notices/{notice}/read")
        assert (again.status_code, again.json()["read"]) == (200, True)
        site.backends.database.available = True
        drain(site)
        (item,) = (await ada.get("/v1/notices")).json()["items"]
        assert (item["read"], item["state"]) == (True, "saved")


async def test_what_tells_an_author_is_not_among_what_he_has_sent(site: FrontEnd) -> None:
    async with site.client() as ada:
        made = (await ada.post("/v1/topics", json=GOOD)).json()
        notice = notice_to(ADA, uuid.UUID(made["command"]))
        notice_id = await lay(site, notice)
        for state in ("pending", "saved"):
            for available in (True, False):
                site.backends.database.available = available
                listed = (await ada.get("/v1/commands")).json()
                assert [c["id"] for c in listed["items"]] == [made["command"]]
            site.backends.database.available = True
            found = (await ada.get(f"/v1/commands/{notice.command_id}")).json()
            assert (found["state"], found["rows"][0]["id"]) == (state, notice_id)
            drain(site)
        site.backends.overlay.lose()  # now there is only the ledger to tell it by
        listed = (await ada.get("/v1/commands")).json()
        assert [c["id"] for c in listed["items"]] == [made["command"]]
        first = (await ada.get("/v1/commands?limit=1")).json()
        assert [c["id"] for c in first["items"]] == [made["command"]]


async def test_a_notice_reaches_the_streams_of_its_reader_and_can_be_replayed(
    site: FrontEnd,
) -> None:
    hub, about = site.backends.events, uuid.uuid4()
    notice = notice_to(ADA, about)
    others = hub.subscribe(user_id_for("eve"), None)
    stream = hub.subscribe(ADA.id, None)
    hub.take(0, 0, told_of(notice))
    hub.take(0, 1, told_of(notice))  # the notifier tells at least once
    hub.take(0, 2, json.dumps({"kind": "act", "act_id": "x", "author_id": str(ADA.id)}).encode())
    hub.take(0, 3, json.dumps({"kind": "new", "author": str(ADA.id)}).encode())
    saved = {
        "command_id": str(notice.command_id), "author_id": str(ADA.id), "outcome": "saved",
        "lane": 0, "offset": 7, "seq": 8,
        "rows": [{"type": "notice", "id": str(notice.mutations[0].id), "op": "create", "version": 1}],
    }  # fmt: skip
    hub.take(0, 4, json.dumps(saved).encode())
    last = notice_to(ADA, about, "saved_after_all")
    hub.take(0, 5, told_of(last))
    events = [await anext(stream) for _ in range(2)]
    assert [(e.id, e.name) for e in events] == [("0-0", "notice"), ("0-5", "notice")]
    data = events[0].data
    assert (data["notice"], data["command"]) == (str(notice.mutations[0].id), str(about))
    row = data["row"]
    assert (row["state"], row["command"]) == ("pending", str(notice.command_id))
    assert (row["kind"], row["detail"]) == ("delayed", "It is safe and waits.")
    await lay(site, notice)
    async with site.client() as ada:
        assert (await ada.get(f"/v1/notices/{row['id']}")).json() == row
    again = hub.subscribe(ADA.id, "0-0")
    assert [(e.id, e.name) for e in [await anext(again)]] == [("0-5", "notice")]
    for silent in (others, again, stream):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(silent), 0.02)


@pytest.mark.parametrize(
    "broken", [{"notice": None}, {"notice": {}}, {"notice": {"id": 7}}, {"author": "x"}]
)
async def test_a_notice_that_cannot_be_read_is_passed_over(
    site: FrontEnd, broken: dict[str, Any]
) -> None:
    hub = site.backends.events
    stream = hub.subscribe(ADA.id, None)
    value = json.loads(told_of(notice_to(ADA, uuid.uuid4())))
    hub.take(0, 0, json.dumps(value | broken).encode())
    good = notice_to(ADA, uuid.uuid4())
    hub.take(0, 1, told_of(good))
    assert (await anext(stream)).id == "0-1"


# -- preferences --------------------------------------------------------------------------------


async def put(client: httpx2.AsyncClient, **values: Any) -> httpx2.Response:
    return await client.put("/v1/preferences", json=values)


async def test_a_user_has_one_preference_however_often_he_says_it(site: FrontEnd) -> None:
    async with site.client() as ada:
        assert (await ada.get("/v1/preferences")).json()["items"] == []
        first = await put(ada, mail=False)
        assert first.status_code == 202
        said = first.json()
        assert (said["mail"], said["locale"], said["user_id"]) == (False, None, str(ADA.id))
        assert said["id"] == str(derived_id("preference", str(ADA.id)))
        assert "preference" not in said
        assert first.headers["location"] == f"/v1/preferences/{said['id']}"
        second = (await put(ada, locale="de")).json()
        assert (second["id"], second["mail"], second["locale"]) == (said["id"], True, "de")
        for _ in range(2):
            (item,) = (await ada.get("/v1/preferences")).json()["items"]
            assert (item["id"], item["mail"], item["locale"]) == (said["id"], True, "de")
            drain(site)
        assert item["state"] == "saved"
        await put(ada, mail=False, locale="en-GB")
        changed = await ada.patch(f"/v1/preferences/{said['id']}", json={"locale": None})
        assert (changed.json()["mail"], changed.json()["locale"]) == (False, None)
        drain(site)
        assert len(site.backends.database.tables.table("preference")) == 1
        (item,) = (await ada.get("/v1/preferences")).json()["items"]
        assert (item["mail"], item["locale"], item["state"]) == (False, None, "saved")


async def test_a_preference_can_be_said_and_read_while_postgresql_is_away(site: FrontEnd) -> None:
    async with site.client() as ada:
        await put(ada, locale="de")
        drain(site)
        site.backends.database.available = False
        site.backends.cache.kept_rows.clear()
        said = (await put(ada, mail=False)).json()
        read = (await ada.get(f"/v1/preferences/{said['id']}")).json()
        assert (read["mail"], read["locale"], read["state"]) == (False, None, "pending")
        site.backends.database.available = True
        drain(site)
        saved = (await ada.get(f"/v1/preferences/{said['id']}")).json()
        assert (saved["mail"], saved["locale"], saved["state"]) == (False, None, "saved")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"locale": "not a language"}, "/locale"),
        ({"locale": "x" * 36}, "/locale"),
        ({"locale": "de\n"}, "/locale"),
        ({"mail": "no"}, "/mail"),
        ({"mail": None}, "/mail"),
        ({"user_id": str(user_id_for("eve"))}, ""),
        ({"id": "x"}, ""),
    ],
)
async def test_a_preference_that_is_none_is_refused(
    site: FrontEnd, body: dict[str, Any], pointer: str
) -> None:
    async with site.client() as ada:
        answer = await ada.put("/v1/preferences", json=body)
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)
        assert site.backends.log.commands() == []


async def test_preferences_are_nobody_elses(site: FrontEnd) -> None:
    async with site.client() as ada, site.client("eve") as eve, site.client("mo", "admin") as mo:
        said = (await put(ada, mail=False)).json()
        address = f"/v1/preferences/{said['id']}"
        for other in (eve, mo):
            for _ in range(2):
                assert (await other.get("/v1/preferences")).json()["items"] == []
                assert (await other.get(address)).status_code == 404
                assert (await other.patch(address, json={"mail": True})).status_code == 404
                drain(site)
