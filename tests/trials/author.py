"""One author of a trial: makes changes of all kinds upon his own rows, and looks at them at once."""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tests.trials.model import Change, Mut, Type, marker, reaction_row
from tests.trials.web import Answer, Web, pause

EMOJI: Final = ("👍", "🎉", "🔥")
GIVE_UP_S: Final = 90.0
_TRY_AGAIN_S: Final = 0.25


@dataclass
class Mine:
    """A row as its author knows it, with everything that he was told is accepted."""

    row: str
    id: str
    type: Type
    topic: "Mine | None" = None
    version: int = 1
    gone: bool = False
    reactions: set[str] = field(default_factory=set)


@dataclass
class Request:
    """One change about to be sent. `done` is called with the answer when it is accepted."""

    method: str
    path: str
    body: object
    topic: str
    muts: tuple[Mut, ...]
    done: Callable[[Answer], dict[str, str]]
    if_match: str = ""


class Author:
    """`shared` are rows of others that everyone may post in; `known` grows with what all make."""

    def __init__(
        self, number: int, seed: int, web: Web, shared: list[Mine], known: list[Mine]
    ) -> None:
        self.number = number
        self.web = web
        self.shared = [topic for topic in shared if topic.type == "topic"]
        self.liked = [replace(p, reactions=set()) for p in shared if p.type == "post"]
        self.known = known
        self.random = random.Random(f"{seed}/{number}")
        self.topics: list[Mine] = []
        self.posts: list[Mine] = []
        self.changes: list[Change] = []
        self.sent: list[tuple[Change, Request]] = []

    # -- what he does -----------------------------------------------------------------------

    async def work(self, changes: int, stop: asyncio.Event, think_s: float) -> None:
        """Make so many changes, and look after each; ends early when told to stop."""
        for number in range(1, changes + 1):
            if stop.is_set():
                return
            await self.change(number)
            await self.look()
            await pause(self.random.uniform(0, 2 * think_s), stop)

    async def read_along(self, done: asyncio.Event) -> None:
        """His other device: reads while changes are under way, until there are no more."""
        while not done.is_set():
            await self.look(other_device=True)
            await self.ask_about_some()
            await pause(self.random.uniform(0.2, 1.5), done)

    async def open_one(self, number: int) -> Change:
        """A topic with its first post."""
        return await self._make(number, self._open(number))

    async def change(self, number: int) -> Change:
        """Whatever comes to his mind."""
        return await self._make(number, self._choose(number))

    async def _make(self, number: int, request: Request) -> Change:
        change = Change(self.number, number, request.topic, request.muts)
        self.changes.append(change)
        self.web.record.changes.append(change)
        await self._send(change, request)
        if change.accepted:
            self.sent.append((change, request))
            if self.random.random() < 0.06:
                await self._repeat(*self.random.choice(self.sent[-30:]))
        return change

    async def _send(self, change: Change, request: Request) -> None:
        """Until it is accepted or refused for good, always with the same key."""
        change.sent = time.time()
        while time.time() < change.sent + GIVE_UP_S:
            answer = await self._ask(change, request)
            if answer.status == 202:
                change.ids = request.done(answer)
                change.command = str(answer.body.get("command") or answer.body["id"])
                change.display_delayed = answer.body.get("display") == "delayed"
                change.accepted = time.time()
                return
            if answer.status == 0 or answer.code == "outcome_unknown":
                change.ambiguous = True
            elif answer.status != 503 and answer.code != "in_flight":
                change.refused, change.refusal = time.time(), answer.code
                self._forget_what_is_gone(change, answer.code)
                return
            await asyncio.sleep(_TRY_AGAIN_S)
        change.ambiguous = True

    async def _ask(self, change: Change, request: Request) -> Answer:
        headers = {"Idempotency_Key": change.key}
        if request.if_match:
            headers["If_Match"] = request.if_match
        return await self.web.ask(
            self.number, request.method, request.path, request.body, **headers
        )

    async def _repeat(self, change: Change, request: Request) -> None:
        """The same again, now or later, gives the same answer, and has no effect."""
        answer = await self._ask(change, request)
        what = f"answered {answer.status}"
        if answer.status == 202:
            same = change.command == str(answer.body.get("command") or answer.body["id"])
            what = "the same" if same else "with other ids"
            if not same and change.forked is None:
                change.forked = answer.began
        self.web.statuses[f"repeat {what}"] += 1

    def _forget_what_is_gone(self, change: Change, code: str) -> None:
        """A refused change tells that something is not as he thinks: he leaves those rows alone."""
        rows = {mut.row for mut in change.muts} | {mut.parent for mut in change.muts}
        for mine in [*self.posts, *self.topics]:
            if mine.row in rows:
                mine.gone = mine.gone or code in ("not_found", "version_conflict")
        if code == "forbidden":
            self.shared = [t for t in self.shared if t.row not in rows]

    # -- which changes there are ------------------------------------------------------------

    def _choose(self, number: int) -> Request:
        mine = [t for t in self.topics if not t.gone]
        if not mine:
            return self._open(number)
        topic = self.random.choice(mine)
        place = self.random.choice(self.shared) if self.shared else topic
        posts = [p for p in self.posts if not p.gone and p.topic and not p.topic.gone]
        recent = self.random.choice(posts[-3:]) if posts else None
        any_ = self.random.choice(posts) if posts else None
        roll = self.random.random()
        if roll < 0.04:
            return self._open(number)
        if roll < 0.24 or recent is None or any_ is None:
            return self._post(number, topic)
        if roll < 0.38:
            return self._post(number, place)
        if roll < 0.58:
            return self._edit(number, recent, "post")
        if roll < 0.66:
            return self._edit(number, topic, "topic")
        if roll < 0.76:
            return self._delete(recent if roll < 0.71 else any_, "post")
        if roll < 0.90:
            there = self.random.choice(self.liked) if self.liked else any_
            return self._react(any_ if roll < 0.82 else recent if roll < 0.86 else there)
        if roll < 0.92 and len(mine) > 1:
            return self._delete(topic, "topic")
        return self._several(number, topic)

    def _open(self, number: int) -> Request:
        row, first = marker(self.number, number, 0), marker(self.number, number, 1)

        def done(answer: Answer) -> dict[str, str]:
            topic = Mine(row, answer.body["id"], "topic")
            self.topics.append(topic)
            self._made(Mine(first, answer.body["post"]["id"], "post", topic))
            return {row: topic.id, first: answer.body["post"]["id"]}

        muts = (
            Mut("create", "topic", row, row),
            Mut("create", "post", first, first, parent=row),
        )
        body = {"title": f"{row} a title", "body": f"{first} a post"}
        return Request("POST", "/v1/topics", body, row, muts, done)

    def _post(self, number: int, topic: Mine) -> Request:
        row = marker(self.number, number, 0)

        def done(answer: Answer) -> dict[str, str]:
            self._made(Mine(row, answer.body["id"], "post", topic))
            return {row: answer.body["id"]}

        muts = (Mut("create", "post", row, row, parent=topic.row),)
        path = f"/v1/topics/{topic.id}/posts"
        return Request("POST", path, {"body": f"{row} a post"}, topic.row, muts, done)

    def _made(self, post: Mine) -> None:
        self.posts.append(post)
        self.known.append(post)

    def _edit(self, number: int, mine: Mine, type_: Type) -> Request:
        text = marker(self.number, number, 0)

        def done(answer: Answer) -> dict[str, str]:
            mine.version += 1
            return {}

        name = "title" if type_ == "topic" else "body"
        muts = (Mut("update", type_, mine.row, text, parent=self._topic_of(mine)),)
        body = {name: f"{text} changed"}
        path = f"/v1/{type_}s/{mine.id}"
        topic = self._topic_of(mine) or mine.row
        return Request("PATCH", path, body, topic, muts, done, f'"v{mine.version}"')

    @staticmethod
    def _topic_of(mine: Mine) -> str:
        return mine.topic.row if mine.topic is not None else ""

    def _delete(self, mine: Mine, type_: Type) -> Request:
        def done(answer: Answer) -> dict[str, str]:
            mine.gone = True
            return {}

        topic = self._topic_of(mine)
        muts = (Mut("delete", type_, mine.row, parent=topic),)
        path = f"/v1/{type_}s/{mine.id}"
        return Request("DELETE", path, None, topic or mine.row, muts, done, f'"v{mine.version}"')

    def _react(self, post: Mine) -> Request:
        emoji = self.random.choice(EMOJI)
        row, path = (
            reaction_row(post.row, self.number, emoji),
            f"/v1/posts/{post.id}/reactions/{emoji}",
        )
        take_back = emoji in post.reactions

        def done(answer: Answer) -> dict[str, str]:
            (post.reactions.discard if take_back else post.reactions.add)(emoji)
            return {row: answer.body["id"]}

        topic = self._topic_of(post)
        mut = Mut("delete" if take_back else "create", "reaction", row, parent=post.row)
        method = "DELETE" if take_back else "PUT"
        return Request(method, path, None, topic, (mut,), done, "*" if take_back else "")

    def _several(self, number: int, topic: Mine) -> Request:
        """A post, and if there are some an edit and a deletion, in one command."""
        row = marker(self.number, number, 0)
        values: dict[str, Any] = {"topic_id": topic.id, "body": f"{row} of several"}
        sent: list[dict[str, Any]] = [{"op": "create", "type": "post", "values": values}]
        muts = [Mut("create", "post", row, row, parent=topic.row)]
        there = [p for p in self.posts if p.topic is topic and not p.gone]
        changed = self.random.choice(there) if there else None
        removed = self.random.choice([p for p in there if p is not changed] or [None])
        if changed is not None:
            text = marker(self.number, number, 1)
            change = {"op": "update", "type": "post", "id": changed.id}
            sent.append({**change, "values": {"body": text}, "expected_version": changed.version})
            muts.append(Mut("update", "post", changed.row, text, parent=topic.row))
        if removed is not None:
            sent.append({"op": "delete", "type": "post", "id": removed.id})
            muts.append(Mut("delete", "post", removed.row, parent=topic.row))

        def done(answer: Answer) -> dict[str, str]:
            made = answer.body["rows"][0]["id"]
            self._made(Mine(row, made, "post", topic))
            if changed is not None:
                changed.version += 1
            if removed is not None:
                removed.gone = True
            return {row: made}

        body = {"mutations": sent}
        return Request("POST", "/v1/commands", body, topic.row, tuple(muts), done)

    # -- what he looks at -------------------------------------------------------------------

    async def look(self, *, other_device: bool = False) -> None:
        """At what he has just done (or on another device, at anything of his), and at others'."""
        if not self.topics:
            return
        change = self.random.choice(self.changes[-5:]) if other_device else self.changes[-1]
        topic = next((t for t in [*self.topics, *self.shared] if t.row == change.topic), None)
        post = next((p for p in self.posts if p.row == self._post_of(change)), None)
        if post is not None:
            await self.web.row(self.number, "post", post.row, post.id)
            if any(mut.type == "reaction" for mut in change.muts):
                await self.web.walk(self.number, "reactions", post.row, post.id, 2)
        if topic is not None:
            if self.random.random() < 0.6:
                await self.web.row(self.number, "topic", topic.row, topic.id)
            if self.random.random() < 0.5:
                limit = self.random.choice((1, 3, 10, 50) if topic in self.topics else (50, 100))
                await self.web.walk(self.number, "posts", topic.row, topic.id, limit)
        if self.random.random() < 0.1:
            await self.web.walk(self.number, "topics", "", "", self.random.choice((3, 10)), most=3)
        if self.random.random() < 0.3:
            await self._look_at_others()

    @staticmethod
    def _post_of(change: Change) -> str:
        for mut in change.muts:
            if mut.type == "post":
                return mut.row
            if mut.type == "reaction":
                return mut.parent
        return ""

    async def _look_at_others(self) -> None:
        post = self.random.choice(self.known[-50:])
        if post.topic is None or post in self.posts:
            return
        if self.random.random() < 0.5:
            await self.web.row(self.number, "post", post.row, post.id)
        elif self.random.random() < 0.5:
            await self.web.row(self.number, "topic", post.topic.row, post.topic.id)
        else:
            await self.web.walk(self.number, "posts", post.topic.row, post.topic.id, 100, most=2)

    async def ask_about_some(self, most: int = 3) -> None:
        """What became of some commands; he learns of rejections here."""
        open_ = [c for c in self.changes if c.command and not c.outcome]
        for change in self.random.sample(open_, min(most, len(open_))):
            await self.ask_about(change)

    async def ask_about(self, change: Change) -> None:
        read = await self.web.command(self.number, change.key, change.command)
        if read.status == 200 and read.code == "rejected" and change.told_rejected is None:
            change.told_rejected = read.ended
            for mine in [*self.posts, *self.topics]:
                if mine.row in change.ids:
                    mine.gone = True
