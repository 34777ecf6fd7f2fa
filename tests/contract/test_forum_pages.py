"""The forum's pages without a browser: who gets in, what every page carries, what a form may say."""

import hashlib
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import ValidationError

import frontend_api.forum
import frontend_api.pages
from frontend_api.authentication import mint_token
from schema.catalog import CatalogError
from tests.fakes import SECRET, FakeBackends, frontend_settings
from tests.frontend import front_end

pytestmark = pytest.mark.contract

HERE = Path(frontend_api.forum.__file__).parent
DEMO = {"site": "forum", "demo_sign_in": True}
URL = "http://forum.test"
COOKIE = "afterwrite_session"


class Visit:
    """A browser without scripts, signed in or not."""

    def __init__(self, client: httpx2.AsyncClient, backends: FakeBackends) -> None:
        self.client = client
        self.backends = backends

    async def get(self, path: str, **headers: str) -> httpx2.Response:
        return await self.client.get(path, headers=headers)

    async def post(self, path: str, **fields: str) -> httpx2.Response:
        return await self.client.post(path, data=fields, headers={"origin": URL})

    async def topic(self, title: str = "A topic", body: str = "A post") -> str:
        answer = await self.post("/topics/new", title=title, body=body, key=str(uuid.uuid4()))
        assert answer.status_code == 303, answer.text
        return str(answer.headers["location"]).partition("/topics/")[2][:36]


@asynccontextmanager
async def visit(user: str | None = "Ada", **settings: Any) -> AsyncIterator[Visit]:
    async with front_end(**(settings or DEMO)) as served:
        cookies = {COOKIE: mint_token(SECRET, user)} if user else {}
        transport = httpx2.ASGITransport(app=served.app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url=URL, cookies=cookies) as client:
            yield Visit(client, served.backends)


# -- who gets in --------------------------------------------------------------------------------


async def test_there_are_no_pages_unless_they_are_asked_for() -> None:
    async with visit(site="none") as ada:
        for path in ("/", "/topics/new", "/sign-in", "/static/forum.js", "/live"):
            answer = await ada.get(path)
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_who_is_not_signed_in_is_led_to_the_sign_in_and_back() -> None:
    async with visit(None) as somebody:
        answer = await somebody.get("/submissions?after=x")
        assert answer.status_code == 303
        assert answer.headers["location"] == "/sign-in?next=%2Fsubmissions%3Fafter%3Dx"
        form = await somebody.get(answer.headers["location"])
        assert 'name="next" value="/submissions?after=x"' in form.text
        into = await somebody.post("/sign-in", name=" Ada ", next="/submissions")
        assert (into.status_code, into.headers["location"]) == (303, "/submissions")
        cookie = into.headers["set-cookie"]
        assert cookie.startswith(f"{COOKIE}=")
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
        assert "Secure" not in cookie
        assert '<bdi class="name">Ada</bdi>' in (await somebody.get("/")).text
        gone = await somebody.post("/sign-out")
        assert gone.headers["location"] == "/sign-in"
        assert (await somebody.get("/")).status_code == 303


async def test_the_cookie_is_for_https_only_where_there_is_https() -> None:
    async with visit(None) as somebody:
        into = await somebody.client.post(
            "https://forum.test/sign-in",
            data={"name": "Ada"},
            headers={"sec-fetch-site": "same-origin"},
        )
        assert "Secure" in into.headers["set-cookie"]


@pytest.mark.parametrize("proxy", ["127.0.0.1", "192.0.2.1"])
async def test_a_proxy_of_this_machine_says_whether_there_is_https(proxy: str) -> None:
    async with visit(None) as somebody:
        somebody.client._transport.client = (proxy, 123)  # type: ignore[attr-defined]
        into = await somebody.client.post(
            "http://forum.test/sign-in",
            data={"name": "Ada"},
            headers={"sec-fetch-site": "same-origin", "x-forwarded-proto": "https"},
        )
        assert ("Secure" in into.headers["set-cookie"]) is (proxy == "127.0.0.1")


@pytest.mark.parametrize(
    "to", ["//evil.test", "/\\evil.test", "https://evil.test/", "javascript:alert(1)", "", "\n/"]
)
async def test_the_sign_in_leads_to_pages_of_ours_only(to: str) -> None:
    async with visit(None) as somebody:
        into = await somebody.post("/sign-in", name="Ada", next=to)
        assert into.headers["location"] == "/"


@pytest.mark.parametrize("name", ["", "   ", "x" * 41, "two\nlines"])
async def test_a_name_must_be_one(name: str) -> None:
    async with visit(None) as somebody:
        answer = await somebody.post("/sign-in", name=name)
        assert answer.status_code == 422
        assert "set-cookie" not in answer.headers
        assert "The name " in answer.text


@pytest.mark.parametrize("token", ["", "nonsense", mint_token(SECRET, "Ada", ttl_s=-1)])
async def test_a_cookie_that_is_not_valid_is_none(token: str) -> None:
    async with visit(None) as somebody:
        somebody.client.cookies.set(COOKIE, token)
        assert (await somebody.get("/")).headers["location"] == "/sign-in?next=%2F"
        asked = await somebody.get("/", **{"hx-request": "true"})
        assert asked.headers["hx-redirect"] == "/sign-in?next=%2F"


async def test_without_the_demo_the_sites_own_sign_in_sets_the_cookie() -> None:
    async with visit("Ada", site="forum", session_cookie="site") as ada:
        assert (await ada.get("/")).status_code == 401
        ada.client.cookies.set("site", mint_token(SECRET, "Ada"))
        assert (await ada.get("/")).status_code == 200
        assert "Sign out" not in (await ada.get("/")).text
        assert (await ada.get("/sign-in")).status_code == 404
        assert (await ada.post("/sign-in", name="Mo")).status_code == 404


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org"])
def test_the_demo_sign_in_stays_on_this_machine_unless_it_is_said_twice(host: str) -> None:
    with pytest.raises(ValidationError, match="DEMO_SIGN_IN_ANYWHERE"):
        frontend_settings(**DEMO, host=host)
    assert frontend_settings(**DEMO, host=host, demo_sign_in_anywhere=True).demo_sign_in


def test_the_demo_sign_in_needs_a_secret_to_make_tokens_with() -> None:
    with pytest.raises(ValidationError, match="AFTERWRITE_JWT_SECRET"):
        frontend_settings(**DEMO, jwt_secret=None, jwks="/keys.json")


async def test_a_site_without_topics_has_no_forum() -> None:
    with pytest.raises(CatalogError, match="topic, post"):
        async with visit(None, **DEMO, content="tests.content_library"):
            pass


# -- what every page carries ----------------------------------------------------------------------


class Seen(HTMLParser):
    """What matters of a page: ids, headings, and fields with what they are called by."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.headings: list[str] = []
        self.fields: list[tuple[str, dict[str, str | None]]] = []
        self.labels: set[str | None] = set()
        self.landmarks: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("id"):
            self.ids.append(given["id"] or "")
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(tag)
        if tag in ("input", "textarea", "select") and given.get("type") != "hidden":
            self.fields.append((tag, given))
        if tag == "label":
            self.labels.add(given.get("for"))
        if tag in ("main", "header", "nav"):
            self.landmarks.append(tag)


async def _pages(ada: Visit) -> dict[str, str]:
    topic = await ada.topic()
    listing = await ada.get(f"/topics/{topic}")
    match = re.search(r'id="post-([0-9a-f-]{36})"', listing.text)
    assert match is not None
    post = match[1]
    paths = [
        "/", "/topics/new", f"/topics/{topic}", f"/topics/{topic}/edit", f"/topics/{topic}/delete",
        f"/posts/{post}/edit", f"/posts/{post}/delete", "/submissions", "/notices", "/sign-in",
        "/topics/none",
    ]  # fmt: skip
    answers = {path: await ada.get(path) for path in paths}
    for path, answer in answers.items():
        assert answer.status_code == (404 if path == "/topics/none" else 200), path
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "private, no-store"
    return {path: answer.text for path, answer in answers.items()}


async def test_every_page_can_be_found_ones_way_in() -> None:
    """A title, one first heading, landmarks, unique ids, and a name for every field."""
    async with visit() as ada:
        for path, text in (await _pages(ada)).items():
            seen = Seen(text)
            assert text.startswith('<!doctype html>\n<html lang="en">'), path
            assert "<title>" in text, path
            assert {"main", "header"} <= set(seen.landmarks), path
            assert len(seen.ids) == len(set(seen.ids)), path
            assert seen.headings.count("h1") == 1, path
            for tag, field in seen.fields:
                assert field.get("aria-label") or field.get("id") in seen.labels, (path, tag)


@pytest.mark.parametrize("path", sorted((HERE / "templates").iterdir()), ids=lambda p: p.name)
def test_no_template_has_anything_inline_or_unescaped(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", text)
    assert all(" src=" in tag for tag in re.findall(r"<script[^>]*>", text))
    assert not re.search(r"\|\s*safe\b|autoescape", text)
    assert not re.search(r"https?://", text)  # nothing is fetched from elsewhere


def test_what_was_copied_is_what_its_page_says() -> None:
    folder = Path(frontend_api.pages.__file__).parent / "htmx"
    rows = re.findall(
        r"^\| `([^`]+)` \| `[^`]+` \| `([0-9a-f]{64})` \|$",
        (folder / "README.md").read_text(),
        re.M,
    )
    found = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}
    del found["README.md"]
    assert dict(rows) == found


async def test_static_files_are_kept_for_ever_under_their_digest() -> None:
    async with visit(None) as somebody:
        page = (await somebody.get("/sign-in")).text
        for address in re.findall(r'(?:href|src)="(/static/[^"]+)"', page):
            answer = await somebody.get(address)
            assert answer.status_code == 200
            assert "immutable" in answer.headers["cache-control"]
            again = await somebody.get(address, **{"if-none-match": answer.headers["etag"]})
            assert again.status_code == 304
        assert (await somebody.get("/static/htmx%2FLICENSE")).status_code == 404
        assert (await somebody.get("/static/..%2froutes.py")).status_code == 404


# -- what a form may say --------------------------------------------------------------------------


async def test_a_form_that_is_sent_twice_is_one_change() -> None:
    async with visit() as ada:
        topic = await ada.topic()
        fields = {"body": "Once", "key": str(uuid.uuid4()), "last": "1"}
        first, again = [await ada.post(f"/topics/{topic}/posts", **fields) for _ in range(2)]
        assert first.headers["location"] == again.headers["location"]
        assert len(ada.backends.log.records) == 2  # the topic, and one post
        other = await ada.post(f"/topics/{topic}/posts", **(fields | {"body": "Other"}))
        assert other.status_code == 422
        assert "Reload the page" in other.text
        assert ">\nOther</textarea>" in other.text


async def test_line_ends_are_as_they_were_typed() -> None:
    async with visit() as ada:
        await ada.topic(body="\r\n one\r\n\r\ntwo ")
        command = ada.backends.log.commands()[0]
        assert command.mutations[1].values["body"] == "\n one\n\ntwo "


@pytest.mark.parametrize("available", [True, False])
async def test_kafka_away_keeps_the_text_in_the_form(available: bool) -> None:
    """Also when the page around it cannot be read."""
    async with visit() as ada:
        topic = await ada.topic()
        ada.backends.log.mode = "refuse"
        ada.backends.database.available = available
        key = str(uuid.uuid4())
        answer = await ada.post(f"/topics/{topic}/posts", body="Keep me", key=key, last="1")
        assert answer.status_code == 503
        assert "nothing was stored" in answer.text
        assert ">\nKeep me</textarea>" in answer.text
        assert f'name="key" value="{key}"' in answer.text
        ada.backends.log.mode = "ok"
        sent = await ada.post(f"/topics/{topic}/posts", body="Keep me", key=key, last="1")
        assert sent.status_code == 303


async def test_a_page_that_cannot_be_read_says_so_and_a_script_keeps_what_it_shows() -> None:
    async with visit() as ada:
        ada.backends.database.available = False
        page = await ada.get("/")
        assert page.status_code == 503
        assert "The database cannot be reached" in page.text
        asked = await ada.get("/", **{"hx-request": "true"})
        assert asked.status_code == 503
        assert asked.headers["hx-reswap"] == "none"
        assert 'hx-target="#banners"' in asked.text
        assert 'id="part"' not in asked.text


async def test_a_script_is_told_when_nothing_has_changed() -> None:
    async with visit() as ada:
        topic = await ada.topic()
        page = (await ada.get(f"/topics/{topic}")).text
        match = re.search(r'name="seen" value="([0-9a-f]+)"', page)
        assert match is not None
        asked = {"hx-request": "true"}
        assert (await ada.get(f"/topics/{topic}?seen={match[1]}", **asked)).status_code == 204
        assert (await ada.get(f"/topics/{topic}?seen=", **asked)).status_code == 200
        await ada.post(f"/topics/{topic}/posts", body="New", key=str(uuid.uuid4()), last="1")
        changed = await ada.get(f"/topics/{topic}?seen={match[1]}", **asked)
        assert changed.status_code == 200
        assert "<html" not in changed.text


async def test_without_scripts_a_page_looks_again_by_itself_and_soon_gives_up() -> None:
    """Somebody may be writing in it by then. Nor does it look for what is saved."""
    async with visit() as ada:
        address = f"/topics/{(topic := await ada.topic())}?sent={topic}"
        waits = []
        for _ in range(9):
            page = await ada.get(address)
            again = re.search(
                r'<noscript><meta http-equiv="refresh" content="(\d+);url=([^"#]+)', page.text
            )
            if again is None:
                break
            waits.append(int(again[1]))
            address = again[2].replace("&amp;", "&")
        assert waits == [1, 2, 4, 8, 16]
        assert "http-equiv" not in (await ada.get(f"/topics/{topic}")).text
        ada.backends.database.apply(ada.backends.log.commands()[0])
        saved = await ada.get(f"/topics/{topic}?sent={topic}")
        assert "http-equiv" not in saved.text
