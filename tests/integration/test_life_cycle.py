"""The failure life cycle on a real PostgreSQL, with time in our hands: days pass between two lines."""

import json
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from schema.catalog import load_catalog
from schema.commands import Command, Mutation
from schema.identifiers import new_row_id
from schema.sql import MACHINERY, migrations
from tests.commands import KEYRING, author, command, create, delete, sealed, topic_with_post, update
from tests.installation import create_database, fresh_name
from tests.services import Services
from writer.applier import Applier
from writer.audit import audit
from writer.decisions import Decision
from writer.failures import Halt
from writer.flush import Flusher
from writer.lane import take_lane
from writer.loader import Loader
from writer.mass_rejection import MassRejection
from writer.parking import ParkPolicy
from writer.record import LaneRecord, read_record
from writer.statements import Statements

pytestmark = [
    pytest.mark.integration,
    pytest.mark.once,
    pytest.mark.asyncio(loop_scope="module"),
]

CATALOG = load_catalog("schema.forum")
STATEMENTS = {kind.name: Statements.of(kind) for kind in CATALOG}
LOG_ID = uuid.UUID(int=7)
START = datetime(2026, 5, 1, 12, tzinfo=UTC)
HORIZON = timedelta(days=5)
POLICY = ParkPolicy(timedelta(minutes=15), timedelta(hours=1), timedelta(hours=12), HORIZON)
ADA, BOB, EVE = author("ada"), author("bob"), author("eve")
STUCK = """
    CREATE TABLE public.stuck (body text);
    GRANT SELECT ON public.stuck TO afterwrite_writer;
    CREATE FUNCTION public.stick() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF EXISTS (SELECT FROM public.stuck WHERE body = new.body) THEN
            RAISE 'as if cancelled' USING ERRCODE = '57014';
        END IF;
        RETURN new; END $$;
    CREATE TRIGGER stick BEFORE INSERT ON public.post FOR EACH ROW EXECUTE FUNCTION public.stick();
    ALTER TABLE public.topic ADD CONSTRAINT shouting CHECK (title <> 'SHOUTING')
"""


class Site:
    """One lane of a database, whose writer is this test. `now` is what time it is."""

    def __init__(self, url: str, owner: asyncpg.Connection) -> None:
        self.url, self.owner = url, owner
        self.now = START
        self.offset = 0
        self.applier: Applier | None = None
        self.limit = 20

    async def clear(self) -> None:
        if self.applier is not None:
            self.applier.connection.terminate()
        self.now, self.offset, self.applier, self.limit = START, 0, None, 20
        tables = ("ledger", "idempotency_key", "parked", "dead_letter", "lane")
        rows = ("notice", "reaction", "post", "topic", '"user"', "stuck")
        names = [f"public.{t}" for t in rows] + [f"afterwrite.{t}" for t in tables]
        await self.owner.execute("; ".join(f"DELETE FROM {name}" for name in names))
        await self.owner.execute(
            "INSERT INTO afterwrite.lane (lane, log_id) VALUES (0, $1)", LOG_ID
        )

    async def writer(self) -> Applier:
        """The writer, which takes the lane anew after whatever has happened to it."""
        if self.applier is None:
            connection = await asyncpg.connect(self.url)
            await connection.set_type_codec(
                "json", encoder=json.dumps, decoder=json.loads, schema="pg_catalog"
            )
            lane = await take_lane(connection, 0, "test", timedelta(minutes=5))
            assert lane is not None
            self.applier = Applier(
                connection=connection,
                catalog=CATALOG,
                keyring=KEYRING,
                lane=lane,
                loader=Loader(connection, CATALOG, KEYRING, 0, STATEMENTS),
                flusher=Flusher(connection, CATALOG, STATEMENTS, frozenset()),
                policy=POLICY,
                refusals=MassRejection(self.limit),
                clock=lambda: self.now,
            )
        return self.applier

    async def recover(self) -> None:
        assert self.applier is not None
        self.applier.connection.terminate()
        self.applier = None

    def record(self, what: Command) -> LaneRecord:
        """The command, accepted now, at the next place of the log."""
        sent = sealed(replace(what, accepted_at=self.now), LOG_ID)
        self.offset += 1
        return read_record(
            0, self.offset - 1, 1_767_225_600_000, sent.key, sent.value, sent.headers, KEYRING
        )

    async def apply(self, *commands: Command) -> list[Decision]:
        """One batch."""
        return await (await self.writer()).apply([self.record(c) for c in commands])

    async def park(self, what: Command) -> None:
        await (await self.writer()).park(self.record(what), "crashed_writer")

    async def retry(self) -> list[Decision]:
        return await (await self.writer()).retry_due()

    async def next_retry(self) -> datetime:
        found: datetime = await self.owner.fetchval("SELECT min(retry_at) FROM afterwrite.parked")
        return found

    async def rows(self, query: str, *args: object) -> list[dict[str, Any]]:
        return [dict(row) for row in await self.owner.fetch(query, *args)]

    async def notices(self) -> list[dict[str, Any]]:
        found = await self.rows("SELECT * FROM notice ORDER BY id")
        for row in found:
            row["returned"] = row["returned"] and json.loads(row["returned"])
        return found

    async def outcomes(self) -> list[str]:
        rows = await self.rows('SELECT outcome FROM afterwrite.ledger ORDER BY "offset"')
        return [row["outcome"] for row in rows]

    async def audited(self) -> None:
        report = await audit(self.url, CATALOG)
        assert report.findings == []


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def database(services: Services) -> AsyncIterator[Site]:
    name = fresh_name()
    await create_database(services.admin_url, name)
    url = services.admin_url.rsplit("/", 1)[0] + f"/{name}"
    owner = await asyncpg.connect(url)
    await owner.execute("SET SESSION AUTHORIZATION afterwrite_owner")
    for package in (MACHINERY, CATALOG.migrations):
        for migration in migrations(package):
            await owner.execute(migration.up)
    await owner.execute(STUCK)
    await owner.execute("RESET SESSION AUTHORIZATION")
    made = Site(url, owner)
    yield made
    if made.applier is not None:
        made.applier.connection.terminate()
    await owner.close()
    admin = await asyncpg.connect(services.admin_url)
    await admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    await admin.close()


@pytest_asyncio.fixture(loop_scope="module")
async def site(database: Site) -> Site:
    await database.clear()
    return database


def _reply(topic: Mutation, body: str) -> Mutation:
    return create("post", topic_id=str(topic.id), body=body)


def _told(decisions: Sequence[Decision]) -> list[tuple[int, str]]:
    return [(d.record.offset, d.outcome.value) for d in decisions]


def _bodies(notice: dict[str, Any]) -> list[str]:
    return [m["values"].get("body") for m in notice["returned"]["mutations"]]


# -- parked streams ---------------------------------------------------------------------------------


async def test_five_days_of_a_parked_stream(site: Site) -> None:
    """Its head is tried with growing pauses, the others of its stream wait, and other streams go on."""
    topic, post = topic_with_post("Held", "stuck")
    await site.owner.execute("INSERT INTO stuck VALUES ('stuck')")
    await site.park(command(ADA, topic, post))
    replies = [_reply(topic, f"reply {n}") for n in range(3)]
    waiting = await site.apply(*(command(BOB, r, stream=topic.id) for r in replies))
    assert {d.outcome.value for d in waiting} == {"parked"}
    pauses, before = [], site.now
    while (due := await site.next_retry()) < START + HORIZON:
        pauses.append((due - before) / timedelta(hours=1))
        before = site.now = due
        with pytest.raises(asyncpg.QueryCanceledError):
            await site.retry()
        await site.recover()
        if len(pauses) in (1, 5):
            saved = await site.apply(command(EVE, *topic_with_post()))
            assert [d.outcome.value for d in saved] == ["saved"]
    assert pauses[0] == 1
    assert all(1 <= pause <= 12 for pause in pauses), pauses
    assert pauses[1] <= 2
    assert pauses[2] <= 4
    assert max(pauses) > 6
    assert 10 <= len(pauses) < 50
    attempts = await site.owner.fetchval("SELECT max(attempts) FROM afterwrite.parked")
    assert attempts == len(pauses)
    assert due == START + HORIZON, "the last time is the horizon, not the next pause"
    site.now = due
    given_up = await site.retry()
    assert _told(given_up) == [(0, "rejected")] + [(n, "rejected") for n in (1, 2, 3)]
    assert {d.problem.code for d in given_up if d.problem} == {"expired"}
    notices = await site.notices()
    assert [_bodies(n) for n in notices] == [[None, "stuck"], *([f"reply {n}"] for n in range(3))]
    assert all("tried since 2026-05-01 12:00 UTC" in n["detail"] for n in notices)
    assert await site.rows("SELECT * FROM afterwrite.parked") == []
    await site.audited()


async def test_what_was_parked_is_released_in_its_order(site: Site) -> None:
    topic, post = topic_with_post("Held", "stuck")
    await site.owner.execute("INSERT INTO stuck VALUES ('stuck')")
    await site.park(command(ADA, topic, post))
    first = _reply(topic, "first")
    await site.apply(
        command(BOB, first, stream=topic.id),
        command(BOB, update("post", first.id, 1, body="first, better"), stream=topic.id),
        command(EVE, _reply(topic, "second"), stream=topic.id),
    )
    site.now = START + timedelta(days=2)
    with pytest.raises(asyncpg.QueryCanceledError):
        await site.retry()
    await site.recover()
    await site.owner.execute("DELETE FROM stuck")
    assert await site.retry() == [], "it is not tried again at once"
    site.now = await site.next_retry()
    assert _told(await site.retry()) == [(n, "saved") for n in range(4)]
    bodies = await site.rows("SELECT body FROM post ORDER BY id")
    assert [row["body"] for row in bodies] == ["stuck", "first, better", "second"]
    await site.audited()


async def test_a_missing_row_is_waited_for_and_given_up_each_in_its_time(site: Site) -> None:
    topic, post = topic_with_post()
    never, _ = topic_with_post()
    await site.apply(command(BOB, _reply(topic, "early"), stream=topic.id))
    await site.apply(command(BOB, _reply(never, "in vain"), stream=never.id))
    site.now = START + POLICY.dependency_wait - timedelta(seconds=1)
    assert await site.retry() == []
    assert _told(await site.apply(command(ADA, topic, post))) == [(2, "saved"), (0, "saved")]
    site.now = START + POLICY.dependency_wait
    assert _told(await site.retry()) == [(1, "rejected")]
    assert [n["code"] for n in await site.notices()] == ["target_missing"]
    await site.audited()


async def test_from_the_log_too_a_command_is_given_up_at_its_horizon(site: Site) -> None:
    """Five days of outage: what was accepted first has expired, what came later is saved."""
    old = [site.record(command(ADA, *topic_with_post("old", "an old text"))) for _ in range(2)]
    site.now = START + timedelta(days=1)
    fresh = site.record(command(BOB, *topic_with_post("fresh")))
    note = replace(command(ADA, _notice(ADA)), system=True, accepted_at=START)
    sent = sealed(note, LOG_ID)
    site.offset += 1
    told = read_record(0, 3, 1_767_225_600_000, sent.key, sent.value, sent.headers, KEYRING)
    site.now = START + HORIZON
    writer = await site.writer()
    decisions = await writer.apply([*old, fresh, told])
    assert [d.outcome.value for d in decisions] == ["rejected", "rejected", "saved", "saved"]
    returned = [n for n in await site.notices() if n["code"] == "expired"]
    assert [_bodies(n) for n in returned] == [[None, "an old text"]] * 2
    letters = await site.rows("SELECT code, type, sqlstate FROM afterwrite.dead_letter")
    assert letters == [{"code": "expired", "type": "topic", "sqlstate": None}] * 2
    await site.audited()


# -- notices ----------------------------------------------------------------------------------------


def _notice(who: Any) -> Mutation:
    return create(
        "notice", user_id=str(who.id), kind="delayed", command_id=str(uuid.uuid4()),
        code="delayed", detail="It is safe and waits.",
    )  # fmt: skip


async def test_what_hangs_on_a_rejection_joins_its_notice_also_days_later(site: Site) -> None:
    topic, post = topic_with_post("SHOUTING", "first")
    await site.apply(
        command(ADA, topic, post), command(ADA, _reply(topic, "second"), stream=topic.id)
    )
    site.now = START + timedelta(days=1)
    late = _reply(topic, "third")
    await site.apply(command(ADA, late, stream=topic.id))
    site.now += timedelta(days=1)
    await site.apply(
        command(ADA, update("post", late.id, body="third, better"), stream=late.id),
        command(BOB, _reply(topic, "of another"), stream=topic.id),
        command(BOB, _reply(topic, "of another, too"), stream=topic.id),
    )
    mine, his = await site.notices()
    assert _bodies(mine) == [None, "first", "second", "third", "third, better"]
    assert (mine["version"], mine["code"], mine["user_id"]) == (4, "check_violation", ADA.id)
    assert mine["detail"].endswith("3 more changes needed it, and could not be saved either.")
    assert mine["updated_at"] == site.now
    assert (_bodies(his), his["user_id"]) == (["of another", "of another, too"], BOB.id)
    assert his["code"] == "parent_rejected"
    assert await site.owner.fetchval("SELECT count(*) FROM afterwrite.dead_letter") == 6
    await site.audited()


async def test_a_notice_that_was_read_meanwhile_is_left_alone(site: Site) -> None:
    topic, post = topic_with_post("SHOUTING", "first")
    await site.apply(command(ADA, topic, post))
    notice = (await site.notices())[0]["id"]
    await site.apply(
        command(ADA, update("notice", notice, read=True)),
        command(ADA, _reply(topic, "late"), stream=topic.id),
    )
    first, second = await site.notices()
    assert (_bodies(first), first["read"]) == ([None, "first"], True)
    assert (_bodies(second), second["code"]) == (["late"], "parent_rejected")
    await site.audited()


async def test_a_notice_is_added_to_before_it_is_read_in_the_same_batch(site: Site) -> None:
    """Both are written; the later one does not undo what the earlier one did."""
    topic, post = topic_with_post("SHOUTING", "first")
    await site.apply(command(ADA, topic, post))
    notice = (await site.notices())[0]["id"]
    await site.apply(
        command(ADA, _reply(topic, "late"), stream=topic.id),
        command(ADA, update("notice", notice, read=True)),
    )
    only = (await site.notices())[0]
    assert (_bodies(only), only["read"], only["version"]) == ([None, "first", "late"], True, 3)
    await site.audited()


async def test_notices_of_afterwrite_itself_and_nothing_else(site: Site) -> None:
    good, bad = _notice(ADA), create("topic", title="not a notice")
    said = replace(command(ADA, good, stream=ADA.id), system=True)
    await site.apply(said, replace(command(ADA, bad), system=True), said)
    assert await site.outcomes() == ["saved", "rejected", "duplicate"]
    assert [n["id"] for n in await site.notices()] == [good.id]
    letter = (await site.rows("SELECT code, type FROM afterwrite.dead_letter"))[0]
    assert letter == {"code": "forbidden", "type": "topic"}
    assert await site.rows('SELECT * FROM "user"') == []
    await site.audited()


async def test_a_rejection_without_its_notice_is_still_found(site: Site) -> None:
    await site.apply(command(ADA, *topic_with_post("SHOUTING")))
    await site.owner.execute("UPDATE afterwrite.ledger SET effects = '[]'; DELETE FROM notice")
    report = await audit(site.url, CATALOG)
    assert [f.code for f in report.findings] == ["notice_missing"]


@pytest.mark.parametrize("title", ["SHOUTING", ""], ids=["by the database", "by a rule"])
async def test_a_database_that_refuses_notices_stops_the_lane(site: Site, title: str) -> None:
    """Whoever has rejected the command."""
    await site.owner.execute("ALTER TABLE notice ADD CONSTRAINT no CHECK (false) NOT VALID")
    try:
        with pytest.raises(Halt, match="refuses the notice of a rejection"):
            await site.apply(command(ADA, *topic_with_post(title)))
        await site.recover()
        assert await site.outcomes() == []
    finally:
        await site.owner.execute("ALTER TABLE notice DROP CONSTRAINT no")


# -- rows that vanish, ids that are taken ---------------------------------------------------------------


async def test_what_vanished_with_another_row_is_not_waited_for(site: Site) -> None:
    """The front end did not know the stream: PostgreSQL was away when it asked."""
    topic, post = topic_with_post()
    below = [_reply(topic, str(n)) for n in range(5)]
    await site.apply(command(ADA, topic, post), *(command(ADA, m) for m in below))
    await site.apply(command(ADA, delete("topic", topic.id)))
    gone = (await site.rows("SELECT denied FROM afterwrite.ledger WHERE denied IS NOT NULL"))[0]
    assert gone["denied"] == [topic.id, *sorted([post.id, *(m.id for m in below)])]
    late = await site.apply(command(ADA, update("post", below[0].id, body="x"), stream=below[0].id))
    assert late[0].problem is not None
    assert late[0].problem.code == "not_found"
    other = new_row_id()
    unknown = await site.apply(command(ADA, update("post", other, body="x"), stream=other))
    assert unknown[0].outcome.value == "parked", "of a row that never was, nobody can tell"
    await site.audited()


# -- mass rejection ---------------------------------------------------------------------------------


async def test_one_author_alone_does_not_stop_the_lane(site: Site) -> None:
    site.limit = 5
    for _ in range(4):
        await site.apply(*(command(ADA, *topic_with_post("SHOUTING")) for _ in range(5)))
    assert await site.outcomes() == ["rejected"] * 20
    await site.apply(command(BOB, *topic_with_post()))


async def test_refusals_are_counted_across_transactions(site: Site) -> None:
    site.limit = 5
    await site.apply(*(command(ADA, *topic_with_post("SHOUTING")) for _ in range(5)))
    await site.apply(command(BOB, *topic_with_post("SHOUTING")))
    await site.apply(command(EVE, *topic_with_post("SHOUTING")))
    with pytest.raises(Halt, match=r"refused 8 commands in a row, the last with SQLSTATE 23514"):
        await site.apply(command(BOB, *topic_with_post("SHOUTING")))
    await site.recover()
    assert len(await site.notices()) == 7, "the last one was not told"
