"""Compares PostgreSQL with a dump: every title, body, author and parent, byte for byte.

It looks at the content alone and trusts nothing that the loader remembers: file and database are two
heaps of topics and posts, and the heaps must be equal. Texts are compared by their SHA-256, so memory
grows by about 300 bytes a row. All that is in the site's tables is compared, so the site must hold
this dump and nothing else.
"""

import hashlib
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from deploy.errors import NotReachable
from deploy.load.stackexchange import Answer, Question, read
from schema.identifiers import user_id_for

_FETCH = 2000
_NAMES = ("author", "title or parent", "body")

# The first post of a topic is made with it, and has the lowest id in it.
_TOPICS = """
    SELECT t.id, a.id AS author_id, a.name AS author, t.title, p.body, p.author_id AS post_author_id
    FROM public.topic t JOIN public."user" a ON a.id = t.author_id
    LEFT JOIN LATERAL (SELECT body, author_id FROM public.post
                       WHERE topic_id = t.id ORDER BY id LIMIT 1) p ON true
"""
_POSTS = """
    SELECT p.id, p.topic_id, a.id AS author_id, a.name AS author, p.body
    FROM public.post p JOIN public."user" a ON a.id = p.author_id
    WHERE p.id <> (SELECT id FROM public.post WHERE topic_id = p.topic_id ORDER BY id LIMIT 1)
"""


@dataclass(frozen=True)
class Item:
    """A topic or a post: where it is, and digests of author, title (of a post: its parent), body."""

    where: str
    parts: tuple[bytes, bytes, bytes]


@dataclass
class Verdict:
    """What the comparison found; `differences` is empty when file and database are equal."""

    topics: int = 0
    answers: int = 0
    authors: int = 0
    differences: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {"equal": not self.differences, **vars(self)}

    def to_text(self) -> str:
        lines = [
            *self.differences,
            f"compared {self.topics:,} topics and {self.answers:,} answers "
            f"of {self.authors:,} authors in the file with PostgreSQL",
            f"{len(self.differences):,} differences"
            if self.differences
            else "equal, byte for byte",
        ]
        return "\n".join(lines)


def match(kind: str, wanted: Iterable[Item], found: Iterable[Item]) -> tuple[list[str], list[Any]]:
    """Compares two heaps. Returns the differences, and the pairs (wanted, found) of items that
    differ in one part only and are therefore taken for the same."""
    left: dict[tuple[bytes, bytes, bytes], list[Item]] = defaultdict(list)
    for item in wanted:
        left[item.parts].append(item)
    extra = []
    for item in found:
        same = left.get(item.parts)
        if same:
            same.pop()
        else:
            extra.append(item)
    missing = [item for items in left.values() for item in items]
    return _pair(kind, missing, extra)


def _pair(kind: str, missing: list[Item], extra: list[Item]) -> tuple[list[str], list[Any]]:
    differences, pairs = [], []
    for part, name in reversed(list(enumerate(_NAMES))):
        by_rest: dict[Any, list[Item]] = defaultdict(list)
        for item in missing:
            by_rest[_without(part, item)].append(item)
        unpaired = []
        for item in extra:
            same = by_rest.get(_without(part, item))
            if not same:
                unpaired.append(item)
                continue
            other = same.pop()
            pairs.append((other, item))
            differences.append(
                f"changed: {kind} {item.where}: its {name} is not row {other.where}'s"
            )
        extra, missing = unpaired, [item for items in by_rest.values() for item in items]
    differences += [f"missing: {kind} of row {item.where}" for item in missing]
    differences += [f"extra: {kind} {item.where}" for item in extra]
    return differences, pairs


def _without(part: int, item: Item) -> tuple[bytes, ...]:
    return item.parts[:part] + item.parts[part + 1 :]


async def verify(path: Path, url: str) -> Verdict:
    """Compares the takeable rows of the dump with the database at `url`, in one snapshot.

    Raises `NotReachable`, and `UsageTrouble` when the file is not a posts file.
    """
    verdict = Verdict()
    try:
        connection = await asyncpg.connect(url, timeout=10)
    except (OSError, TimeoutError, ValueError, asyncpg.PostgresError) as error:
        raise NotReachable(
            f"PostgreSQL cannot be reached: {str(error) or type(error).__name__}.",
            "Set AFTERWRITE_DATABASE_URL, or start a stack with `afterwrite up`.",
        ) from error
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            await _compare(path, connection, verdict)
    finally:
        await connection.close()
    return verdict


async def _compare(path: Path, connection: asyncpg.Connection, verdict: Verdict) -> None:
    questions = {
        row.row: Item(row.row, (_author_of(row.author), _digest(row.title), _digest(row.body)))
        for row in read(path)
        if isinstance(row, Question)
    }
    topics = {item.where: item async for item in _topics(connection)}
    verdict.topics = len(questions)
    verdict.differences, pairs = match("topic", questions.values(), topics.values())
    # The parent of an answer is told by its content, too; a topic that was changed counts as what
    # it should be, so that its answers are not called wrong as well.
    parents = {where: _whole(item) for where, item in topics.items()}
    parents |= {found.where: _whole(wanted) for wanted, found in pairs}
    answers = [
        Item(row.row, (_author_of(row.author), _whole(questions[row.parent]), _digest(row.body)))
        for row in read(path)
        if isinstance(row, Answer) and row.parent in questions
    ]
    posts = [item async for item in _posts(connection, parents)]
    verdict.answers = len(answers)
    verdict.differences += match("post", answers, posts)[0]
    authors = {row.author for row in read(path) if isinstance(row, Question | Answer)}
    verdict.authors = len(authors)


async def _topics(connection: asyncpg.Connection) -> AsyncIterator[Item]:
    async for row in connection.cursor(_TOPICS, prefetch=_FETCH):
        body = row["body"] if row["post_author_id"] == row["author_id"] else None
        author = _author(row["author_id"], row["author"])
        yield Item(str(row["id"]), (author, _digest(row["title"]), _digest(body)))


async def _posts(connection: asyncpg.Connection, parents: dict[str, bytes]) -> AsyncIterator[Item]:
    async for row in connection.cursor(_POSTS, prefetch=_FETCH):
        author = _author(row["author_id"], row["author"])
        parent = parents[str(row["topic_id"])]
        yield Item(str(row["id"]), (author, parent, _digest(row["body"])))


def _author_of(name: str) -> bytes:
    return _author(user_id_for(name), name)


def _author(id_: object, name: str) -> bytes:
    return _digest(f"{id_} {name}")


def _whole(item: Item) -> bytes:
    return hashlib.sha256(b"".join(item.parts)).digest()


def _digest(text: str | None) -> bytes:
    """SHA-256 of a text; of no text at all, another one than that of an empty text."""
    return hashlib.sha256(b"\0" if text is None else text.encode()).digest()
