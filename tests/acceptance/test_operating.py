"""Operators work with the real program on a real site: exit codes, JSON, counts before what is done."""

import csv
import io
import json
import signal
import uuid
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from schema.acts import Act, Letters, Operator, seal_act
from schema.identifiers import new_id
from tests.acceptance.helpers import Site, down
from tests.commands import KEYRING, author, command, create, publish, topic_with_post
from tests.installation import Installation, eventually_async
from tests.operation import Program, act, decided, sent

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(120)]
ADA, BEN = author("ada"), author("ben")


@pytest.fixture
async def written(installation: Installation) -> Installation:
    """An installation with a writer, and three letters: two of ada's, one of ben's."""
    await installation.start("writer").ready()
    await sent(
        installation,
        command(ADA, *topic_with_post(title="")),
        command(ADA, create("topic", title="x" * 301)),
        command(BEN, create("topic", title="")),
        command(BEN, *topic_with_post(title="A good one")),
    )
    return installation


@pytest.fixture
def run(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> Program:
    return Program(installation, monkeypatch)


def _lines(printed: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in printed.splitlines()]


async def test_letters_are_listed_grouped_shown_and_exported(
    written: Installation, run: Program, tmp_path: Path
) -> None:
    listed = _lines((await run("dead", "list", "--json")).stdout)
    assert [(x["letter"], x["code"], x["author"]) for x in listed] == [
        ("0:0", "invalid", "ada"),
        ("0:1", "invalid", "ada"),
        ("0:2", "invalid", "ben"),
    ]
    limited = await run("dead", "list", "--limit", "1", "--author", "ada", "--type", "topic")
    assert (limited.returncode, limited.stdout.split()[0]) == (0, "0:0")
    assert "The first 1 of 2" in limited.stderr
    assert (
        await run("dead", "list", "--since", "2026-01-01T00:00:00Z", "--until", "1d")
    ).stdout == ("No dead letters.\n")
    (group,) = _lines((await run("dead", "groups", "--json")).stdout)
    assert (group["code"], group["type"], group["count"], group["sample"]) == (
        "invalid", "topic", 3, "0:0",
    )  # fmt: skip
    shown = await run("dead", "peek", listed[1]["command_id"])
    assert f'title = "{"x" * 301}"' in shown.stdout
    raw = (await run("dead", "peek", "0:1", "--raw")).stdout
    assert json.loads(raw)["mutations"][0]["values"]["title"] == "x" * 301
    whole = json.loads((await run("dead", "peek", "0:1", "--json")).stdout)
    (exported,) = _lines((await run("dead", "export", "0:1")).stdout)
    assert exported == whole
    target = tmp_path / "letters.csv"
    assert (await run("dead", "export", "--csv", "--output", str(target))).stdout.startswith(
        "3 dead"
    )
    rows = list(csv.DictReader(io.StringIO(target.read_text(encoding="utf-8"))))
    assert [row["letter"] for row in rows] == ["0:0", "0:1", "0:2"]


async def test_nothing_is_done_that_was_not_meant(written: Installation, run: Program) -> None:
    """Usage is 2, a negative answer 1, unreachable servers 3; who is not asked must say --yes."""
    for wrong in (
        ("replay",),
        ("replay", "0:77", "--yes"),
        ("replay", "what", "--yes"),
        ("replay", "0:0"),
        ("replay", "0:0", "--rate", "0", "--yes"),
        ("replay", "--since", "tomorrow", "--yes"),
        ("discard", "0:0", "--yes"),
        ("edit", "0:0", "--yes"),
        ("edit", "0:0", "--values", "[", "--yes"),
        ("list", "--limit", "0"),
    ):
        answer = await run("dead", *wrong)
        assert answer.returncode == 2, (wrong, answer.stdout, answer.stderr)
    assert (await run("dead", "edit", "0:1", "--set", "title=", "--yes")).returncode == 1
    assert len(_lines((await run("dead", "list", "--json")).stdout)) == 3
    begun = "SELECT count(*) FROM afterwrite.dead_letter WHERE replay_id IS NOT NULL"
    assert await written.value(begun) == 0
    written.extra["AFTERWRITE_WRITER_DATABASE_URL"] = "postgresql://x@127.0.0.1:9/x"
    assert (await run("dead", "list")).returncode == 3
    del written.extra["AFTERWRITE_WRITER_DATABASE_URL"]
    written.extra["AFTERWRITE_KAFKA_BOOTSTRAP"] = "127.0.0.1:9"
    answer = await run("dead", "edit", "0:1", "--set", "title=Short", "--yes")
    assert (answer.returncode, "same command again" in answer.stderr) == (3, True)
    del written.extra["AFTERWRITE_KAFKA_BOOTSTRAP"]
    completed = await run("dead", "edit", "0:1", "--set", "title=Short", "--yes")
    assert completed.returncode == 0, completed.stdout + completed.stderr


async def test_a_round_from_the_terminal(written: Installation, run: Program) -> None:
    dry = await run("dead", "edit", "0:0", "--set", "title=Mended", "--dry-run")
    assert dry.stdout == (
        "1 dead letter.\n0:0 would be saved\nA dry run: nothing was changed.\n"
    )  # fmt: skip
    done = await run("dead", "edit", "0:0", "--set", "0.title=Mended", "--yes", "--by", "olga")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("1 replayed, 1 saved.\n")
    again = await run("dead", "replay", "--code", "invalid", "--yes", "--json", "--rate", "20")
    assert again.returncode == 1, "they are as bad as before"
    assert [step["outcome"] for step in _lines(again.stdout)] == ["rejected", "rejected"]
    letters = _lines((await run("dead", "list", "--json")).stdout)
    gone = await run("dead", "discard", "--all", "--reason", "spam", "--yes", "--by", "olga")
    assert (
        gone.stdout
        == "2 dead letters.\n"
        + "".join(f"{x['letter']} discarded\n" for x in letters)
        + "2 discarded.\n"
    )
    log = _lines((await run("dead", "log", "--json")).stdout)
    assert [(e["act"], e["who"], e["reason"]) for e in log[:1]] == [("discard", "olga", "spam")]
    life = json.loads((await run("command", "show", letters[0]["command_id"], "--json")).stdout)
    told = [m["what"] for m in life["moments"] if "settled" not in m["what"]]
    assert sorted(told) == [
        "accepted", "dead letter", "decided", "discarded", "made", "notice", "replay of",
    ]  # fmt: skip
    assert json.loads((await run("audit", "--json")).stdout)["clean"]


async def test_a_command_is_shown_wherever_it_is(written: Installation, run: Program) -> None:
    good = await written.value("SELECT command_id FROM afterwrite.ledger WHERE outcome = 'saved'")
    life = json.loads((await run("command", "show", str(good), "--json")).stdout)
    assert life["state"] == "saved"
    assert [m["what"] for m in life["moments"]][:3] == ["made", "accepted", "decided"]
    assert (await run("command", "show", str(new_id()))).returncode == 1
    assert (await run("command", "show", "42")).returncode == 2
    assert (await run("writer", "pause", "--reason", "a look", "--yes")).returncode == 0
    waiting = command(BEN, create("topic", title="waits"))
    log_id = await written.value("SELECT log_id FROM afterwrite.lane")
    from tests.commands import sealed

    topic = f"{written.name}.commands"
    await publish(written.services.kafka_bootstrap, topic, [sealed(waiting, log_id)])
    shown = await run("command", "show", str(waiting.command_id))
    assert "pending" in shown.stdout.splitlines()[0], shown.stdout + shown.stderr
    assert "in the log, waiting" in shown.stdout


async def test_outcomes_are_followed(written: Installation, run: Program) -> None:
    told = _lines((await run("tail", "--since", "1h", "--limit", "4", "--json")).stdout)
    assert [m["outcome"] for m in told] == ["rejected", "rejected", "rejected", "saved"]
    bens = (await run("tail", "--since", "1h", "--limit", "1", "--user", "ben")).stdout
    assert bens.split()[2] == "rejected"
    saved = (await run("tail", "--since", "1h", "--limit", "1", "--state", "saved")).stdout
    assert "create user, create topic, create post" in saved


async def test_acts_of_the_page_are_done_by_the_writer_once_and_told(
    written: Installation,
    run: Program,
) -> None:
    """Signed acts on the acts topic; also while every lane is halted."""
    await written.fetch("UPDATE afterwrite.lane SET halted = 'a test'")
    olga = Operator(uuid.uuid4(), "Olga", ("operator",))
    paused = act("pause", who=olga, reason="from the page")
    discarded = act("discard", (0, 0), who=olga, reason="spam")
    refused = act("discard", (0, 1), who=Operator(uuid.uuid4(), "Vic", ("viewer",)), reason="x")
    late = Act(new_id(), "discard", olga, paused.at.replace(year=2020), "late", Letters(((0, 2),)))
    dry = act("discard", (0, 2), who=olga, reason="no", dry_run=True)
    orders = [paused, discarded, refused, late, dry, discarded]
    records = [seal_act(one, KEYRING, "/test") for one in orders]
    forged = records[1].__class__(records[1].key, records[1].value + b" ", records[1].headers)
    topic = f"{written.name}.acts"
    await publish(written.services.kafka_bootstrap, topic, [forged, *records], lane=0)

    async def done() -> bool:
        return bool(await written.value("SELECT count(*) FROM afterwrite.audit_log") == 4)

    await eventually_async(done, 20, "the acts to be done")
    assert await written.value("SELECT paused FROM afterwrite.lane") == "from the page (Olga)"
    query = 'SELECT "offset" FROM afterwrite.dead_letter WHERE closed IS NOT NULL'
    closed = await written.fetch(query)
    assert [row["offset"] for row in closed] == [0]
    told = _lines(
        (await run("tail", "--since", "1h", "--state", "act", "--limit", "6", "--json")).stdout
    )
    assert {(m["act_id"], m["ok"]) for m in told} == {
        (str(paused.act_id), True),
        (str(discarded.act_id), True),
        (str(refused.act_id), False),
        (str(late.act_id), False),
        (str(dry.act_id), True),
    }
    (entry,) = await written.fetch(
        "SELECT result FROM afterwrite.audit_log WHERE act_id = $1", late.act_id
    )
    assert "expired" in json.loads(entry["result"])["why"]
    went_on = await run("lane", "resume", "0", "--by", "olga")
    assert (went_on.returncode, "a test" in went_on.stdout) == (0, True)
    resumed = await run("writer", "resume")
    assert (resumed.returncode, "from the page" in resumed.stdout) == (0, True)
    assert (await run("writer", "resume")).returncode == 1
    await sent(written, command(ADA, create("topic", title="it goes on")))


async def test_replays_ordered_by_the_page_are_taken_up_by_another_writer(
    written: Installation,
) -> None:
    """The executor is frozen in the middle of an act; the next one goes on with it, and what the first
    one thinks when it wakes up changes nothing."""
    await written.fetch("ALTER TABLE topic ADD CONSTRAINT t CHECK (title <> 'twice')")
    await sent(written, *(command(ADA, create("topic", title="twice")) for _ in range(3)))
    await written.fetch("ALTER TABLE topic DROP CONSTRAINT t")
    ordered = act("replay", letters=Letters(code="check_violation", limit=10), rate=2)
    topic = f"{written.name}.acts"
    record = seal_act(ordered, KEYRING, "/test")
    await publish(written.services.kafka_bootstrap, topic, [record], lane=0)
    first = "SELECT min(replay_id::text) FROM afterwrite.dead_letter WHERE closed IS NOT NULL"

    async def begun() -> bool:
        return await written.value(first) is not None

    await eventually_async(begun, 20, "the first letter to be replayed")
    written.processes["writer"].signal(signal.SIGSTOP)
    assert await written.value(
        "SELECT result->'done' FROM afterwrite.audit_log WHERE act_id = $1", ordered.act_id
    ) == "false"  # fmt: skip
    written.start("writer", "second")

    async def done() -> bool:
        query = "SELECT result->'done' FROM afterwrite.audit_log WHERE act_id = $1"
        return bool(await written.value(query, ordered.act_id) == "true")

    await eventually_async(done, 40, "the act to be done")
    written.processes["writer"].signal(signal.SIGCONT)
    await written.processes["writer"].logged("acts_wait")
    assert await done()
    query = "SELECT replay_id FROM afterwrite.dead_letter WHERE closed = 'replayed'"
    replays = await written.fetch(query)
    assert len(replays) == 3
    for row in replays:
        assert await decided(written, row["replay_id"]) == "saved"
    assert await written.value("SELECT count(*) FROM topic WHERE title = 'twice'") == 3


async def test_an_act_waits_while_postgresql_is_away(written: Installation) -> None:
    ordered = act("discard", (0, 0), reason="spam")
    record = seal_act(ordered, KEYRING, "/test")
    with down(written.services, "postgres"):
        await written.processes["writer"].logged("database_unavailable")
        await publish(written.services.kafka_bootstrap, f"{written.name}.acts", [record], lane=0)

    async def done() -> bool:
        query = "SELECT count(*) FROM afterwrite.dead_letter WHERE closed = 'discarded'"
        try:
            return bool(await written.value(query) == 1)
        except (OSError, asyncpg.PostgresError):
            return False  # not quite back

    await eventually_async(done, 30, "the act to be done")


async def test_while_the_writer_is_paused_changes_are_accepted_and_saved_afterwards(
    installation: Installation,
    run: Program,
) -> None:
    async with Site(installation) as site:
        await site.start()
        assert (await run("writer", "pause", "--reason", "x", "--yes")).returncode == 0
        sent_while = await site.accepted("ada", "written during the pause")
        status = await run("status", "--json")
        report = json.loads(status.stdout)
        assert (status.returncode, report["healthy"], report["pending"]) == (1, False, 1)
        assert report["lanes"][0]["paused"].startswith("x (")
        assert report["oldest_pending_s"] >= 0
        watched = await run("status", "--watch", "--looks", "2", "--every", "0.2")
        assert watched.returncode == 1
        assert "lane 0 is paused: x (" in watched.stdout
        assert "0.0 applied/s, 0.0 settled/s, not draining" in watched.stdout
        assert (await run("writer", "resume")).returncode == 0
        assert await decided(installation, sent_while.command) == "saved"
        await site.prove()
