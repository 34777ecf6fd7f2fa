"""Reading a Stack Exchange dump: what is taken, what is refused, and that texts keep every byte."""

from pathlib import Path

import pytest

from deploy.errors import UsageTrouble
from deploy.load.stackexchange import ANONYMOUS, Answer, Question, Row, Untakeable, read, survey

pytestmark = pytest.mark.unit

COFFEE = Path(__file__).parents[1] / "data" / "coffee" / "Posts.xml"


def rows(tmp_path: Path, text: str) -> list[Row]:
    path = tmp_path / "Posts.xml"
    path.write_text(f'<?xml version="1.0" encoding="utf-8"?>\n<posts>{text}</posts>', "utf-8")
    return list(read(path))


def test_the_coffee_dump_has_its_questions_and_answers() -> None:
    found = survey(COFFEE)
    assert (found.rows, len(found.questions), found.answers) == (592, 225, 327)
    assert len(found.untakeable) == 40
    assert not any(row.is_post for row in found.untakeable)
    assert len(found.digest) == 64


def test_the_first_question_of_the_coffee_dump() -> None:
    first = next(iter(read(COFFEE)))
    assert isinstance(first, Question)
    assert (first.row, first.author) == ("1", "user-4")
    assert first.title == "How should I store whole bean coffee?"
    assert first.body.startswith("<p>I just got a pound")
    assert first.body.endswith("</p>\n")


def test_texts_are_what_an_xml_parser_gives(tmp_path: Path) -> None:
    """A reference is the character itself; a raw line break in an attribute is a blank."""
    (row,) = rows(
        tmp_path,
        '<row Id="1" PostTypeId="1" OwnerUserId="8" Title="&#233; &amp;amp; &#x1F600;" '
        'Body="a&#xA;b&#xD;&#xA;c&#9;d\ne &lt;p&gt;"/>',
    )
    assert row == Question("1", "user-8", "é &amp; 😀", "a\nb\r\nc\td e <p>")


def test_a_row_without_owner_is_anonymous(tmp_path: Path) -> None:
    (row,) = rows(tmp_path, '<row Id="2" PostTypeId="2" ParentId="1" Body="b"/>')
    assert row == Answer("2", ANONYMOUS, "1", "b")


@pytest.mark.parametrize(
    ("attributes", "reason", "is_post"),
    [
        ('Id="1" PostTypeId="4" Body="wiki"', "PostTypeId 4", False),
        ('Id="1" Body="b"', "PostTypeId None", False),
        ('PostTypeId="1" Title="t" Body="b"', "no Id", True),
        ('Id="1" PostTypeId="1" Title="t" Body=""', "body is empty", True),
        ('Id="1" PostTypeId="1" Title="t"', "body is empty", True),
        ('Id="1" PostTypeId="1" Body="b"', "title is empty", True),
        ('Id="1" PostTypeId="1" Title="a&#xA;b" Body="b"', "title contains a control", True),
        ('Id="1" PostTypeId="2" Body="b"', "without ParentId", True),
        (f'Id="1" PostTypeId="2" ParentId="3" Body="{"é" * 40_000}"', "body is longer", True),
        (f'Id="1" PostTypeId="1" Title="{"t" * 301}" Body="b"', "title is longer", True),
    ],
)
def test_what_cannot_be_taken_says_why(
    tmp_path: Path, attributes: str, reason: str, is_post: bool
) -> None:
    (row,) = rows(tmp_path, f"<row {attributes}/>")
    assert isinstance(row, Untakeable)
    assert reason in row.reason
    assert row.is_post is is_post


def test_an_id_that_comes_twice_is_taken_once(tmp_path: Path) -> None:
    one = '<row Id="1" PostTypeId="1" Title="t" Body="b"/>'
    first, second = rows(tmp_path, one + one)
    assert isinstance(first, Question)
    assert isinstance(second, Untakeable)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('<!DOCTYPE posts [<!ENTITY a "aaaa">]><posts><row Id="&a;"/></posts>', "DOCTYPE"),
        ('<!DOCTYPE posts SYSTEM "http://localhost/x.dtd"><posts/>', "DOCTYPE"),
        ("<posts><row Id='1'</posts>", "not well-formed"),
        ("<posts>", "not well-formed"),
        ("", "not well-formed"),
        ("<users><row Id='1'/></users>", "<users>"),
        ('<posts><row Body="&#0;"/></posts>', "not well-formed"),
        ('<posts><row Body="&#xD800;"/></posts>', "not well-formed"),
    ],
)
def test_what_is_no_dump_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "Posts.xml"
    path.write_text(text, "utf-8")
    with pytest.raises(UsageTrouble, match=reason):
        list(read(path))


def test_a_large_file_is_read_as_a_stream(tmp_path: Path) -> None:
    """Rows come before the end of the file is read: here the end is not well-formed."""
    path = tmp_path / "Posts.xml"
    row = '<row Id="{}" PostTypeId="1" Title="t" Body="{}"/>'
    many = "".join(row.format(n, "b" * 1000) for n in range(200))
    path.write_text(f"<posts>{many}", "utf-8")
    assert isinstance(next(read(path)), Question)
