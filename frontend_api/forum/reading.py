"""What a page needs, read by way of the services that the JSON API uses."""

import asyncio
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from frontend_api.commands_view import Patience
from frontend_api.forum import views
from frontend_api.forum.notices import REASONS, Notices, Rejected, described, notice, rejected
from frontend_api.forum.views import EMOJI
from frontend_api.forum.waiting import of_command
from frontend_api.merge import Shown
from frontend_api.pages.session import Visitor
from frontend_api.problems import fail
from frontend_api.seen import Freshness, OverlayIncomplete
from frontend_api.services import Services
from frontend_api.view import DatabaseUnavailable
from schema.content import Kind
from schema.fields import parse_time
from schema.identifiers import CommandId
from schema.outcomes import State

PAGE: Final = 50
_NOTICES: Final = 100
UNREADABLE: Final = (DatabaseUnavailable, OverlayIncomplete)


@dataclass(frozen=True)
class Thread:
    """A topic with one page of its posts."""

    topic: views.Topic
    posts: tuple[views.Post, ...]
    next_after: uuid.UUID | None
    may_write: bool
    banned: bool
    notices: Notices
    freshness: Freshness


@dataclass(frozen=True)
class TopicPage:
    topics: tuple[views.Topic, ...]
    next_after: uuid.UUID | None
    freshness: Freshness


@dataclass(frozen=True)
class SubmissionPage:
    items: tuple[views.Submission, ...]
    next_after: uuid.UUID | None
    freshness: Freshness
    ledger_read: bool


class Reading:
    """Reads for one visitor at a time. Where it is not said otherwise, methods raise
    `DatabaseUnavailable` or `OverlayIncomplete` when they cannot tell."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._reader = services.reader
        self._patience = services.patience
        catalog = services.catalog
        self.topic_kind, self.post_kind = catalog["topic"], catalog["post"]
        self.reaction_kind, self.notice_kind = catalog["reaction"], catalog.notice
        self._actor = catalog.actor
        self._lists = catalog.lists

    async def topics(self, visitor: Visitor, after: uuid.UUID | None) -> TopicPage:
        found = await self._reader.page(visitor.id, self._lists["topics"], None, after, PAGE)
        assert found is not None
        self._services.remember_streams(self.topic_kind, list(found.page.items))
        names = await self._names(visitor, found.page.items)
        topics = tuple(views.topic(s, visitor, names, self._patience) for s in found.page.items)
        return TopicPage(topics, found.page.next_after, found.freshness)

    async def thread(self, visitor: Visitor, topic: uuid.UUID, after: uuid.UUID | None) -> Thread:
        """Raises `ProblemError` 404, too."""
        (shown, view), found, notices = await asyncio.gather(
            self._reader.row(visitor.id, self.topic_kind, topic),
            self._reader.page(visitor.id, self._lists["topic_posts"], topic, after, PAGE),
            self.notices(visitor),
        )
        if shown is None or found is None:
            raise fail("not_found", "There is no such topic.")
        items = found.page.items
        self._services.remember_streams(self.post_kind, list(items))
        (names, banned), mine = await asyncio.gather(
            self._people(visitor, [shown, *items]), self._reactions(visitor, items)
        )
        refused = notices.rejected()
        posts = [
            views.post(
                s,
                visitor,
                names,
                self._patience,
                mine.get(s.row["id"], frozenset()),
                _about(refused, s),
            )
            for s in items
        ]
        posts += _never_saved(refused, visitor, topic, after, found.page.next_after)
        locked = bool(shown.row["locked"]) and not visitor.moderates
        return Thread(
            views.topic(shown, visitor, names, self._patience, _about(refused, shown)),
            tuple(sorted(posts, key=lambda p: p.id.int)),
            found.page.next_after,
            may_write=not locked and not banned,
            banned=banned,
            notices=notices,
            freshness=view.freshness.plus(found.freshness),
        )

    async def post(self, visitor: Visitor, post: uuid.UUID) -> views.Post:
        """Raises `ProblemError` 404, too."""
        shown = await self._row(visitor, self.post_kind, post)
        names, mine = await asyncio.gather(
            self._names(visitor, [shown]), self._reactions(visitor, [shown])
        )
        return views.post(shown, visitor, names, self._patience, mine.get(post, frozenset()))

    async def address(self, visitor: Visitor, post: views.Post) -> str:
        """Where a post stands in its topic: on the first page if there is only one."""
        shown = await self._row(visitor, self.topic_kind, post.topic)
        before = uuid.UUID(int=max(0, post.id.int - 1))
        page = f"?after={before}" if shown.row["post_count"] > PAGE else ""
        return f"/topics/{post.topic}{page}#post-{post.id}"

    async def topic(self, visitor: Visitor, topic: uuid.UUID) -> views.Topic:
        """Raises `ProblemError` 404, too."""
        shown = await self._row(visitor, self.topic_kind, topic)
        return views.topic(shown, visitor, await self._names(visitor, [shown]), self._patience)

    async def notices(
        self, visitor: Visitor, after: uuid.UUID | None = None, limit: int = _NOTICES
    ) -> Notices:
        """Never raises: while they cannot be read, they are not known."""
        lst = next(lst for lst in self._lists.values() if lst.kind is self.notice_kind)
        try:
            found = await self._reader.page(visitor.id, lst, None, after, limit)
        except UNREADABLE:
            return Notices(known=False)
        assert found is not None
        items = tuple(notice(s) for s in found.page.items)
        return Notices(items, True, found.page.next_after, found.freshness)

    async def rejected(self, visitor: Visitor, notice_id: uuid.UUID) -> Rejected:
        """What one notice of the visitor returns. Raises `ProblemError` 404, too."""
        found = rejected(await self._row(visitor, self.notice_kind, notice_id))
        if found is None:
            raise fail("not_found", "This notice returns nothing.")
        return found

    async def submissions(self, visitor: Visitor, after: uuid.UUID | None) -> SubmissionPage:
        """What the visitor sent, newest first."""
        command = CommandId(after) if after is not None else None
        found, notices = await asyncio.gather(
            self._services.commands.page(visitor.id, command, PAGE), self.notices(visitor)
        )
        refused = {r.command: r for r in notices.rejected(unread=False)}
        items = [c for c in found.items if _worth_listing(c)]
        rows = await self._texts(visitor, items)
        told = tuple(
            _submission(c, rows, refused.get(uuid.UUID(c["id"])), self._patience) for c in items
        )
        return SubmissionPage(told, found.next_after, found.freshness, found.ledger_read)

    async def _texts(
        self, visitor: Visitor, commands: Sequence[Mapping[str, Any]]
    ) -> Mapping[tuple[str, uuid.UUID], Shown | None]:
        wanted = {
            (row["type"], uuid.UUID(row["id"]))
            for c in commands
            for row in c["rows"]
            if _known(row)
        }
        catalog = self._services.catalog
        view = await self._reader.rows(
            visitor.id, [(catalog[type_], row_id) for type_, row_id in wanted], counted=False
        )
        return view.rows

    async def _row(self, visitor: Visitor, kind: Kind, row_id: uuid.UUID) -> Shown:
        shown, _ = await self._reader.row(visitor.id, kind, row_id)
        if shown is None:
            raise fail("not_found", f"There is no such {kind.name}.")
        self._services.remember_streams(kind, [shown])
        return shown

    async def _names(self, visitor: Visitor, rows: Iterable[Shown]) -> dict[uuid.UUID, str]:
        return (await self._people(visitor, rows))[0]

    async def _people(
        self, visitor: Visitor, rows: Iterable[Shown]
    ) -> tuple[dict[uuid.UUID, str], bool]:
        """Names of the rows' authors, and whether the visitor is banned."""
        ids = views.authors_of(s.row for s in rows) | {visitor.id}
        view = await self._reader.rows(
            visitor.id, [(self._actor, user_id) for user_id in ids], counted=False
        )
        found = {user_id: view.get(self._actor.name, user_id) for user_id in ids}
        names = {user_id: s.row["name"] for user_id, s in found.items() if s is not None}
        own = found[visitor.id]
        return {visitor.id: visitor.name} | names, own is not None and bool(own.row["banned"])

    async def _reactions(
        self, visitor: Visitor, posts: Iterable[Shown]
    ) -> dict[uuid.UUID, frozenset[str]]:
        """The visitor's own reactions by post."""
        ids = {
            views.reaction_id(s.row["id"], visitor.id, emoji): (s.row["id"], emoji)
            for s in posts
            if s.row.get("reaction_count", 0) > 0
            for emoji in EMOJI
        }
        if not ids:
            return {}
        kind = self.reaction_kind
        view = await self._reader.rows(visitor.id, [(kind, i) for i in ids], counted=False)
        there = [place for i, place in ids.items() if view.get(kind.name, i) is not None]
        return {post: frozenset(emoji for at, emoji in there if at == post) for post, _ in there}


def _about(refused: Sequence[Rejected], shown: Shown) -> Rejected | None:
    """The newest change of this row that was not saved."""
    row_id = shown.row["id"]
    return next(
        (
            r
            for r in refused
            if row_id == r.first.id or r.first.values.get("post_id") == str(row_id)
        ),
        None,
    )


def _never_saved(
    refused: Sequence[Rejected],
    visitor: Visitor,
    topic: uuid.UUID,
    after: uuid.UUID | None,
    to: uuid.UUID | None,
) -> list[views.Post]:
    """The visitor's posts that were not saved and belong on this page."""
    posts = [
        views.refused_post(r, visitor)
        for r in refused
        if (r.first.op, r.first.type) == ("create", "post") and r.topic == topic
    ]
    return [
        p
        for p in posts
        if (after is None or p.id.int > after.int) and (to is None or p.id.int <= to.int)
    ]


def _known(row: Mapping[str, Any]) -> bool:
    return row["type"] in ("topic", "post", "reaction")


def _worth_listing(command: Mapping[str, Any]) -> bool:
    """Marking a notice as read is a command as well, but nothing that anybody looks for here."""
    return command["state"] == State.REJECTED or any(_known(row) for row in command["rows"])


def _submission(
    command: Mapping[str, Any],
    rows: Mapping[tuple[str, uuid.UUID], Shown | None],
    refused: Rejected | None,
    patience: Patience,
) -> views.Submission:
    first = next((row for row in command["rows"] if _known(row)), None)
    command_id, state = CommandId(uuid.UUID(command["id"])), State(command["state"])
    text, link, what = "", None, "change"
    if refused is not None:
        text, what = views.excerpt(refused.written), refused.what
    elif first is not None:
        shown = rows.get((first["type"], uuid.UUID(first["id"])))
        what = described(first["op"], first["type"])
        if shown is not None:
            row = shown.row
            text = views.excerpt(row.get("title") or row.get("body") or row.get("emoji") or "")
            link = _link(first["type"], row)
    at = parse_time(command["accepted_at"]) if command["accepted_at"] else None
    wait = of_command(command_id, state, at, patience)
    code = (command.get("problem") or {}).get("code", "")
    reason = REASONS.get(code, "It could not be saved.") if state is State.REJECTED else None
    return views.Submission(command_id, what, at, state, text, link, wait, refused, reason)


def _link(type_: str, row: Mapping[str, Any]) -> str:
    if type_ == "topic":
        return f"/topics/{row['id']}"
    post = row["post_id"] if type_ == "reaction" else row["id"]
    return f"/posts/{post}"
