"""What goes along with every answer: trace context, limits, and what browsers of other sites may."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from starlette.responses import StreamingResponse

from frontend_api import tracing
from frontend_api.cross_origin import ACCEPTED, EXPOSED
from frontend_api.problems import ProblemError, fail
from schema.envelope import Keyring, open_record
from tests.fakes import SECRET
from tests.frontend import FrontEnd, front_end
from tests.listening import listening

pytestmark = pytest.mark.contract

GOOD = {"title": "A title", "body": "A body"}
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


def sent(site: FrontEnd) -> list[Any]:
    keyring = Keyring.parse(f"k1:{SECRET}")
    return [open_record(r.key, r.value, r.headers, keyring) for r in site.backends.log.records]


# -- trace context ----------------------------------------------------------------------------


async def test_a_trace_goes_through() -> None:
    async with front_end() as site, site.client() as ada:
        headers = {"traceparent": PARENT, "tracestate": "vendor=1"}
        good = await ada.post("/v1/topics", json=GOOD, headers=headers)
        assert good.headers.get_list("traceparent") == [PARENT]
        assert (sent(site)[0].traceparent, sent(site)[0].tracestate) == (PARENT, "vendor=1")
        assert sent(site)[0].trace_id == TRACE
        for refused in (
            await ada.post("/v1/topics", json={}, headers=headers),
            await ada.get("/v1/nothing", headers=headers),
            await ada.post("/v1/topics", headers={**headers, "Content-Encoding": "gzip"}),
        ):
            assert refused.headers["traceparent"] == PARENT
            assert refused.json()["trace_id"] == TRACE


async def test_without_a_trace_one_begins() -> None:
    async with front_end() as site, site.client() as ada:
        answers = [await ada.post("/v1/topics", json=GOOD) for _ in range(2)]
        parents = [answer.headers["traceparent"] for answer in answers]
        assert parents == [e.traceparent for e in sent(site)]
        assert len(set(parents)) == 2
        assert sent(site)[0].tracestate is None


@pytest.mark.parametrize(
    "parent",
    [
        "", "x", f"ff-{TRACE}-b7ad6b7169203331-01", f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-{TRACE}-{'0' * 16}-01", PARENT.upper(), f"{PARENT}-more", f" {PARENT}x",
    ],
)  # fmt: skip
async def test_a_malformed_trace_is_not_taken_over(parent: str) -> None:
    async with front_end() as site, site.client() as ada:
        headers = {"traceparent": parent, "tracestate": "vendor=1"}
        await ada.post("/v1/topics", json=GOOD, headers=headers)
        assert sent(site)[0].trace_id not in (None, TRACE, TRACE.upper())
        assert sent(site)[0].tracestate is None


async def test_heads_that_cannot_be_read_have_a_trace_too() -> None:
    async with listening() as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"garbage\r\n\r\n")
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        assert json.loads(body)["trace_id"].encode() in head
        writer.close()


async def test_what_nobody_expects_is_an_answer_like_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(tracing._log, "error", lambda event, **fields: told.append((event, fields)))
    async with front_end(cors_origins="https://a.example") as site, site.client() as ada:
        site.backends.overlay.put = None  # type: ignore[method-assign, assignment]
        headers = {"traceparent": PARENT, "Origin": "https://a.example"}
        answer = await ada.post("/v1/topics", json=GOOD, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (500, "internal")
        assert answer.json()["trace_id"] == TRACE
        assert answer.headers["access-control-allow-origin"] == "https://a.example"
    [(event, fields)] = told
    assert (event, fields["path"]) == ("unexpected_error", "/v1/topics")
    assert isinstance(fields["exc_info"], TypeError)


async def test_what_nobody_expects_of_the_framework_is_said_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"x"
        raise TypeError

    async def begins() -> StreamingResponse:
        return StreamingResponse(parts())

    async def fails() -> None:
        raise TypeError

    told: list[Any] = []
    monkeypatch.setattr(tracing._log, "error", lambda event, **fields: told.append(fields["path"]))
    async with front_end() as site:
        site.app.add_api_route("/fails", fails)
        site.app.add_api_route("/begins", begins)
        transport = httpx2.ASGITransport(app=site.app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            failed = await client.get("/fails", headers={"traceparent": PARENT})
            assert (failed.status_code, failed.json()["code"]) == (500, "internal")
            assert failed.headers["traceparent"] == PARENT
            await client.get("/begins")
    assert told == ["/fails", "/begins"]


# -- limits -----------------------------------------------------------------------------------


class Counted:
    """Two submissions are left, then none."""

    def __init__(self) -> None:
        self.left = 2

    async def count(self, author: uuid.UUID) -> dict[str, str]:
        headers = {
            "RateLimit-Policy": '"default";q=2;w=60',
            "RateLimit": f'"default";r={self.left};t=9',
        }
        if self.left == 0:
            raise ProblemError(
                fail("rate_limited", "Enough.").problem, headers | {"Retry-After": "9"}
            )
        self.left -= 1
        return headers


async def test_answers_to_submissions_say_how_many_are_left() -> None:
    async with front_end() as site, site.client() as ada:
        object.__setattr__(site.backends.services, "rate_limit", Counted())
        made = await ada.post("/v1/topics", json=GOOD)
        missing = await ada.post(f"/v1/topics/{uuid.uuid4()}/posts", json={"body": "x"})
        refused = await ada.post("/v1/topics", json=GOOD)
        assert [a.status_code for a in (made, missing, refused)] == [202, 404, 429]
        left = [a.headers["ratelimit"] for a in (made, missing, refused)]
        assert left == ['"default";r=2;t=9', '"default";r=1;t=9', '"default";r=0;t=9']
        assert refused.headers["ratelimit-policy"] == '"default";q=2;w=60'
        assert refused.headers["retry-after"] == "9"
        read = await ada.get("/v1/topics")
        assert "ratelimit" not in read.headers


# -- browsers of other sites ------------------------------------------------------------------

ORIGIN = {"Origin": "https://a.example"}


async def test_without_the_setting_no_other_site_is_let_in() -> None:
    async with front_end() as site, site.client() as ada:
        ask = ORIGIN | {"Access-Control-Request-Method": "POST"}
        for answer in (
            await ada.get("/v1/topics", headers=ORIGIN),
            await ada.options("/v1/topics", headers=ask),
        ):
            assert not [n for n in answer.headers if n.startswith("access-control")]
        assert answer.status_code == 405


@pytest.mark.parametrize("origins", ["https://b.example, https://a.example", "*"])
async def test_a_site_that_is_named_may_send_and_read_what_the_api_has(origins: str) -> None:
    async with front_end(cors_origins=origins) as site, site.client() as ada:
        ada.event_hooks["response"] = []  # what browsers ask before they send is not described
        ask = ORIGIN | {
            "Access-Control-Request-Method": "PATCH",
            "Access-Control-Request-Headers": ", ".join(ACCEPTED).lower(),
        }
        allowed = await ada.options("/v1/topics/x", headers=ask)
        assert allowed.status_code == 200
        assert "PATCH" in allowed.headers["access-control-allow-methods"]
        named = {n.lower() for n in allowed.headers["access-control-allow-headers"].split(", ")}
        assert {n.lower() for n in ACCEPTED} <= named
        large = b"x" * 200_000
        for answer in (
            await ada.post("/v1/topics", json=GOOD, headers=ORIGIN),
            await ada.post("/v1/topics", content=large, headers=ORIGIN),
            await ada.get("/v1/nothing", headers=ORIGIN),
        ):
            wanted = "*" if origins == "*" else ORIGIN["Origin"]
            assert answer.headers["access-control-allow-origin"] == wanted
            exposed = answer.headers["access-control-expose-headers"].split(", ")
            assert exposed == list(EXPOSED)
            assert "access-control-allow-credentials" not in answer.headers


async def test_a_site_that_is_not_named_is_not_let_in() -> None:
    async with front_end(cors_origins="https://b.example") as site, site.client() as ada:
        answer = await ada.get("/v1/topics", headers=ORIGIN)
        assert "access-control-allow-origin" not in answer.headers
        ada.event_hooks["response"] = []
        ask = ORIGIN | {"Access-Control-Request-Method": "POST"}
        refused = await ada.options("/v1/topics", headers=ask)
        assert refused.status_code == 400
        assert "access-control-allow-origin" not in refused.headers
