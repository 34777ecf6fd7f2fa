"""What a mail says arrives exactly, and its headers are ours, whatever is in the texts."""

import email
import re
import shutil
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from html import unescape
from itertools import product
from pathlib import Path

import pytest

from schema.mail import Mail
from schema.mail_templates import (
    LOCALES,
    BadParameters,
    Delayed,
    Digest,
    Parameters,
    Rejected,
    SavedAfterAll,
    UnknownTemplate,
    queue,
)
from tests.naughty import STRINGS
from writer.mail.addresses import BadAddress, checked
from writer.mail.message import HEADERS, Sender, Unsendable, compose
from writer.mail.rendering import TEMPLATES, Rendered, Rendering, Unrenderable

pytestmark = pytest.mark.unit

AT = datetime(2026, 11, 21, 14, 0, tzinfo=UTC)
LINK = "https://forum.example/me"
SENDER = Sender.parse("Das Förum <forum@example.org>")
RENDERING = Rendering()
MAIL_ID = uuid.UUID("0a0a0a0a-0000-7000-8000-000000000001")

KINDS: list[Parameters] = [
    Delayed(name="Ada", count=3, since=AT, until=AT, items=("A post", "A topic"), link=LINK),
    SavedAfterAll(name="Ada", count=2, link=LINK),
    Rejected(
        name="Ada", reason="The topic is locked.", code="forbidden", text="My text", link=LINK
    ),
    Digest(name="Ada", since=AT, delayed=4, saved=5, rejected=6, link=LINK),
]


def queued(parameters: Parameters, locale: str = "en", to: str = "ada@example.com") -> Mail:
    return queue(parameters, mail_id=MAIL_ID, to=to, locale=locale, created_at=AT)


def _bytes(mail: Mail) -> bytes:
    return compose(mail, RENDERING.render(mail), SENDER, "https://forum.example/")


def _header_lines(message: bytes) -> list[str]:
    """Names of the header lines, found by eye, as it were: not by Python's mail package."""
    head = message.split(b"\r\n\r\n")[0].decode("ascii")
    assert "\n" not in head.replace("\r\n", "")
    assert "\r" not in head.replace("\r\n", "")
    return [line.split(":")[0] for line in head.split("\r\n") if not line.startswith(" ")]


def _bodies(message: bytes) -> tuple[str, str]:
    parts = [p for p in email.message_from_bytes(message).walk() if not p.is_multipart()]
    assert [part.get_content_type() for part in parts] == ["text/plain", "text/html"]
    texts = [part.get_payload(decode=True) for part in parts]
    plain, html = (text.decode().replace("\r\n", "\n") for text in texts if isinstance(text, bytes))
    return plain, html


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("parameters", KINDS, ids=lambda kind: kind.template)
def test_every_template_in_every_language(parameters: Parameters, locale: str) -> None:
    message = _bytes(queued(parameters, locale))
    plain, html = _bodies(message)
    assert _header_lines(message) == list(HEADERS)
    for body in (plain, unescape(html)):
        assert "Ada" in body
        assert LINK in body
    assert f'<html lang="{locale}">' in html
    assert ("Guten Tag" in plain) == (locale == "de")


def test_headers_say_what_programs_want_to_know() -> None:
    message = email.message_from_bytes(_bytes(queued(KINDS[2], "de")), policy=email.policy.default)
    assert message.get_content_type() == "multipart/alternative"
    assert {name: value for name, value in message.items() if name != "Content-Type"} == {
        "From": "Das Förum <forum@example.org>",
        "To": "ada@example.com",
        "Subject": "Ihre Änderung konnte nicht gespeichert werden",
        "Date": "Sat, 21 Nov 2026 14:00:00 +0000",
        "Message-ID": f"<{MAIL_ID}@example.org>",
        "Auto-Submitted": "auto-generated",
        "List-Unsubscribe": "<https://forum.example/preferences>",
        "MIME-Version": "1.0",
    }


def test_the_same_mail_is_the_same_bytes() -> None:
    assert _bytes(queued(KINDS[0])) == _bytes(queued(KINDS[0]))


def test_every_template_has_all_its_files_in_every_language() -> None:
    wanted = {
        f"{locale}/{kind.template}.{kind.version}.{ending}"
        for locale, kind, ending in product(LOCALES, KINDS, ("txt", "html", "subject"))
    }
    found = {str(p.relative_to(TEMPLATES)) for p in TEMPLATES.glob("*/*")}
    assert found == wanted


ELEMENTS = {
    "html", "head", "meta", "body", "p", "bdi", "strong", "br", "ul", "li", "a", "span", "small", "pre",
}  # fmt: skip


def _odd(text: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in text)


@pytest.mark.parametrize("template", ["rejected", "delayed"])
def test_naughty_strings_reach_the_body_exactly_and_nothing_else(template: str) -> None:
    seen = 0
    for text in [*STRINGS, "carriage\rreturn", "\r", "a\r\n\rb\n\r"]:
        mail, shown = _naughty(template, text)
        if _odd(text):
            with pytest.raises(BadParameters):
                _bytes(mail)
            continue
        message = _bytes(mail)
        assert _header_lines(message) == list(HEADERS), text
        plain, html = _bodies(message)
        wanted = shown.replace("\r\n", "\n")
        assert wanted in plain, text
        assert wanted in unescape(html), text
        assert set(re.findall(r"<\s*([a-z]+)", html)) <= ELEMENTS, text
        seen += 1
    assert seen > 500


def _naughty(template: str, text: str) -> tuple[Mail, str]:
    """A mail with the text in every parameter that takes texts, and how much of it fits."""
    short = text[:900]
    if template == "rejected":
        parameters = {
            "name": short,
            "reason": short,
            "code": "forbidden",
            "text": text,
            "link": LINK,
        }
        return replace(queued(KINDS[2], "de"), parameters=parameters), text
    given = dict(queued(KINDS[0]).parameters) | {"items": [short, short], "name": short}
    return replace(queued(KINDS[0]), parameters=given), short


@pytest.mark.parametrize(
    "text",
    [
        "=?utf-8?q?x=0ABcc:_evil@x?=",
        "=?utf-8?q?x=0D=0ABcc:_evil@x?=",
        "x\r\nBcc: evil@example.com",
        "x\nBcc: evil@example.com\n\nbody",
        "x\0Bcc: evil",
        "x\u0085Bcc: evil\u2028Bcc: evil",
    ],
)
def test_what_tricks_the_mail_package_is_refused_or_stays_text(text: str) -> None:
    with pytest.raises(BadAddress):
        checked(text)
    with pytest.raises(BadAddress):
        checked(f"{text}@example.com")
    with pytest.raises(Unsendable):
        compose(queued(KINDS[1]), Rendered("en", text, "t", "h"), SENDER, LINK)
    with pytest.raises(Unsendable):
        compose(queued(KINDS[1], to=text), RENDERING.render(queued(KINDS[1])), SENDER, LINK)


@pytest.mark.parametrize(
    "address",
    [
        "a@b, c@d", "a@[127.0.0.1]", "a@127.0.0.1", "Ada <ada@example.com>", "", "@", "a@", "@b", "a", "a@b@c",
        "a@b\r\nRCPT TO:<c@d>", "a@b\0", "a @b", "a@b ", '"a b"@c', "a@b;c@d", "a..b@c", ".a@c", "a.@c",
        "a@-b", "a@b-", "a@b..c", "ä@example.com", "a@exämple.com", "a@b(c)", "<a@b>", "a" * 65 + "@b",
        "a@" + "b" * 64, "a@" + ".".join(["b" * 60] * 5), "a:b@c", "a\u200b@b", "=?utf-8?q?x?=@example.com",
    ],
)  # fmt: skip
def test_not_one_bare_address(address: str) -> None:
    with pytest.raises(BadAddress) as told:
        checked(address)
    assert not address or len(address) < 3 or address not in str(told.value)


@pytest.mark.parametrize(
    ("address", "meant"),
    [
        ("ada@example.com", "ada@example.com"),
        ("Ada.L+forum@Mail.Example.COM", "Ada.L+forum@mail.example.com"),
        ("root@localhost", "root@localhost"),
        ("a!#$%&'*+/=^?_`{|}~-z@xn--exmple-cua.com", "a!#$%&'*+/=^?_`{|}~-z@xn--exmple-cua.com"),
        ("a" * 64 + "@b.example", "a" * 64 + "@b.example"),
    ],
)
def test_one_bare_address(address: str, meant: str) -> None:
    assert checked(address) == meant
    assert _header_lines(_bytes(queued(KINDS[0], to=meant))) == list(HEADERS)


def test_a_language_that_is_not_ours_is_english() -> None:
    for locale in ("fr", "", "../../etc", "de\r\n", "DE_at"):
        plain, _ = _bodies(_bytes(queued(KINDS[1], locale)))
        assert ("Guten Tag" in plain) == (locale == "DE_at"), locale


def test_a_subject_has_no_text_of_users_even_if_its_template_asks_for_one(tmp_path: Path) -> None:
    folder = tmp_path / "templates"
    shutil.copytree(TEMPLATES, folder)
    rendering = Rendering(folder)
    mail = queued(KINDS[1])
    assert rendering.render(mail).subject == "Saved after all: your changes (2)"
    (folder / "en" / "saved_after_all.1.subject").write_text("For {{ name }}")
    with pytest.raises(Unrenderable):
        Rendering(folder).render(mail)


def test_unknown_templates_and_parameters() -> None:
    good = queued(KINDS[1])
    for template, version in (("nosuch", 1), ("delayed", 2), ("../base", 1)):
        with pytest.raises(UnknownTemplate):
            RENDERING.render(replace(good, template=template, version=version))
    for parameters in (
        {},
        {"name": "Ada", "count": 1},
        {"name": "Ada", "count": 1, "link": LINK, "more": 1},
        {"name": "Ada", "count": 1, "link": "javascript:alert(1)"},
        {"name": "Ada", "count": 1, "link": LINK + '"><script>'},
        {"name": "Ada", "count": "\r\nBcc: a@b", "link": LINK},
        {"name": "A" * 1001, "count": 1, "link": LINK},
    ):
        with pytest.raises(BadParameters) as told:
            RENDERING.render(replace(good, parameters=parameters))
        assert "script" not in str(told.value)


@pytest.mark.parametrize("text", ["Ada <a@b>\r\nBcc: c@d", "nobody", "Ada <a@[::1]>", "a@b, c@d"])
def test_a_sender_that_is_none(text: str) -> None:
    with pytest.raises(BadAddress):
        Sender.parse(text)
