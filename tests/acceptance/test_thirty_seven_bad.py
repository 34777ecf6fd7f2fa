"""1,000 commands of which 37 are bad, in 12 different ways, mixed: 963 saved, 37 told, nobody waits."""

import json
import random
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import asyncpg
import pytest

from schema.commands import Author, Command, Mutation
from tests.acceptance.helpers import Site, applied, figure, send
from tests.commands import author, command, create, delete, reaction, topic_with_post, update
from tests.installation import Installation

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(120)]

COMMANDS, BAD = 1000, 37
RULES_OF_THE_SITE = """
    ALTER TABLE topic ADD CONSTRAINT title_once UNIQUE (title);
    ALTER TABLE post ADD CONSTRAINT no_shouting CHECK (body <> upper(body));
    CREATE INDEX post_number ON post ((CASE WHEN body LIKE 'number %' THEN substr(body, 8)::int END));
    CREATE INDEX post_body ON post (body);
"""


@dataclass
class Post:
    """A post as it is after the commands so far."""

    topic: Mutation
    id: uuid.UUID
    owner: Author
    version: int = 1


@dataclass
class Forum:
    """Makes commands that are good, or bad in one way, given all that came before."""

    chance: random.Random = field(default_factory=lambda: random.Random(37))
    authors: list[Author] = field(
        default_factory=lambda: [author(f"author {n}") for n in range(25)]
    )
    topics: list[Mutation] = field(default_factory=list)
    posts: list[Post] = field(default_factory=list)
    gone: list[Post] = field(default_factory=list)
    keys: list[tuple[Author, str]] = field(default_factory=list)
    refused: list[tuple[Mutation, Author]] = field(default_factory=list)
    serial: Iterator[int] = field(default_factory=lambda: iter(range(10_000)))

    def someone(self) -> Author:
        return self.chance.choice(self.authors)

    def another_than(self, owner: Author) -> Author:
        return self.chance.choice([a for a in self.authors if a != owner])

    def good(self) -> Command:
        number, who = next(self.serial), self.someone()
        if number % 12 == 0 or not self.topics:
            topic, post = topic_with_post(f"topic {number}", f"opens {number}")
            self.topics.append(topic)
            self.posts.append(Post(topic, post.id, who))
            return command(who, topic, post)
        what = number % 6 if number > 30 else 0
        if what == 1:
            return self._deleted()
        if what in (2, 3):
            return self._edited(number)
        if what == 4:
            at = self.chance.choice(self.posts)
            return command(who, reaction(at.id, who, f"e{number}"), stream=at.topic.id)
        return self._replied(number, who)

    def _replied(self, number: int, who: Author) -> Command:
        topic = self.chance.choice(self.topics)
        post = create("post", topic_id=str(topic.id), body=f"says {number}")
        self.posts.append(Post(topic, post.id, who))
        key = f"key {number}"
        self.keys.append((who, key))
        return command(who, post, stream=topic.id, key=key, fingerprint="one")

    def _edited(self, number: int) -> Command:
        post = self.chance.choice(self.posts)
        post.version += 1
        mutation = update("post", post.id, post.version - 1, body=f"better {number}")
        return command(post.owner, mutation, stream=post.topic.id)

    def _deleted(self) -> Command:
        post = self.posts.pop(self.chance.randrange(len(self.posts)))
        self.gone.append(post)
        return command(post.owner, delete("post", post.id, post.version), stream=post.topic.id)

    # -- twelve ways to be bad ------------------------------------------------------------------

    def invalid(self) -> Command:
        topic, post = topic_with_post("", "the title is missing")
        self.refused.append((topic, who := self.someone()))
        return command(who, topic, post)

    def parent_rejected(self) -> Command:
        topic, owner = self.refused[-1]
        who = self.chance.choice([owner, self.another_than(owner)])
        return self._reply(topic, who, "to what was not saved")

    def forbidden(self) -> Command:
        post = self.chance.choice(self.posts)
        mutation = update("post", post.id, body="not mine")
        return command(self.another_than(post.owner), mutation, stream=post.topic.id)

    def version_conflict(self) -> Command:
        post = next(p for p in self.posts if p.version > 1)
        mutation = update("post", post.id, 1, body="too late")
        return command(post.owner, mutation, stream=post.topic.id)

    def not_found(self) -> Command:
        post = self.gone[-1]
        return command(post.owner, update("post", post.id, body="gone"), stream=post.topic.id)

    def target_missing(self) -> Command:
        post = self.gone[-1]
        mutation = create("post", topic_id=str(post.topic.id), reply_to=str(post.id), body="what?")
        return command(self.someone(), mutation, stream=post.topic.id)

    def id_taken(self) -> Command:
        post = self.chance.choice(self.posts)
        mutation = create("post", post.id, topic_id=str(post.topic.id), body="mine now")
        return command(self.someone(), mutation, stream=post.topic.id)

    def idempotency_key_reused(self) -> Command:
        who, key = self.chance.choice(self.keys)
        return replace(self._reply(self.topics[0], who, "again"), idempotency_key=key)

    def unique_violation(self) -> Command:
        topic = self.chance.choice(self.topics)
        return command(self.someone(), *topic_with_post(str(topic.values["title"]), "a double"))

    def check_violation(self) -> Command:
        return self._reply(self.topics[0], self.someone(), "SHOUTING")

    def data_exception(self) -> Command:
        return self._reply(self.topics[0], self.someone(), "number seven")

    def limit_exceeded(self) -> Command:
        return self._reply(self.topics[0], self.someone(), self.chance.randbytes(6000).hex())

    def _reply(self, topic: Mutation, who: Author, body: str) -> Command:
        return command(who, create("post", topic_id=str(topic.id), body=body), stream=topic.id)

    def ways(self) -> list[Callable[[], Command]]:
        return [
            self.invalid, self.parent_rejected, self.forbidden, self.version_conflict,
            self.not_found, self.target_missing, self.id_taken, self.idempotency_key_reused,
            self.unique_violation, self.check_violation, self.data_exception, self.limit_exceeded,
        ]  # fmt: skip


def mixed() -> tuple[list[Command], dict[uuid.UUID, str]]:
    """All commands in their order, and for each bad one the code it must be rejected with."""
    forum = Forum()
    expected: dict[uuid.UUID, str] = {}
    bad_at = set(forum.chance.sample(range(60, COMMANDS), BAD))
    ways = [way for _ in range(4) for way in forum.ways()]
    commands = []
    for at in range(COMMANDS):
        if at in bad_at:
            way = ways.pop(0)
            commands.append(way())
            expected[commands[-1].command_id] = way.__name__
        else:
            commands.append(forum.good())
    return commands, expected


async def test_thirty_seven_bad_commands_in_a_thousand(installation: Installation) -> None:
    commands, expected = mixed()
    assert len(expected) == BAD
    assert len(set(expected.values())) == 12
    owner = await asyncpg.connect(installation.owner_url)
    await owner.execute(RULES_OF_THE_SITE)
    await owner.close()
    await send(installation, *commands)
    started = time.perf_counter()
    writer = installation.start("writer", batch_size="200")
    await applied(installation, COMMANDS)
    figure("1,000 commands applied after", f"{time.perf_counter() - started:.1f} s")

    ledger = await installation.fetch(
        'SELECT "offset", seq, outcome, command_id, problem, effects, decided_at '
        'FROM afterwrite.ledger ORDER BY "offset"'
    )
    assert [row["command_id"] for row in ledger] == [c.command_id for c in commands]
    assert Counter(row["outcome"] for row in ledger) == {"saved": COMMANDS - BAD, "rejected": BAD}
    found = {
        row["command_id"]: json.loads(row["problem"])["code"]
        for row in ledger
        if row["outcome"] == "rejected"
    }
    assert found == expected
    await _everybody_is_told(installation, commands, ledger)
    await _nobody_waits(writer.events(), ledger)
    assert installation.run("audit").returncode == 0
    await _it_is_seen_at_the_door(installation, commands, expected)


async def _everybody_is_told(
    installation: Installation, commands: list[Command], ledger: list[asyncpg.Record]
) -> None:
    notices = {r["id"]: r for r in await installation.fetch("SELECT * FROM notice")}
    letters = await installation.fetch("SELECT command_id, code FROM afterwrite.dead_letter")
    assert len(letters) == BAD
    told = set()
    for what, row in zip(commands, ledger, strict=True):
        if row["outcome"] != "rejected":
            continue
        notice = notices[uuid.UUID(json.loads(row["effects"])[0]["id"])]
        told.add(notice["id"])
        assert notice["user_id"] == what.author.id
        returned = json.loads(notice["returned"])["mutations"]
        assert all(mutation.to_json() in returned for mutation in what.mutations)
    assert told == set(notices), "and nobody is told anything else"


async def _nobody_waits(events: list[dict[str, object]], ledger: list[asyncpg.Record]) -> None:
    """Each is decided in its turn, in the batch it was fetched with, and no batch is done twice."""
    assert [row["seq"] for row in ledger] == list(range(1, COMMANDS + 1))
    times = [row["decided_at"] for row in ledger]
    assert times == sorted(times)
    batches = [e["commands"] for e in events if e["event"] == "batch_applied"]
    assert sum(int(str(n)) for n in batches) == COMMANDS
    assert not [e for e in events if e["event"] in ("recovering", "command_parked", "lane_halted")]
    figure("batches", batches)


async def _it_is_seen_at_the_door(
    installation: Installation, commands: list[Command], expected: dict[uuid.UUID, str]
) -> None:
    async with Site(installation) as site:
        await site.start_api()
        for what in commands:
            code = expected.get(what.command_id)
            if code is None:
                continue
            answer = await site.ask(what.author.name, "GET", f"/v1/commands/{what.command_id}")
            assert (answer.json()["state"], answer.json()["problem"]["code"]) == ("rejected", code)
