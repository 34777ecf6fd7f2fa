"""Where an author can be reached: taken from his token, carried to the writer, told to nobody."""

import json
import uuid
from typing import Any

import httpx2
import jwt
import pytest

from frontend_api.authentication import Authentication, mint_token
from schema.commands import Command
from schema.identifiers import user_id_for
from schema.redis_keys import SHARED
from tests.fakes import SECRET
from tests.frontend import FrontEnd, front_end
from tests.installation import free_port

pytestmark = pytest.mark.contract

GOOD = {"title": "A title", "body": "A body"}
ADDRESS = "canary-7f3a@example.org"


def token(**claims: Any) -> str:
    now = jwt.decode(mint_token(SECRET, "ada"), SECRET, algorithms=["HS256"])
    return jwt.encode(now | claims, SECRET, algorithm="HS256")


def as_ada(site: FrontEnd, **claims: Any) -> httpx2.AsyncClient:
    client = site.client("ada")
    client.headers["Authorization"] = f"Bearer {token(**claims)}"
    return client


def sent(site: FrontEnd) -> Command:
    return site.backends.log.commands()[-1]


async def test_a_command_says_where_its_author_can_be_reached() -> None:
    async with front_end() as site, as_ada(site, email=ADDRESS, locale="de_AT") as ada:
        assert (await ada.post("/v1/topics", json=GOOD)).status_code == 202
        assert (sent(site).author.email, sent(site).author.locale) == (ADDRESS, "de-AT")
    async with front_end() as site, site.client("ada") as ada:
        assert (await ada.post("/v1/topics", json=GOOD)).status_code == 202
        assert (sent(site).author.email, sent(site).author.locale) == (None, None)
        assert "email" not in sent(site).to_json()["author"]


@pytest.mark.parametrize(
    ("claims", "email"),
    [
        ({"email_verified": True}, ADDRESS),
        ({"email_verified": "true"}, ADDRESS),
        ({"email_verified": False}, None),
        ({"email_verified": "false"}, None),
        ({"email_verified": None}, None),
        ({"email_verified": 0}, None),
        ({"email": "Ada <ada@example.org>"}, None),
        ({"email": "ada@example.org\r\nBcc: eve@example.org"}, None),
        ({"email": ["ada@example.org"]}, None),
        ({"email": None}, None),
    ],
)
async def test_an_address_that_is_not_the_authors_own_is_passed_over(
    claims: dict[str, Any], email: str | None
) -> None:
    author = await Authentication(SECRET, None, None).author(
        f"Bearer {token(**({'email': ADDRESS} | claims))}"
    )
    assert author.email == email
    assert author.id == user_id_for("ada")


@pytest.mark.parametrize("locale", ["", "../../etc", "x" * 40, 7, {"a": 1}, "de\n"])
async def test_a_language_that_is_none_is_passed_over(locale: object) -> None:
    author = await Authentication(SECRET, None, None).author(f"Bearer {token(locale=locale)}")
    assert author.locale is None


async def test_the_address_is_in_no_answer() -> None:
    """Also not in what its author is told, for then it would be in caches and logs of others."""
    told = []
    async with front_end() as site, as_ada(site, email=ADDRESS) as ada:
        client = site.conformance.hook

        async def keep(answer: httpx2.Response) -> None:
            await client(answer)
            told.append(f"{answer.headers} {answer.text}")

        ada.event_hooks["response"] = [keep]
        made = (await ada.post("/v1/topics", json=GOOD)).json()
        me = sent(site).author.id
        for path in (
            f"/v1/topics/{made['id']}", f"/v1/commands/{made['command']}", "/v1/commands",
            "/v1/topics", f"/v1/users/{me}", "/v1/users", "/v1/notices",
        ):  # fmt: skip
            await ada.get(path)
        await ada.patch(f"/v1/topics/{made['id']}", json={"title": ""})
        await ada.patch(
            f"/v1/topics/{made['id']}", json={"title": "T"}, headers={"Prefer": "wait=0"}
        )
        site.backends.apply_next()
        await ada.get(f"/v1/commands/{made['command']}")
        await ada.get(f"/v1/users/{me}")
        assert sent(site).author.email == ADDRESS
    assert len(told) > 10
    assert not [text for text in told if "canary" in text]


async def test_the_address_is_not_in_what_everyone_may_see_while_it_is_pending() -> None:
    async with (
        front_end(content="tests.content_open") as site,
        as_ada(site, email=ADDRESS, locale="de", roles=["admin"]) as ada,
    ):
        assert (await ada.post("/v1/topics", json=GOOD)).status_code == 202
        shared = [command for command, _ in site.backends.overlay.entries[SHARED].values()]
        own = [c for c, _ in site.backends.overlay.entries[user_id_for("ada")].values()]
        assert [c.author.email for c in own] == [ADDRESS]
        assert len(shared) == 1
        assert set(shared[0].author.to_json()) == {"id", "name", "roles"}
        assert "canary" not in json.dumps(shared[0].to_json())


# -- the demo's sign-in -------------------------------------------------------------------------


async def _signed_in(email: str) -> tuple[httpx2.Response, FrontEnd]:
    async with front_end(site="forum", demo_sign_in=True) as site:
        transport = httpx2.ASGITransport(app=site.app, raise_app_exceptions=False)
        url = f"http://forum.test:{free_port()}"
        async with httpx2.AsyncClient(transport=transport, base_url=url) as client:
            origin = {"origin": url}
            fields = {"name": "Ada", "email": email}
            into = await client.post("/sign-in", data=fields, headers=origin)
            if into.status_code == 303:
                form = {"title": "T", "body": "B", "key": str(uuid.uuid4())}
                await client.post("/topics/new", data=form, headers=origin)
            return into, site


@pytest.mark.parametrize(("email", "taken"), [(f" {ADDRESS} ", ADDRESS), ("", None)])
async def test_the_demo_asks_for_an_address_and_does_without(email: str, taken: str | None) -> None:
    into, site = await _signed_in(email)
    assert into.status_code == 303
    assert sent(site).author.email == taken


async def test_the_demo_says_what_is_wrong_with_an_address() -> None:
    into, _ = await _signed_in("ada@example.org,eve@example.org")
    assert into.status_code == 422
    assert "set-cookie" not in into.headers
    assert "What is written as e-mail address is not one e-mail address." in into.text
    assert 'id="email-problem"' in into.text
    assert 'value="Ada"' in into.text
