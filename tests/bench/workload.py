"""What is drained: founding topics, creates, and a forum's mixture, the same from the same seed.

A plan is pure and reproducible: two processes that seal halves of it agree on every id. Ids are UUIDv7
that carry the number of their row, rising with it, so that the newest row tells how far a run is.

Every plan keeps account of what must be in the database at its end: `Expected`.
"""

import hashlib
import itertools
import random
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Final

from schema.commands import Author, Command, Mutation
from schema.identifiers import CommandId, RowId, derived_id, user_id_for

TOPICS: Final = 1_000
AUTHORS: Final = 500
BODY_CHARS: Final = 240
EMOJI: Final = ("👍", "☕", "🎉", "😀", "🤔", "🙏")
PER_MS: Final = 20
"""Ids that carry the same millisecond: a busy site's."""
_COMMANDS, _ROWS = 1, 2
_MODERATOR: Final = Author(user_id_for("bench-moderator"), "bench-moderator", ("moderator",))
_TEXT: Final = (
    "grind finer and let it run a little longer then taste again before you change the dose the "
    "water was too hot for a light roast so the first cup came out sour but the second was fine"
)
_WORDS: Final = _TEXT.split()

AUTHOR_OF: Final = tuple(
    Author(user_id_for(f"bench-{n}"), f"bench-{n}", ()) for n in range(AUTHORS)
)


BAD: Final = {
    "stale": "rejected",
    "garbage": "dead",
    "foreign": "rejected",
    "again": "duplicate",
    "locked": "rejected",
    "unsigned": "dead",
    "gone": "rejected",
}
"""Ways to be bad, and what becomes of such a command: an edit of an old version, bytes that are no
command, an edit of another's post, the command before once more, a post in a locked topic, one
that somebody else signed, an edit of a deleted post."""


@dataclass(frozen=True)
class Bad:
    """A command that must not take effect, or not once more. `kind` is one of `BAD`."""

    kind: str
    command: Command


Step = Command | Bad


@dataclass
class Expected:
    """What must be there once all is drained: rows with their contents, outcomes by number."""

    posts: dict[uuid.UUID, str] = field(default_factory=dict)
    topics: dict[uuid.UUID, str] = field(default_factory=dict)
    reactions: set[uuid.UUID] = field(default_factory=set)
    outcomes: Counter[str] = field(default_factory=Counter)

    def digest(self) -> dict[str, tuple[int, int]]:
        """For each table the number of its rows and the sum of the digests of their contents."""
        return {
            "post": digest_of(f"{id_}{body}" for id_, body in self.posts.items()),
            "topic": digest_of(f"{id_}{title}" for id_, title in self.topics.items()),
            "reaction": digest_of(str(id_) for id_ in self.reactions),
        }


def digest_of(texts: Iterable[str]) -> tuple[int, int]:
    """How many, and the sum of 60 bits of each one's MD5: in any order, and PostgreSQL can do it."""
    count = total = 0
    for text in texts:
        count += 1
        total += int(hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()[:15], 16)
    return count, total


@dataclass(frozen=True)
class Origin:
    """From when on a run's ids and times count, and the log that its commands belong to."""

    base_ms: int
    log_id: uuid.UUID

    def row_id(self, number: int) -> RowId:
        return RowId(self._id(_ROWS, number))

    def command_id(self, number: int) -> CommandId:
        return CommandId(self._id(_COMMANDS, number))

    def _id(self, kind: int, number: int) -> uuid.UUID:
        # 48 bits of time, then the number, then bits that look random: what a UUIDv7 is made of.
        noise = (number * 0x9E3779B97F4A7C15 + kind) & ((1 << 30) - 1)
        rand_b = (number << 30 | noise) & ((1 << 62) - 1)
        ms = self.base_ms + number // PER_MS
        return uuid.UUID(int=ms << 80 | 7 << 76 | kind << 64 | 0b10 << 62 | rand_b)

    def at(self, number: int) -> datetime:
        return datetime.fromtimestamp(self.base_ms / 1000, UTC) + timedelta(
            milliseconds=number // PER_MS
        )


def number_of(row: uuid.UUID) -> int:
    """The number that `Origin.row_id` has put into an id."""
    return (row.int & ((1 << 62) - 1)) >> 30


def body_of(number: int, chars: int = BODY_CHARS) -> str:
    """A text of about so many characters that no other number has."""
    start = number % len(_WORDS)
    words = _WORDS[start:] + _WORDS[:start]
    return f"{number}: " + " ".join(words * (chars // 170 + 1))[: chars - 8]


# -- founding -----------------------------------------------------------------------------------


def founding(origin: Origin) -> Iterator[Command]:
    """1,000 topics with a first post each, by 500 authors; then the last of them is locked.

    They are drained before anything is measured: streams, authors and parents are there.
    """
    for n in range(TOPICS):
        yield opened(origin, n, AUTHOR_OF[n % AUTHORS], n, TOPICS + n)
    lock = Mutation("update", "topic", origin.row_id(TOPICS - 1), {"locked": True})
    yield Command(origin.command_id(TOPICS), lock.id, _MODERATOR, origin.at(TOPICS), (lock,))


FOUNDING: Final = TOPICS + 1
"""Commands of the founding."""
FIRST: Final = 2 * TOPICS + 1
"""The number of the first row, and command, of a plan."""


def founded(origin: Origin) -> Expected:
    expected = Expected()
    for n in range(TOPICS):
        expected.topics[origin.row_id(n)] = title_of(n)
        expected.posts[origin.row_id(TOPICS + n)] = body_of(n)
    expected.outcomes["saved"] = FOUNDING
    return expected


def title_of(n: int) -> str:
    return f"About {n}: why does my espresso taste sour?"


def opened(origin: Origin, n: int, who: Author, topic: int, post: int) -> Command:
    """Command `n` opens a topic with a first post; `topic` and `post` are numbers of rows."""
    row = origin.row_id(topic)
    first = {"topic_id": str(row), "body": body_of(n)}
    mutations = (
        Mutation("create", "topic", row, {"title": title_of(n)}),
        Mutation("create", "post", origin.row_id(post), first),
    )
    return Command(origin.command_id(n), row, who, origin.at(n), mutations)


# -- creates ------------------------------------------------------------------------------------


def scattered(n: int, among: int) -> int:
    """A number below `among` that looks random and is the same each time."""
    return (n * 0x9E3779B1 >> 7) % among


def create_author(n: int) -> Author:
    return AUTHOR_OF[scattered(n + 7919, AUTHORS)]


def create_topic(origin: Origin, n: int) -> RowId:
    """Of the unlocked ones."""
    return origin.row_id(scattered(n, TOPICS - 1))


def creates(origin: Origin, first: int, last: int) -> Iterator[Command]:
    """Posts number `first` to `last` - 1 of the workload that D1 to D3 and D6 drain."""
    for n in range(first + FIRST, last + FIRST):
        topic = create_topic(origin, n)
        values = {"topic_id": str(topic), "body": body_of(n)}
        post = Mutation("create", "post", origin.row_id(n), values)
        yield Command(origin.command_id(n), topic, create_author(n), origin.at(n), (post,))


def created(origin: Origin, count: int) -> Expected:
    expected = founded(origin)
    for n in range(FIRST, FIRST + count):
        expected.posts[origin.row_id(n)] = body_of(n)
    expected.outcomes["saved"] += count
    return expected


# -- the mixture --------------------------------------------------------------------------------


@dataclass
class _Post:
    """A post that is there: its number, its author's, its version, who reacted how."""

    number: int
    author: int
    version: int = 1
    reactions: set[uuid.UUID] = field(default_factory=set)


@dataclass
class Mixture:
    """55 % posts, 10 % topics with a first post, 15 % edits, 5 % deletions, 15 % reactions.

    Topics are chosen by Zipf's law (exponent 1) over 1,000 slots less the locked topic's; a new topic
    takes the slot of an old one, as on a front page. Edits and deletions are by the post's author,
    name the version he saw, and take one of the 50 youngest posts. With `bad_share`, so many
    commands are bad, in all ways in turn.
    """

    origin: Origin
    bad_share: float = 0.0
    seed: int = 6

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._weights = list(accumulate(1 / rank for rank in range(1, TOPICS)))
        self._slots = list(range(TOPICS - 1))
        self._random.shuffle(self._slots)
        self._posts = [[_Post(TOPICS + t, t % AUTHORS)] for t in self._slots]
        self._gone: list[tuple[int, int, int]] = []
        self._bad = itertools.cycle(BAD)
        self.expected = founded(self.origin)

    def steps(self, count: int) -> Iterator[Step]:
        """The first `count` commands. `expected` is what they lead to, once all were taken."""
        last: Command | None = None
        for n in range(FIRST, FIRST + count):
            if self.bad_share and last is not None and self._random.random() < self.bad_share:
                bad = self._bad_one(n, next(self._bad), last)
                self.expected.outcomes[BAD[bad.kind]] += 1
                yield bad
                continue
            self.expected.outcomes["saved"] += 1
            last = self._good_one(n)
            yield last

    def _good_one(self, n: int) -> Command:
        slot, dice = self._slot(), self._random.random()
        if dice < 0.10:
            return self._topic(n, slot)
        young = self._posts[slot][-50:]
        if dice < 0.65 or not young:
            return self._post(n, slot)
        post = self._random.choice(young)
        if dice < 0.80:
            return self._edit(n, slot, post)
        if dice < 0.85:
            return self._delete(n, slot, post)
        return self._react(n, slot, post)

    def _slot(self) -> int:
        return self._random.choices(range(TOPICS - 1), cum_weights=self._weights)[0]

    def _command(self, n: int, slot: int, author: int, mutation: Mutation) -> Command:
        return Command(
            self.origin.command_id(n),
            self.origin.row_id(self._slots[slot]),
            AUTHOR_OF[author],
            self.origin.at(n),
            (mutation,),
        )

    def _topic(self, n: int, slot: int) -> Command:
        author, topic, post = self._random.randrange(AUTHORS), 2 * n, 2 * n + 1
        self._slots[slot], self._posts[slot] = topic, [_Post(post, author)]
        self.expected.topics[self.origin.row_id(topic)] = title_of(n)
        self.expected.posts[self.origin.row_id(post)] = body_of(n)
        return opened(self.origin, n, AUTHOR_OF[author], topic, post)

    def _post(self, n: int, slot: int) -> Command:
        author = self._random.randrange(AUTHORS)
        self._posts[slot].append(_Post(2 * n, author))
        self.expected.posts[self.origin.row_id(2 * n)] = body_of(n)
        return self._command(n, slot, author, self._new_post(n, self._slots[slot]))

    def _new_post(self, n: int, topic: int) -> Mutation:
        values = {"topic_id": str(self.origin.row_id(topic)), "body": body_of(n)}
        return Mutation("create", "post", self.origin.row_id(2 * n), values)

    def _edit(self, n: int, slot: int, post: _Post) -> Command:
        row = self.origin.row_id(post.number)
        self.expected.posts[row] = body_of(n)
        change = Mutation("update", "post", row, {"body": body_of(n)}, post.version)
        post.version += 1
        return self._command(n, slot, post.author, change)

    def _delete(self, n: int, slot: int, post: _Post) -> Command:
        row = self.origin.row_id(post.number)
        self._posts[slot].remove(post)
        self._gone.append((post.number, slot, post.author))
        del self.expected.posts[row]
        self.expected.reactions -= post.reactions
        change = Mutation("delete", "post", row, {}, post.version)
        return self._command(n, slot, post.author, change)

    def _react(self, n: int, slot: int, post: _Post) -> Command:
        author, emoji = self._random.randrange(AUTHORS), self._random.choice(EMOJI)
        on = str(self.origin.row_id(post.number))
        row = derived_id("reaction", on, str(AUTHOR_OF[author].id), emoji)
        post.reactions.add(row)
        self.expected.reactions.add(row)
        values = {"post_id": on, "emoji": emoji}
        return self._command(n, slot, author, Mutation("create", "reaction", row, values))

    # -- bad ones ---------------------------------------------------------------------------

    def _bad_one(self, n: int, kind: str, last: Command) -> Bad:
        slot = self._slot()
        if kind == "again":
            return Bad(kind, last)
        if kind in ("stale", "foreign") and self._posts[slot]:
            post = self._posts[slot][-1]
            stale = kind == "stale"
            author = post.author if stale else (post.author + 1) % AUTHORS
            version = post.version + 7 if stale else post.version
            row = self.origin.row_id(post.number)
            change = Mutation("update", "post", row, {"body": body_of(n)}, version)
            return Bad(kind, self._command(n, slot, author, change))
        if kind == "gone" and self._gone:
            number, slot, author = self._gone[-1]
            change = Mutation("update", "post", self.origin.row_id(number), {"body": body_of(n)})
            return Bad(kind, self._command(n, slot, author, change))
        if kind in ("unsigned", "garbage"):
            author = self._random.randrange(AUTHORS)
            return Bad(kind, self._command(n, slot, author, self._new_post(n, self._slots[slot])))
        locked = self.origin.row_id(TOPICS - 1)
        post_there = self._new_post(n, TOPICS - 1)
        who = AUTHOR_OF[self._random.randrange(AUTHORS)]
        at = self.origin.at(n)
        return Bad("locked", Command(self.origin.command_id(n), locked, who, at, (post_there,)))
