"""`afterwrite audit`: clean on what the writer leaves, and it finds each planted fault, only that."""

import asyncio
import json
import re
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import asyncpg
import pytest
import pytest_asyncio

from schema.catalog import load_catalog
from schema.identifiers import new_command_id, new_row_id, user_id_for
from writer.audit import CannotConnect, Report, audit
from writer.audit import findings as findings_module
from writer.audit_command import audit_with

pytestmark = pytest.mark.integration

CATALOG = load_catalog("schema.forum")
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
Values = dict[str, Any]


class Database(Protocol):
    """What the fixture `database` gives."""

    owner_url: str
    frontend_url: str


class Site:
    """Writes ledger and content as the writer does, one command at a time, in one lane."""

    def __init__(self, url: str, connection: asyncpg.Connection) -> None:
        self.url = url
        self.sql = connection
        self.offset = 0
        self.seq = 0
        self.epoch = 1
        self.author = user_id_for("ann")

    async def audit(self) -> Report:
        return await audit(self.url, CATALOG)

    async def codes(self) -> list[str]:
        """The codes of all findings, in order."""
        return [finding.code for finding in (await self.audit()).findings]

    async def command(self, *changes: tuple[str, str, Values]) -> uuid.UUID:
        """Saves one command of (op, type, row) changes; rows are whole, as they are afterwards."""
        for change in changes:
            await self.apply(*change)
        return await self.ledger("saved", effects=[effect(*change) for change in changes])

    async def apply(self, op: str, type_: str, row: Values) -> None:
        kind = CATALOG[type_]
        table, columns = f'public."{type_}"', kind.written_columns
        names = ", ".join(f'"{name}"' for name in columns)
        if op == "delete":
            await self.sql.execute(f"DELETE FROM {table} WHERE id = $1", row["id"])
        if op == "create":
            places = ", ".join(f"${n}" for n in range(1, len(columns) + 1))
            await self.sql.execute(
                f"INSERT INTO {table} ({names}) VALUES ({places})", *(row[n] for n in columns)
            )
        if op == "update":
            places = ", ".join(f'"{name}" = ${n}' for n, name in enumerate(columns, 1))
            await self.sql.execute(
                f"UPDATE {table} SET {places} WHERE id = $1", *(row[n] for n in columns)
            )
        if op != "update":
            for ref, column in kind.model.counted_in.items():
                parent = CATALOG.parent(kind, ref)
                await self.sql.execute(
                    f'UPDATE public."{parent.name}" SET "{column}" = "{column}" + $2 WHERE id = $1',
                    row[ref],
                    1 if op == "create" else -1,
                )

    async def ledger(
        self,
        outcome: str,
        *,
        effects: Sequence[Values] = (),
        command_id: uuid.UUID | None = None,
        duplicate_of: uuid.UUID | None = None,
    ) -> uuid.UUID:
        """One ledger row at the next offset, and the lane moved behind it."""
        command = command_id or new_command_id()
        self.seq += 1
        await self.sql.execute(
            """
            INSERT INTO afterwrite.ledger (lane, "offset", period, seq, epoch, outcome, command_id,
                author_id, stream, accepted_at, decided_at, effects, duplicate_of)
            VALUES (0, $1, '2026-03-01', $2, $3, $4, $5, $6, $5, $7, $7, $8, $9)
            """,
            *(self.offset, self.seq, self.epoch, outcome),
            *(None if outcome == "dead" else command, self.author, NOW),
            *(json.dumps(effects), duplicate_of),
        )
        self.offset += 1
        await self.sql.execute(
            "UPDATE afterwrite.lane SET position = $1, epoch = $2, outcome_seq = $3",
            *(self.offset, self.epoch, self.seq),
        )
        return command

    async def rejected(self) -> uuid.UUID:
        command = new_command_id()
        told = notice(self.author, command)
        await self.apply("create", "notice", told)
        effects = [effect("create", "notice", told)]
        await self.ledger("rejected", effects=effects, command_id=command)
        await self.dead_letter(command)
        return command

    async def dead_letter(self, command: uuid.UUID | None) -> None:
        await self.sql.execute(
            """
            INSERT INTO afterwrite.dead_letter
                (lane, "offset", command_id, headers, code, detail, died_at)
            VALUES (0, $1, $2, '[]', 'forbidden', 'no', $3)
            """,
            *(self.offset - 1, command, NOW),
        )

    async def parked(self) -> uuid.UUID:
        command = await self.ledger("parked")
        await self.sql.execute(
            """
            INSERT INTO afterwrite.parked (lane, "offset", period, stream, command_id, key, value,
                headers, code, parked_at, retry_at)
            VALUES (0, $1, '2026-03-01', $2, $2, '', '', '[]', 'target_missing', $3, $3)
            """,
            *(self.offset - 1, command, NOW),
        )
        return command


def effect(op: str, type_: str, row: Values) -> Values:
    """What the ledger keeps of one change."""
    kind = CATALOG[type_]
    return {
        "type": type_,
        "id": str(row["id"]),
        "op": op,
        "version": row["version"],
        "digest": None if op == "delete" else kind.digest(row),
        "parents": [str(id_) for _, _, id_ in kind.parents_of(row)],
    }


def standard(**fields: Any) -> Values:
    return {"id": new_row_id(), "version": 1, "created_at": NOW, "updated_at": NOW} | fields


def user(name: str) -> Values:
    return standard(id=user_id_for(name), name=name, banned=False, moderator=False)


def topic(author: uuid.UUID) -> Values:
    return standard(author_id=author, title="Grind", locked=False)


def post(author: uuid.UUID, of: Values, body: str = "Fine.") -> Values:
    return standard(topic_id=of["id"], author_id=author, reply_to=None, body=body)


def reaction(author: uuid.UUID, to: Values) -> Values:
    return standard(post_id=to["id"], author_id=author, emoji="☕")


def notice(author: uuid.UUID, command: uuid.UUID) -> Values:
    values = {"user_id": author, "kind": "rejected", "command_id": command, "code": "forbidden"}
    return standard(**values, detail="no", returned='{"mutations": []}', read=False)


class Filled(Site):
    """A site with some content of every kind and every outcome."""

    topic: Values
    first: Values
    second: Values
    reaction: Values
    topic_command: uuid.UUID

    async def fill(self) -> None:
        author = self.author
        self.topic = topic(author)
        self.first = post(author, self.topic)
        self.second = post(author, self.topic, "Coarse, für den Filter ☕.\n")
        self.topic_command = await self.command(
            ("create", "user", user("ann")),
            ("create", "topic", self.topic),
            ("create", "post", self.first),
        )
        await self.command(("create", "post", self.second))
        self.reaction = reaction(author, self.second)
        await self.command(("create", "reaction", self.reaction))
        edited = self.second | {"version": 2, "body": "Finer."}
        await self.command(("update", "post", edited))
        await self.ledger("duplicate", duplicate_of=self.topic_command)
        await self.rejected()
        await self.ledger("dead")
        await self.dead_letter(None)
        await self.parked()
        await self._topic_that_vanishes()
        self.epoch = 2
        await self.command(("create", "user", user("bob")))

    async def _topic_that_vanishes(self) -> None:
        """Deleting a topic takes its posts and their reactions along, without effects of theirs."""
        gone = topic(self.author)
        below = post(self.author, gone)
        await self.command(("create", "topic", gone), ("create", "post", below))
        await self.command(("create", "reaction", reaction(self.author, below)))
        await self.command(("delete", "topic", gone))


@pytest_asyncio.fixture
async def site(database: Database) -> AsyncIterator[Filled]:
    connection = await asyncpg.connect(database.owner_url)
    filled = Filled(database.owner_url, connection)
    await filled.fill()
    yield filled
    await connection.close()


async def test_an_empty_database_is_clean(database: Database) -> None:
    report = await audit(database.owner_url, CATALOG)
    assert report.clean
    assert report.to_json()["findings"] == []


async def test_what_the_writer_leaves_is_clean(site: Filled) -> None:
    report = await site.audit()
    assert report.findings == []
    assert (report.ledger_rows, report.unverifiable) == (site.offset, 0)
    assert report.content_rows == 7  # 2 users, 1 topic, 2 posts, 1 reaction, 1 notice


async def test_a_missing_row_is_found(site: Filled) -> None:
    await site.sql.execute("DELETE FROM public.reaction")
    await site.sql.execute("UPDATE public.post SET reaction_count = 0")
    (finding,) = (await site.audit()).findings
    assert (finding.code, finding.type) == ("row_missing", "reaction")
    assert (finding.lane, finding.offset, finding.id) == (0, 2, site.reaction["id"])


async def test_rows_missing_below_a_missing_row_are_found(site: Filled) -> None:
    await site.sql.execute("DELETE FROM public.topic")
    assert sorted(await site.codes()) == ["row_missing"] * 4


async def test_a_row_that_is_there_twice_is_found(site: Filled) -> None:
    await site.sql.execute("ALTER TABLE public.reaction DROP CONSTRAINT reaction_pkey")
    await site.sql.execute("INSERT INTO public.reaction SELECT * FROM public.reaction")
    (finding,) = (await site.audit()).findings
    assert (finding.code, finding.id) == ("row_double", site.reaction["id"])


@pytest.mark.parametrize(
    "change",
    [
        "body = body || ' '",
        "body = upper(body)",
        "reply_to = id",
        "author_id = (SELECT id FROM public.\"user\" WHERE name = 'bob')",
        "version = version + 1",
    ],
)
async def test_a_changed_row_is_found(site: Filled, change: str) -> None:
    await site.sql.execute(f"UPDATE public.post SET {change} WHERE id = $1", site.second["id"])
    (finding,) = (await site.audit()).findings
    assert (finding.code, finding.offset, finding.id) == ("row_changed", 3, site.second["id"])


async def test_a_row_without_ledger_entry_is_found(site: Filled) -> None:
    extra = user("eve")
    await site.apply("create", "user", extra)
    (finding,) = (await site.audit()).findings
    assert (finding.code, finding.type, finding.id) == ("row_unknown", "user", extra["id"])


async def test_a_notice_of_no_rejection_is_found(site: Filled) -> None:
    await site.apply("create", "notice", notice(site.author, site.topic_command))
    assert await site.codes() == ["row_unknown"]


async def test_a_notice_that_was_read_in_another_lane_is_clean(site: Filled) -> None:
    """It is made in the lane of the rejected command, and changed in its own: the version is the order."""
    row = dict((await site.sql.fetch("SELECT * FROM public.notice"))[0])
    read = row | {"version": 2, "read": True}
    await site.apply("update", "notice", read)
    await site.sql.execute(
        "INSERT INTO afterwrite.lane (lane, log_id, position, epoch, outcome_seq) "
        "VALUES (1, gen_random_uuid(), 1, 1, 1)"
    )
    await site.sql.execute(
        """
        INSERT INTO afterwrite.ledger (lane, "offset", period, seq, epoch, outcome, command_id,
            author_id, stream, accepted_at, decided_at, effects)
        VALUES (1, 0, '2026-03-01', 1, 1, 'saved', $1, $2, $3, $4, $4, $5)
        """,
        *(new_command_id(), site.author, row["id"], NOW),
        json.dumps([effect("update", "notice", read)]),
    )
    assert await site.codes() == []
    await site.sql.execute("DELETE FROM public.notice")
    assert await site.codes() == ["row_missing"]


async def test_a_notice_that_was_added_to_by_a_later_rejection_is_clean(site: Filled) -> None:
    row = dict((await site.sql.fetch("SELECT * FROM public.notice"))[0])
    more = row | {"version": 2, "detail": "no\n1 more"}
    await site.apply("update", "notice", more)
    command = await site.ledger("rejected", effects=[effect("update", "notice", more)])
    await site.dead_letter(command)
    assert await site.codes() == []
    await site.apply("update", "notice", row)
    assert await site.codes() == ["row_changed"]


async def test_a_deleted_row_that_is_there_is_found(site: Filled) -> None:
    bob = user("bob")
    await site.command(("delete", "user", bob))
    assert await site.codes() == []
    await site.apply("create", "user", bob)
    assert await site.codes() == ["row_undeleted"]


async def test_a_row_made_again_after_its_deletion_is_clean(site: Filled) -> None:
    await site.command(("delete", "reaction", site.reaction))
    assert await site.codes() == []
    await site.command(("create", "reaction", site.reaction))
    assert await site.codes() == []


async def test_a_row_made_after_its_parent_was_deleted_and_made_again_must_be_there(
    site: Filled,
) -> None:
    """The old deletion of a parent excuses only rows that were older than it."""
    await site.command(("delete", "post", site.second))
    await site.command(("create", "post", site.second))
    later = reaction(site.author, site.second)
    await site.command(("create", "reaction", later))
    assert await site.codes() == []
    await site.sql.execute("DELETE FROM public.reaction WHERE id = $1", later["id"])
    await site.sql.execute("UPDATE public.post SET reaction_count = 0")
    assert await site.codes() == ["row_missing"]


async def test_a_wrong_counter_is_found(site: Filled) -> None:
    await site.sql.execute("UPDATE public.topic SET post_count = 3")
    (finding,) = (await site.audit()).findings
    assert (finding.code, finding.type, finding.id) == ("counter_wrong", "topic", site.topic["id"])
    assert "3" in finding.text
    assert "2" in finding.text


@pytest.mark.parametrize(("first", "last"), [(0, 0), (4, 4), (4, 6), (12, 12)])
async def test_a_gap_in_the_ledger_is_found(site: Filled, first: int, last: int) -> None:
    """Also at the beginning and at the end of what must be there."""
    for _ in range(3 - (site.offset - 10)):
        await site.ledger("dead")
        await site.dead_letter(None)
    await site.sql.execute(
        'DELETE FROM afterwrite.ledger WHERE "offset" BETWEEN $1 AND $2', first, last
    )
    gaps = [f for f in (await site.audit()).findings if f.code == "ledger_gap"]
    assert [(f.lane, f.offset) for f in gaps] == [(0, first)]
    assert re.search(rf"\b{last}\b", gaps[0].text)


async def test_a_gap_alone_is_the_only_finding(site: Filled) -> None:
    dead = 6
    await site.sql.execute('DELETE FROM afterwrite.ledger WHERE "offset" = $1', dead)
    assert await site.codes() == ["ledger_gap"]


async def test_an_empty_ledger_below_the_position_is_one_gap(database: Database) -> None:
    connection = await asyncpg.connect(database.owner_url)
    await connection.execute("UPDATE afterwrite.lane SET position = 5")
    await connection.close()
    (finding,) = (await audit(database.owner_url, CATALOG)).findings
    assert "0 to 4" in finding.text


async def test_an_offset_with_two_ledger_rows_is_found(site: Filled) -> None:
    await site.sql.execute("ALTER TABLE afterwrite.ledger DROP CONSTRAINT ledger_pkey")
    await site.sql.execute(
        'INSERT INTO afterwrite.ledger SELECT * FROM afterwrite.ledger WHERE "offset" = 6'
    )
    (finding,) = (await site.audit()).findings
    assert (finding.code, finding.offset) == ("ledger_double", 6)


async def test_the_same_offset_in_two_periods_is_found(site: Filled) -> None:
    """No constraint refuses this one: the period is part of the primary key."""
    await site.sql.execute(
        """
        INSERT INTO afterwrite.ledger (lane, "offset", period, seq, epoch, outcome, decided_at)
        VALUES (0, 6, '2026-04-01', 7, 1, 'dead', now());
        """
    )
    assert "ledger_double" in await site.codes()


async def test_a_ledger_row_beyond_the_position_is_found(site: Filled) -> None:
    await site.sql.execute("UPDATE afterwrite.lane SET position = position - 1")
    assert await site.codes() == ["ledger_beyond_position"]


async def test_a_ledger_row_of_an_unknown_lane_is_found(site: Filled) -> None:
    await site.ledger("duplicate", duplicate_of=site.topic_command)
    await site.sql.execute(
        'UPDATE afterwrite.ledger SET lane = 7 WHERE "offset" = $1', site.offset - 1
    )
    await site.sql.execute("UPDATE afterwrite.lane SET position = position - 1")
    assert await site.codes() == ["ledger_lane_unknown"]


async def test_a_command_that_took_effect_twice_is_found(site: Filled) -> None:
    await site.sql.execute("DROP INDEX afterwrite.ledger_command")
    await site.ledger("saved", command_id=site.topic_command)
    (finding,) = (await site.audit()).findings
    assert (finding.code, finding.offset) == ("command_twice", 0)


async def test_a_duplicate_of_nothing_is_found(site: Filled) -> None:
    await site.ledger("duplicate", duplicate_of=uuid.uuid4())
    await site.ledger("duplicate")
    assert await site.codes() == ["duplicate_dangling"] * 2


async def test_an_epoch_that_goes_back_is_found(site: Filled) -> None:
    site.epoch = 1
    await site.ledger("duplicate", duplicate_of=site.topic_command)
    await site.sql.execute("UPDATE afterwrite.lane SET epoch = 2")
    (finding,) = (await site.audit()).findings
    assert (finding.code, finding.offset) == ("epoch_backwards", site.offset - 1)


async def test_an_epoch_that_the_lane_has_not_reached_is_found(site: Filled) -> None:
    await site.sql.execute("UPDATE afterwrite.lane SET epoch = 1")
    assert await site.codes() == ["epoch_backwards"]


async def test_a_parked_command_saved_under_a_later_epoch_is_clean(site: Filled) -> None:
    await site.sql.execute(
        """
        UPDATE afterwrite.ledger SET outcome = 'saved', epoch = 2, seq = $1
        WHERE outcome = 'parked'
        """,
        site.seq + 1,
    )
    await site.sql.execute("DELETE FROM afterwrite.parked")
    assert await site.codes() == []


@pytest.mark.parametrize("outcome", ["rejected", "parked", "dead", "duplicate"])
async def test_effects_of_what_was_not_saved_are_found(site: Filled, outcome: str) -> None:
    await site.sql.execute(
        """UPDATE afterwrite.ledger SET effects = effects || '[{"type": "post"}]' WHERE outcome = $1""",
        outcome,
    )
    assert await site.codes() == ["effects_without_saving"]


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("DELETE FROM afterwrite.dead_letter WHERE command_id IS NULL", "dead_letter_missing"),
        ("DELETE FROM afterwrite.dead_letter WHERE command_id IS NOT NULL", "dead_letter_missing"),
        (
            'INSERT INTO afterwrite.dead_letter (lane, "offset", headers, code, detail, died_at) '
            "SELECT lane, min(\"offset\"), '[]', 'x', 'x', now() FROM afterwrite.ledger "
            "WHERE outcome = 'saved' GROUP BY 1",
            "dead_letter_unknown",
        ),
        (
            "UPDATE afterwrite.dead_letter SET closed = 'replayed', closed_at = now(), "
            "replay_id = gen_random_uuid(), replay_lane = 0, replay_offset = 1 "
            "WHERE command_id IS NOT NULL",
            "replay_missing",
        ),
        (
            "UPDATE afterwrite.ledger SET effects = '[]' WHERE outcome = 'rejected'; "
            "DELETE FROM public.notice",
            "notice_missing",
        ),
        ("DELETE FROM public.notice", "row_missing"),
        ("UPDATE public.notice SET command_id = gen_random_uuid()", "row_changed"),
        ("DELETE FROM afterwrite.parked", "parked_missing"),
        (
            "UPDATE afterwrite.ledger SET outcome = 'saved' WHERE outcome = 'parked'",
            "parked_unknown",
        ),
    ],
)
async def test_what_a_failure_leaves_behind_must_be_there(
    site: Filled, statement: str, code: str
) -> None:
    await site.sql.execute(statement)
    assert await site.codes() == [code]


async def test_a_replay_is_in_the_ledger_or_still_to_come(site: Filled) -> None:
    letters = "WHERE command_id IS NOT NULL"
    await site.sql.execute(
        "UPDATE afterwrite.dead_letter SET closed = 'replayed', closed_at = now(), replay_lane = 0, "
        "replay_id = gen_random_uuid(), replay_offset = (SELECT position FROM afterwrite.lane) "
        + letters
    )
    assert await site.codes() == [], "the lane has not come so far"
    await site.sql.execute(f"UPDATE afterwrite.dead_letter SET replay_offset = NULL {letters}")
    report = await site.audit()
    assert (report.findings, report.unverifiable) == ([], 1), "Kafka had not told the place"
    await site.sql.execute(
        "UPDATE afterwrite.dead_letter SET replay_offset = 1, replay_id = (SELECT command_id "
        f"FROM afterwrite.ledger WHERE outcome = 'saved' ORDER BY \"offset\" LIMIT 1) {letters}"
    )
    assert await site.codes() == []


async def test_a_trimmed_ledger_leaves_rows_unverifiable_but_not_wrong(site: Filled) -> None:
    await site.sql.execute('DELETE FROM afterwrite.ledger WHERE "offset" < 2')
    await site.sql.execute("UPDATE afterwrite.lane SET ledger_from = 2")
    report = await site.audit()
    assert report.findings == []
    # A user, a topic and its first post, and the duplicate of the command that had made them. The
    # second post was edited later, so it can be checked still.
    assert report.unverifiable == 4


async def test_findings_beyond_the_limit_are_counted_only(
    site: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(findings_module, "KEPT", 2)
    await site.sql.execute("DELETE FROM public.topic")
    report = await site.audit()
    assert (len(report.findings), report.total) == (2, 4)


async def test_no_database_is_told_apart_from_findings() -> None:
    with pytest.raises(CannotConnect):
        await audit("postgresql://nobody@127.0.0.1:1/none", CATALOG)


def test_the_exit_code_of_an_unreachable_database(capsys: pytest.CaptureFixture[str]) -> None:
    url = "postgresql://nobody:hidden@127.0.0.1:1/none"
    assert audit_with({"AFTERWRITE_DATABASE_URL": url}, as_json=False) == 3
    assert "hidden" not in capsys.readouterr().err


async def test_the_command_reports_findings_as_json(
    site: Filled, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = {"AFTERWRITE_DATABASE_URL": site.url}
    assert await asyncio.to_thread(audit_with, environment, as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["clean"] is True
    await site.sql.execute("UPDATE public.topic SET post_count = 3")
    assert await asyncio.to_thread(audit_with, environment, as_json=True) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["counts"] == {"counter_wrong": 1}
    assert report["findings"][0]["id"] == str(site.topic["id"])
    assert await asyncio.to_thread(audit_with, environment, as_json=False) == 1
    assert f"counter_wrong: topic {site.topic['id']}: post_count is 3" in capsys.readouterr().out


async def test_a_role_that_may_not_read_everything_is_a_usage_error(
    site: Filled, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    await site.sql.execute("REVOKE SELECT ON afterwrite.dead_letter FROM afterwrite_frontend")
    environment = {"AFTERWRITE_DATABASE_URL": database.frontend_url}
    assert await asyncio.to_thread(audit_with, environment, as_json=False) == 2
    assert "owner" in capsys.readouterr().err


def test_missing_settings_are_a_usage_error() -> None:
    assert audit_with({}, as_json=False) == 2
