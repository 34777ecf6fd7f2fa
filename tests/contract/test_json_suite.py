"""The JSON parsing test suite through the API's door: what must be taken is, what must not is not.

Each file is sent twice: as a whole body, and as the value of a field that holds any JSON.
"""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from schema.outcomes import CODES
from tests.contract.test_http_bad_input import must_be_problem
from tests.frontend import FrontEnd, front_end
from tests.unit.test_strict_json import FREE, OURS, PARSING

pytestmark = pytest.mark.contract

JSON_CODES = {code for code in CODES if code.startswith("json_")}
NOT_TEXT = {
    # U+0000 and lone surrogates are well-formed JSON, and no text that can be kept.
    "y_string_null_escape.json", "i_object_key_lone_2nd_surrogate.json",
    "i_string_1st_surrogate_but_2nd_missing.json", "i_string_1st_valid_surrogate_2nd_invalid.json",
    "i_string_incomplete_surrogate_and_escape_valid.json",
    "i_string_incomplete_surrogate_pair.json", "i_string_incomplete_surrogates_escape_valid.json",
    "i_string_invalid_lonely_surrogate.json", "i_string_invalid_surrogate.json",
    "i_string_inverted_surrogates_U+1D11E.json", "i_string_lone_second_surrogate.json",
    "y_object_escaped_null_in_key.json",
}  # fmt: skip
"""The files that a field refuses for what their strings hold."""


@pytest.fixture
async def site() -> AsyncIterator[FrontEnd]:
    async with front_end(content="tests.content_library", max_body_bytes=262_144) as made:
        yield made


async def post(client: httpx2.AsyncClient, path: str, content: bytes) -> httpx2.Response:
    return await client.post(path, content=content, headers={"Content-Type": "application/json"})


async def shelf_of(client: httpx2.AsyncClient) -> str:
    made = await client.post("/v1/shelves", json={"place": "Hall", "isbn": "0"})
    assert made.status_code == 202, made.text
    return f"/v1/shelves/{made.json()['id']}/books"


def as_field(content: bytes) -> bytes:
    return b'{"isbn": "1", "tags": {"v": ' + content + b"}}"


async def test_every_file_has_the_answer_that_is_due_to_it(site: FrontEnd) -> None:
    wrong: dict[str, Any] = {}
    async with site.client("ada", "librarian") as client:
        books = await shelf_of(client)
        for path in PARSING:
            content = path.read_bytes()
            answers = [
                await post(client, books, content),
                await post(client, books, as_field(content)),
            ]
            if not _as_due(path, content, *answers):
                wrong[path.name] = [(a.status_code, a.text) for a in answers]
    assert wrong == {}


def _as_due(path: Path, content: bytes, whole: httpx2.Response, field: httpx2.Response) -> bool:
    must_be_problem(whole, whole.status_code)  # none of the files is a book
    refusal = OURS.get(path.name) or FREE.get(path.name, "ok")
    if path.name.startswith("n_"):
        return _refused(whole) and _refused(field)
    if refusal != "ok":
        return _refused(whole, refusal) and _refused(field)
    if _refused(whole):
        return False
    if path.name in NOT_TEXT:
        return field.status_code == 422 and field.json()["code"] == "invalid"
    return field.status_code == 202 and field.json()["tags"] == {"v": json.loads(content)}


def _refused(answer: httpx2.Response, code: str | None = None) -> bool:
    found = answer.json().get("code")
    return answer.status_code in (400, 422) and (found == code if code else found in JSON_CODES)


async def test_what_was_taken_is_read_back_as_it_was(site: FrontEnd) -> None:
    sent: dict[str, Any] = {}
    async with site.client("ada", "librarian") as client:
        books = await shelf_of(client)
        for path in PARSING:
            answer = await post(client, books, as_field(path.read_bytes()))
            if answer.status_code == 202:
                sent[answer.json()["id"]] = json.loads(path.read_bytes())
        assert len(sent) > 90
        pending = {row_id: (await client.get(f"/v1/books/{row_id}")).json() for row_id in sent}
        while site.backends.apply_next():
            pass
        saved = {row_id: (await client.get(f"/v1/books/{row_id}")).json() for row_id in sent}
    for found, state in ((pending, "pending"), (saved, "saved")):
        assert {row["state"] for row in found.values()} == {state}
        assert {row_id: row["tags"]["v"] for row_id, row in found.items()} == sent
