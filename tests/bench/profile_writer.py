"""What the writer's pure half costs: microseconds a command, step by step, without any server.

    python -m tests.bench.profile_writer                # creates, then mixed commands
    python -m tests.bench.profile_writer --functions    # the same with cProfile's list of functions

Commands are sealed, opened and decided as in a drain: in batches, on rows that are filled in as the
loader would. The best of some rounds is shown, since other work on the machine only ever adds.
"""

import argparse
import cProfile
import pstats
import random
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from schema.catalog import Catalog, load_catalog
from schema.commands import Command, Mutation
from schema.content import Row
from schema.envelope import Envelope, Record, seal
from schema.identifiers import derived_id, new_command_id, new_row_id
from schema.outcomes import Outcome
from schema.strict_json import decode
from tests.commands import KEYRING, author, create, delete, topic_with_post, update
from writer.garbage import collect_seldom
from writer.ids import read_id
from writer.knowledge import Knowledge
from writer.parking import ParkPolicy
from writer.planner import Planner
from writer.record import LaneRecord, read_record
from writer.rows import Key, Rows

COMMANDS, BATCH, ROUNDS = 20_000, 500, 5
LOG_ID = uuid.UUID(int=7)
NOW = datetime.now(UTC)
POLICY = ParkPolicy(
    timedelta(minutes=15), timedelta(minutes=5), timedelta(hours=1), timedelta(days=5)
)
BODY = "Grind finer, and let it run longer: it is sour as long as too little is dissolved. " * 3
AUTHORS = [author(f"user{n}") for n in range(500)]
T = TypeVar("T")


class Site:
    """A site in memory: its topics, some posts of them, and all rows as the database has them."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.random = random.Random(7)
        self.rows: dict[Key, Row] = {}
        for who in AUTHORS:
            self._add("user", who.id, name=who.name, banned=False, moderator=False)
        self.topics = [new_row_id() for _ in range(1000)]
        self.posts: list[tuple[uuid.UUID, uuid.UUID]] = []
        for topic in self.topics:
            self._add("topic", topic, author_id=AUTHORS[0].id, title="A topic", locked=False)
            for _ in range(5):
                post = new_row_id()
                self.posts.append((post, topic))
                who = self.random.choice(AUTHORS)
                self._add("post", post, topic_id=topic, author_id=who.id, reply_to=None, body=BODY)

    def _add(self, type_: str, row_id: uuid.UUID, **values: Any) -> None:
        counters = dict.fromkeys(self.catalog[type_].counters, 0)
        standard = {"id": row_id, "version": 1, "created_at": NOW, "updated_at": NOW}
        row = standard | values | counters
        read = {n: read_id(str(v)) if isinstance(v, uuid.UUID) else v for n, v in row.items()}
        self.rows[type_, row_id] = read  # as the driver gives it

    def post(self) -> Command:
        topic = self.random.choice(self.topics)
        body = BODY[:236] + f"{self.random.randrange(10_000):04}"
        made = create("post", topic_id=str(topic), body=body)
        return self._command(topic, self.random.choice(AUTHORS), made)

    def mixed(self) -> Command:
        """55 % posts, 10 % topics, 15 % edits, 5 % deletions, 15 % reactions."""
        kind, who = self.random.random(), self.random.choice(AUTHORS)
        if kind < 0.55:
            return self.post()
        if kind < 0.65:
            topic, post = topic_with_post("A topic", BODY[:240])
            return self._command(topic.id, who, topic, post)
        at = self.random.randrange(len(self.posts))
        post_id, in_topic = self.posts[at]
        owner = self.rows["post", post_id]["author_id"]
        who = next(a for a in AUTHORS if a.id == owner) if kind < 0.85 else who
        if kind < 0.80:
            return self._command(in_topic, who, update("post", post_id, body=BODY[:200]))
        if kind < 0.85:
            self.posts.pop(at)
            return self._command(in_topic, who, delete("post", post_id))
        emoji = self.random.choice("☕👍❤")
        row_id = derived_id("reaction", str(post_id), str(who.id), emoji)
        values = {"post_id": str(post_id), "emoji": emoji}
        return self._command(in_topic, who, Mutation("create", "reaction", row_id, values))

    @staticmethod
    def _command(stream: uuid.UUID, who: Any, *mutations: Mutation) -> Command:
        return Command(new_command_id(), stream, who, datetime.now(UTC), mutations)  # type: ignore[arg-type]

    def loaded(self, batch: Sequence[LaneRecord]) -> Rows:
        """The rows that the loader would read for a batch; not part of what is measured."""
        keys: set[Key] = set()
        for record in batch:
            command = record.command
            keys |= {("user", command.author.id), ("topic", command.stream)}
            for mutation in command.mutations:
                keys.add((mutation.type, mutation.id))
                for field in self.catalog[mutation.type].refs:
                    text = mutation.values.get(field.name)
                    if field.ref is not None and text is not None:
                        keys.add((field.ref.type, uuid.UUID(text)))
        known: dict[Key, Row | None] = {}
        for key in keys:
            row = known[key] = self.rows.get(key)
            if row is not None and key[0] == "post":
                known["topic", row["topic_id"]] = self.rows.get(("topic", row["topic_id"]))
        return Rows(known)


def _read(sealed: Sequence[Record]) -> list[LaneRecord]:
    at = int(time.time() * 1000)
    return [
        read_record(0, offset, at, r.key, r.value, r.headers, KEYRING)
        for offset, r in enumerate(sealed)
    ]


def _decide(catalog: Catalog, batch: Sequence[LaneRecord], rows: Rows) -> None:
    planner = Planner(catalog, rows, Knowledge(), POLICY, datetime.now(UTC))
    decisions = [planner.decide(record) for record in batch]
    if any(decision.outcome is not Outcome.SAVED for decision in decisions):
        raise AssertionError(decisions)


def _best(of: Callable[[T], object], over: Sequence[T]) -> float:
    """The least processor time of some rounds, in µs a command; a batch is dropped when it is done."""
    took = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for at in range(0, len(over), BATCH):
            _kept = [of(item) for item in over[at : at + BATCH]]
        took.append(time.process_time() - began)
    return min(took) / len(over) * 1e6


def _steps(site: Site, sealed: Sequence[Record]) -> dict[str, float]:
    signed = [(r.key, r.value, dict(r.headers)) for r in sealed]
    decoded = [decode(value) for _, value, _ in signed]
    records = _read(sealed)
    collect_seldom()  # as in a writer
    steps = {
        "signature": _best(
            lambda s: KEYRING.verify(s[2]["ce_signature"], s[2]["ce_type"], s[0], s[1]), signed
        ),
        "JSON": _best(lambda s: decode(s[1]), signed),
        "command": _best(lambda data: Command.from_json(data, read_id), decoded),
        "record, all of it": _best(
            lambda r: read_record(0, 7, 7, r.key, r.value, r.headers, KEYRING), sealed
        ),
        "period": _best(lambda r: r.period, records),
    }
    took = []
    for _ in range(ROUNDS):
        spent = 0.0
        for at in range(0, len(sealed), BATCH):
            batch = _read(sealed[at : at + BATCH])
            rows = site.loaded(batch)
            began = time.process_time()
            _decide(site.catalog, batch, rows)
            spent += time.process_time() - began
        took.append(spent)
    steps["decision"] = min(took) / len(sealed) * 1e6
    return steps


def _functions(site: Site, sealed: Sequence[Record]) -> None:
    profile = cProfile.Profile()
    records = profile.runcall(_read, sealed)
    pstats.Stats(profile).sort_stats("tottime").print_stats(22)
    profile = cProfile.Profile()
    for at in range(0, len(records), BATCH):
        batch = records[at : at + BATCH]
        profile.runcall(_decide, site.catalog, batch, site.loaded(batch))
    pstats.Stats(profile).sort_stats("tottime").print_stats(32)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.profile_writer")
    parser.add_argument("--functions", action="store_true")
    parser.add_argument("--only", choices=("creates", "mixed"))
    options = parser.parse_args(arguments)
    catalog = load_catalog("schema.forum")
    for name in ("creates", "mixed"):
        if options.only not in (None, name):
            continue
        site = Site(catalog)
        make = site.post if name == "creates" else site.mixed
        sealed = [seal(Envelope(make(), LOG_ID), KEYRING, "/bench") for _ in range(COMMANDS)]
        if options.functions:
            _functions(site, sealed)
            continue
        out = f"{name}, µs a command (best of {ROUNDS} × {COMMANDS} in batches of {BATCH}):\n"
        for step, microseconds in _steps(site, sealed).items():
            out += f"  {step:<20} {microseconds:7.2f}\n"
        sys.stdout.write(out)


if __name__ == "__main__":
    main(sys.argv[1:])
