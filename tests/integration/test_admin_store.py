"""What the operators' pages read, on a real PostgreSQL with the front end's role: right, and bounded."""

import json
import uuid
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from prometheus_client import Gauge

from frontend_api.admin import statements
from frontend_api.admin.filters import AuditFilter, CommandFilter, LetterFilter
from frontend_api.admin.store import PAGE, AdminStore
from frontend_api.content_reader import ContentReader
from schema.catalog import load_catalog
from schema.fields import render_time
from schema.identifiers import new_command_id, new_id, user_id_for
from tests.installation import Installation

pytestmark = [pytest.mark.integration, pytest.mark.once]

PERIOD = datetime.now(UTC).date().replace(day=1)
ADA, BEN = user_id_for("ada"), user_id_for("ben")


class Tables:
    """The machinery's tables, filled as a writer would."""

    def __init__(self, owner: asyncpg.Connection) -> None:
        self.owner = owner
        self.offset = 0

    async def decided(
        self, outcome: str = "saved", author: uuid.UUID = ADA, type_: str = "post", **changes: Any
    ) -> uuid.UUID:
        command = new_command_id()
        row = {
            "lane": 0,
            "offset": self.offset,
            "period": PERIOD,
            "seq": self.offset + 1,
            "epoch": 1,
            "outcome": outcome,
            "command_id": command,
            "author_id": author,
            "stream": new_id(),
            "accepted_at": datetime.now(UTC) - timedelta(seconds=2),
            "decided_at": datetime.now(UTC),
            "effects": json.dumps([{"type": type_, "id": str(new_id()), "op": "create"}]),
            "problem": json.dumps({"code": "forbidden"}) if outcome == "rejected" else None,
        } | changes
        await self._insert("ledger", row)
        self.offset += 1
        return command

    async def dead(self, command: uuid.UUID | None, at: datetime, **changes: Any) -> int:
        row = {
            "lane": 0,
            "offset": self.offset - 1 if command is not None else self.offset + 100_000,
            "command_id": command,
            "author_id": ADA if command is not None else None,
            "key": b"k",
            "value": b"{}",
            "headers": "[]",
            "code": "forbidden",
            "detail": "The topic is locked.",
            "died_at": at,
            "type": "post" if command is not None else None,
        } | changes
        await self._insert("dead_letter", row)
        return int(row["offset"])

    async def many_saved(self, count: int) -> None:
        """Rows of older commands, quickly."""
        await self.owner.execute(
            """
            insert into afterwrite.ledger (lane, "offset", period, seq, epoch, outcome, command_id,
                author_id, stream, accepted_at, decided_at)
            select 0, 1000000 + n, date_trunc('month', now())::date, 1000000 + n, 1, 'saved',
                ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, $2, $2, now(), now()
            from generate_series(1, $1::int) n
            """,
            count,
            BEN,
        )

    async def _insert(self, table: str, row: dict[str, Any]) -> None:
        names = ", ".join(f'"{name}"' for name in row)
        places = ", ".join(f"${n}" for n in range(1, len(row) + 1))
        await self.owner.execute(
            f"insert into afterwrite.{table} ({names}) values ({places})", *row.values()
        )


@pytest_asyncio.fixture
async def tables(database: Installation) -> AsyncIterator[Tables]:
    connection = await asyncpg.connect(database.owner_url)
    yield Tables(connection)
    await connection.close()


@pytest_asyncio.fixture
async def store(database: Installation) -> AsyncIterator[AdminStore]:
    refused: list[str] = []
    catalog = load_catalog("schema.forum")
    reader = ContentReader(
        database.frontend_url,
        catalog,
        pool_size=2,
        timeout_s=5,
        gauge=Gauge("unused", "Of no use here.", registry=None),
        on_writable_role=refused.append,
    )
    reader.start()
    await reader.until_available()
    yield AdminStore(reader, catalog)
    await reader.close()
    assert refused == []


def ids(rows: Iterable[Any]) -> list[Any]:
    return [row["command_id"] for row in rows]


async def test_the_overview_counts_what_waits(store: AdminStore, tables: Tables) -> None:
    empty = await store.ledger()
    assert [lane.lane for lane in empty.lanes] == [0]
    assert empty.lanes[0].owner is None
    assert (empty.counts.dead, empty.counts.parked, empty.counts.p50_s) == (0, 0, None)
    await tables.decided()
    command = await tables.decided("rejected")
    await tables.dead(command, datetime.now(UTC))
    await tables.owner.execute("update afterwrite.lane set outcome_seq = 2, paused = 'why'")
    found = await store.ledger()
    assert found.counts.dead == 1
    assert found.counts.p95_s == pytest.approx(2, abs=0.5)
    assert found.lanes[0].paused == "why"
    assert found.lanes[0].unsettled == 2


async def test_commands_by_state_author_code_type_and_time(
    store: AdminStore, tables: Tables
) -> None:
    saved = await tables.decided()
    bens = await tables.decided(author=BEN, type_="topic")
    rejected = await tables.decided("rejected", type_="notice")
    await tables.dead(rejected, datetime.now(UTC))
    await tables.decided("duplicate", command_id=saved, duplicate_of=saved)

    async def found(**filter_: str) -> list[uuid.UUID]:
        return ids((await store.commands(CommandFilter(**filter_), None)).rows)

    assert await found() == [rejected, bens, saved]
    assert await found(state="saved") == [bens, saved]
    assert await found(state="rejected") == [rejected]
    assert await found(state="duplicate") == [saved]
    assert await found(state="parked") == []
    assert await found(user="ben") == [bens]
    assert await found(user=str(ADA), state="rejected") == [rejected]
    assert await found(code="forbidden") == [rejected]
    assert await found(type="topic") == [bens]
    assert await found(type="post") == [rejected, saved]  # of the first its dead letter says so
    assert await found(since="1h") == [rejected, bens, saved]
    assert await found(until="1h") == []
    rows, settled = await store.command(saved)
    assert sorted(row["outcome"] for row in rows) == ["duplicate", "saved"]
    assert settled == 0


async def test_pages_of_commands_follow_each_other_and_say_when_they_are_partial(
    store: AdminStore, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tables.many_saved(120)
    seen: list[uuid.UUID] = []
    before = None
    for _ in range(3):
        page = await store.commands(CommandFilter(state="saved"), before)
        seen += ids(page.rows)
        before = page.next_before
    assert (len(seen), len(set(seen)), before) == (120, 120, None)
    assert seen == sorted(seen, reverse=True)
    monkeypatch.setattr(statements, "MOST_LOOKED_AT", 100)
    page = await store.commands(CommandFilter(code="forbidden"), None)
    assert page.rows == []
    assert page.partial
    assert page.next_before == sorted(seen, reverse=True)[99]
    rest = await store.commands(CommandFilter(code="forbidden"), page.next_before)
    assert (rest.rows, rest.partial, rest.next_before) == ([], False, None)


async def test_dead_letters_in_groups_and_rows(store: AdminStore, tables: Tables) -> None:
    noon = datetime(2026, 2, 3, 12, 0, tzinfo=UTC)
    for n in range(PAGE + 5):
        await tables.dead(await tables.decided("rejected"), noon + timedelta(seconds=n // 3))
    await tables.dead(None, noon + timedelta(days=1), code="malformed")
    closed = await tables.dead(
        await tables.decided("rejected"), noon, closed="discarded", closed_at=noon
    )
    groups = await store.groups(LetterFilter())
    assert [(g["code"], g["type"], g["day"], g["number"]) for g in groups] == [
        ("malformed", None, date(2026, 2, 4), 1),
        ("forbidden", "post", date(2026, 2, 3), PAGE + 5),
    ]
    first = await store.letters(LetterFilter(type="post"))
    last = first.rows[-1]
    cursor = (last["died_at"], last["lane"], last["offset"])
    second = await store.letters(LetterFilter(type="post"), cursor)
    offsets = [row["offset"] for row in (*first.rows, *second.rows)]
    assert (len(offsets), len(set(offsets)), first.more, second.more) == (
        PAGE + 5,
        PAGE + 5,
        True,
        False,
    )
    assert len((await store.letters(LetterFilter(type="-"))).rows) == 1
    assert [r["offset"] for r in (await store.letters(LetterFilter(closed="discarded"))).rows] == [
        closed
    ]
    day = LetterFilter.of({"day": "2026-02-04"})
    assert [g["code"] for g in await store.groups(day)] == ["malformed"]
    assert day.since == render_time(datetime(2026, 2, 4, tzinfo=UTC))
    taken = await store.in_order(LetterFilter(code="forbidden"), 10)
    assert [row["offset"] for row in taken.rows] == list(range(10))
    assert taken.more
    assert [r["offset"] for r in await store.at([(0, 3), (0, 1), (1, 1)])] == [1, 3]
    letter = await store.letter((0, 1))
    assert letter is not None
    assert (letter["value"], letter["headers"]) == (b"{}", [])
    assert await store.letter((7, 1)) is None


async def test_parked_streams_and_what_waits_behind(store: AdminStore, tables: Tables) -> None:
    streams = [new_id(), new_id()]
    now = datetime.now(UTC)
    for n, stream in enumerate([streams[0], streams[1], streams[0]]):
        command = await tables.decided("parked")
        await tables._insert(
            "parked",
            {
                "lane": 0, "offset": n, "period": PERIOD, "stream": stream,
                "command_id": command, "key": b"k", "value": b"v", "headers": "[]",
                "code": "target_missing", "parked_at": now, "retry_at": now - timedelta(minutes=n),
            },
        )  # fmt: skip
    rows = await store.parked()
    assert [(r["stream"], r["offset"], r["waiting"]) for r in rows] == [
        (streams[1], 1, 1),
        (streams[0], 0, 2),
    ]
    assert all(row["accepted_at"] is not None for row in rows)
    counts = (await store.ledger()).counts
    assert (counts.parked, counts.streams) == (3, 2)
    assert (await store.held((0, 2)) or {})["value"] == b"v"


async def test_the_audit_log_by_who_what_and_when(store: AdminStore, tables: Tables) -> None:
    now = datetime.now(UTC)
    acts = [new_id() for _ in range(3)]
    for n, (act, who) in enumerate(zip(acts, ("Ola (1)", "Ola (1)", "Vic (2)"), strict=True)):
        await tables._insert(
            "audit_log",
            {
                "act_id": act, "at": now - timedelta(hours=n), "who": who,
                "act": "pause" if n else "replay", "target": "{}", "reason": None,
                "result": '{"done": true}',
            },
        )  # fmt: skip

    async def found(**filter_: str) -> list[uuid.UUID]:
        rows = (await store.audit(AuditFilter(**filter_), None)).rows
        return [row["act_id"] for row in rows]

    assert await found() == acts
    assert await found(who="Ola") == acts[:2]
    assert await found(act="pause") == acts[1:]
    assert await found(since="90m") == acts[:2]
    behind = await store.audit(AuditFilter(), (now, acts[0]))
    assert [row["act_id"] for row in behind.rows] == acts[1:]
    row = await store.act(acts[0])
    assert row is not None
    assert row["result"] == {"done": True}


async def test_no_page_reads_the_whole_ledger(tables: Tables) -> None:
    """With many rows that were saved, the overview and the lists use the indices."""
    await tables.owner.execute("select afterwrite.ensure_ledger_period($1)", PERIOD)
    await tables.many_saved(20_000)
    await tables.owner.execute("analyze afterwrite.ledger")
    top, bottom = uuid.UUID(int=(1 << 128) - 1), uuid.UUID(int=0)
    wanted: list[tuple[str, tuple[Any, ...]]] = [
        (statements.LATENCY, ()),
        (statements.COMMAND, (new_id(),)),
        (statements.PARKED, ()),
    ]
    for state in statements.STATES:
        args = (top, bottom, None, None, None, 51)
        wanted.append((statements.commands(state, author=False), args))
    wanted.append((statements.commands("", author=True), (top, bottom, ADA, None, None, 51)))
    await tables.owner.execute("begin")
    for statement, args in wanted:
        plan = "\n".join(row[0] for row in await tables.owner.fetch(f"explain {statement}", *args))
        # What is in the default partition is nothing here: reading that is cheaper than any index.
        assert f"Seq Scan on ledger_{PERIOD:%Y%m}" not in plan, plan
    for state in ("rejected", "parked", "duplicate"):
        statement = statements.commands(state, author=False)
        plan = str(await tables.owner.fetch(f"explain {statement}", top, bottom, *[None] * 3, 51))
        unsaved = f"ledger_{PERIOD:%Y%m}_command_id_idx"
        assert f"Index Scan Backward using {unsaved}" in plan or f"Scan on {unsaved}" in plan, plan
