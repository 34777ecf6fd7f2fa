"""What a form of the forum's pages may say, and how it arrives."""

from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from frontend_api.pages.forms import read_form
from frontend_api.problems import ProblemError

pytestmark = pytest.mark.contract

URL = "http://forum.test"


def _request(content_type: str, body: bytes) -> Request:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(b"content-type", content_type.encode())]
    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


@given(
    texts=st.dictionaries(st.sampled_from(["body", "title", "key", "next"]), st.text(max_size=80))
)
async def test_forms_arrive_as_they_were_sent(texts: dict[str, str]) -> None:
    """In both encodings; in the second one unless a text holds the boundary."""
    texts = {name: text.encode("utf-8", "replace").decode() for name, text in texts.items()}
    body = httpx2.Request("POST", URL, data=texts).read()
    assert (await read_form(_request("application/x-www-form-urlencoded", body))).fields == texts
    parts = b"".join(
        b'--bound\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
        % (name.encode(), text.encode())
        for name, text in texts.items()
    )
    form = await read_form(
        _request("multipart/form-data; boundary=bound", parts + b"--bound--\r\n")
    )
    assert form.fields == texts


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"{}"),
        ("text/plain", b"body=x"),
        ("", b"body=x"),
        ("application/x-www-form-urlencoded", b"body=%ff"),
        ("application/x-www-form-urlencoded", b"body=\xff"),
        ("application/x-www-form-urlencoded", b"body=a&body=b"),
        ("application/x-www-form-urlencoded", b"&".join(b"f%d=x" % n for n in range(40))),
        ("multipart/form-data", b"--b\r\n"),
        ("multipart/form-data; boundary=b", b""),
        ("multipart/form-data; boundary=b", b"--b\r\n"),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\n\r\nx\r\n--b--"),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="body"; filename="x"\r\n\r\nx\r\n--b--\r\n',
        ),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="body"\r\n\r\n\xff\r\n--b--\r\n',
        ),
    ],
)
async def test_what_is_no_form_is_refused(content_type: str, body: bytes) -> None:
    with pytest.raises(ProblemError) as refused:
        await read_form(_request(content_type, body))
    assert refused.value.problem.status in (400, 415, 422)
