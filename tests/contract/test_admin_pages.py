"""The operators' pages over fakes: who gets in, what each view says, what is ordered, what is refused."""

import json
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx2
import pytest

import frontend_api.admin
from frontend_api.admin.facts import Counts, Ledger, Log, Told
from frontend_api.admin.log_look import Found
from frontend_api.authentication import mint_token
from schema.acts import MAX_LETTERS
from schema.alerts import Alert
from schema.identifiers import new_id
from tests.admin_fakes import LANE, NOW, AdminWorld, command, letter, sealed, well
from tests.fakes import SECRET
from tests.frontend import front_end

pytestmark = pytest.mark.contract

HERE = Path(frontend_api.admin.__file__).parent
URL = "http://admin.test"
COOKIE = "afterwrite_session"
PAGES = (
    "/admin", "/admin/commands", "/admin/dead", "/admin/dead/rows", "/admin/parked",
    "/admin/incidents", "/admin/mail", "/admin/audit",
)  # fmt: skip


class Visit:
    """A browser without scripts."""

    def __init__(self, client: httpx2.AsyncClient, world: AdminWorld, app: Any) -> None:
        self.client = client
        self.world = world
        self.app = app

    async def get(self, path: str, **headers: str) -> httpx2.Response:
        return await self.client.get(path, headers=headers)

    async def text(self, path: str) -> str:
        answer = await self.get(path)
        assert answer.status_code == 200, answer.text
        return readable(answer.text)

    async def post(self, path: str, **fields: str) -> httpx2.Response:
        return await self.client.post(path, data=fields, headers={"origin": URL})


def readable(html: str) -> str:
    """What somebody reads, on one line."""

    class Text(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.said: list[str] = []

        def handle_data(self, data: str) -> None:
            self.said.append(data)

    parser = Text()
    parser.feed(html)
    return " ".join("".join(parser.said).split())


@asynccontextmanager
async def visit(*roles: str, user: str | None = "Ola", **settings: Any) -> AsyncIterator[Visit]:
    async with front_end(**({"admin": True} | settings)) as served:
        cookies = {COOKIE: mint_token(SECRET, user, roles)} if user else {}
        transport = httpx2.ASGITransport(app=served.app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url=URL, cookies=cookies) as client:
            yield Visit(client, served.backends.operation, served.app)


# -- who gets in --------------------------------------------------------------------------------


async def test_there_are_no_pages_unless_they_are_asked_for() -> None:
    async with visit("admin", admin=False) as ola:
        for path in (*PAGES, "/admin/sign-in", "/admin/static/admin.js"):
            answer = await ola.get(path)
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


OPEN = {"/admin/sign-in", "/admin/sign-out", "/admin/static/{name}"}
"""What is there for everybody; it shows nothing of the installation."""


def guarded(app: Any) -> set[tuple[str, str]]:
    """Every route of the pages with its method, from the application itself: none can be forgotten."""
    routers = [getattr(route, "original_router", None) for route in app.routes]
    return {
        (method, route.path)
        for router in routers
        for route in (router.routes if router is not None else ())
        for method in route.methods
        if route.path.startswith("/admin") and route.path not in OPEN
    }


@pytest.mark.parametrize("demo", [False, True])
@pytest.mark.parametrize("roles", [(), ("moderator",), ("Viewer",)])
async def test_no_route_tells_anything_to_who_has_no_role(
    roles: tuple[str, ...], demo: bool
) -> None:
    """The same answer for what is there and what is not, read or written."""
    async with visit(*roles, user="Ada", demo_sign_in=demo) as ada:
        made = command()
        ada.world.store.dead = [letter(1, made)]
        ada.world.picture = well(redis=Told(False, NOW, True, NOW))
        told = set()
        routes = guarded(ada.app)
        assert len(routes) >= 18
        for method, path in routes:
            for id_, offset in ((made.command_id, 1), (new_id(), 2)):
                address = path.replace("{id}", str(id_)).replace("{lane}", "0")
                address = address.replace("{offset}", str(offset)).replace("{act}", "pause")
                for more in ({}, {"hx-request": "true"}, {"origin": URL}):
                    answer = await ada.client.request(method, address, headers=more)
                    assert answer.status_code == 404, (method, address)
                    told.add(answer.text)
        assert len(told) == 1
        assert ada.world.publisher.records == []


async def test_who_is_not_signed_in_is_told_nothing_either() -> None:
    async with visit(user=None) as somebody:
        for method, path in guarded(somebody.app):
            answer = await somebody.client.request(method, path.replace("{lane}", "0"))
            assert answer.status_code == 404
    async with visit(user=None, demo_sign_in=True) as somebody:
        for method, path in guarded(somebody.app):
            answer = await somebody.client.request(method, path.replace("{lane}", "0"))
            assert answer.headers["location"].startswith("/admin/sign-in?next=%2Fadmin")


async def test_the_pages_are_not_in_the_api_description() -> None:
    async with visit("admin", site="forum", demo_sign_in=True) as ola:
        assert not [path for path in ola.app.openapi()["paths"] if path.startswith("/admin")]


async def test_the_demo_lets_one_choose_a_role() -> None:
    async with visit(user=None, demo_sign_in=True) as somebody:
        led = await somebody.get("/admin/dead?code=forbidden")
        assert led.headers["location"] == "/admin/sign-in?next=%2Fadmin%2Fdead%3Fcode%3Dforbidden"
        assert (
            'value="/admin/dead?code=forbidden"'
            in (await somebody.get(led.headers["location"])).text
        )
        into = await somebody.post("/admin/sign-in", name="Vic", role="viewer", next="/admin/dead")
        assert into.headers["location"] == "/admin/dead"
        assert "viewer" in await somebody.text("/admin")
        for fields in ({"name": "Vic", "role": "root"}, {"name": "", "role": "admin"}):
            assert (await somebody.post("/admin/sign-in", **fields)).status_code == 422
        away = await somebody.post("/admin/sign-in", name="V", role="admin", next="//evil.test")
        assert away.headers["location"] == "/admin"


async def test_without_the_demo_nobody_chooses_a_role() -> None:
    async with visit(user=None) as somebody:
        assert (await somebody.get("/admin/sign-in")).status_code == 404
        answer = await somebody.post("/admin/sign-in", name="Vic", role="admin")
        assert answer.status_code == 404
        assert "set-cookie" not in answer.headers


async def test_a_viewer_sees_everything_and_cannot_act() -> None:
    async with visit("viewer") as vic:
        vic.world.store.dead = [letter(1, command())]
        for path in (*PAGES, "/admin/dead/0/1"):
            page = (await vic.get(path)).text
            assert "…</a>" not in page, path  # no act is offered
            assert 'action="/admin/acts"' not in page, path
        for path in (
            "/admin/dead/confirm?act=replay",
            "/admin/dead/0/1/edit",
            "/admin/lanes/0/pause",
        ):
            assert (await vic.get(path)).status_code == 403
        for fields in ({"act": "pause", "lane": "0", "reason": "x"}, {"act": "retry_parked"}):
            assert (await vic.post("/admin/acts", **fields)).status_code == 403
        assert (await vic.post("/admin/dead/0/1/edit", **{"v0.body": "x"})).status_code == 403
        assert vic.world.publisher.records == []


@pytest.mark.parametrize("role", ["operator", "admin"])
async def test_an_act_of_another_site_is_refused(role: str) -> None:
    async with visit(role) as ola:
        fields = {"act": "pause", "lane": "0", "reason": "x"}
        for headers in ({"origin": "http://evil.test"}, {"sec-fetch-site": "cross-site"}, {}):
            answer = await ola.client.post("/admin/acts", data=fields, headers=headers)
            assert answer.status_code == 403
        assert ola.world.publisher.records == []
        assert (await ola.post("/admin/acts", **fields)).status_code == 303


# -- what every page carries --------------------------------------------------------------------


async def test_every_page_is_guarded_and_can_be_found_ones_way_in() -> None:
    async with visit("operator") as ola:
        ola.world.store.dead = [letter(1, command())]
        more = ("/admin/dead/0/1", "/admin/dead/0/1/edit", "/admin/dead/confirm?act=discard",
                "/admin/lanes/0/pause")  # fmt: skip
        for path in (*PAGES, *more):
            answer = await ola.get(path)
            assert answer.status_code == 200, path
            assert "unsafe" not in answer.headers["content-security-policy"]
            assert answer.headers["cache-control"] == "private, no-store"
            assert answer.text.count("<h1") == 1, path
            ids = re.findall(r'\sid="([^"]+)"', answer.text)
            assert len(ids) == len(set(ids)), path
            labelled = set(re.findall(r'<label for="([^"]+)"', answer.text))
            for field in re.findall(r"<(?:input|select|textarea)[^>]*>", answer.text):
                if 'type="hidden"' not in field and "aria-label" not in field:
                    name = re.search(r'\sid="([^"]+)"', field)
                    assert name is not None, (path, field)
                    assert name[1] in labelled, (path, field)


@pytest.mark.parametrize("path", sorted((HERE / "templates").iterdir()), ids=lambda p: p.name)
def test_no_template_has_anything_inline_or_unescaped(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", text)
    assert all(" src=" in tag for tag in re.findall(r"<script[^>]*>", text))
    assert not re.search(r"\|\s*safe\b|autoescape", text)
    assert not re.search(r"https?://", text)


async def test_a_script_is_told_when_nothing_has_changed() -> None:
    async with visit("viewer") as vic:
        seen = re.search(r'name="seen" value="([0-9a-f]+)"', (await vic.get("/admin")).text)
        assert seen is not None
        asked = {"hx-request": "true"}
        assert (await vic.get(f"/admin?seen={seen[1]}", **asked)).status_code == 204
        vic.world.picture = well(redis=Told(False, NOW, True, NOW))
        changed = await vic.get(f"/admin?seen={seen[1]}", **asked)
        assert changed.status_code == 200
        assert "Redis has been away" in changed.text
        assert "<html" not in changed.text


async def test_what_users_wrote_is_text() -> None:
    hostile = "</pre><script>alert(1)</script>{{ 7*7 }}"
    async with visit("operator") as ola:
        made = command(hostile, author=hostile)
        ola.world.store.dead = [letter(1, made, detail=hostile)]
        ola.world.store.audit_rows = [
            {"act_id": new_id(), "at": NOW, "who": hostile, "act": "pause", "target": {"lane": hostile},
             "reason": hostile, "result": {"done": True}}
        ]  # fmt: skip
        ola.world.picture = well(
            ledger=Told(True, NOW, Ledger((replace(LANE, paused=hostile),), Counts()), NOW)
        )
        ola.world.tail.alerts.take(alert("opened", title=hostile))
        for path in (*PAGES, "/admin/dead/0/1", "/admin/dead/0/1?view=raw", "/admin/dead/0/1/edit",
                     "/admin/dead/confirm?act=replay"):  # fmt: skip
            page = (await ola.get(path)).text
            assert "<script>alert" not in page, path
        assert "&lt;script&gt;alert(1)" in (await ola.get("/admin/dead/0/1")).text


# -- the views ------------------------------------------------------------------------------------


def alert(phase: Any, incident: str = "database_down", **changes: Any) -> Alert:
    values: dict[str, Any] = {"title": "PostgreSQL is away", "text": "It does not answer."}
    return Alert(
        uuid.uuid4(), incident, phase, "critical", since=NOW - timedelta(minutes=5), at=NOW,
        waiting=3, link="docs/failures.md", **(values | changes),
    )  # fmt: skip


async def test_the_overview_works_with_nothing_known_and_nothing_there() -> None:
    async with visit("viewer") as vic:
        vic.world.store.available = vic.world.look.available = False
        vic.world.tail.reading = False
        vic.world.picture = well(ledger=Told(), log=Told(), redis=Told())
        assert "Still looking" in await vic.text("/admin")
        gone = Told[Any](False, NOW, None, None, at_least=True)
        vic.world.picture = well(ledger=gone, log=gone, redis=gone)
        text = await vic.text("/admin")
        for told in (
            "Kafka has been away for at least",
            "PostgreSQL has been away",
            "Redis has been",
        ):
            assert told in text


async def test_the_last_answer_is_shown_with_its_age_while_postgresql_is_away() -> None:
    async with visit("viewer") as vic:
        old = NOW - timedelta(minutes=3)
        vic.world.picture = well(
            ledger=Told(False, old, Ledger((LANE,), Counts(dead=7)), old),
            log=Told(True, old, Log({0: 314}, {0: old}), NOW),
        )
        text = await vic.text("/admin")
        assert "PostgreSQL has been away for 3 min; 214 changes wait; they are safe." in text
        assert "Numbers from it are those of 3 min ago." in text
        assert "7 dead letters wait" in text


async def test_open_incidents_come_first_and_failing_channels_are_named() -> None:
    async with visit("viewer") as vic:
        vic.world.tail.alerts.take(alert("opened"))
        vic.world.tail.alerts.take(alert("opened", "channel_failing:mailto", title="Mail fails"))
        text = await vic.text("/admin/incidents")
        assert text.index("channel_failing:mailto") < text.index("Alerts")
        assert "mailto fails" in await vic.text("/admin")
        vic.world.tail.alerts.take(alert("closed"))
        vic.world.tail.alerts.take(alert("closed", "channel_failing:mailto"))
        assert "none is open" in await vic.text("/admin/incidents")
        assert "no channel is known to fail" in await vic.text("/admin")


async def test_commands_that_wait_are_read_from_the_log() -> None:
    async with visit("viewer") as vic:
        made = [command(f"Text {n}", author="Ada" if n else "Ben") for n in range(3)]
        for n, one in enumerate(made):
            r = sealed(one)
            vic.world.look.records.append(Found(0, 99 + n, r.key, r.value, r.headers, NOW))
        page = (await vic.get("/admin/commands?state=pending")).text
        assert str(made[0].command_id) not in page  # the writer is behind it
        assert str(made[1].command_id) in page
        assert "None." in await vic.text("/admin/commands?state=pending&user=Ben")
        vic.world.store.available = False
        detail = await vic.text(f"/admin/commands/{made[2].command_id}")
        assert "Text 2" in detail
        assert "PostgreSQL cannot be asked" in detail
        assert (await vic.get(f"/admin/commands/{new_id()}")).status_code == 503
        vic.world.store.available = True
        assert (await vic.get(f"/admin/commands/{new_id()}")).status_code == 404


@pytest.mark.parametrize(
    "query",
    ["state=gone", "since=yesterday", "until=99999999d", "type=Post", "code=a%20b", "user=%00"],
)
async def test_a_filter_that_cannot_be_meant_is_refused(query: str) -> None:
    async with visit("viewer") as vic:
        assert (await vic.get(f"/admin/commands?{query}")).status_code == 422


async def test_an_id_leads_to_its_command() -> None:
    async with visit("viewer") as vic:
        id_ = new_id()
        led = await vic.get(f"/admin/commands?id={id_}")
        assert led.headers["location"] == f"/admin/commands/{id_}"
        assert (await vic.get("/admin/commands?id=7")).status_code == 404


async def test_bytes_that_are_no_command_are_shown_as_they_are() -> None:
    async with visit("operator") as ola:
        ola.world.store.dead = [letter(1, None, b"\xff\x00garbage")]
        text = await ola.text("/admin/dead/0/1")
        assert "ff 00 67" in text
        assert "Edit and replay…" not in text
        assert (await ola.get("/admin/dead/0/1/edit")).status_code == 404
        assert "Nothing would be done" in await ola.text("/admin/dead/confirm?act=replay&row=0:1")


async def test_the_list_as_csv_is_safe_for_spreadsheets_and_says_when_it_is_partial(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with visit("viewer") as vic:
        vic.world.store.dead = [letter(n, command(), detail='=cmd("x"),\n') for n in (1, 2)]
        answer = await vic.get("/admin/dead.csv?code=forbidden")
        assert answer.headers["content-type"].startswith("text/csv")
        assert "partial" not in answer.headers["content-disposition"] + answer.text
        assert '"\'=cmd(""x""),' in answer.text
        monkeypatch.setattr("frontend_api.admin.dead_routes.MOST_EXPORTED", 1)
        partial = await vic.get("/admin/dead.csv")
        assert "dead-letters-partial.csv" in partial.headers["content-disposition"]
        assert partial.text.endswith("# partial: the newest 1 of more\r\n")


async def test_views_of_the_database_say_so_when_it_is_away() -> None:
    async with visit("viewer") as vic:
        vic.world.store.available = False
        for path in (
            "/admin/commands",
            "/admin/dead",
            "/admin/parked",
            "/admin/audit",
            "/admin/dead.csv",
        ):
            answer = await vic.get(path)
            assert answer.status_code == 503
            assert "PostgreSQL cannot be asked at the moment" in answer.text
            asked = await vic.get(path, **{"hx-request": "true"})
            assert (asked.status_code, asked.headers["hx-reswap"]) == (503, "none")
        for path in ("/admin", "/admin/incidents", "/admin/mail"):
            assert (await vic.get(path)).status_code == 200


# -- acts -----------------------------------------------------------------------------------------


def fields_of(page: str) -> dict[str, str]:
    """What the form of an act would send without being changed."""
    form = page[page.index('action="/admin/acts"') :]
    return dict(re.findall(r'<input[^>]*name="([a-z_]+)"[^>]*value="([^"]*)"', form))


async def test_a_selection_is_replayed_in_its_order_and_once() -> None:
    async with visit("operator") as ola:
        ola.world.store.dead = [letter(n, command()) for n in (1, 2, 3)]
        address = "/admin/dead/confirm?act=replay&row=0:3&row=0:1&row=0:9"
        page = (await ola.get(address)).text
        assert "This publishes 2 dead letters of 1 author again" in readable(page)
        assert "1 is not there." in readable(page)
        fields = fields_of(page)
        first = await ola.post("/admin/acts", **fields)
        again = await ola.post("/admin/acts", **fields)
        assert first.headers["location"] == again.headers["location"]
        one, other = ola.world.publisher.acts()
        assert one.act_id == other.act_id
        assert one.letters is not None
        assert one.letters.places == ((0, 3), (0, 1), (0, 9))
        assert (one.kind, one.rate, one.who.name, one.who.roles) == (
            "replay",
            50,
            "Ola",
            ("operator",),
        )
        tried = await ola.post("/admin/acts", **fields, dry_run="yes")
        act = ola.world.publisher.acts()[-1]
        assert act.dry_run
        assert act.act_id != one.act_id
        assert tried.headers["location"] == f"/admin/acts/{act.act_id}"
        rows = "&".join(f"row=0:{n}" for n in range(101))
        assert (await ola.get(f"/admin/dead/confirm?act=replay&{rows}")).status_code == 422


async def test_a_whole_filter_is_what_was_looked_at_and_not_what_dies_later() -> None:
    async with visit("admin") as ola:
        ola.world.store.dead = [letter(n, command()) for n in range(5)]
        page = (
            await ola.get("/admin/dead/confirm?act=discard&code=forbidden&since=2d&limit=3")
        ).text
        assert "There are more than that." in readable(page)
        fields = fields_of(page)
        refused = await ola.post("/admin/acts", **(fields | {"reason": "  "}))
        assert refused.status_code == 422
        assert "say why" in refused.text
        await ola.post("/admin/acts", **(fields | {"reason": "A test."}))
        (act,) = ola.world.publisher.acts()
        assert act.letters is not None
        assert (act.kind, act.reason, act.letters.limit, act.letters.code) == (
            "discard", "A test.", 3, "forbidden",
        )  # fmt: skip
        assert act.letters.until is not None
        assert act.letters.since is not None
        assert act.letters.until - act.letters.since == pytest.approx(
            timedelta(days=2), abs=timedelta(seconds=5)
        )


async def test_nothing_is_ordered_without_a_choice() -> None:
    async with visit("operator") as ola:
        for fields in (
            {"act": "replay"},
            {"act": "discard", "reason": "x"},
            {"act": "replay", "limit": "0"},
            {"act": "replay", "limit": str(MAX_LETTERS + 1)},
            {"act": "replay", "rows": "0:1", "rate": "fast"},
            {"act": "replay", "rows": "0:1", "act_id": str(uuid.uuid4())},
            {"act": "edit", "rows": "0:1"},
            {"act": "pause", "lane": "0"},
        ):
            answer = await ola.post("/admin/acts", **fields)
            assert answer.status_code in (404, 422), fields
        assert ola.world.publisher.records == []


async def test_an_edit_says_only_what_was_changed() -> None:
    async with visit("operator") as ola:
        made = command("one\ntwo")
        ola.world.store.dead = [letter(1, made)]
        page = (await ola.get("/admin/dead/0/1/edit")).text
        assert ">\none\ntwo</textarea>" in page
        unchanged = await ola.post("/admin/dead/0/1/edit", **{"v0.body": "one\r\ntwo"})
        assert unchanged.status_code == 422
        assert "nothing was changed" in unchanged.text
        sent = await ola.post(
            "/admin/dead/0/1/edit", **{"v0.body": "one\r\nthree", "reason": "typo"}
        )
        assert sent.status_code == 303
        (act,) = ola.world.publisher.acts()
        assert (act.kind, act.values, act.reason) == ("edit", {0: {"body": "one\nthree"}}, "typo")
        assert act.letters is not None
        assert act.letters.places == ((0, 1),)
        ola.world.store.dead = [letter(1, command("as\r\ntyped"))]
        untouched = await ola.post("/admin/dead/0/1/edit", **{"v0.body": "as\r\ntyped"})
        assert untouched.status_code == 422  # a browser cannot send another line end
        ola.world.store.dead = [letter(1, made, closed="replayed", closed_at=NOW)]
        assert (await ola.get("/admin/dead/0/1/edit")).status_code == 404


async def test_a_command_of_many_values_is_edited_as_json() -> None:
    async with visit("operator") as ola:
        made = command()
        many = made.mutations * 30
        ola.world.store.dead = [letter(1, replace(made, mutations=many))]
        page = (await ola.get("/admin/dead/0/1/edit")).text
        assert 'name="all"' in page
        values = {str(n): dict(m.values) for n, m in enumerate(many)}
        values["7"]["body"] = "Seventh"
        bad = await ola.post("/admin/dead/0/1/edit", all="{")
        assert bad.status_code == 422
        await ola.post("/admin/dead/0/1/edit", all=json.dumps(values))
        assert ola.world.publisher.acts()[0].values == {7: {"body": "Seventh"}}


async def test_what_became_of_an_act_is_told_by_the_writer_or_the_audit_log() -> None:
    async with visit("operator") as ola:
        ordered = await ola.post("/admin/acts", act="retry_parked", rows="0:4")
        at = ordered.headers["location"]
        assert "ordered The writer does it as soon as it can." in await ola.text(at)
        id_ = at.rpartition("/")[2]
        result: dict[str, Any] = {
            "replayed": [],
            "refused": [{"letter": "0:4", "why": "It is gone."}],
        }
        ola.world.desk.tell({"kind": "act", "act_id": id_, "ok": False, "result": result})
        assert "not done, or not all of it" in await ola.text(at)
        assert "It is gone." in await ola.text(at)
        other = new_id()
        assert "not known here" in await ola.text(
            f"/admin/acts/{other}"
        )  # by way of another process
        ola.world.store.audit_rows = [
            {"act_id": other, "at": NOW, "who": "Vic (1)", "act": "pause", "target": {"lane": 0},
             "reason": "Disks", "result": {"done": True, "lanes": [0]}}
        ]  # fmt: skip
        text = await ola.text(f"/admin/acts/{other}")
        assert "done" in text
        assert "Disks" in text
        assert (await ola.get(f"/admin/acts/{uuid.uuid4()}")).status_code == 404
        assert "Vic (1)" in await ola.text("/admin/audit?who=Vic")
        assert "Nobody did anything." in await ola.text("/admin/audit?who=Ola")


@pytest.mark.parametrize(
    ("mode", "told"), [("refuse", "nothing was done"), ("lose", "send the same")]
)
async def test_an_order_that_kafka_does_not_take_is_said(mode: str, told: str) -> None:
    async with visit("operator") as ola:
        ola.world.publisher.mode = mode
        answer = await ola.post("/admin/acts", act="pause", lane="0", reason="x")
        assert answer.status_code == 503
        assert told in answer.text


async def test_a_paused_lane_is_said_on_every_page() -> None:
    async with visit("operator") as ola:
        ola.world.picture = well(
            ledger=Told(
                True, NOW, Ledger((replace(LANE, paused="Disks are moved"),), Counts()), NOW
            )
        )
        for path in PAGES:
            assert "Lane 0 is paused: Disks are moved" in await ola.text(path), path
        assert "Disks are moved" in await ola.text("/admin/around?path=/admin/dead")
