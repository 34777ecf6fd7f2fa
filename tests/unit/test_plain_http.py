"""Plain requests: what is taken the short way is exactly what h11 would have made of it."""

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frontend_api.plain_http import plain_request

pytestmark = pytest.mark.unit

POST = (
    b"POST /v1/topics?a=%20b HTTP/1.1\r\nHost: here\r\nX-Empty:\r\nAccept: */*, a;q=0.1 \r\n"
    b"Connection: keep-alive\r\nContent-Length: 4\r\n\r\nbody"
)


def by_h11(data: bytes) -> tuple[bytes, bytes, list[tuple[bytes, bytes]], bytes] | None:
    """One whole request and nothing more, as h11 reads it."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    try:
        request, body = connection.next_event(), b""
        if not isinstance(request, h11.Request):
            return None
        while True:
            event = connection.next_event()
            if isinstance(event, h11.EndOfMessage):
                break
            if not isinstance(event, h11.Data):
                return None
            body += bytes(event.data)
    except h11.RemoteProtocolError:
        return None
    if connection.trailing_data[0] or connection.their_state is not h11.DONE:
        return None
    return request.method, request.target, list(request.headers), body


def test_a_plain_request_is_read() -> None:
    method, target, headers, body = plain_request(POST) or pytest.fail("it is not plain")
    assert (method, target, body) == (b"POST", b"/v1/topics?a=%20b", b"body")
    assert (b"x-empty", b"") in headers
    assert (b"accept", b"*/*, a;q=0.1") in headers


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"HTTP/1.1", b"HTTP/1.0"),
        (b"POST", b"post"),
        (b"POST", b"HEAD"),
        (b"/v1", b"http://here/v1"),
        (b"/v1", b"/v\xc3\xa4"),
        (b" HTTP", b"  HTTP"),
        (b"Host: here\r\n", b""),
        (b"Host: here\r\n", b"Host: here\r\nhost: there\r\n"),
        (b"Host: here", b"Host : here"),
        (b"Host: here", b"Host: h\x00ere"),
        (b"Host: here", b"Host: h\xe4re"),
        (b"Host: here\r\n", b"Host: here\n"),
        (b"Accept: ", b"Accept: a\r\n "),
        (b"Content-Length: 4", b"Content-Length: +4"),
        (b"Content-Length: 4", b"Content-Length: 04"),
        (b"Content-Length: 4", b"Content-Length: 4\r\nContent-Length: 4"),
        (b"Content-Length: 4", b"Content-Length: 4, 4"),
        (b"Content-Length: 4", b"Content-Length: 5"),
        (b"Content-Length: 4", b"Content-Length: 3"),
        (b"Content-Length: 4", b"Transfer-Encoding: chunked"),
        (b"Content-Length: 4", b"Content-Length: 4\r\nTransfer-Encoding: chunked"),
        (b"Content-Length: 4", b"Content-Length: 4\r\nExpect: 100-continue"),
        (b"keep-alive", b"close"),
        (b"keep-alive", b"Upgrade"),
        (b"keep-alive", b"keep-alive, content-length"),
        (b"X-Empty:", b"X-Long: " + b"x" * 8200),
        (b"\r\nbody", b"\r\nbodyGET / HTTP/1.1\r\n"),
    ],
)
def test_what_is_not_plain_is_left_to_h11(old: bytes, new: bytes) -> None:
    assert old in POST
    assert plain_request(POST.replace(old, new, 1)) is None


PIECES = st.sampled_from(
    [b"GET ", b"POST ", b"/", b"/v1?x=y", b" HTTP/1.1", b" HTTP/1.0", b"\r\n", b"\n", b"\r", b":",
     b": ", b" ", b"\t", b"Host: a", b"host:b", b"Content-Length: 2", b"content-length: 0",
     b"Connection: Keep-Alive", b"Connection: close", b"Transfer-Encoding: chunked", b"X: y z",
     b"ab", b"\x00", b"\xff", b"\r\n\r\n", b","]
)  # fmt: skip


@settings(max_examples=1000)
@given(st.integers(0, len(POST)), st.integers(0, 30), st.lists(PIECES, max_size=4))
def test_a_changed_request_is_read_as_h11_reads_it_or_left_to_it(
    at: int, drop: int, pieces: list[bytes]
) -> None:
    data = POST[:at] + b"".join(pieces) + POST[at + drop :]
    plain = plain_request(data)
    if plain is not None:
        assert plain == by_h11(data)
