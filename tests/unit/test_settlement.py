"""Settling: publish, then the overlay, then the watermark; whatever fails, it is repeated."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from schema.catalog import load_catalog
from schema.outcomes import Outcome
from schema.overlay import EntryState
from schema.redis_keys import SHARED
from schema.settings import Settings
from schema.telemetry import Log
from schema.topics import topics
from writer import settlement
from writer import statements as sql
from writer.connection import Database
from writer.lane import Lane
from writer.overlay import SettledOverlay, Settlement
from writer.publisher import (
    Message,
    OutcomePublisher,
    Told,
    dead_letter_message,
    outcome_message,
)
from writer.settlement import Settler

pytestmark = pytest.mark.unit

TOPICS = topics(Settings.model_validate({"prefix": "t"}))
ADA = uuid.UUID(int=0xADA)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def _row(seq: int, outcome: Outcome, **changed: Any) -> dict[str, Any]:
    row = {
        "offset": seq + 100,
        "seq": seq,
        "outcome": outcome.value,
        "command_id": uuid.UUID(int=seq),
        "author_id": ADA,
        "problem": None,
        "duplicate_of": None,
        "effects": "[]",
        "accepted_at": NOW,
        "decided_at": NOW,
    }
    return row | changed


class Servers:
    """PostgreSQL, Kafka and Redis as far as settling sees them. `failing` answers once with an error."""

    def __init__(self, *rows: dict[str, Any]) -> None:
        self.ledger = list(rows)
        self.before = self.ledger
        self.letters: list[dict[str, Any]] = []
        self.done: list[str] = []
        self.published: list[Message] = []
        self.settled: list[Settlement] = []
        self.failing: set[str] = set()
        self.failed = asyncio.Event()

    def _step(self, name: str) -> None:
        if name in self.failing:
            self.failing.remove(name)
            self.failed.set()
            raise ConnectionResetError(name)
        self.done.append(name)

    @asynccontextmanager
    async def connect(self, purpose: str) -> AsyncIterator["Servers"]:
        self._step("connect")
        yield self

    async def fetch(self, query: str, *args: Any) -> list[dict[str, Any]]:
        if query == sql.DEAD_LETTERS:
            return [row for row in self.letters if row["offset"] in args[1]]
        if query == sql.FIRST_OUTCOMES:
            first = [r for r in self.before if r["command_id"] in args[0]]
            return [row for row in first if row["outcome"] != Outcome.DUPLICATE]
        assert query == sql.UNSETTLED
        self._step("read")
        _, after, most = args
        return [row for row in self.ledger if row["seq"] > after][:most]

    async def publish(self, messages: Iterable[Message]) -> None:
        self._step("publish")
        self.published += messages

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        self._step("overlay")
        self.settled += settlements


def _settler(servers: Servers, settled_seq: int = 0, content: str = "schema.forum") -> Settler:
    lane = Lane(0, 1, 0, uuid.UUID(int=7), settled_seq, 0, timedelta(seconds=5), "test")
    return Settler(
        lane,
        cast(Database, servers),
        cast(SettledOverlay, servers),
        cast(OutcomePublisher, servers),
        TOPICS,
        Log("test"),
        load_catalog(content),
    )


async def _settle_all(settler: Settler) -> None:
    """Let the settler run until nothing is left."""
    running = asyncio.create_task(settler.run())
    try:
        async with asyncio.timeout(10):
            await settler.drained()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_outcomes_are_published_before_the_overlay_before_the_watermark() -> None:
    servers = Servers(_row(1, Outcome.SAVED), _row(2, Outcome.REJECTED), _row(3, Outcome.PARKED))
    settler = _settler(servers)
    await _settle_all(settler)
    assert servers.done == ["connect", "read", "publish", "overlay", "read"]
    assert settler.lane.settled_seq == 3
    assert [s.state for s in servers.settled] == [
        EntryState.SAVED,
        EntryState.REJECTED,
        EntryState.PARKED,
    ]
    assert [(s.owner, s.command_id.int, s.lane, s.offset) for s in servers.settled] == [
        (ADA, 1, 0, 101),
        (ADA, 2, 0, 102),
        (ADA, 3, 0, 103),
    ]


async def test_it_begins_behind_the_watermark() -> None:
    servers = Servers(_row(1, Outcome.SAVED), _row(2, Outcome.SAVED))
    await _settle_all(_settler(servers, settled_seq=1))
    assert [s.command_id.int for s in servers.settled] == [2]


@pytest.mark.parametrize("step", ["connect", "read", "publish", "overlay"])
async def test_a_step_that_fails_is_repeated_and_nothing_is_left_out(
    step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settlement, "_BACKOFF_S", (0.001, 0.002))
    servers = Servers(_row(1, Outcome.SAVED), _row(2, Outcome.REJECTED))
    servers.failing = {step}
    settler = _settler(servers)
    await _settle_all(settler)
    assert not servers.failing
    assert settler.lane.settled_seq == 2
    assert {s.command_id.int for s in servers.settled} == {1, 2}
    assert {json.loads(m.value or b"")["seq"] for m in servers.published} == {1, 2}


async def test_a_failing_overlay_does_not_move_the_watermark(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(settlement, "_BACKOFF_S", (3600.0, 3600.0))
    servers = Servers(_row(1, Outcome.SAVED))
    servers.failing = {"overlay"}
    settler = _settler(servers)
    running = asyncio.create_task(settler.run())
    async with asyncio.timeout(10):
        await servers.failed.wait()
    assert settler.lane.settled_seq == 0
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_news_while_it_rests_are_settled() -> None:
    servers = Servers(_row(1, Outcome.SAVED))
    settler = _settler(servers)
    running = asyncio.create_task(settler.run())
    async with asyncio.timeout(10):
        await settler.drained()
        servers.ledger.append(_row(2, Outcome.SAVED))
        settler.notify()
        await settler.drained()
    assert settler.lane.settled_seq == 2
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("outcome", [Outcome.SAVED, Outcome.REJECTED, Outcome.PARKED])
async def test_a_command_that_was_delivered_again_follows_its_first_delivery(
    outcome: Outcome,
) -> None:
    again = _row(2, Outcome.DUPLICATE, command_id=uuid.UUID(int=1), duplicate_of=uuid.UUID(int=1))
    servers = Servers(again)
    servers.before = [_row(1, outcome, lane=5), again]
    await _settle_all(_settler(servers))
    (told,) = servers.settled
    assert (told.command_id.int, told.state) == (1, EntryState(outcome))
    assert (told.lane, told.offset) == (5, 101), "where it took effect"


async def test_a_repeat_of_what_the_ledger_has_forgotten_settles_nothing() -> None:
    again = _row(2, Outcome.DUPLICATE, command_id=uuid.UUID(int=1), duplicate_of=uuid.UUID(int=1))
    servers = Servers(again)
    await _settle_all(_settler(servers))
    assert servers.settled == []


async def test_a_repeated_requests_entry_has_nothing_to_show_any_more() -> None:
    repeated = _row(2, Outcome.DUPLICATE, duplicate_of=uuid.UUID(int=1))
    servers = Servers(repeated)
    await _settle_all(_settler(servers))
    assert [(s.command_id.int, s.state) for s in servers.settled] == [(2, EntryState.SAVED)]
    told = json.loads(servers.published[0].value or b"")
    assert told["duplicate_of"] == str(uuid.UUID(int=1))


def _effects(*types: str) -> str:
    return json.dumps([{"type": t, "id": str(uuid.uuid4()), "op": "create"} for t in types])


@pytest.mark.parametrize(
    ("content", "row", "shared"),
    [
        ("schema.forum", _row(1, Outcome.REJECTED), False),
        ("schema.forum", _row(1, Outcome.SAVED, effects=_effects("topic")), False),
        ("tests.content_open", _row(1, Outcome.REJECTED), True),
        ("tests.content_open", _row(1, Outcome.PARKED), True),
        ("tests.content_open", _row(1, Outcome.SAVED, effects=_effects("reaction")), False),
        ("tests.content_open", _row(1, Outcome.SAVED, effects=_effects("user", "post")), True),
        ("tests.content_open", _row(1, Outcome.DUPLICATE, duplicate_of=ADA), True),
    ],
)
async def test_what_others_may_have_seen_is_settled_for_them_too(
    content: str, row: dict[str, Any], shared: bool
) -> None:
    servers = Servers(row)
    await _settle_all(_settler(servers, content=content))
    assert (SHARED in [s.owner for s in servers.settled]) is shared
    theirs = {s.owner: s.state for s in servers.settled}
    assert theirs.get(SHARED, theirs.get(ADA)) == theirs.get(ADA)


async def test_bytes_that_are_no_command_have_no_author_to_tell_but_are_mirrored() -> None:
    servers = Servers(_row(1, Outcome.DEAD, author_id=None, command_id=None))
    servers.letters = [_letter(101)]
    await _settle_all(_settler(servers))
    assert servers.settled == []
    assert [m.topic for m in servers.published] == ["t.commands.dlq"]


def _letter(offset: int, **changed: Any) -> dict[str, Any]:
    return {
        "offset": offset,
        "command_id": None,
        "key": b"\xffkey",
        "value": b"\x00value",
        "headers": '[["a", "text"], ["b", "hex:ff00"], ["gone", null]]',
        "code": "malformed",
        "detail": "not a command",
        "sqlstate": None,
        "constraint_name": None,
        "attempts": 1,
        "died_at": NOW,
        "first_died_at": NOW,
        "replay_of": None,
    } | changed


def test_a_dead_letter_is_mirrored_byte_for_byte_with_its_reason() -> None:
    """To the byte: other tools read these names, and Spring's numbers as big-endian integers."""
    message = dead_letter_message("dlq", "commands", 3, _letter(258))
    assert (message.topic, message.key, message.value) == ("dlq", b"\xffkey", b"\x00value")
    at = NOW.isoformat(timespec="microseconds").replace("+00:00", "Z").encode()
    assert message.headers == (
        ("a", b"text"),
        ("b", b"\xff\x00"),
        ("__connect.errors.topic", b"commands"),
        ("__connect.errors.partition", b"3"),
        ("__connect.errors.offset", b"258"),
        ("__connect.errors.connector.name", b"afterwrite-writer"),
        ("__connect.errors.task.id", b"3"),
        ("__connect.errors.stage", b"VALUE_CONVERTER"),
        ("__connect.errors.exception.class.name", b"org.afterwrite.Malformed"),
        ("__connect.errors.exception.message", b"not a command"),
        ("kafka_dlt-original-topic", b"commands"),
        ("kafka_dlt-original-partition", b"\x00\x00\x00\x03"),
        ("kafka_dlt-original-offset", b"\x00\x00\x00\x00\x00\x00\x01\x02"),
        ("kafka_dlt-exception-fqcn", b"org.afterwrite.Malformed"),
        ("kafka_dlt-exception-message", b"not a command"),
        ("afterwrite-dlq-id", b"3:258"),
        ("afterwrite-dlq-code", b"malformed"),
        ("afterwrite-dlq-attempts", b"1"),
        ("afterwrite-dlq-first-failed-at", at),
        ("afterwrite-dlq-last-failed-at", at),
    )


def test_the_mirror_of_a_replay_names_what_it_repeated_and_when_that_failed_first() -> None:
    letter = _letter(
        7,
        command_id=ADA,
        code="unique_violation",
        sqlstate="23505",
        constraint_name="one_per_day",
        replay_of=uuid.UUID(int=9),
        first_died_at=NOW - timedelta(days=3),
    )
    headers = dict(dead_letter_message("dlq", "commands", 0, letter, "site.writer").headers)
    assert headers["__connect.errors.stage"] == b"TASK_PUT"
    assert headers["__connect.errors.exception.class.name"] == b"org.afterwrite.UniqueViolation"
    assert headers["kafka_dlt-original-consumer-group"] == b"site.writer"
    assert headers["afterwrite-dlq-sqlstate"] == b"23505"
    assert headers["afterwrite-dlq-constraint"] == b"one_per_day"
    assert headers["afterwrite-dlq-replay-of"] == str(uuid.UUID(int=9)).encode()
    first, last = (headers[f"afterwrite-dlq-{which}-failed-at"] for which in ("first", "last"))
    assert first < last


def test_an_outcome_says_what_became_of_the_command() -> None:
    made = {"type": "notice", "id": "n", "op": "create", "version": 1, "digest": "d", "parents": []}
    problem, effects = '{"code": "forbidden"}', json.dumps([made])
    row = _row(4, Outcome.REJECTED, problem=problem, effects=effects)
    message = outcome_message("t.outcomes", 3, Told.of(row))
    assert message.key == str(ADA).encode(), "one author's outcomes stay in order"
    assert json.loads(message.value or b"") == {
        "command_id": str(uuid.UUID(int=4)),
        "author_id": str(ADA),
        "outcome": "rejected",
        "lane": 3,
        "offset": 104,
        "seq": 4,
        "rows": [{"type": "notice", "id": "n", "op": "create", "version": 1}],
        "notice": "n",
        "problem": {"code": "forbidden"},
        "duplicate_of": None,
    }
    saved = json.loads(
        outcome_message("t", 3, Told.of(_row(5, Outcome.SAVED, effects=effects))).value or b""
    )
    assert (saved["rows"], saved["notice"]) == ([{k: made[k] for k in saved["rows"][0]}], None)
