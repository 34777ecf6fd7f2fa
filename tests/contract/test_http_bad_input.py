"""What the API answers to bad input: never a 5xx, never the input itself, always a problem."""

import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from schema.identifiers import new_row_id
from tests.frontend import FrontEnd, front_end

pytestmark = pytest.mark.contract

MARK = "zq7echo"  # must never come back
GOOD = {"title": "A title", "body": "A body"}


@pytest.fixture
async def site() -> AsyncIterator[FrontEnd]:
    async with front_end() as made:
        yield made


def must_be_problem(answer: httpx2.Response, status: int, code: str | None = None) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.content.isascii()
    body = answer.json()
    assert {"type", "title", "status", "detail", "code"} <= body.keys()
    assert body["status"] == status
    assert MARK not in answer.text
    if code is not None:
        assert body["code"] == code


async def post(site: FrontEnd, content: bytes, content_type: str = "application/json") -> Any:
    async with site.client() as client:
        return await client.post(
            "/v1/topics", content=content, headers={"Content-Type": content_type}
        )


def with_title(value: str) -> bytes:
    return f'{{"title": {value}, "body": "B"}}'.encode()


DEEP_500 = b'{"title": ' + b"[" * 500 + b"]" * 500 + b', "body": "B"}'
DEEP_100_000 = b'{"title": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (with_title('"zq7echo\\u0000"'), 422, "invalid"),
        (b'{"title": "zq7echo\x00", "body": "B"}', 400, "json_syntax"),
        (with_title('"zq7echo\\ud800"'), 422, "invalid"),
        (with_title('"zq7echo\\ude00\\ud83d"'), 422, "invalid"),
        (b'{"title": "zq7echo\xff", "body": "B"}', 400, "json_encoding"),
        (b'{"title": "zq7echo\xc0\xaf", "body": "B"}', 400, "json_encoding"),
        (b"\xef\xbb\xbf" + json.dumps(GOOD).encode(), 400, "json_encoding"),
        (json.dumps(GOOD).encode("utf-16"), 400, "json_encoding"),
        (b'{"title": "zq7echo", "title": "x", "body": "B"}', 400, "json_duplicate_key"),
        (with_title("NaN"), 400, "json_number"),
        (with_title("-Infinity"), 400, "json_number"),
        (with_title("1e999"), 400, "json_number"),
        (with_title("9" * 5000), 400, "json_number"),
        (with_title("1.0"), 422, "invalid"),
        (with_title("true"), 422, "invalid"),
        (with_title("null"), 422, "invalid"),
        (b'{"title": "T", "body": "B", "locked": "zq7echo"}', 422, "invalid"),
        (b'{"title": "T", "body": "B", "locked": 1}', 422, "invalid"),
        (DEEP_500, 422, "json_depth"),
        (DEEP_100_000, 422, "json_depth"),
        (b'{"title": "T", "body": "B", "zq7echo": 1}', 422, "invalid"),
        (b'{"title": "T", "body": "B", "\\ud800zq7echo": 1}', 422, "invalid"),
        (b'{"title": "T", "body": "B", "author_id": "zq7echo"}', 422, "invalid"),
        (b'{"title": "T", "body": "B", "id": "zq7echo"}', 422, "invalid"),
        (b"", 400, "json_syntax"),
        (b"null", 422, "invalid"),
        (b"[]", 422, "invalid"),
        (b'"zq7echo"', 422, "invalid"),
        (json.dumps(GOOD).encode() + b"zq7echo", 400, "json_syntax"),
        (b'{"title": "T", "body": "B",}', 400, "json_syntax"),
        (with_title('"zq7echo\\nline"'), 422, "invalid"),
        (with_title(json.dumps("x" * 301)), 422, "invalid"),
        (with_title('""'), 422, "invalid"),
        (b'{"title": "T"}', 422, "invalid"),
    ],
)
async def test_bodies(site: FrontEnd, content: bytes, status: int, code: str) -> None:
    must_be_problem(await post(site, content), status, code)
    assert site.backends.log.records == []
    assert site.backends.overlay.entries == {}


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "",
        "application/json; charset=utf-16",
        "multipart/form-data",
        "application/xml",
    ],
)
async def test_content_types(site: FrontEnd, content_type: str) -> None:
    answer = await post(site, json.dumps(GOOD).encode(), content_type)
    must_be_problem(answer, 415, "unsupported_media_type")


async def test_a_compressed_body_is_not_read(site: FrontEnd) -> None:
    async with site.client() as client:
        headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
        answer = await client.post("/v1/topics", content=b"zq7echo", headers=headers)
    must_be_problem(answer, 415)


async def test_sizes(site: FrontEnd) -> None:
    exactly = json.dumps({"title": "T", "body": "x" * 65_536}).encode()
    assert (await post(site, exactly)).status_code == 202
    over = json.dumps({"title": "T", "body": "x" * 65_537}).encode()
    must_be_problem(await post(site, over), 422, "invalid")
    answer = await post(site, b" " * 131_073)
    must_be_problem(answer, 413, "body_too_large")
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "'; drop table post; --",
        "{{7*7}} ${7*7} %n %s",
        "\u202egnp.exe \u200d\ufeff",
        "e\u0301" * 5000,
        "\x1b[31mred",
        "=?utf-8?q?x=0ABcc:_evil@x?=",
        "line\r\nBcc: evil@x",
        "\U0010ffff \ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
    ],
)
async def test_hostile_text_is_kept_exactly(site: FrontEnd, text: str) -> None:
    async with site.client() as client:
        topic = (await client.post("/v1/topics", json={"title": "T", "body": text})).json()
        assert topic["post"]["body"] == text
        read = await client.get(f"/v1/posts/{topic['post']['id']}")
        assert read.json()["body"] == text
    assert site.backends.log.commands()[0].mutations[1].values["body"] == text


@pytest.mark.parametrize(
    "row_id",
    ["1", "zq7echo", "0190A0C0-0000-7000-8000-000000000000", "{0190a0c0-0000-7000-8000-000000000000}",
     "0190a0c000007000800000000000000", "%00", "..%2f..%2fetc", "86d6d957-e3e6-419d-85fe-230c15fe698a"],
)  # fmt: skip
async def test_ids_in_addresses(site: FrontEnd, row_id: str) -> None:
    async with site.client() as client:
        for method in ("GET", "PATCH", "DELETE"):
            body = {"json": {"body": "x"}} if method == "PATCH" else {}
            answer = await client.request(method, f"/v1/posts/{row_id}", **body)  # type: ignore[arg-type]
            must_be_problem(answer, 404, "not_found")
        must_be_problem(await client.get(f"/v1/topics/{row_id}/posts"), 404)
        must_be_problem(await client.get(f"/v1/commands/{row_id}"), 404)


@pytest.mark.parametrize("emoji", ["%FF", "%ED%A0%80", "%C0%AF", "a%E2%98"])
async def test_an_address_that_is_not_utf_8_names_nothing_else(site: FrontEnd, emoji: str) -> None:
    """What the server puts in the place of such bytes would be kept as if it had been sent."""
    async with site.client() as client:
        topic = (await client.post("/v1/topics", json=GOOD)).json()
        path = f"/v1/posts/{topic['post']['id']}/reactions"
        must_be_problem(await client.put(f"{path}/{emoji}"), 400, "bad_request")
        assert (await client.put(f"{path}/%E2%98%95")).json()["emoji"] == "\u2615"


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=zq7echo", "limit=-1", "limit=٣",
                                   "after=zq7echo", "after=AAAA", "after=%00", "limit="])  # fmt: skip
async def test_queries(site: FrontEnd, query: str) -> None:
    async with site.client() as client:
        must_be_problem(await client.get(f"/v1/topics?{query}"), 422, "invalid")


async def test_a_cursor_of_another_list_is_refused(site: FrontEnd) -> None:
    async with site.client() as client:
        topics = [(await client.post("/v1/topics", json=GOOD)).json() for _ in range(2)]
        page = (await client.get("/v1/topics?limit=1")).json()
        answer = await client.get(f"/v1/topics/{topics[0]['id']}/posts?after={page['next']}")
        must_be_problem(answer, 422)


@pytest.mark.parametrize(
    ("mutations", "status"),
    [
        ([], 422),
        ([{"op": "create", "type": "zq7echo", "values": {}}], 422),
        ([{"op": "zq7echo", "type": "post", "values": {}}], 422),
        ([{"op": "update", "type": "post", "values": {"body": "x"}}], 422),
        ([{"op": "update", "type": "post", "id": "zq7echo", "values": {"body": "x"}}], 422),
        ([{"op": "create", "type": "topic", "id": str(uuid.uuid4()), "values": {"title": "T"}}], 422),
        ([{"op": "create", "type": "topic", "id": "018cc251-f400-7000-8000-000000000000",
           "values": {"title": "T"}}], 422),
        ([{"op": "create", "type": "notice", "values": {}}], 403),
        ([{"op": "delete", "type": "user", "id": str(new_row_id())}], 403),
        ([{"op": "create", "type": "topic", "values": {"title": "T"}, "zq7echo": 1}], 422),
        ([{"op": "create", "type": "topic", "values": {"title": "T"}}] * 101, 422),
        ([{"op": "create", "type": "topic", "values": {"title": "T"}}] * 2, 422),
        ([{"op": "create", "type": "post", "values": {"body": "B", "topic_id": str(new_row_id())}}], 422),
    ],
)  # fmt: skip
async def test_commands(site: FrontEnd, mutations: list[Any], status: int) -> None:
    async with site.client() as client:
        answer = await client.post("/v1/commands", json={"mutations": mutations})
        must_be_problem(answer, status)
    assert site.backends.log.records == []


@pytest.mark.parametrize("patch", [{}, {"topic_id": "x"}, {"body": None}, {"body": 1}, [], None,
                                   {"version": 3}, {"reaction_count": 3}])  # fmt: skip
async def test_patches(site: FrontEnd, patch: Any) -> None:
    async with site.client() as client:
        topic = (await client.post("/v1/topics", json=GOOD)).json()
        address = f"/v1/posts/{topic['post']['id']}"
        headers = {"Content-Type": "application/merge-patch+json"}
        content = json.dumps(patch).encode()
        must_be_problem(await client.patch(address, content=content, headers=headers), 422)


@pytest.mark.parametrize("key", ["", '""', "a b", "x" * 256, "\u00e9", '"a\x7f"'])
async def test_malformed_idempotency_keys(site: FrontEnd, key: str) -> None:
    async with site.client() as client:
        headers = {"Idempotency-Key": key.encode()}
        answer = await client.post("/v1/topics", json=GOOD, headers=headers)  # type: ignore[arg-type]
        must_be_problem(answer, 400, "idempotency_key_malformed")


@pytest.mark.parametrize(
    "header", [None, "", "Basic YTpi", "Bearer", "Bearer zq7echo", "Bearer a.b.c"]
)
async def test_tokens(site: FrontEnd, header: str | None) -> None:
    async with site.client(None) as client:
        headers = {} if header is None else {"Authorization": header}
        for answer in (
            await client.get("/v1/topics", headers=headers),
            await client.post("/v1/topics", json=GOOD, headers=headers),
        ):
            must_be_problem(answer, 401, "unauthenticated")
            assert answer.headers["www-authenticate"] == "Bearer"


async def test_addresses_and_methods_that_do_not_exist(site: FrontEnd) -> None:
    async with site.client() as client:
        must_be_problem(await client.get("/zq7echo"), 404, "not_found")
        answer = await client.put("/v1/topics", json=GOOD)
        must_be_problem(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] == "GET, POST"


async def test_an_unexpected_fault_tells_nothing(site: FrontEnd) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError(MARK)

    site.backends.overlay.read = broken  # type: ignore[method-assign, assignment]
    async with site.client() as client:
        must_be_problem(await client.get("/v1/topics"), 500, "internal")


async def test_nobody_commands_in_the_name_of_afterwrite(site: FrontEnd) -> None:
    """A system command may make notices for anybody: no request can become one."""
    notice = {
        "op": "create",
        "type": "notice",
        "values": {"user_id": str(new_row_id()), "kind": "delayed", "detail": "x"},
    }
    topic = {"op": "create", "type": "topic", "values": {"title": "t"}}
    async with site.client() as client:
        for body in (
            {"system": True, "mutations": [topic]},
            {"mutations": [topic | {"system": True}]},
            {"mutations": [notice]},
        ):
            answer = await client.post("/v1/commands", json=body)
            assert answer.status_code in (403, 422), answer.text
        headers = {"System": "true", "Afterwrite-System": "true"}
        answer = await client.post("/v1/topics?system=true", json=GOOD, headers=headers)
        assert answer.status_code in (202, 422), answer.text
        answer = await client.post("/v1/commands", json={"mutations": [topic]}, headers=headers)
        assert answer.status_code == 202, answer.text
    published = site.backends.log.commands()
    assert published
    assert not any(command.system for command in published)
