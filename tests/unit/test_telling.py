"""Whom the notifier tells what: once, the right ones, whatever happens in between, over days."""

import asyncio
import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schema import clock
from schema.catalog import load_catalog
from schema.commands import Author, Command, Mutation
from schema.identifiers import CommandId, RowId, new_id, user_id_for
from schema.mail import Mail
from schema.mail_templates import Delayed, parameters_of
from schema.telemetry import Log
from writer.notifier.authors import Authors
from writer.notifier.bounds import Mailed
from writer.notifier.metrics import Metrics
from writer.notifier.observing import DatabaseSeen, LaneSeen, ParkedOf
from writer.notifier.telling import (
    Decided,
    Delay,
    Policy,
    Records,
    Teller,
    Told,
    told_key,
)
from writer.notifier.waiting import MAX_PLACES, LaneWaiting, line_of

pytestmark = pytest.mark.unit

BEGIN = datetime(2026, 3, 6, 14, 0, tzinfo=UTC)
CATALOG = load_catalog("schema.forum")
POLICY = Policy(
    timedelta(minutes=5), timedelta(days=5), 3, "https://site.example/notices"
)  # fmt: skip


def author(name: str, email: str | None = None, locale: str | None = None) -> Author:
    return Author(user_id_for(name), name, (), email, locale)


def command(who: Author, at: datetime, *, body: str = "a text", system: bool = False) -> Command:
    mutation = Mutation(
        "create", "post", RowId(new_id()), {"topic_id": str(new_id()), "body": body}
    )
    return Command(
        CommandId(new_id()), RowId(new_id()), who, at, (mutation,), system=system
    )  # fmt: skip


def teller(memory: dict[str, Any]) -> Teller:
    return Teller(CATALOG, POLICY, memory.get, new_id)


def delay(who: Author, **given_: Any) -> Delay:
    values: dict[str, Any] = {
        "lane": 0, "author": who, "count": 3, "oldest": BEGIN, "first": 10, "last": 14,
        "first_id": new_id(),
    }  # fmt: skip
    return Delay(**(values | given_))


NOW = BEGIN + timedelta(minutes=5)


def remember(memory: dict[str, Any], records: Records) -> None:
    for key, value in records.items():
        if value is None:
            memory.pop(key, None)
        else:
            memory[key] = value


def one(records: Records, prefix: str) -> Any:
    (found,) = [value for key, value in records.items() if key.startswith(prefix)]
    return found


# -- one author -----------------------------------------------------------------------------------


def test_the_delayed_notice() -> None:
    ada = author("ada", "ada@example.org")
    first = new_id()
    records = teller({}).delayed(delay(ada, first_id=first), NOW, {})
    made = Command.from_json(one(records, "notice:")["command"])
    values = made.mutations[0].values
    assert made.system
    assert made.stream == made.author.id == ada.id
    assert made.author.email is None  # what tells him need not carry where he lives
    assert (values["kind"], values["code"], values["command_id"]) == ("delayed",) * 2 + (
        str(first),
    )
    assert values["detail"] == (
        "3 changes are safe and wait; we keep trying until Wednesday, 11 March 2026, 14:00 UTC."
    )
    mail = Mail.from_json(one(records, "mail:"))
    assert isinstance(parameters_of(mail), Delayed)
    assert (mail.to, mail.user) == ("ada@example.org", ada.id)
    told = Told.from_json(one(records, "told:"))
    assert (told.first, told.through, told.notice) == (10, 14, made.mutations[0].id)


def test_nobody_is_told_too_early_or_twice() -> None:
    ada, memory = author("ada"), dict[str, Any]()
    assert teller(memory).delayed(delay(ada), NOW - timedelta(seconds=1), {}) == {}
    remember(memory, teller(memory).delayed(delay(ada), NOW, {}))
    assert teller(memory).delayed(delay(ada, count=9), NOW + timedelta(days=1), {}) == {}
    assert teller(memory).delayed(delay(ada, lane=1), NOW, {}) != {}  # another lane


def test_saved_after_all_is_for_those_who_were_told() -> None:
    ada, memory = author("ada", "ada@example.org"), dict[str, Any]()
    remember(memory, teller(memory).delayed(delay(ada), NOW, {}))
    told = Told.from_json(memory[told_key(0, ada.id)])
    assert teller(memory).over(told, Decided(2, 0, 1), NOW, {}) == {}
    records = teller(memory).over(told, Decided(2, 1, 0), NOW, {})
    values = one(records, "notice:")["command"]["mutations"][0]["values"]
    assert values["detail"] == (
        "2 changes that waited are saved now. 1 could not be saved: a notice of its own says why."
    )
    remember(memory, records)
    assert teller(memory).over(told, Decided(2, 1, 0), NOW, {}) == {}


def test_of_what_was_all_rejected_nothing_was_saved_after_all() -> None:
    ada, memory = author("ada"), dict[str, Any]()
    remember(memory, teller(memory).delayed(delay(ada), NOW, {}))
    told = Told.from_json(memory[told_key(0, ada.id)])
    assert teller(memory).over(told, Decided(0, 3, 0), NOW, {}) == {told.key: None}


def test_what_is_done_while_it_lasts_belongs_to_it() -> None:
    ada, memory = author("ada"), dict[str, Any]()
    remember(memory, teller(memory).delayed(delay(ada), NOW, {}))
    remember(memory, teller(memory).through(delay(ada, last=30)))
    assert memory[told_key(0, ada.id)]["through"] == 30
    assert teller(memory).through(delay(ada, last=20)) == {}
    assert teller(memory).through(delay(author("bob"))) == {}


def test_language_and_mail_are_as_the_user_prefers() -> None:
    ada = author("ada", "ada@example.org", "de-AT")
    german = teller({}).delayed(delay(ada, count=1), NOW, {})
    assert one(german, "notice:")["command"]["mutations"][0]["values"]["detail"] == (
        "1 Änderung ist sicher und wartet; wir versuchen es bis "
        "Mittwoch, den 11. März 2026, 14:00 Uhr UTC weiter."
    )
    preference = {f"preference:{ada.id}": {"mail": False, "locale": "fr"}}
    french = teller(preference).delayed(delay(ada, count=1), NOW, {})
    assert not [key for key in french if key.startswith("mail")]
    assert "1 change is safe and waits;" in str(french)


def test_mail_is_bounded_by_the_day_and_the_rest_is_one_digest() -> None:
    ada, memory = author("ada", "ada@example.org"), dict[str, Any]()
    for lane in range(5):
        remember(memory, teller(memory).delayed(delay(ada, lane=lane), NOW, {}))
    assert len([key for key in memory if key.startswith("mail:")]) == 3
    assert len([key for key in memory if key.startswith("notice:")]) == 5
    mailed = Mailed.from_json(one(memory, "mailed:"))
    assert teller(memory).day_over(mailed, NOW) == {}
    tomorrow = NOW + timedelta(days=1)
    records = teller(memory).day_over(mailed, tomorrow)
    digest = Mail.from_json(one(records, "mail:"))
    assert (digest.template, digest.parameters["delayed"]) == ("digest", 2)
    assert records[mailed.key] is None


def test_within_one_round_the_bound_counts_what_is_not_remembered_yet() -> None:
    ada, records = author("ada", "ada@example.org"), Records()
    for lane in range(5):
        records |= teller({}).delayed(delay(ada, lane=lane), NOW, records)
    assert len([key for key in records if key.startswith("mail:")]) == 3


# -- what waits -----------------------------------------------------------------------------------


def test_what_waits_is_counted_until_it_is_decided() -> None:
    ada, bob = author("ada"), author("bob")
    waiting = LaneWaiting(100, 100)
    for n in range(6):
        waiting.add(100 + n, command((ada, bob)[n % 2], BEGIN + timedelta(seconds=n)))
    waiting.add(106, None)
    waiting.add(107, command(ada, BEGIN, system=True))
    assert (waiting.read_to, waiting.oldest) == (108, BEGIN)
    of_ada = waiting.authors[ada.id]
    assert (of_ada.count, of_ada.first, of_ada.last, of_ada.oldest) == (3, 100, 104, BEGIN)
    waiting.move_to(103)
    assert (of_ada.count, of_ada.first) == (1, 104)
    assert of_ada.first_id == of_ada.items[0].command
    assert [w.author.name for w in waiting.older_than(BEGIN + timedelta(seconds=3))] == ["bob"]
    waiting.move_to(106)
    assert waiting.authors == {}
    assert waiting.oldest is None


def test_of_one_author_with_very_much_the_rest_is_only_counted() -> None:
    ada, waiting = author("ada"), LaneWaiting(0, 0)
    for n in range(MAX_PLACES + 10):
        waiting.add(n, command(ada, BEGIN + timedelta(seconds=n)))
    of = waiting.authors[ada.id]
    assert of.count == MAX_PLACES + 10
    waiting.move_to(MAX_PLACES + 5)  # nobody knows which of the rest are left
    assert (of.first, of.last) == (MAX_PLACES + 9, MAX_PLACES + 9)
    assert of.oldest == BEGIN + timedelta(seconds=MAX_PLACES + 9)
    waiting.move_to(MAX_PLACES + 10)
    assert waiting.authors == {}


def test_a_line_of_a_command() -> None:
    assert line_of(command(author("ada"), BEGIN, body="one\n two")) == "one two"
    assert len(line_of(command(author("ada"), BEGIN, body="x" * 500))) == 81


# -- five days of anything ------------------------------------------------------------------------


@dataclass
class World:
    """A lane, its log and its ledger; and what users were told."""

    now: datetime = BEGIN
    log: list[Command] = field(default_factory=list)
    decided: dict[int, str] = field(default_factory=dict)
    position: int = 0
    down: bool = False
    seen: DatabaseSeen | None = None
    memory: dict[str, Any] = field(default_factory=dict)
    published: dict[uuid.UUID, Command] = field(default_factory=dict)
    """What the writer takes: a command that is published again is the same."""
    waiting: LaneWaiting | None = None

    def look(self) -> None:
        """What the watches see now."""
        if not self.down:
            parked: dict[uuid.UUID, list[int]] = {}
            for offset, outcome in self.decided.items():
                if outcome == "parked":
                    parked.setdefault(self.log[offset].author.id, []).append(offset)
            self.seen = DatabaseSeen(
                {0: LaneSeen(0, self.position, uuid.UUID(int=1), "w", None, None)},
                [
                    ParkedOf(
                        who,
                        0,
                        len(offsets),
                        self.log[min(offsets)].accepted_at,
                        min(offsets),
                        max(offsets),
                        self.log[min(offsets)].command_id,
                    )
                    for who, offsets in parked.items()
                ],
            )
        known = self.seen.lanes[0].position if self.seen is not None else None
        if known is None:
            return
        if self.waiting is None:
            self.waiting = LaneWaiting(known, known)
        self.waiting.move_to(known)
        for offset in range(self.waiting.read_to, len(self.log)):
            self.waiting.add(offset, self.log[offset])

    def open_of(self, who: uuid.UUID) -> list[int]:
        return [
            offset
            for offset, sent in enumerate(self.log)
            if sent.author.id == who
            and (offset >= self.position or self.decided[offset] == "parked")
        ]

    def told_of(self, who: uuid.UUID) -> list[str]:
        return [
            c.mutations[0].values["kind"] for c in self.published.values() if c.author.id == who
        ]


class Killed(Exception):
    """The notifier dies here."""


@dataclass
class Process:
    """One life of a notifier: everything but the memory dies with it."""

    world: World
    kill_at: int
    leading: bool = True
    reachable: bool = True
    generation: int = 1
    steps: int = 0
    log_id: uuid.UUID | None = None

    def reach(self) -> None:
        self.steps += 1
        if self.steps == self.kill_at:
            raise Killed

    # the memory
    @property
    def values(self) -> dict[str, Any]:
        return self.world.memory

    def below(self, prefix: str) -> dict[str, Any]:
        return {k: v for k, v in self.world.memory.items() if k.startswith(prefix)}

    def owe(self, records: Records) -> None:
        self.reach()
        for key, value in records.items():
            known = self.world.memory.get(key)
            if known is not None and key.startswith("told:"):
                of = Told.from_json(known)
                assert value is None or value["notice"] == known["notice"], "told again"
                if value is None:
                    left = [o for o in self.world.open_of(of.author.id) if o <= of.through]
                    assert not left, "told that all is decided, and it is not"
            elif key.startswith("told:"):
                open_ = self.world.open_of(Told.from_json(value).author.id)
                assert open_, "told that something waits although all is decided"
                oldest = min(self.world.log[offset].accepted_at for offset in open_)
                assert oldest <= self.world.now - POLICY.delay_after
        remember(self.world.memory, records)  # all or nothing, as a transaction
        self.reach()

    async def written(self, within_s: float) -> bool:
        return True

    # the outbox
    async def notices(self) -> list[str]:
        owed = self.below("notice:")
        for value in owed.values():
            made = Command.from_json(value["command"])
            self.world.published.setdefault(made.command_id, made)
            self.reach()
        for key in owed:
            del self.world.memory[key]
        return []

    async def mails(self, most: int) -> int:
        return 0

    async def alerts(self, alerts: Sequence[Any]) -> None:
        return

    # the database
    @property
    def seen(self) -> DatabaseSeen | None:
        return self.world.seen

    @property
    def answers(self) -> bool:
        return self.world.seen is not None and not self.world.down

    async def values_of_parked(self, commands: Sequence[uuid.UUID]) -> dict[uuid.UUID, bytes]:
        import json

        return {
            c.command_id: json.dumps(c.to_json()).encode()
            for c in self.world.log
            if c.command_id in commands
        }

    async def decided(self, ranges: Sequence[tuple[int, uuid.UUID, int, int]]) -> list[Decided]:
        answers = []
        for _, who, first, last in ranges:
            found = [
                self.world.decided[offset]
                for offset in range(first, min(last + 1, self.world.position))
                if self.world.log[offset].author.id == who
            ]
            answers.append(
                Decided(found.count("saved"), found.count("rejected"), found.count("parked"))
            )
        return answers

    # the reader
    @property
    def waiting(self) -> dict[int, LaneWaiting]:
        return {0: self.world.waiting} if self.world.waiting is not None else {}

    def complete(self, lane: int) -> bool:
        return True

    # what else is asked of parts that are not looked at here
    copies: tuple[()] = ()

    def recall(self) -> None:
        return

    async def new(self, now: datetime) -> Records:
        return {}

    def authors(self) -> Authors:
        part = cast(Any, self)
        return Authors(
            memory=part,
            outbox=part,
            teller=teller(self.world.memory),
            database=part,
            reader=part,
            administrators=part,
            bounces=part,
            mails_per_minute=60,
            metrics=Metrics(),
            log=Log("test"),
        )


PEOPLE = [author(name) for name in ("ada", "bob", "cem")]


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 2**32), st.integers(20, 120))
def test_whatever_happens_each_is_told_once_and_rightly(seed: int, steps: int) -> None:
    """Commands come, a writer decides them or not, servers come and go, the notifier is killed."""
    chance, world = random.Random(seed), World()

    async def live() -> None:
        process = Process(world, chance.randint(1, 8))
        authors = process.authors()
        for step in range(steps + 60):
            ending = step >= steps
            act(world, chance, ending=ending)
            world.look()
            try:
                await authors.tick()
            except Killed:
                world.waiting = None
                world.look()
                process = Process(world, chance.randint(1, 8) if not ending else 0)
                authors = process.authors()
            check(world)

    before = clock.now
    try:
        clock.now = lambda: world.now
        asyncio.run(live())
    finally:
        clock.now = before
    assert not [key for key in world.memory if key.startswith(("told:", "notice:"))]


def act(world: World, chance: random.Random, *, ending: bool) -> None:
    world.now += timedelta(seconds=chance.choice([1, 1, 30, 200, 4000, 40_000]))
    if ending:
        world.down = False
        decide(world, len(world.log), lambda: "saved")
        for offset, outcome in world.decided.items():
            if outcome == "parked":
                world.decided[offset] = "saved"
        return
    match chance.randint(0, 6):
        case 0 | 1 | 2:
            world.log.append(command(chance.choice(PEOPLE), world.now))
        case 3 if not world.down:
            to = chance.randint(world.position, len(world.log))
            decide(world, to, lambda: chance.choice(["saved", "saved", "rejected", "parked"]))
        case 4 if not world.down:
            for offset, outcome in world.decided.items():
                if outcome == "parked" and chance.random() < 0.5:
                    world.decided[offset] = chance.choice(["saved", "rejected"])
        case 5:
            world.down = not world.down
        case _:
            pass


def decide(world: World, to: int, outcome: Any) -> None:
    for offset in range(world.position, to):
        world.decided[offset] = outcome()
    world.position = max(world.position, to)


def check(world: World) -> None:
    for who in PEOPLE:
        kinds = world.told_of(who.id)
        # After `delayed` nothing but `saved_after_all`, unless all of it was rejected.
        for one_, next_ in zip(["begin", *kinds], kinds, strict=False):
            assert next_ != "saved_after_all" or one_ == "delayed"
