"""What the forum's pages say while changes wait, and how their readers choose to be told."""

import html
import json
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from frontend_api.authentication import mint_token
from frontend_api.events import events_of
from frontend_api.forum.frame import Frame
from frontend_api.forum.routes import _written
from schema import clock
from schema.identifiers import new_row_id, user_id_for
from tests.commands import author, notice_to
from tests.contract.test_http_notices import drain, lay, told_of
from tests.fakes import SECRET
from tests.frontend import FrontEnd, front_end

pytestmark = pytest.mark.contract

ADA = author("Ada")
URL = "http://forum.test"
FRESH = {"hx-request": "true"}


@asynccontextmanager
async def pages(
    email: str | None = None, **settings: Any
) -> AsyncIterator[tuple[FrontEnd, httpx2.AsyncClient]]:
    async with front_end(site="forum", **settings) as site:
        cookies = {"afterwrite_session": mint_token(SECRET, "Ada", email=email)}
        transport = httpx2.ASGITransport(app=site.app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url=URL, cookies=cookies) as client:
            yield site, client


async def send(client: httpx2.AsyncClient, path: str, **fields: str) -> httpx2.Response:
    fields.setdefault("key", str(uuid.uuid4()))
    return await client.post(path, data=fields, headers={"origin": URL})


def text_of(page: httpx2.Response) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page.text)).split())


async def test_what_is_delayed_says_that_it_is_safe_and_how_long_it_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "clock"
    monkeypatch.setattr(clock, "_PATH", str(file))
    async with pages() as (site, ada):
        topic = str((await send(ada, "/topics/new", title="T", body="B")).headers["location"])[:44]
        words = "still waiting; it is safe, and we keep trying until"
        for path in (topic, "/", "/submissions"):
            assert words not in text_of(await ada.get(path))
        file.write_text("301", encoding="utf-8")
        for path in (topic, "/", "/submissions"):
            assert words in text_of(await ada.get(path)), path
        seen = re.search(r'name="seen" value="(\w+)"', (await ada.get(topic)).text)
        assert seen is not None
        site.backends.database.available = False
        assert words in text_of(await ada.get(topic))
        site.backends.database.available = True
        drain(site)
        assert words not in text_of(await ada.get(topic))


async def test_nobody_is_told_that_something_is_safe_which_kafka_may_not_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "clock"
    monkeypatch.setattr(clock, "_PATH", str(file))
    async with pages() as (site, ada):
        site.backends.log.mode = "lose"
        assert (await send(ada, "/topics/new", title="T", body="B")).status_code == 503
        file.write_text("301", encoding="utf-8")
        for path in ("/", "/submissions"):
            said = text_of(await ada.get(path))
            assert "still saving" in said
            assert "safe" not in said


async def test_notices_say_what_they_are_and_what_waits() -> None:
    async with pages() as (site, ada):
        about = uuid.uuid4()
        waits = {"waiting": [{"command": str(about), "text": "<b>Bold</b> words"}, {"x": 1}, 7]}
        delayed = notice_to(ADA, about)
        values = {**delayed.mutations[0].values, "returned": waits}
        object.__setattr__(delayed.mutations[0], "values", values)
        await lay(site, delayed)
        await lay(site, notice_to(ADA, about, "saved_after_all", "1 change is saved now."))
        await lay(site, notice_to(ADA, about, "something_new", "News."))
        for available in (False, True):
            site.backends.database.available = available
            page = await ada.get("/notices")
            said = text_of(page)
            assert "Still waiting. It is safe and waits. <b>Bold</b> words" in said
            assert "Saved after all. 1 change is saved now." in said
            assert "News." in said
            assert page.text.count("Mark as read") == 3
            assert "told-clock" in page.text
            assert "told-check" in page.text
            assert "told-bell" in page.text
            assert ("only what is not saved yet is shown" in said) is not available
            assert re.search(r'class="count">3<', page.text)
            drain(site)


async def test_what_went_with_a_rejected_post_is_in_what_can_be_sent_again() -> None:
    async with pages() as (site, ada):
        opened = await send(ada, "/topics/new", title="T", body="B")
        await _a_rejection_with_what_hung_on_it(site, ada, str(opened.headers["location"])[8:44])


async def _a_rejection_with_what_hung_on_it(
    site: FrontEnd, ada: httpx2.AsyncClient, topic: str
) -> None:
    post, other = (str(new_row_id()) for _ in range(2))
    sent = [
        {
            "op": "create",
            "type": "post",
            "id": post,
            "values": {"topic_id": topic, "body": "First"},
        },
        {"op": "update", "type": "post", "id": post, "values": {"body": "Better"}},
        {
            "op": "create",
            "type": "post",
            "id": other,
            "values": {"topic_id": topic, "body": "P.S."},
        },
    ]
    values = {
        "user_id": str(ADA.id), "kind": "rejected", "command_id": str(uuid.uuid4()),
        "code": "forbidden", "detail": "No.\n2 more.",
        "returned": {"mutations": sent, "dependants": [str(uuid.uuid4())] * 2},
    }  # fmt: skip
    notice = notice_to(ADA, uuid.uuid4())
    object.__setattr__(notice.mutations[0], "values", values)
    row_id = await lay(site, notice)
    page = await ada.get("/notices")
    assert f'href="/notices/{row_id}/resend"' in page.text
    assert "Better\n\nP.S.</textarea>" in page.text
    form = await ada.get(f"/notices/{row_id}/resend")
    assert "Better</textarea>" in form.text
    assert "P.S." not in form.text
    again = await send(ada, f"/notices/{row_id}/resend", body="Better")
    assert again.status_code == 303
    (made, read) = site.backends.log.commands()[-2:]
    assert made.mutations[0].values == {"topic_id": topic, "body": "Better"}
    assert read.mutations[0].values == {"read": True}


async def test_the_bell_rings_on_pages_that_cannot_be_read() -> None:
    async with pages() as (site, ada):
        site.backends.database.available = False
        await lay(site, notice_to(ADA, uuid.uuid4()))
        page = await ada.get("/")
        assert page.status_code == 503
        assert re.search(r'id="bell".*class="count">1<', page.text, re.S)
        part = await ada.get("/", headers=FRESH)
        assert part.status_code == 503
        assert re.search(r'hx-target="#bell".*class="count">1<', part.text, re.S)
        site.backends.overlay.available = False
        assert "#bell" not in (await ada.get("/", headers=FRESH)).text


async def test_a_page_that_hears_of_a_notice_says_it_aloud_and_looks_again() -> None:
    async with pages() as (site, ada):
        assert (await ada.get("/sign-in")).status_code == 404
        notice = notice_to(ADA, uuid.uuid4(), detail="<i>It</i> waits.")
        (event,) = events_of(json.loads(told_of(notice)), "0-7")
        written = _written(Frame(site.backends.services), event).decode()
        assert "&lt;i&gt;It&lt;/i&gt; waits." in written
        assert "#say" in written
        assert written.endswith("id: 0-7\nevent: fresh\ndata: {}\n\n")


async def test_a_user_chooses_how_he_is_told() -> None:
    async with pages("canary@example.org") as (site, ada):
        assert 'href="/preferences"' in (await ada.get("/notices")).text
        page = await ada.get("/preferences")
        assert "Mail is sent to the address that your sign-in names." in text_of(page)
        assert 'value="yes" checked' in page.text
        assert "canary" not in page.text
        sent = await send(ada, "/preferences", locale="de")
        assert (sent.status_code, sent.headers["location"]) == (303, "/preferences")
        for state in ("pending", "saved"):
            page = await ada.get("/preferences")
            assert "Mail is not sent to you." in text_of(page)
            assert "checked" not in page.text
            assert 'value="de" lang="de" selected' in page.text
            assert ('class="pill' in page.text) is (state == "pending")
            drain(site)
        await send(ada, "/preferences", mail="yes", locale="")
        drain(site)
        (row,) = site.backends.database.tables.table("preference").values()
        assert (row["mail"], row["locale"], row["user_id"]) == (True, None, user_id_for("Ada"))


async def test_who_has_no_address_is_told_so() -> None:
    async with pages() as (_, ada):
        assert "Your sign-in names no e-mail address" in text_of(await ada.get("/preferences"))


async def test_mail_can_be_stopped_while_postgresql_is_away() -> None:
    async with pages() as (site, ada):
        await send(ada, "/preferences", mail="yes", locale="de")
        drain(site)
        site.backends.overlay.lose()  # it was saved long ago
        site.backends.database.available = False
        said = text_of(await ada.get("/preferences"))
        assert "what you have chosen before cannot be shown" in said
        assert (await send(ada, "/preferences", locale="de")).status_code == 303
        page = await ada.get("/preferences")
        assert "Mail is not sent to you." in text_of(page)
        assert "checked" not in page.text
        site.backends.database.available = True
        drain(site)
        (row,) = site.backends.database.tables.table("preference").values()
        assert (row["mail"], row["locale"]) == (False, "de")


async def test_a_choice_that_is_none_is_refused_and_a_form_sent_twice_is_one() -> None:
    async with pages() as (site, ada):
        wrong = await send(ada, "/preferences", mail="yes", locale="no language")
        assert wrong.status_code == 422
        assert 'class="problem"' in wrong.text
        assert site.backends.log.commands() == []
        site.backends.log.mode = "refuse"
        refused = await send(ada, "/preferences", locale="de")
        assert refused.status_code == 503
        assert 'value="de" lang="de" selected' in refused.text
        assert "checked" not in refused.text
        site.backends.log.mode = "ok"
        key = str(uuid.uuid4())
        for _ in range(2):
            assert (await send(ada, "/preferences", locale="de", key=key)).status_code == 303
        assert len(site.backends.log.commands()) == 1


async def test_a_site_without_preferences_has_no_page_of_them() -> None:
    async with pages(content="tests.content_open") as (_, ada):
        assert (await ada.get("/preferences")).status_code == 404
        assert "/preferences" not in (await ada.get("/notices")).text
