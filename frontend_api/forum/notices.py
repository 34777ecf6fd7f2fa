"""Notices as their reader is to see them: what was not saved, what waits, what is saved after all."""

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from frontend_api.merge import Shown
from frontend_api.seen import Freshness
from schema.commands import Mutation

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
    dependants: tuple[Mutation, ...] = ()
    """What went with it, since it hung on it."""

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
        texts = [m.values.get(name) for m in self.dependants for name in ("title", "body")]
        parts = [self.title, self.text, *(text for text in texts if isinstance(text, str))]
        return "\n\n".join(part for part in parts if part)

    @property
    def may_resend(self) -> bool:
        """Whether a form of ours can send it again: it has a text, and the shape of our commands."""
        shapes = [(m.op, m.type) for m in self.mutations]
        known = [[("create", "post")], [("update", "post")], [("update", "topic")]]
        known.append([("create", "topic"), ("create", "post")])
        return shapes in known and bool(self.title or self.text)

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
    row, returned = notice.row, _returned(notice)
    if row["kind"] != "rejected":
        return None
    try:
        mutations = tuple(Mutation.from_json(m) for m in returned["mutations"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    if not mutations:
        return None
    dependants: tuple[Mutation, ...] = ()
    if "dependants" in returned:
        mutations, dependants = _taken_apart(mutations)
    return Rejected(
        row["id"],
        row["command_id"],
        row["created_at"],
        row["code"],
        row["detail"],
        mutations,
        row["read"],
        row["version"],
        dependants,
    )


def _taken_apart(
    mutations: Sequence[Mutation],
) -> tuple[tuple[Mutation, ...], tuple[Mutation, ...]]:
    """The command that was at fault, and what hung on it and went with it.

    What its author changed later in the rows that it was to make is in them, so that sending it again
    loses nothing.
    """
    folded: list[Mutation] = []
    made: dict[tuple[str, uuid.UUID], int] = {}
    for m in mutations:
        at = made.get((m.type, m.id))
        if m.op == "update" and at is not None:
            folded[at] = replace(folded[at], values={**folded[at].values, **m.values})
            continue
        if m.op == "create":
            made[m.type, m.id] = len(folded)
        folded.append(m)
    opened = [(m.op, m.type) for m in folded[:2]] == [("create", "topic"), ("create", "post")]
    size = 2 if opened and folded[1].values.get("topic_id") == str(folded[0].id) else 1
    return tuple(folded[:size]), tuple(folded[size:])


@dataclass(frozen=True)
class Notice:
    id: uuid.UUID
    at: datetime
    read: bool
    version: int
    kind: str
    detail: str
    rejected: Rejected | None
    waits: tuple[str, ...] = ()
    """Of a delay: the beginnings of what waits, as far as the notice has them."""


def notice(shown: Shown) -> Notice:
    row = shown.row
    return Notice(
        row["id"], row["created_at"], row["read"], shown.version, row["kind"], row["detail"],
        rejected(shown), _waits(shown),
    )  # fmt: skip


def _waits(shown: Shown) -> tuple[str, ...]:
    told = _returned(shown).get("waiting") if shown.row["kind"] == "delayed" else None
    items = told if isinstance(told, list) else []
    texts = [item.get("text") for item in items if isinstance(item, dict)]
    return tuple(text for text in texts if isinstance(text, str) and text)


def _returned(shown: Shown) -> dict[str, Any]:
    """What a notice carries along, as an object."""
    returned = shown.row["returned"]
    if isinstance(returned, str):  # as the driver gives it
        returned = json.loads(returned)
    return returned if isinstance(returned, dict) else {}


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


def _id(value: Any) -> uuid.UUID | None:
    try:
        return uuid.UUID(str(value))
    except ValueError:
        return None
