"""The front end with other content types: routes, checks, overlay and counts follow from them."""

from collections.abc import AsyncIterator

import pytest

from schema.identifiers import new_row_id
from tests.frontend import FrontEnd, front_end

pytestmark = pytest.mark.contract


@pytest.fixture
async def library() -> AsyncIterator[FrontEnd]:
    async with front_end(content="tests.content_library", lanes=1) as made:
        yield made


async def test_a_shelf_with_books_and_loans(library: FrontEnd) -> None:
    async with library.client("lib", "librarian") as lib, library.client("ada") as ada:
        refused = await ada.post("/v1/shelves", json={"place": "A", "isbn": "1"})
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        shelf = (await lib.post("/v1/shelves", json={"place": "A", "isbn": "1"})).json()
        assert shelf["book"]["shelf_id"] == shelf["id"]
        books = f"/v1/shelves/{shelf['id']}/books"
        details = {"isbn": "2", "pages": 300, "tags": {"a": ["ü", {"b": None}]}}
        book = (await lib.post(books, json=details)).json()
        assert (book["pages"], book["tags"]) == (300, details["tags"])
        read = (await lib.get(f"/v1/books/{book['id']}")).json()
        assert (read["pages"], read["tags"], read["state"]) == (300, details["tags"], "pending")
        assert [b["isbn"] for b in (await lib.get(books)).json()["items"]] == ["2", "1"]
        assert (await lib.get(f"/v1/shelves/{shelf['id']}")).json()["book_count"] == 2
        assert (await lib.get("/v1/shelves")).status_code == 405  # creating only: no list declared
        while library.backends.apply_next():
            pass
        loan = await ada.put(f"/v1/books/{book['id']}/loans/monday")
        assert loan.status_code == 202
        assert str(library.backends.log.commands()[-1].stream) == shelf["id"]
        assert (await ada.get(f"/v1/loans/{loan.json()['id']}")).status_code == 200
        assert (await lib.get(f"/v1/loans/{loan.json()['id']}")).status_code == 404
        assert (await lib.delete(f"/v1/loans/{loan.json()['id']}")).status_code == 404
        assert (await ada.delete(f"/v1/books/{book['id']}/loans/monday")).status_code == 202
        assert (await ada.get(f"/v1/loans/{loan.json()['id']}")).status_code == 404


@pytest.mark.parametrize(
    "wrong",
    [
        {"pages": 2**63}, {"pages": -(2**63) - 1}, {"pages": 1.0}, {"pages": "1"}, {"pages": True},
        {"tags": []}, {"tags": {"a": "\x00"}}, {"tags": {"\x00": 1}}, {"isbn": "2"},
    ],
)  # fmt: skip
async def test_values_out_of_bounds(library: FrontEnd, wrong: dict[str, object]) -> None:
    async with library.client("lib", "librarian") as lib:
        shelf = (await lib.post("/v1/shelves", json={"place": "A", "isbn": "1"})).json()
        answer = await lib.patch(f"/v1/books/{shelf['book']['id']}", json=wrong)
        assert answer.status_code == 422
        assert answer.json()["errors"]


async def test_null_in_a_merge_patch_empties_what_may_be_empty(library: FrontEnd) -> None:
    async with library.client("lib", "librarian") as lib:
        shelf = (await lib.post("/v1/shelves", json={"place": "A", "isbn": "1"})).json()
        address = f"/v1/books/{shelf['book']['id']}"
        await lib.patch(address, json={"pages": 3, "tags": {"a": 1}})
        assert (await lib.patch(address, json={"tags": None})).status_code == 202
        read = (await lib.get(address)).json()
        assert (read["pages"], read["tags"], read["version"]) == (3, None, 3)
        lost = await lib.post(f"/v1/shelves/{shelf['id']}/books", json={"isbn": "lost"})
        refused = await lib.patch(f"/v1/books/{lost.json()['id']}", json={"pages": 1})
        assert refused.status_code == 403


async def test_a_loan_of_a_book_that_is_not_there(library: FrontEnd) -> None:
    async with library.client("ada") as ada:
        assert (await ada.put(f"/v1/books/{new_row_id()}/loans/monday")).status_code == 404
