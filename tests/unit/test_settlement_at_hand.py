"""Settling what was just applied, without reading it again: the same is told, in order, and bounded."""

import asyncio
import json
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from schema.catalog import load_catalog
from schema.content import Row
from schema.envelope import Envelope
from schema.identifiers import new_row_id
from schema.outcomes import Outcome, Problem
from tests.commands import author, command, create
from tests.unit.test_settlement import NOW, Servers, _row, _settle_all, _settler
from writer import settlement
from writer.decisions import Change, Decision
from writer.ledger import Numbered, told_of
from writer.overlay import Settlement
from writer.publisher import Message, Told, outcome_message
from writer.record import LaneRecord

pytestmark = pytest.mark.unit

CATALOG = load_catalog("schema.forum")
ADA = author("ada")


def _post(version: int = 1) -> Row:
    return {
        "id": new_row_id(),
        "version": version,
        "created_at": NOW,
        "updated_at": NOW,
        "topic_id": new_row_id(),
        "author_id": ADA.id,
        "reply_to": new_row_id(),
        "body": 'It is "sour" \\ ☕\n',
    }


def _decision(outcome: Outcome, *changes: Change, problem: Problem | None = None) -> Decision:
    made = command(ADA, create("topic", title="A topic"))
    record = LaneRecord(0, 7, 0, b"", b"", (), Envelope(made, uuid.UUID(int=7)))
    return Decision(record, outcome, made.stream, changes=list(changes), problem=problem)


def _saved(seq: int) -> Numbered:
    return Numbered.of(seq, _decision(Outcome.SAVED, Change(CATALOG["post"], "create", _post())))


def _rows(numbered: Iterable[Numbered]) -> list[dict[str, Any]]:
    """What the ledger says of them."""
    rows = []
    for made in numbered:
        decision = made.decision
        changed = {
            "offset": decision.record.offset,
            "command_id": decision.record.command.command_id,
            "author_id": ADA.id,
            "problem": made.problem,
            "effects": made.effects,
        }
        rows.append(_row(made.seq, decision.outcome, **changed))
    return rows


def _twice() -> tuple[Change, Change]:
    first = _post()
    return (
        Change(CATALOG["post"], "create", first),
        Change(CATALOG["post"], "update", first | {"version": 2, "body": "better"}),
    )


NOTICE = {"id": new_row_id(), "version": 1, **dict.fromkeys(CATALOG["notice"].fields)}
DECISIONS = [
    _decision(Outcome.SAVED, Change(CATALOG["post"], "create", _post())),
    _decision(Outcome.SAVED, *_twice()),
    _decision(Outcome.SAVED, Change(CATALOG["post"], "delete", _post(3))),
    _decision(Outcome.SAVED),
    _decision(
        Outcome.REJECTED,
        Change(CATALOG["notice"], "create", NOTICE),
        problem=Problem("forbidden", 'You "may" not.', extra={"parent_command": "x"}),
    ),
]


@pytest.mark.parametrize("decision", DECISIONS)
def test_the_same_is_told_as_the_ledger_says(decision: Decision) -> None:
    made = Numbered.of(4, decision)
    assert json.loads(made.effects) == decision.effects
    (row,) = _rows([made])
    at_once, read = told_of(made), Told.of(row)
    assert json.loads(at_once.effects) == json.loads(read.effects)
    assert set(at_once.types) == set(read.types)
    messages = [outcome_message("t", 0, told) for told in (at_once, read)]
    assert json.loads(messages[0].value or b"") == json.loads(messages[1].value or b"")
    assert messages[0].key == messages[1].key


async def test_what_is_at_hand_is_not_read_again() -> None:
    numbered = [_saved(seq) for seq in (1, 2, 3)]
    servers = Servers(*_rows(numbered))
    settler = _settler(servers)
    settler.take(0, numbered[:2])
    settler.take(2, numbered[2:])
    await _settle_all(settler)
    assert servers.done == ["connect", "publish", "overlay", "read"]
    assert settler.lane.settled_seq == 3
    assert [s.command_id for s in servers.settled] == [
        n.decision.record.command.command_id for n in numbered
    ]


async def test_the_ledger_is_read_up_to_what_is_at_hand() -> None:
    """Another writer had left something unsettled."""
    numbered = [_saved(seq) for seq in range(1, 7)]
    servers = Servers(*_rows(numbered))
    settler = _settler(servers)
    settler.take(4, numbered[4:])
    await _settle_all(settler)
    assert servers.done == ["connect", "read", "publish", "overlay", "publish", "overlay", "read"]
    assert _told_seqs(servers.published) == [1, 2, 3, 4, 5, 6]


async def test_what_failed_is_settled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settlement, "_BACKOFF_S", (0.001, 0.002))
    numbered = [_saved(seq) for seq in (1, 2)]
    servers = Servers(*_rows(numbered))
    servers.failing = {"overlay"}
    settler = _settler(servers)
    settler.take(0, numbered)
    await _settle_all(settler)
    assert _told_seqs(servers.published) == [1, 2, 1, 2]
    assert settler.lane.settled_seq == 2


async def test_so_much_is_kept_and_the_rest_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """While Redis or Kafka are away much is applied; it must not all stay in memory."""
    monkeypatch.setattr(settlement, "_MOST_AT_HAND", 6)
    numbered = [_saved(seq) for seq in range(1, 21)]
    servers = Servers(*_rows(numbered))
    settler = _settler(servers)
    for after in range(0, 20, 2):
        settler.take(after, numbered[after : after + 2])
        assert sum(len(told) for _, told in settler._at_hand) <= 6
    await _settle_all(settler)
    assert _told_seqs(servers.published) == list(range(1, 21))
    assert "read" in servers.done[:-1]
    settler.take(20, [_saved(21)])
    assert len(settler._at_hand) == 1, "there is room again"


class Slow(Servers):
    """Servers that let the loop turn some times before they answer."""

    async def publish(self, messages: Iterable[Message]) -> None:
        await _turns(20)
        await super().publish(messages)

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        await _turns(20)
        await super().settle(settlements)


async def test_settling_keeps_up_with_applying_that_never_pauses() -> None:
    """Both have the loop in turn: what is unsettled is a few batches, however long the backlog is.

    A batch is applied in about as many turns of the loop as its statements wait for answers.
    """
    servers = Slow()
    settler = _settler(servers)
    running = asyncio.create_task(settler.run())
    most, seq, batch = 0, 0, 500
    for _ in range(60):
        await _turns(12)
        settler.take(seq, [_saved(n) for n in range(seq + 1, seq + batch + 1)])
        seq += batch
        most = max(most, seq - settler.lane.settled_seq)
    assert most <= 12 * batch
    await settler.drained()
    assert settler.lane.settled_seq == seq
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert "read" not in servers.done[:-1] or servers.done.count("read") <= 60


async def _turns(many: int) -> None:
    for _ in range(many):
        await asyncio.sleep(0)


def _told_seqs(messages: Iterable[Message]) -> list[int]:
    return [json.loads(m.value or b"")["seq"] for m in messages]
