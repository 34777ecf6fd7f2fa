"""What the templates are given: rows as their reader is to see them. Pure: no I/O."""

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from frontend_api.merge import Shown
from frontend_api.overlay import OverlayState
from frontend_api.pages.session import Visitor
from frontend_api.seen import Freshness
from schema.commands import Mutation
from schema.content import Row
from schema.identifiers import CommandId, derived_id, is_uuid7, time_of
from schema.outcomes import State

EMOJI: Final = ("👍", "❤️", "😄")
EMOJI_NAMES: Final = {"👍": "thumbs up", "❤️": "heart", "😄": "laughing"}
_WAITING: Final = frozenset({State.PENDING, State.DELAYED, State.PARKED})
_LONG_S: Final = 10

REASONS: Final = {
    "forbidden": (
        "It was no longer allowed when it was to be saved, for example because the topic was locked."
    ),
    "not_found": "What it belongs to is no longer there.",
    "target_missing": "What it refers to is not there.",
    "parent_rejected": "What it belongs to could not be saved.",
    "version_conflict": "It was changed in the meantime.",
    "id_taken": "It is there already.",
    "unique_violation": "Something like this exists already.",
    "check_violation": "A rule of this site refuses it.",
    "data_exception": "The database cannot store this text.",
    "limit_exceeded": "It is too large for the database.",
    "expired": "It could not be saved in time.",
    "crashed_writer": "It could not be worked on safely.",
}
"""Why something was not saved, in plain words, by problem code."""


@dataclass(frozen=True)
class Waiting:
    """A command that a row waits for, and for how long it has. `long`: longer than is usual."""

    command: uuid.UUID
    seconds: int
    parked: bool

    @property
    def long(self) -> bool:
        return self.parked or self.seconds >= _LONG_S


def waiting(shown: Shown, now: datetime | None = None) -> Waiting | None:
    """What a row waits for; None if it is saved."""
    if shown.state not in _WAITING or shown.command is None:
        return None
    age = (now or datetime.now(tz=UTC)) - time_of(shown.command)
    seconds = min(max(0, int(age.total_seconds())), _LONG_S)
    return Waiting(shown.command, seconds, shown.state is State.PARKED)


@dataclass(frozen=True)
class Rejected:
    """A command that was not saved, as the notice of it tells, with what was sent."""

    notice: uuid.UUID
    command: uuid.UUID
    at: datetime
    code: str
    detail: str
    mutations: tuple[Mutation, ...]
    read: bool
    version: int

    @property
    def reason(self) -> str:
        return REASONS.get(self.code, self.detail)

    @property
    def first(self) -> Mutation:
        return self.mutations[0]

    @property
    def topic(self) -> uuid.UUID | None:
        """The topic that it would have been in, as far as the command says."""
        if self.first.type == "topic":
            return self.first.id
        return _id(self.first.values.get("topic_id"))

    @property
    def title(self) -> str | None:
        return self._text("title")

    @property
    def text(self) -> str | None:
        """The text that its author wrote, if there was one."""
        return self._text("body")

    @property
    def written(self) -> str:
        """All that was written, to be copied."""
        return "\n\n".join(part for part in (self.title, self.text) if part)

    @property
    def may_resend(self) -> bool:
        """Whether a form of ours can send it again: it has a text, and the shape of our commands."""
        shapes = [(m.op, m.type) for m in self.mutations]
        known = [[("create", "post")], [("update", "post")], [("update", "topic")]]
        known.append([("create", "topic"), ("create", "post")])
        return shapes in known and bool(self.written)

    @property
    def what(self) -> str:
        """What was asked for, in words."""
        return described(self.first.op, self.first.type)

    def _text(self, name: str) -> str | None:
        values = [m.values.get(name) for m in self.mutations]
        return next((value for value in values if isinstance(value, str)), None)


def described(op: str, type_: str) -> str:
    """A mutation in words."""
    verb = {"create": "new", "update": "change of a", "delete": "deletion of a"}[op]
    return f"{verb} {type_}"


def rejected(notice: Shown) -> Rejected | None:
    """What a notice returns; None if it returns nothing that can be read."""
    row = notice.row
    returned = row["returned"]
    if isinstance(returned, str):  # as the driver gives it
        returned = json.loads(returned)
    if row["kind"] != "rejected" or not isinstance(returned, dict):
        return None
    try:
        mutations = tuple(Mutation.from_json(m) for m in returned["mutations"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    if not mutations:
        return None
    return Rejected(
        row["id"],
        row["command_id"],
        row["created_at"],
        row["code"],
        row["detail"],
        mutations,
        row["read"],
        row["version"],
    )


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
        waiting=waiting(shown),
        mine=mine,
        reactions=row.get("reaction_count", 0),
        rejected=refused,
    )


def post_to_be(row: Row, visitor: Visitor, command: uuid.UUID | None) -> Post:
    """A post of the visitor's own that was just accepted, as it will look."""
    state = State.PENDING if command is not None else State.SAVED
    shown = Shown(row, state, CommandId(command) if command is not None else None)
    return post(shown, visitor, {visitor.id: visitor.name})


def refused_post(refused: Rejected, visitor: Visitor) -> Post:
    """A post that was never saved: shown in its place to its author alone."""
    mutation = refused.mutations[-1]
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
        waiting=waiting(shown),
        rejected=refused,
    )


@dataclass(frozen=True)
class Notice:
    id: uuid.UUID
    at: datetime
    read: bool
    version: int
    kind: str
    detail: str
    rejected: Rejected | None


def notice(shown: Shown) -> Notice:
    row = shown.row
    return Notice(
        row["id"], row["created_at"], row["read"], shown.version, row["kind"], row["detail"],
        rejected(shown),
    )  # fmt: skip


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


@dataclass(frozen=True)
class Notices:
    """The reader's newest notices. None of them are known while they cannot be read."""

    items: tuple[Notice, ...] = ()
    known: bool = True
    next_after: uuid.UUID | None = None
    freshness: Freshness = field(default_factory=Freshness)

    @property
    def unread(self) -> int:
        return sum(not n.read for n in self.items)

    @property
    def bell(self) -> str:
        """The number beside the bell; a `+` if there may be more of them."""
        return f"{self.unread}{'+' if self.unread and self.next_after else ''}"

    def rejected(self, *, unread: bool = True) -> list[Rejected]:
        """What was not saved, newest first; what its author has put aside is left out."""
        return [
            n.rejected
            for n in self.items
            if n.rejected is not None and not (unread and n.rejected.read)
        ]


def banners(freshness: Freshness) -> list[str]:
    """What a reader must know of the page, in plain words."""
    told = []
    if freshness.stale_s is not None:
        told.append(
            "The database cannot be reached. You see what was there "
            f"{ago(freshness.stale_s)} ago, and your own changes. You can go on writing: "
            "what you send is kept and will be saved."
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


def _id(value: Any) -> uuid.UUID | None:
    try:
        return uuid.UUID(str(value))
    except ValueError:
        return None


def authors_of(rows: Iterable[Row]) -> set[uuid.UUID]:
    return {row["author_id"] for row in rows}
