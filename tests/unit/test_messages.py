"""Requests and answers of our own: what is asked of them is what was sent."""

import pytest

from frontend_api.messages import Request, Response

pytestmark = pytest.mark.unit


def request(*headers: tuple[bytes, bytes], query: bytes = b"") -> Request:
    scope = {"method": "GET", "path": "/x", "headers": [*headers], "query_string": query}
    return Request(scope)


def test_the_first_of_several_headers_counts_and_all_are_there() -> None:
    asked = request((b"a", b"1"), (b"b", b"\xe9"), (b"a", b"2"))
    assert asked.header(b"a") == "1"
    assert asked.headers(b"a") == ["1", "2"]
    assert asked.header(b"b") == "é"
    assert asked.header(b"c") is None
    assert asked.headers(b"c") == []
    assert request((b"a", b"1"), (b"b", b"2")).header(b"b") == "2"


def test_the_last_of_several_parameters_counts() -> None:
    asked = request(query=b"limit=1&after=&limit=2%203")
    assert asked.query("limit") == "2 3"
    assert asked.query("after") == ""
    assert asked.query("more") is None
    assert request().query("limit") is None


def test_a_head_says_what_follows_it() -> None:
    answer = Response("é".encode(), 200, {"ETag": '"v1"', "Link": "<a>: b"})
    assert answer.head() == 'etag: "v1"\r\nlink: <a>: b\r\ncontent-length: 2\r\n'
    assert answer.raw_headers() == [
        (b"etag", b'"v1"'), (b"link", b"<a>: b"), (b"content-length", b"2"),
    ]  # fmt: skip


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\x00", "\x7f", "a\u2028b"])
def test_a_header_is_one_line(value: str) -> None:
    with pytest.raises(ValueError, match="one line"):
        Response(b"", 200, {"Link": value}).head()
