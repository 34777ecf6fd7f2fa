"""What the templates are given: rows as their reader is to see them. Pure: no I/O."""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from frontend_api.commands_view import Patience
from frontend_api.forum.notices import Rejected
from frontend_api.forum.waiting import Waiting, waiting
from frontend_api.merge import Shown
from frontend_api.overlay import OverlayState
from frontend_api.pages.session import Visitor
from frontend_api.seen import Freshness
from schema.content import Row
from schema.identifiers import CommandId, derived_id, is_uuid7, time_of
from schema.outcomes import State

EMOJI: Final = ("👍", "❤️", "😄")
EMOJI_NAMES: Final = {"👍": "thumbs up", "❤️": "heart", "😄": "laughing"}


@dataclass(frozen=True)
class Post:
    """One post in a topic. `rejected` says that it, or a change of it, was not saved."""

    id: uuid.UUID
    topic: uuid.UUID
    author: str
    own: bool
    may_change: bool
    body: str
    at: datetime
    edited: bool
    version: int
    waiting: Waiting | None = None
    mine: frozenset[str] = frozenset()
    """Emoji of the reader's own reactions."""
    reactions: int = 0
    rejected: Rejected | None = None
    exists: bool = True
    """False for a post that was never saved and only its author sees."""


def post(
    shown: Shown,
    visitor: Visitor,
    names: Mapping[uuid.UUID, str],
    patience: Patience,
    mine: frozenset[str] = frozenset(),
    refused: Rejected | None = None,
) -> Post:
    row = shown.row
    return Post(
        id=row["id"],
        topic=row["topic_id"],
        author=names.get(row["author_id"], "somebody"),
        own=row["author_id"] == visitor.id,
        may_change=visitor.may_change(row["author_id"]),
        body=row["body"],
        at=row["created_at"],
        edited=shown.version > 1,
        version=shown.version,
        waiting=waiting(shown, patience),
        mine=mine,
        reactions=row.get("reaction_count", 0),
        rejected=refused,
    )


def post_to_be(row: Row, visitor: Visitor, command: uuid.UUID | None, patience: Patience) -> Post:
    """A post of the visitor's own that was just accepted, as it will look."""
    state = State.PENDING if command is not None else State.SAVED
    shown = Shown(row, state, CommandId(command) if command is not None else None)
    return post(shown, visitor, {visitor.id: visitor.name}, patience)


def refused_post(refused: Rejected, visitor: Visitor) -> Post:
    """A post that was never saved: shown in its place to its author alone."""
    mutation = refused.first
    assert refused.topic is not None
    made = time_of(mutation.id) if is_uuid7(mutation.id) else refused.at
    return Post(
        id=mutation.id,
        topic=refused.topic,
        author=visitor.name,
        own=True,
        may_change=False,
        body=refused.text or "",
        at=made,
        edited=False,
        version=0,
        rejected=refused,
        exists=False,
    )


@dataclass(frozen=True)
class Topic:
    id: uuid.UUID
    title: str
    author: str
    may_change: bool
    locked: bool
    posts: int
    at: datetime
    version: int
    waiting: Waiting | None = None
    rejected: Rejected | None = None


def topic(
    shown: Shown,
    visitor: Visitor,
    names: Mapping[uuid.UUID, str],
    patience: Patience,
    refused: Rejected | None = None,
) -> Topic:
    row = shown.row
    return Topic(
        id=row["id"],
        title=row["title"],
        author=names.get(row["author_id"], "somebody"),
        may_change=visitor.may_change(row["author_id"]),
        locked=row["locked"],
        posts=row.get("post_count", 0),
        at=row["created_at"],
        version=shown.version,
        waiting=waiting(shown, patience),
        rejected=refused,
    )


@dataclass(frozen=True)
class Submission:
    """One command of the reader: what it was about and what became of it."""

    command: uuid.UUID
    what: str
    at: datetime | None
    state: State
    text: str
    link: str | None
    waiting: Waiting | None
    rejected: Rejected | None
    """What was returned, if it is still among the newest notices."""
    reason: str | None
    """Why it was not saved."""


def banners(freshness: Freshness) -> list[str]:
    """What a reader must know of the page, in plain words."""
    told = []
    if freshness.stale_s is not None:
        told.append(
            "The database cannot be reached. You see what was there "
            f"{ago(freshness.stale_s)} ago, and your own changes. You can go on writing: "
            "what you send is kept and will be saved."
        )
    if freshness.older_missing:
        told.append(
            "The database cannot be reached, and what it holds here was not read lately: only what is "
            "not saved yet is shown. Nothing is lost."
        )
    if freshness.overlay is OverlayState.REBUILDING:
        told.append(
            "Some of your newest changes may be missing here for a moment. They are safe, and are "
            "being collected again."
        )
    if freshness.overlay is OverlayState.UNAVAILABLE:
        told.append(
            "Changes of yours that are not saved yet cannot be shown at the moment. They are safe."
        )
    return told


def ago(seconds: float) -> str:
    """A length of time, roughly."""
    for size, one, many in (
        (86_400, "day", "days"),
        (3600, "hour", "hours"),
        (60, "minute", "minutes"),
    ):
        number = int(seconds // size)
        if number:
            return f"{number} {one if number == 1 else many}"
    return "a moment"


def reaction_id(post_id: uuid.UUID, author: uuid.UUID, emoji: str) -> uuid.UUID:
    """The id of this author's reaction, if there is one."""
    return derived_id("reaction", str(post_id), str(author), emoji)


def excerpt(text: str, chars: int = 160) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(text[: chars * 4].split())
    return line if len(line) <= chars else line[: chars - 1] + "…"


def authors_of(rows: Iterable[Row]) -> set[uuid.UUID]:
    return {row["author_id"] for row in rows}
