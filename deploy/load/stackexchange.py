"""Reads the posts file of a Stack Exchange dump: `Posts.xml`, one `<row …/>` for each post.

Texts are what an XML parser gives: `&#xA;` is a line break, one that stands in an attribute as such
is a blank. The file is read as a stream. Entities cannot be declared: a DOCTYPE is refused.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.parsers import expat

from pydantic import TypeAdapter, ValidationError

from deploy.errors import UsageTrouble
from schema.forum import Body, Title

ANONYMOUS = "anonymous"
_CHUNK_BYTES = 65_536
_TITLE: TypeAdapter[str] = TypeAdapter(Title)
_BODY: TypeAdapter[str] = TypeAdapter(Body)


@dataclass(frozen=True)
class Question:
    """A post of type 1: it becomes a topic with its first post. `row` is its id in the dump."""

    row: str
    author: str
    title: str
    body: str


@dataclass(frozen=True)
class Answer:
    """A post of type 2: it becomes a post in the topic of row `parent`."""

    row: str
    author: str
    parent: str
    body: str


@dataclass(frozen=True)
class Untakeable:
    """A row that no author could have sent here, and why."""

    row: str
    reason: str
    is_post: bool = True
    """Whether it is a question or an answer at all."""


Row = Question | Answer | Untakeable


@dataclass
class Survey:
    """What a dump has, found out before anything is sent. `digest` is the SHA-256 of the file."""

    digest: str = ""
    rows: int = 0
    questions: set[str] = field(default_factory=set)
    answers: int = 0
    untakeable: list[Untakeable] = field(default_factory=list)


def survey(path: Path) -> Survey:
    """Reads the whole file once. Raises `UsageTrouble` when it is not a posts file."""
    found = Survey()
    with path.open("rb") as file:
        found.digest = hashlib.file_digest(file, "sha256").hexdigest()
    for row in read(path):
        found.rows += 1
        if isinstance(row, Question):
            found.questions.add(row.row)
        elif isinstance(row, Answer):
            found.answers += 1
        else:
            found.untakeable.append(row)
    return found


def read(path: Path) -> Iterator[Row]:
    """The rows of a posts file, in its order, each of them once.

    Holds the ids seen and one piece of the file in memory. Raises `UsageTrouble` with the line of
    the fault when the file is not well-formed XML, has a DOCTYPE, or is not a posts file.
    """
    seen: set[str] = set()
    for line, attributes in _elements(path):
        row = _row(line, attributes)
        if row.row in seen:
            yield Untakeable(row.row, f"line {line} has an id that an earlier row has")
        else:
            yield row
        seen.add(row.row)


def _row(line: int, attributes: Mapping[str, str]) -> Row:
    row = attributes.get("Id")
    if not row:
        return Untakeable(f"line {line}", "it has no Id")
    type_ = attributes.get("PostTypeId")
    if type_ not in ("1", "2"):
        reason = f"PostTypeId {type_} is neither a question (1) nor an answer (2)"
        return Untakeable(row, reason, is_post=False)
    owner = attributes.get("OwnerUserId")
    author = f"user-{owner}" if owner else ANONYMOUS
    body = attributes.get("Body", "")
    reason = _fault("body", _BODY, body)
    if type_ == "2":
        parent = attributes.get("ParentId")
        if not parent:
            return Untakeable(row, "it is an answer without ParentId")
        return Untakeable(row, reason) if reason else Answer(row, author, parent, body)
    title = attributes.get("Title", "")
    reason = _fault("title", _TITLE, title) or reason
    return Untakeable(row, reason) if reason else Question(row, author, title, body)


def _fault(name: str, adapter: TypeAdapter[str], text: str) -> str:
    """Why the forum cannot take a text; empty if it can."""
    try:
        adapter.validate_python(text)
    except ValidationError as error:
        return f"its {name} {error.errors()[0]['msg']}"
    return ""


def _elements(path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """(line, attributes) of each `<row>` below `<posts>`."""
    found: list[tuple[int, Mapping[str, str]]] = []
    depth = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        if depth == 0 and name != "posts":
            raise _not_posts(path, f"its root is <{name}>, not <posts>")
        if depth == 1 and name == "row":
            found.append((parser.CurrentLineNumber, attributes))
        depth += 1

    def end(_: str) -> None:
        nonlocal depth
        depth -= 1

    def doctype(*_: Any) -> None:
        raise _not_posts(path, "it has a DOCTYPE, which no dump has")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.StartDoctypeDeclHandler = doctype
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                parser.Parse(chunk, False)
                yield from found
                found.clear()
            parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise _not_posts(path, f"it is not well-formed XML ({error})") from error
    except OSError as error:
        raise UsageTrouble(f"{path} cannot be read: {error.strerror}.", "Name a file.") from error
    yield from found


def _not_posts(path: Path, why: str) -> UsageTrouble:
    return UsageTrouble(
        f"{path} is not the posts file of a dump: {why}.",
        "Name the Posts.xml of a Stack Exchange data dump.",
    )
