"""Dead letters mended, replayed and discarded; lanes paused: on real servers, with the real writer."""

import asyncio
import json
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from schema.acts import Letters, Operator, Place
from schema.commands import Command, Mutation
from schema.identifiers import new_command_id, new_row_id
from tests.commands import author, command, create, delete, topic_with_post, update
from tests.installation import Installation, Running
from tests.operation import act, applied, decided, sent, tools_of
from writer.operation import audit_log
from writer.operation.letters import count, find, groups, named
from writer.operation.perform import Tools, perform
from writer.operation.replaying import Replaying

pytestmark = [pytest.mark.integration, pytest.mark.once]

ADA, BEN, EVE = author("ada"), author("ben"), author("eve")
A_DAY_AGO = datetime.now(UTC) - timedelta(days=1)


@pytest.fixture
async def tools(installation: Installation) -> AsyncIterator[Tools]:
    async with tools_of(installation) as made:
        yield made


@pytest.fixture
def writer(installation: Installation) -> Running:
    return installation.start("writer")


def _in_stream(who: Any, stream: uuid.UUID, *mutations: Mutation, **more: Any) -> Command:
    return command(who, *mutations, stream=stream, **more)


async def _letters(tools: Tools, **wanted: Any) -> list[Any]:
    return await find(tools.connection, Letters(**wanted))


async def test_a_bad_command_is_looked_at_mended_and_saved(
    installation: Installation, tools: Tools, writer: Running
) -> None:
    """The whole round. The row keeps its id, and the child that fell with it comes after it."""
    topic, post = topic_with_post(title="x" * 301)
    bad = _in_stream(ADA, topic.id, topic, post, key="from-ada", fingerprint="f")
    child = _in_stream(BEN, topic.id, create("post", topic_id=str(topic.id), body="a reply"))
    await sent(installation, bad, child)
    letters = await _letters(tools)
    assert [(x.code, x.type, x.closed) for x in letters] == [
        ("invalid", "topic", None),
        ("parent_rejected", "post", None),
    ]
    assert letters[0].command == bad
    assert letters[0].whole()["command"]["mutations"][0]["values"]["title"] == "x" * 301
    first, second = letters[0].place, letters[1].place

    unmended = await perform(tools, act("edit", first, values={0: {"title": "y" * 301}}))
    assert (unmended.ok, unmended.result["replayed"]) == (False, [])
    assert "longer than 300 characters" in unmended.result["refused"][0]["why"]

    mended = await perform(tools, act("edit", first, values={0: {"title": "Short"}}))
    replayed = await perform(tools, act("replay", second))
    assert mended.ok
    assert replayed.ok
    for done in (mended, replayed):
        assert await decided(installation, done.result["replayed"][0]["replay_id"]) == "saved"
    row = (await installation.fetch("SELECT id, title, author_id, post_count FROM topic"))[0]
    assert (row["id"], row["title"], row["author_id"]) == (topic.id, "Short", ADA.id)
    assert row["post_count"] == 2
    assert await _letters(tools) == []
    kept = await find(tools.connection, Letters(places=(first,)), closed=True)
    assert (kept[0].closed, kept[0].command) == ("replayed", bad), "the original is kept"
    ledger = await installation.fetch(
        "SELECT outcome, author_id, stream FROM afterwrite.ledger WHERE command_id = $1",
        kept[0].replay_id,
    )
    assert [tuple(row) for row in ledger] == [("saved", ADA.id, topic.id)]
    report = json.loads(installation.run("audit", "--json").stdout)
    assert report["clean"], report


async def test_a_replay_is_a_new_command_that_names_the_old_one(
    installation: Installation, tools: Tools, writer: Running
) -> None:
    bad = command(ADA, create("topic", title=""), key="k", fingerprint="f")
    await sent(installation, bad)
    done = await perform(tools, act("edit", (0, 0), values={0: {"title": "Now"}}))
    replay_id = uuid.UUID(done.result["replayed"][0]["replay_id"])
    await decided(installation, replay_id)
    again = await _published(installation, replay_id)
    assert (again.replays, again.author, again.stream) == (bad.command_id, ADA, bad.stream)
    assert (again.idempotency_key, again.fingerprint) == (None, None)
    assert again.accepted_at > bad.accepted_at
    assert [m.id for m in again.mutations] == [m.id for m in bad.mutations]
    keys = await installation.fetch("SELECT command_id FROM afterwrite.idempotency_key")
    assert [row["command_id"] for row in keys] == [bad.command_id]


async def _published(installation: Installation, command_id: uuid.UUID) -> Command:
    """A command as it stands in the log."""
    from aiokafka import AIOKafkaConsumer, TopicPartition

    from schema.envelope import open_record
    from tests.commands import KEYRING

    consumer = AIOKafkaConsumer(bootstrap_servers=installation.services.kafka_bootstrap)
    await consumer.start()
    try:
        place = TopicPartition(f"{installation.name}.commands", 0)
        consumer.assign([place])
        await consumer.seek_to_beginning(place)
        async with asyncio.timeout(10):
            while True:
                for record in (await consumer.getmany(place, timeout_ms=500)).get(place, ()):
                    opened = open_record(record.key, record.value, record.headers, KEYRING).command
                    if opened.command_id == command_id:
                        return opened
    finally:
        await consumer.stop()


async def test_streams_keep_their_order_however_the_letters_are_named(
    installation: Installation, tools: Tools, writer: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A topic, its posts and their changes fell together; all are replayed at once, by a filter, and
    read in chunks."""
    monkeypatch.setattr("writer.operation.perform.BATCH", 7)
    topic = create("topic", title="")
    posts = [create("post", topic_id=str(topic.id), body=f"post {n}") for n in range(20)]
    commands = [command(ADA, topic)]
    commands += [_in_stream(ADA, topic.id, post) for post in posts]
    commands += [
        _in_stream(ADA, topic.id, update("post", post.id, body=f"changed {n}"))
        for n, post in enumerate(posts)
    ]
    await sent(installation, *commands)
    assert await count(tools.connection, Letters()) == 41
    await perform(tools, act("edit", (0, 0), values={0: {"title": "The topic"}}))
    done = await perform(tools, act("replay", letters=Letters(limit=1000)))
    assert done.ok
    assert [s["letter"] for s in done.result["replayed"]] == [f"0:{n}" for n in range(1, 41)]
    for step in done.result["replayed"]:
        assert await decided(installation, step["replay_id"]) == "saved"
    bodies = await installation.fetch("SELECT body, version FROM post ORDER BY id")
    assert [tuple(row) for row in bodies] == [(f"changed {n}", 2) for n in range(20)]
    assert json.loads(installation.run("audit", "--json").stdout)["clean"]


KILLER = """
import asyncio, sys, uuid
from pathlib import Path
from schema.acts import Letters
from tests.installation import Installation, Running
from tests.operation import act, tools_of
from writer.operation.perform import perform

async def main(values, installation):
    async with tools_of(installation) as tools:
        await perform(tools, act("edit", (0, int(sys.argv[4])), values={0: {"title": "Mended"}}))

class Services: kafka_bootstrap = sys.argv[1]
class Fake:
    name, lanes, services, writer_url = sys.argv[2], 1, Services, sys.argv[3]
asyncio.run(main(None, Fake))
"""


MENDED = {0: {"title": "Mended"}}
KILLED = {
    # point → whether the replay was begun, whether the letter was closed
    "operator_before_replay_id": (False, False),
    "operator_after_replay_id": (True, False),
    "operator_after_publish": (True, False),
    "operator_before_close": (True, False),
    "operator_after_close": (True, True),
}


async def test_a_replay_killed_anywhere_takes_effect_once_when_it_is_repeated(
    installation: Installation, tools: Tools, writer: Running, tmp_path: Path
) -> None:
    await sent(installation, *(command(ADA, *topic_with_post(title="")) for _ in KILLED))
    letters = await _letters(tools)
    assert len(letters) == len(KILLED)
    killed = []
    for letter, point in zip(letters, KILLED, strict=True):
        (tmp_path / point).touch()
        killed.append(
            await asyncio.create_subprocess_exec(
                sys.executable, "-c", KILLER, installation.services.kafka_bootstrap,
                installation.name, installation.writer_url, str(letter.offset),
                env=os.environ | {"AFTERWRITE_FAILPOINTS": f"{point}={tmp_path / point}"},
                cwd=Path(__file__).parents[2],
            )
        )  # fmt: skip
    for process in killed:
        assert await process.wait() == -signal.SIGKILL
    for letter, (begun, closed) in zip(letters, KILLED.values(), strict=True):
        await _repeated(tools, letter.place, begun, closed)
    for letter in await find(tools.connection, Letters(limit=len(KILLED)), closed=True):
        assert letter.closed == "replayed"
        assert letter.replay_id is not None
        assert await decided(installation, letter.replay_id) == "saved"
    await sent(installation, command(BEN, *topic_with_post(title="behind them")))
    titles = await installation.fetch("SELECT title FROM topic ORDER BY title")
    assert [row["title"] for row in titles] == ["Mended"] * len(KILLED) + ["behind them"]
    assert json.loads(installation.run("audit", "--json").stdout)["clean"]


async def _repeated(tools: Tools, place: Place, begun: bool, closed: bool) -> None:
    """What a killed act has left, and that it is completed as what it was."""
    left = (await find(tools.connection, Letters(places=(place,)), closed=True))[0]
    assert (left.replay_id is not None, left.closed is not None) == (begun, closed)
    if begun and not closed:
        # It may be saved already: other values must not be said to have been.
        other = await perform(tools, act("edit", place, values={0: {"title": "Other"}}))
        assert "may be in the log" in other.result["refused"][0]["why"]
        discarded = await perform(tools, act("discard", place, reason="no"))
        assert "may be in the log" in discarded.result["refused"][0]["why"]
    # What was begun is completed as what it was.
    meant = act("replay", place) if begun else act("edit", place, values=MENDED)
    again = await perform(tools, meant)
    assert again.ok is not closed
    if begun and not closed:
        assert again.result["replayed"][0]["replay_id"] == str(left.replay_id)
    kept = (await find(tools.connection, Letters(places=(place,)), closed=True))[0]
    assert kept.replay_edit == {"values": {"0": {"title": "Mended"}}}


async def test_an_act_goes_on_where_it_was_killed_and_takes_no_more_than_it_began_with(
    installation: Installation, tools: Tools
) -> None:
    topics = [command(ADA, create("topic", title="")) for _ in range(3)]
    await applied(installation, *topics)
    await installation.fetch("UPDATE afterwrite.dead_letter SET died_at = died_at")
    meant = act("discard", letters=Letters(code="invalid", limit=10), reason="test posts")
    places = [letter.place for letter in (await _letters(tools))[:2]]
    await audit_log.begin(tools.connection, meant, places, meant.at)  # … and killed
    done = await perform(tools, meant)
    assert done.result["discarded"] == ["0:0", "0:1"]
    assert [letter.name for letter in await _letters(tools)] == ["0:2"]
    again = await perform(tools, meant)
    assert (again.again, again.ok) == (True, True)


async def test_a_dry_run_says_what_would_happen_and_changes_nothing(
    installation: Installation, tools: Tools, writer: Running
) -> None:
    """Asked of the writer's own code: rules, rows that are missing, the database's constraints."""
    await installation.fetch(
        "ALTER TABLE topic ADD CONSTRAINT no_shouting CHECK (title <> upper(title))"
    )
    shouted = command(ADA, create("topic", title="LOUD"))
    empty = command(ADA, create("topic", title=""))
    child = _in_stream(BEN, empty.stream, create("post", topic_id=str(empty.stream), body="x"))
    fine = command(EVE, create("topic", title="Fine now"))
    gone = command(ADA, create("topic", title="Here today"))
    late = _in_stream(ADA, gone.stream, update("topic", gone.stream, 7, title="Gone tomorrow"))
    await sent(installation, shouted, empty, child, gone, late)
    await installation.fetch("ALTER TABLE topic ADD CONSTRAINT eve CHECK (title <> 'Fine now')")
    await sent(installation, fine)
    await installation.fetch("ALTER TABLE topic DROP CONSTRAINT eve")
    before = await _everything(installation)
    everything = Letters(limit=100)
    told = await perform(tools, act("replay", letters=everything, dry_run=True))
    assert await _everything(installation) == before
    assert [(s["letter"], s["forecast"]["outcome"], s["forecast"].get("code"))
            for s in told.result["replayed"]] == [
        ("0:0", "rejected", "check_violation"),
        ("0:1", "rejected", "invalid"),
        ("0:2", "rejected", "parent_rejected"),
        ("0:4", "rejected", "version_conflict"),
        ("0:5", "saved", None),
    ]  # fmt: skip
    # With what would mend it, the answer is another.
    values = {0: {"title": "Not empty"}}
    mended = await perform(tools, act("edit", (0, 1), values=values, dry_run=True))
    assert mended.result["replayed"][0]["forecast"] == {"outcome": "saved"}
    any_version = await perform(tools, act("edit", (0, 4), any_version=True, dry_run=True))
    assert any_version.result["replayed"][0]["forecast"] == {"outcome": "saved"}
    discarded = await perform(
        tools, act("discard", letters=everything, reason="why not", dry_run=True)
    )
    assert len(discarded.result["discarded"]) == 5
    assert await _everything(installation) == before
    # It comes true.
    real = await perform(tools, act("replay", (0, 0), (0, 5)))
    outcomes = [await decided(installation, s["replay_id"]) for s in real.result["replayed"]]
    assert outcomes == ["rejected", "saved"]


async def test_a_trial_holds_its_locks_for_a_moment_only(
    installation: Installation, tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it cannot come to, or may not wait for, is unknown; the writer is not kept waiting."""
    topic = command(ADA, create("topic", title="A topic"))
    change = _in_stream(ADA, topic.stream, update("topic", topic.stream, 7, title="Changed"))
    await applied(installation, topic, change, command(ADA, create("topic", title="")))
    meant = act("replay", letters=Letters(limit=5), dry_run=True)
    async with tools_of(installation) as writer, writer.connection.transaction():
        await writer.connection.execute("SELECT FROM topic FOR UPDATE")
        told = await perform(tools, meant)
    assert [step["forecast"]["outcome"] for step in told.result["replayed"]] == ["unknown"] * 2
    assert "lock timeout" in told.result["replayed"][0]["forecast"]["detail"]
    monkeypatch.setattr("writer.operation.trial.MOST_S", -1)
    told = await perform(tools, meant)
    assert "only 0 could be tried" in told.result["replayed"][0]["forecast"]["detail"]


async def _everything(installation: Installation) -> list[Any]:
    tables = ["topic", "post", '"user"', "notice", "afterwrite.dead_letter", "afterwrite.ledger"]
    tables += ["afterwrite.audit_log", "afterwrite.parked"]
    found = [
        await installation.fetch(f"SELECT t::text FROM {table} t ORDER BY 1") for table in tables
    ]
    return [[row[0] for row in rows] for rows in found]


async def test_bytes_that_are_no_command_are_never_signed_by_us(
    installation: Installation, tools: Tools
) -> None:
    from schema.envelope import Record

    forged = Record(b"k", b'{"v":1}', (("ce_type", b"x"), ("ce_signature", b"k1:00")))
    noise = Record(b"\xff", b"\x00", ())
    await applied(installation, forged, noise, command(ADA, create("topic", title="")))
    done = await perform(tools, act("replay", letters=Letters(limit=10)))
    assert [s["letter"] for s in done.result["replayed"]] == ["0:2"]
    assert [s["letter"] for s in done.result["refused"]] == ["0:0", "0:1"]
    assert all("no command of ours" in s["why"] for s in done.result["refused"])
    letters = await _letters(tools)
    assert [letter.code for letter in letters] == ["bad_signature", "malformed"]
    assert letters[1].key == b"\xff"
    assert letters[1].value == b"\x00"
    gone = await perform(tools, act("discard", (0, 0), (0, 1), reason="somebody tried"))
    assert gone.ok
    assert await _letters(tools) == []


async def test_what_was_dealt_with_is_not_dealt_with_again(
    installation: Installation, tools: Tools
) -> None:
    await applied(installation, *(command(ADA, create("topic", title="")) for _ in range(2)))
    assert (await perform(tools, act("discard", (0, 0), reason="spam"))).ok
    first = await perform(tools, act("replay", (0, 1)))
    assert first.ok
    for kind in ("replay", "discard"):
        again = await perform(
            tools, act(kind, (0, 0), (0, 1), (0, 99), reason="again")
        )  # fmt: skip
        assert not again.ok
        assert [s["why"] for s in again.result["refused"]] == [
            "it was discarded before",
            f"it was replayed as {first.result['replayed'][0]['replay_id']} before",
            "there is no such dead letter",
        ]


async def test_who_comes_second_publishes_what_the_first_has_begun(
    installation: Installation, tools: Tools
) -> None:
    """Between his looking at a letter and his choosing an id, another operator began an edit."""
    await applied(installation, command(ADA, create("topic", title="")))
    stale = await _letters(tools)
    begun = new_command_id()
    await installation.fetch(
        "UPDATE afterwrite.dead_letter SET replay_id = $1, replay_edit = $2",
        begun,
        json.dumps({"values": {"0": {"title": "Mended"}}}),
    )
    meant = act("replay", (0, 0))
    replaying = Replaying(
        tools.connection, tools.publisher, tools.keyring, tools.catalog, tools.topic, 1, meant
    )
    await replaying.run(stale)
    assert [step["replay_id"] for step in replaying.result["replayed"]] == [str(begun)]
    published = await _published(installation, begun)
    assert published.mutations[0].values == {"title": "Mended"}


async def test_operators_who_deal_with_the_same_letters_at_once_do_it_once(
    installation: Installation, tools: Tools, writer: Running
) -> None:
    await installation.fetch("ALTER TABLE topic ADD CONSTRAINT t CHECK (title <> 'twice')")
    count_ = 15
    await sent(installation, *(command(ADA, create("topic", title="twice")) for _ in range(count_)))
    await installation.fetch("ALTER TABLE topic DROP CONSTRAINT t")
    everything = Letters(limit=100)
    async with tools_of(installation) as second, tools_of(installation) as third:
        done = await asyncio.gather(
            perform(tools, act("replay", letters=everything, rate=500.0)),
            perform(second, act("replay", letters=everything, rate=500.0)),
            perform(third, act("discard", letters=everything, reason="spam")),
        )
    letters = await find(tools.connection, everything, closed=True)
    discarded = {x.name for x in letters if x.closed == "discarded"}
    assert discarded == set(done[2].result["discarded"])
    replayed = [x for x in letters if x.closed == "replayed"]
    assert len(replayed) + len(discarded) == count_
    assert {str(x.replay_id) for x in replayed} == {
        step["replay_id"] for one in done[:2] for step in one.result["replayed"]
    }
    for letter in replayed:
        assert letter.replay_id is not None
        assert await decided(installation, letter.replay_id) == "saved"
    assert await installation.value("SELECT count(*) FROM topic") == len(replayed)
    assert json.loads(installation.run("audit", "--json").stdout)["clean"]


async def test_letters_are_found_counted_and_grouped(
    installation: Installation, tools: Tools
) -> None:
    topic, post = topic_with_post()
    await applied(
        installation,
        command(ADA, topic, post),
        command(ADA, create("topic", title="")),
        command(BEN, create("topic", title="")),
        _in_stream(EVE, topic.id, delete("post", post.id)),
    )
    await installation.fetch(
        "UPDATE afterwrite.dead_letter SET died_at = died_at - interval '2 days' "
        'WHERE "offset" = 2'
    )
    places = {
        "all": Letters(),
        "limit": Letters(limit=2),
        "code": Letters(code="forbidden"),
        "type": Letters(type="topic"),
        "author": Letters(author=BEN.id),
        "old": Letters(until=A_DAY_AGO),
        "new": Letters(since=A_DAY_AGO, type="topic"),
        "none": Letters(places=()),
    }
    found = {}
    for name, wanted in places.items():
        found[name] = [x.offset for x in await find(tools.connection, wanted)]
    assert found == {
        "all": [1, 2, 3],
        "limit": [1, 2],
        "code": [3],
        "type": [1, 2],
        "author": [2],
        "old": [2],
        "new": [1],
        "none": [],
    }
    assert await count(tools.connection, Letters(type="topic", limit=1)) == 2
    grouped = await groups(tools.connection, Letters())
    assert sorted((g.code, g.type, g.count, g.sample) for g in grouped) == [
        ("forbidden", "post", 1, "0:3"),
        ("invalid", "topic", 1, "0:1"),
        ("invalid", "topic", 1, "0:2"),
    ]
    letter = (await find(tools.connection, Letters(places=((0, 3),))))[0]
    assert letter.command_id is not None
    unknown = str(new_row_id())
    known = await named(tools.connection, ["0:3", str(letter.command_id), "0:77", unknown])
    assert known == ([(0, 3), (0, 3)], ["0:77", unknown])
    with pytest.raises(ValueError):
        await named(tools.connection, ["what?"])


async def test_who_may_only_look_changes_nothing_and_the_audit_log_has_it(
    installation: Installation, tools: Tools
) -> None:
    await applied(installation, command(ADA, create("topic", title="")))
    viewer = Operator(uuid.uuid4(), "Vic", ("viewer",))
    for meant in (
        act("discard", (0, 0), who=viewer, reason="x"),
        act("pause", who=viewer, reason="x"),
    ):
        done = await perform(tools, meant)
        assert (done.ok, done.result["why"].partition(":")[0]) == (False, "forbidden")
    assert len(await _letters(tools)) == 1
    assert await installation.value("SELECT paused FROM afterwrite.lane") is None
    kept = [e.to_json() for e in await audit_log.latest(tools.connection, 10)]
    assert [(e["act"], e["who"].split()[0], e["result"]["ok"]) for e in kept] == [
        ("pause", "Vic", False),
        ("discard", "Vic", False),
    ]


async def test_lanes_are_paused_resumed_and_let_go_on(
    installation: Installation, tools: Tools
) -> None:
    paused = await perform(tools, act("pause", reason="tables are changed", lane=0))
    assert paused.result["lanes"] == [0]
    why = await installation.value("SELECT paused FROM afterwrite.lane")
    assert why == "tables are changed (Olga)"
    nowhere = await perform(tools, act("pause", reason="x", lane=9))
    assert (nowhere.ok, nowhere.result["why"]) == (False, "there is no lane 9")
    await installation.fetch("UPDATE afterwrite.lane SET halted = 'broken', deaths = 3")
    resumed = await perform(tools, act("resume"))
    assert resumed.result["were_paused"] == {"0": "tables are changed (Olga)"}
    assert resumed.result["halted"] == {"0": "broken"}
    went_on = await perform(tools, act("continue", lane=0))
    assert went_on.result["were_halted"] == {"0": "broken"}
    row = (await installation.fetch("SELECT paused, halted, deaths FROM afterwrite.lane"))[0]
    assert tuple(row) == (None, None, 0)


async def test_parked_streams_are_tried_at_once_when_an_operator_says_so(
    installation: Installation, tools: Tools
) -> None:
    streams = [new_row_id() for _ in range(2)]
    for stream in streams:  # two each: only the head of a stream has a time of its own
        posts = [create("post", topic_id=str(stream), body=f"{n}") for n in range(2)]
        await applied(installation, *(_in_stream(ADA, stream, post) for post in posts))
    assert await installation.value("SELECT count(*) FROM afterwrite.parked") == 4
    one = await perform(tools, act("retry_parked", letters=Letters(places=((0, 1),))))
    assert one.result["heads"] == [[0, 0]], "named by any command of the stream"
    both = await perform(tools, act("retry_parked", lane=0))
    assert sorted(both.result["heads"]) == [[0, 0], [0, 2]]
