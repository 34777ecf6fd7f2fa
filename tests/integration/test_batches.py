"""Applying a batch as sets is the same as applying its commands one by one, whatever they are.

Two databases get the same records: one as a single batch, the other record by record. Ledger and
content must end up equal. The tables carry a CHECK and a UNIQUE constraint that the contract does
not know of, so that the database refuses some commands and batches have to be taken apart.
"""

import asyncio
import json
import os
import uuid
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schema.catalog import load_catalog
from schema.commands import Author, Command, Mutation
from schema.identifiers import RowId, derived_id, new_command_id, new_row_id
from schema.sql import MACHINERY, migrations
from tests.commands import KEYRING, author, command, sealed
from tests.installation import PASSWORD, create_database, fresh_name
from tests.services import Services
from writer import flush
from writer.applier import Applier
from writer.audit import audit
from writer.failures import Halt
from writer.flush import Flusher
from writer.lane import take_lane
from writer.loader import Loader
from writer.mass_rejection import MassRejection
from writer.parking import ParkPolicy
from writer.record import LaneRecord, read_record
from writer.statements import Statements

pytestmark = pytest.mark.integration

CATALOG = load_catalog("schema.forum")
STATEMENTS = {kind.name: Statements.of(kind) for kind in CATALOG}
AUTHORS = [author("ada"), author("bob"), author("mod", "moderator")]
TOPICS = [new_row_id() for _ in range(3)]
POSTS = [new_row_id() for _ in range(4)]
LOG_ID = uuid.UUID(int=7)
POLICY = ParkPolicy(
    timedelta(minutes=15), timedelta(minutes=5), timedelta(hours=1), timedelta(days=5)
)
ACCEPTED = datetime(2026, 1, 1, tzinfo=UTC)
TIMES = (ACCEPTED + timedelta(hours=1), ACCEPTED + POLICY.horizon + timedelta(seconds=50))
"""When a log is applied: in time, or when half of its commands have reached their horizon."""
EXAMPLES = int(os.environ.get("AFTERWRITE_TEST_EXAMPLES", "150"))
"""`make prove` has 10,000."""
LIMIT_S = max(600, EXAMPLES // 4)
FORBIDDEN = "forbidden by the database"
TABLES = ("user", "topic", "post", "reaction")
Sides = tuple[Callable[[Coroutine[Any, Any, Any]], Any], "Side", "Side"]

awkward = st.sampled_from(["one", "two", "three", FORBIDDEN])
harmless = st.integers(0, 10**9).map(str)
"""Nothing the database refuses: what was read and decided is written as sets, in waves."""
topics, posts = st.sampled_from(TOPICS), st.sampled_from(POSTS)
versions = st.one_of(st.none(), st.integers(1, 3))


def _reaction(op: Any, post: RowId, who: Author, emoji: str) -> Mutation:
    row_id = derived_id("reaction", str(post), str(who.id), emoji)
    values = {"post_id": str(post), "emoji": emoji} if op == "create" else {}
    return Mutation(op, "reaction", row_id, values)


@st.composite
def mutations(draw: st.DrawFn, who: Author, texts: st.SearchStrategy[str]) -> Mutation:
    what = draw(
        st.sampled_from(["topic", "post", "post", "edit", "edit", "lock", "delete", "react", "ban"])
    )
    if what == "topic":
        return Mutation("create", "topic", draw(topics), {"title": draw(texts)})
    if what == "post":
        values: dict[str, Any] = {"topic_id": str(draw(topics)), "body": draw(texts)}
        if draw(st.integers(0, 3)) == 0:
            values["reply_to"] = str(draw(posts))
        return Mutation("create", "post", draw(posts), values)
    if what == "edit":
        if draw(st.booleans()):
            return Mutation("update", "topic", draw(topics), {"title": draw(texts)}, draw(versions))
        return Mutation("update", "post", draw(posts), {"body": draw(texts)}, draw(versions))
    if what == "lock":
        return Mutation("update", "topic", draw(topics), {"locked": draw(st.booleans())})
    if what == "delete":
        target = draw(st.sampled_from([("topic", TOPICS), ("post", POSTS)]))
        return Mutation("delete", target[0], draw(st.sampled_from(target[1])), {}, draw(versions))
    if what == "react":
        op = draw(st.sampled_from(["create", "create", "delete"]))
        return _reaction(op, draw(posts), who, draw(st.sampled_from(["a", "b"])))
    return Mutation("update", "user", RowId(AUTHORS[1].id), {"banned": draw(st.booleans())})


@st.composite
def commands(draw: st.DrawFn, texts: st.SearchStrategy[str]) -> Command:
    who = draw(st.sampled_from(AUTHORS))
    chosen = tuple(
        draw(mutations(who, texts)) for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3])))
    )
    key = draw(st.sampled_from([None, None, None, "k1", "k2"]))
    stream = chosen[0].id
    for mutation in chosen:
        stream = RowId(uuid.UUID(mutation.values.get("topic_id", str(stream))))
    return Command(
        new_command_id(),
        stream,
        who,
        ACCEPTED + timedelta(seconds=draw(st.integers(0, 99))),
        chosen,
        idempotency_key=key,
        fingerprint=draw(st.sampled_from(["f1", "f1", "f2"])) if key else None,
    )


@st.composite
def logs(draw: st.DrawFn) -> list[Command]:
    texts = draw(st.sampled_from([awkward, harmless, harmless]))
    log = draw(st.lists(commands(texts), min_size=1, max_size=14))
    repeated = [log[i] for i in draw(st.lists(st.integers(0, len(log) - 1), max_size=2))]
    return log + repeated


class Side:
    """One of the two databases."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection

    async def clear(self) -> None:
        names = ("ledger", "idempotency_key", "parked", "dead_letter", "lane")
        tables = [f'public."{t}"' for t in ("notice", *reversed(TABLES))]
        tables += [f"afterwrite.{name}" for name in names]
        await self.connection.execute("; ".join(f"DELETE FROM {table}" for table in tables))
        await self.connection.execute(
            "INSERT INTO afterwrite.lane (lane, log_id) VALUES (0, $1)", LOG_ID
        )

    async def apply(
        self, batches: Sequence[Sequence[LaneRecord]], now: datetime = TIMES[0]
    ) -> None:
        lane = await take_lane(self.connection, 0, "test", timedelta(minutes=5))
        assert lane is not None
        applier = Applier(
            connection=self.connection,
            catalog=CATALOG,
            keyring=KEYRING,
            lane=lane,
            loader=Loader(self.connection, CATALOG, KEYRING, 0, STATEMENTS, few=6),  # both ways
            flusher=Flusher(self.connection, CATALOG, STATEMENTS, frozenset({"topic"})),
            policy=POLICY,
            refusals=MassRejection(10**6),
            clock=lambda: now,
        )
        for batch in batches:
            await applier.apply(batch)

    async def state(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for table in TABLES:
            rows = await self.connection.fetch(f'SELECT * FROM public."{table}" ORDER BY id')
            found[table] = [dict(row) for row in rows]
        rows = await self.connection.fetch(
            'SELECT "offset", outcome, command_id, stream, effects, problem, duplicate_of, denied '
            'FROM afterwrite.ledger ORDER BY "offset"'
        )
        found["ledger"] = [_ledger_row(row) for row in rows]
        rows = await self.connection.fetch('SELECT "offset" FROM afterwrite.ledger ORDER BY seq')
        found["order of outcomes"] = [row["offset"] for row in rows]
        rows = await self.connection.fetch(
            "SELECT kind, command_id, code, user_id, version, detail, returned FROM notice "
            "ORDER BY command_id"
        )
        found["notices"] = [dict(row) for row in rows if row["code"] != "parent_rejected"]
        # What hangs on another author's rejection: how it is put together depends on the batches.
        found["returned for others"] = sorted(
            f"{row['user_id']} {mutation}"
            for row in rows
            if row["code"] == "parent_rejected"
            for mutation in row["returned"]["mutations"]
        )
        rows = await self.connection.fetch(
            'SELECT "offset", stream, code, waits_for FROM afterwrite.parked ORDER BY "offset"'
        )
        found["parked"] = [dict(row) for row in rows]
        rows = await self.connection.fetch(
            'SELECT "offset", code, sqlstate FROM afterwrite.dead_letter'
        )
        found["dead"] = sorted(tuple(row) for row in rows)
        rows = await self.connection.fetch(
            "SELECT author_id, key, command_id FROM afterwrite.idempotency_key"
        )
        found["keys"] = sorted(str(tuple(row)) for row in rows)
        return found


def _ledger_row(row: asyncpg.Record) -> dict[str, Any]:
    shown = dict(row)
    # Notices get new ids on each side; everything else must be equal.
    effects = [e for e in json.loads(row["effects"]) if e["type"] != "notice"]
    shown["effects"] = sorted(effects, key=lambda e: (e["type"], e["id"]))
    shown["problem"] = row["problem"] and json.loads(row["problem"])
    return shown


@pytest.fixture(scope="module")
def sides(services: Services) -> Iterator[Sides]:
    """A loop of its own and two databases for all examples."""
    loop = asyncio.new_event_loop()
    names = [fresh_name(), fresh_name()]
    made = [loop.run_until_complete(_side(services, name)) for name in names]
    yield loop.run_until_complete, made[0], made[1]
    for side, name in zip(made, names, strict=True):
        loop.run_until_complete(side.connection.close())
        loop.run_until_complete(_drop(services, name))
    loop.close()


async def _side(services: Services, name: str) -> Side:
    await create_database(services.admin_url, name)
    url = services.admin_url.rsplit("/", 1)[0] + f"/{name}"
    connection = await asyncpg.connect(url)
    await connection.execute(f"SET SESSION AUTHORIZATION afterwrite_owner -- {PASSWORD}")
    for package in (MACHINERY, CATALOG.migrations):
        for migration in migrations(package):
            await connection.execute(migration.up)
    await connection.execute("SET synchronous_commit = off")
    await connection.execute(f"ALTER TABLE post ADD CHECK (body <> '{FORBIDDEN}')")
    await connection.execute("ALTER TABLE topic ADD UNIQUE (title)")
    await connection.set_type_codec(
        "json", encoder=json.dumps, decoder=json.loads, schema="pg_catalog"
    )
    return Side(connection)


async def _drop(services: Services, name: str) -> None:
    connection = await asyncpg.connect(services.admin_url)
    await connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    await connection.close()


def _records(log: Sequence[Command]) -> list[LaneRecord]:
    records = []
    for offset, what in enumerate(log):
        r = sealed(what, LOG_ID)
        records.append(
            read_record(0, offset, 1_767_225_600_000, r.key, r.value, r.headers, KEYRING)
        )
    return records


def test_what_was_parked_and_is_rejected_now_is_not_taken_for_parked(sides: Sides) -> None:
    """The stream waits for bob's row. When that comes, all of it is decided in one transaction, in
    which the ledger still says that the topic's creation is parked."""
    run, together, alone = sides
    run(together.clear())
    run(alone.clear())
    (ada, bob, _), (topic, other, _) = AUTHORS, TOPICS
    create = Mutation("create", "topic", topic, {"title": "one"})

    def sent(who: Author, stream: RowId, *what: Mutation) -> Command:
        return Command(new_command_id(), stream, who, ACCEPTED, what)

    log = [
        sent(ada, topic, create, Mutation("update", "user", RowId(bob.id), {"banned": False})),
        sent(ada, topic, create),
        sent(
            ada, topic, Mutation("create", "post", POSTS[0], {"body": "b", "topic_id": str(topic)})
        ),
        sent(bob, other, Mutation("create", "topic", other, {"title": "one"})),
    ]
    records = _records(log)
    run(together.apply([records]))
    run(alone.apply([[record] for record in records]))
    found = run(alone.state())
    assert found == run(together.state())
    assert [row["outcome"] for row in found["ledger"]] == ["rejected"] * 3 + ["saved"]
    assert found["ledger"][2]["problem"]["code"] == "parent_rejected"


@pytest.mark.timeout(LIMIT_S)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(log=logs(), now=st.sampled_from(TIMES), copy_from=st.sampled_from([1, flush.COPY_FROM]))
def test_a_batch_equals_its_commands_one_by_one(
    sides: Sides, log: list[Command], now: datetime, copy_from: int
) -> None:
    run, together, alone = sides
    records = _records(log)
    run(together.clear())
    run(alone.clear())
    with mock.patch.object(flush, "COPY_FROM", copy_from):  # few rows are inserted, many are copied
        run(together.apply([records], now))
    run(alone.apply([[record] for record in records], now))
    assert run(together.state()) == run(alone.state())


def test_an_author_has_one_notice_also_of_what_hung_on_it_through_anothers_row(
    sides: Sides,
) -> None:
    """Ada's topic is refused, so Bob's post in it is, so Ada's edit of that post is; in any batches."""
    run, together, alone = sides
    (ada, bob, _), (first, topic, _), post = AUTHORS, TOPICS, POSTS[0]
    log = [
        command(ada, Mutation("create", "topic", first, {"title": "one"})),
        command(ada, Mutation("create", "topic", topic, {"title": "one"})),
        command(bob, Mutation("create", "post", post, {"topic_id": str(topic), "body": "two"})),
        command(ada, Mutation("update", "post", post, {"body": "three"})),
    ]
    records = _records([replace(c, accepted_at=ACCEPTED) for c in log])
    for side, batches in ((together, [records]), (alone, [[record] for record in records])):
        run(side.clear())
        run(side.apply(batches))
        (notice,) = run(side.state())["notices"]
        assert (notice["command_id"], notice["version"]) == (log[1].command_id, 2)
        assert [m["type"] for m in notice["returned"]["mutations"]] == ["topic", "post"]


@pytest.mark.timeout(LIMIT_S)
@settings(max_examples=EXAMPLES // 3, deadline=None, suppress_health_check=list(HealthCheck))
@given(log=logs(), cut=st.integers(0, 16))
def test_how_a_log_is_cut_into_batches_does_not_matter(
    sides: Sides, log: list[Command], cut: int
) -> None:
    run, one, two = sides
    records = _records(log)
    run(one.clear())
    run(two.clear())
    run(one.apply([records]))
    run(two.apply([part for part in (records[:cut], records[cut:]) if part]))
    assert run(one.state()) == run(two.state())


@pytest.mark.timeout(LIMIT_S)
@settings(max_examples=EXAMPLES // 3, deadline=None, suppress_health_check=list(HealthCheck))
@given(log=logs())
def test_an_audit_finds_nothing_in_what_was_applied(
    services: Services, sides: Sides, log: list[Command]
) -> None:
    run, side, _ = sides
    run(side.clear())
    run(side.apply([_records(log)]))
    name = run(side.connection.fetchval("SELECT current_database()"))
    report = run(audit(f"{services.admin_url.rsplit('/', 1)[0]}/{name}", CATALOG))
    assert report.findings == []


def test_a_gap_in_the_log_halts(sides: Sides) -> None:
    run, side, _ = sides
    records = _records(
        [Command(new_command_id(), TOPICS[0], AUTHORS[0], datetime.now(UTC), ()) for _ in range(3)]
    )
    run(side.clear())
    with pytest.raises(Halt, match="offset 1 expected, 2 found"):
        run(side.apply([[records[0], records[2]]]))
