"""The big list of naughty strings in every text field of the forum, and who must show them exactly.

A string either gets in, and is then the same everywhere, or is refused with a 422 (in a token: 401).
"""

import asyncio
import functools
import json
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx2
import jwt

from schema.identifiers import user_id_for
from tests.conformance import Conformance
from tests.installation import SECRET, Installation

BIG_LIST: Final[list[str]] = json.loads(
    (Path(__file__).parent / "data" / "naughty" / "blns.json").read_text(encoding="utf-8")
)
STRINGS: Final = [
    *BIG_LIST,
    # What the big list has nothing of: text that something might trim, normalize or unfold.
    "e\u0301 is not \u00e9",
    "\ufb01",
    "  spaces around  ",
    "two\nlines",
    "\r\nline ends around\r\n",
    "\n\nan empty line first",
    "\u2028line separators\u2029",
    "e" + "\u0301" * 10_000,
    "=?utf-8?q?x=0ABcc:_evil@example.com?=",
    "nul \u0000 nul",
    "lone \ud800 surrogate",
]
_NAUGHTY: Final = frozenset(STRINGS)
_AT_ONCE: Final = 16
_ANY: Final = {"If-Match": "*"}


@dataclass
class Naughty:
    """What was sent and got in: row id → the text that everybody must be shown.

    `answers` counts the statuses by field and operation.
    """

    installation: Installation
    client: httpx2.AsyncClient
    titles: dict[str, str] = field(default_factory=dict)
    bodies: dict[str, str] = field(default_factory=dict)
    emoji: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    spoken: dict[str, str] = field(default_factory=dict)
    """Posts whose author has one of the strings as his name: post id → user id."""
    topic: str = ""
    """The topic that everybody posts in."""
    here: set[str] = field(default_factory=set)
    """Its posts that have one of the strings."""
    answers: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    conformance: Conformance | None = None

    async def begin(self) -> None:
        """A topic that all can see. Every answer is held against the description from here on."""
        self.conformance = Conformance((await self.client.get("/openapi.json")).json())
        self.client.event_hooks = {"response": [self.conformance.hook]}
        values, wait = {"title": "All", "body": "All"}, {"Prefer": "wait=20"}
        made = await self._ask("ada", "POST", "/v1/topics", values, wait)
        assert made.status_code == 201, made.text
        self.topic = made.json()["id"]
        self.titles[self.topic] = "All"
        self.bodies[made.json()["post"]["id"]] = "All"

    async def create(self) -> None:
        """Every string as a new title, body, emoji and name."""
        await self._each(self._create_topic)
        await self._each(self._create_post)
        await self._each(self._create_user)
        posts = [post for post in self.bodies if post not in self.spoken]
        await self._each(lambda n, text: self._create_reactions(text, posts[n], posts[-n - 1]))

    async def edit(self) -> None:
        """Every string as another text of what is there."""
        topics = [topic for topic in self.titles if topic != self.topic]
        posts = [post for post in self.bodies if post not in self.spoken]
        users = list(self.names)

        async def change(n: int, text: str) -> None:
            for kind, member, known, ids in (
                ("topics", "title", self.titles, topics),
                ("posts", "body", self.bodies, posts),
                ("users", "name", self.names, users),
            ):
                row_id = ids[n % len(ids)]
                # A row may be somebody's turn twice: the last one that got in counts.
                author = "ada" if kind != "users" else self._user_of[row_id]
                async with self._one_at_a_time[row_id]:
                    answer = await self._ask(
                        author, "PATCH", f"/v1/{kind}/{row_id}", {member: text}, _ANY
                    )
                    if self._got_in(f"{member}, edit", answer, text):
                        assert answer.json()[member] == text
                        known[row_id] = text

        await self._each(change)

    # -- one string ------------------------------------------------------------------------

    _user_of: dict[str, str] = field(default_factory=dict)
    _one_at_a_time: dict[str, asyncio.Lock] = field(
        default_factory=lambda: defaultdict(asyncio.Lock)
    )

    async def _create_topic(self, n: int, text: str) -> None:
        for values, name in (
            ({"title": text, "body": f"Body {n}"}, "title, create"),
            ({"title": f"Title {n}", "body": text}, "body, create with its topic"),
        ):
            answer = await self._ask("ada", "POST", "/v1/topics", values)
            if self._got_in(name, answer, text):
                topic = answer.json()
                assert (topic["title"], topic["post"]["body"]) == tuple(values.values())
                self.titles[topic["id"]] = values["title"]
                self.bodies[topic["post"]["id"]] = values["body"]

    async def _create_post(self, n: int, text: str) -> None:
        answer = await self._ask("ada", "POST", f"/v1/topics/{self.topic}/posts", {"body": text})
        if self._got_in("body, create", answer, text):
            assert answer.json()["body"] == text
            self.bodies[answer.json()["id"]] = text
            self.here.add(answer.json()["id"])

    async def _create_user(self, n: int, text: str) -> None:
        """An author's row is made by his first command, from the token."""
        user, path = f"user-{n}", f"/v1/topics/{self.topic}/posts"
        answer = await self._ask(user, "POST", path, {"body": f"By {n}"}, name=text)
        self.answers["name, create (token)"][answer.status_code] += 1
        if answer.status_code == 401:
            answer, text = await self._ask(user, "POST", path, {"body": f"By {n}"}), user
        assert answer.status_code == 202, answer.text
        post, author = answer.json()["id"], answer.json()["author_id"]
        self.bodies[post], self.spoken[post] = f"By {n}", author
        self.names[author], self._user_of[author] = text, user

    async def _create_reactions(self, text: str, post: str, other: str) -> None:
        values = {"post_id": post, "emoji": text}
        mutation = {"op": "create", "type": "reaction", "values": values}
        answer = await self._ask("ada", "POST", "/v1/commands", {"mutations": [mutation]})
        if self._got_in("emoji, create", answer, text):
            self.emoji[answer.json()["rows"][0]["id"]] = text
        address = quote(text, safe="", errors="surrogatepass")
        answer = await self._ask("ada", "PUT", f"/v1/posts/{other}/reactions/{address}")
        # An address is UTF-8, is parted by slashes and knows dots of its own, however spelled.
        parted = "/" in text or text in ("", ".", "..")
        if answer.status_code in ((404, 405) if parted else (400,)) and (parted or _odd(text)):
            self.answers["emoji, put (not an address)"][answer.status_code] += 1
        elif self._got_in("emoji, put", answer, text):
            assert answer.json()["emoji"] == text
            self.emoji[answer.json()["id"]] = text

    def _got_in(self, what: str, answer: httpx2.Response, text: str) -> bool:
        self.answers[what][answer.status_code] += 1
        assert answer.status_code in (202, 422), (what, text, answer.text)
        if answer.status_code == 422:
            assert answer.json()["code"] == "invalid", (what, text, answer.text)
            # A text this short may stand in any answer.
            assert len(text) < 8 or text not in answer.text, "what was sent is not repeated"
        return answer.status_code == 202

    async def _each(self, work: Callable[[int, str], Awaitable[None]]) -> None:
        places = asyncio.Semaphore(_AT_ONCE)

        async def one(n: int, text: str) -> None:
            async with places:
                await work(n, text)

        await asyncio.gather(*(one(n, text) for n, text in enumerate(STRINGS)))

    async def _ask(
        self,
        user: str,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        name: str | None = None,
    ) -> httpx2.Response:
        headers = {
            "Authorization": f"Bearer {_token(user, user if name is None else name)}",
            **(headers or {}),
        }
        content = None
        if body is not None:
            content = json.dumps(body).encode()  # in ASCII: whatever the text is, it can be sent
            headers["Content-Type"] = "application/json"
        return await self.client.request(method, path, content=content, headers=headers, timeout=60)

    # -- who must show it ------------------------------------------------------------------

    async def shown_one_by_one(self, user: str, state: str, *, names: bool = True) -> None:
        """Every text by its own address, as its author sees it, in this state.

        `names`: whether the authors' rows are there; the first command of each makes it.
        """
        places = asyncio.Semaphore(_AT_ONCE)

        async def read(plural: str, row_id: str) -> tuple[str, Any]:
            async with places:
                author = self._user_of.get(row_id, user)
                answer = await self._ask(author, "GET", f"/v1/{plural}/{row_id}")
                return row_id, answer.json()

        for plural, member, texts in (
            ("topics", "title", self.titles),
            ("posts", "body", self.bodies),
            ("users", "name", self.names if names else {}),
        ):
            wanted = {row_id: text for row_id, text in texts.items() if text in _NAUGHTY}
            if not wanted:
                continue
            rows = dict(await asyncio.gather(*(read(plural, row_id) for row_id in wanted)))
            _must_agree(rows, member, wanted)
            assert state in {row["state"] for row in rows.values()} <= {state, "saved"}

    async def shown_in_lists(self, user: str) -> None:
        """The texts of all topics, and of all posts of one topic that this user sees."""
        for path, member, wanted in (
            ("/v1/topics", "title", self.titles),
            (f"/v1/topics/{self.topic}/posts", "body", self.bodies),
        ):
            rows = {row["id"]: row async for row in self._pages(user, path)}
            assert len(rows) > len(STRINGS) / 2
            _must_agree(rows, member, {i: wanted[i] for i in rows if i in wanted})

    async def _pages(self, user: str, path: str) -> AsyncIterator[dict[str, Any]]:
        after = ""
        while True:
            page = (await self._ask(user, "GET", f"{path}?limit=100{after}")).json()
            for row in page["items"]:
                yield row
            if page["next"] is None:
                return
            after = f"&after={page['next']}"

    async def stored(self) -> None:
        """PostgreSQL has every text, byte for byte."""
        for table, column, wanted in (
            ("topic", "title", self.titles),
            ("post", "body", self.bodies),
            ("reaction", "emoji", self.emoji),
            ('"user"', "name", self.names),
        ):
            rows = await self.installation.fetch(
                f"SELECT id, convert_to({column}, 'UTF8') AS text FROM {table} WHERE id = ANY($1)",
                [uuid.UUID(row_id) for row_id in wanted],
            )
            found = {str(row["id"]): bytes(row["text"]) for row in rows}
            assert found == {row_id: text.encode() for row_id, text in wanted.items()}

    async def shown_by_pages(self, user: str, *, names: bool) -> None:
        """The forum's pages have every title, body and author's name as their text."""
        topics = await self._crawl(user, "/")
        _must_agree(topics.rows("title"), "title", self.titles)
        thread = await self._crawl(user, f"/topics/{self.topic}")
        shown = thread.rows("text")
        assert shown.keys() >= self.here
        _must_agree(shown, "text", {i: self.bodies[i] for i in shown})
        if names:
            heads = {i: self.names[author] for i, author in self.spoken.items()}
            _must_agree(thread.rows("author"), "author", heads)
        assert topics.strange | thread.strange == set(), "no text became an element"

    async def _crawl(self, user: str, path: str) -> "Texts":
        texts = Texts()
        cookies = {"afterwrite_session": _token(user, user)}
        following: str | None = path
        async with httpx2.AsyncClient(base_url=self.client.base_url, cookies=cookies) as browser:
            while following is not None:
                page = await browser.get(following, timeout=60)
                assert page.status_code == 200, page.text
                texts.next_page = None
                texts.feed(page.text)
                following = texts.next_page
        return texts


@functools.cache
def _token(user: str, name: str) -> str:
    expires = int(time.time()) + 3600
    claims = {"sub": str(user_id_for(user)), "name": name, "roles": [], "exp": expires}
    return jwt.encode(claims, SECRET, algorithm="HS256")


def _odd(text: str) -> bool:
    """Whether it is no text at all: UTF-8 has no lone surrogates."""
    return any("\ud800" <= char <= "\udfff" for char in text)


def _must_agree(rows: dict[str, Any], member: str, wanted: dict[str, str]) -> None:
    wrong = [
        f"{text!r} is {rows.get(row_id, {}).get(member, rows.get(row_id))!r}"
        for row_id, text in wanted.items()
        if rows.get(row_id, {}).get(member) != text
    ]
    assert not wrong, f"{len(wrong)} of {len(wanted)} {member}: {'; '.join(wrong[:3])}"


class Texts(HTMLParser):
    """The texts of a page's topics and posts: (title, text or author, id) → what a reader sees."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.texts: dict[tuple[str, str], str] = defaultdict(str)
        self.next_page: str | None = None
        self.strange: set[str] = set()
        self._row = ""
        self._open: list[tuple[str, str | None]] = []

    def rows(self, part: str) -> dict[str, dict[str, str]]:
        """The rows that have this part, by their id."""
        return {row_id: {part: text} for (p, row_id), text in self.texts.items() if p == part}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        row = found.get("id") or ""
        if row.startswith(("topic-", "post-")) and tag in ("li", "article"):
            self._row = row.partition("-")[2]
        if any(part is not None for _, part in self._open) and tag != "bdi":
            self.strange.add(tag)
        part = None
        if tag == "a" and found.get("class") == "title":
            part = "title"
        elif tag == "div" and found.get("class") == "text":
            part = "text"
        elif tag == "h2" and row.startswith("by-"):
            part = "author"
        if tag == "a" and found.get("rel") == "next":
            self.next_page = found.get("href")
        self._open.append((tag, part))
        if part is not None:
            self.texts[part, self._row] = ""

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            continue

    def handle_data(self, data: str) -> None:
        for _, part in self._open:
            if part is not None:
                self.texts[part, self._row] += data
