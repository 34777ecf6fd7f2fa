"""Where trimming ends, and when it may begin."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from schema.telemetry import Event, Log
from tests.installation import eventually
from writer.lane import Lane
from writer.metrics import Metrics
from writer.trimming import KEPT, Trimmer, trim_to

pytestmark = pytest.mark.unit


def _lane(position: int, outcome_seq: int, settled_seq: int) -> Lane:
    return Lane(
        number=0,
        epoch=1,
        position=position,
        log_id=uuid.uuid4(),
        settled_seq=settled_seq,
        deaths=0,
        lease=timedelta(seconds=5),
        owner="test",
        outcome_seq=outcome_seq,
    )


@pytest.mark.parametrize(
    ("applied", "not_older", "left"),
    [
        (1000, None, 1000 - KEPT),
        (1000, 2000, 1000 - KEPT),
        (1000, 300, 300),
        (1000, 0, 0),
        (KEPT, None, 0),
        (0, None, 0),
    ],
)
def test_the_first_offset_that_stays(applied: int, not_older: int | None, left: int) -> None:
    assert trim_to(applied, not_older) == left


class _Events(Log):
    def __init__(self) -> None:
        self.seen: list[Event] = []

    def info(self, event: Event, **fields: object) -> None:
        self.seen.append(event)

    warning = info


@dataclass(frozen=True)
class _Recording(Trimmer):
    """Remembers up to where it was told that all is applied and settled."""

    told: list[int] = field(default_factory=list)

    async def trim(self, lane: int, applied: int) -> int:
        self.told.append(applied)
        if len(self.told) == 1:
            raise OSError("no broker")
        return 0


@asynccontextmanager
async def _running(trimmer: Trimmer, lane: Lane) -> AsyncIterator[None]:
    task = asyncio.create_task(trimmer.run(lane))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_it_waits_until_all_that_was_applied_is_settled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("writer.trimming._LEAST_S", 0.02)
    events = _Events()
    trimmer = _Recording("nowhere", "none", 0.0, 0.0, Metrics(), events)
    told: Sequence[int] = trimmer.told
    lane = _lane(position=700, outcome_seq=41, settled_seq=40)
    async with _running(trimmer, lane):
        await asyncio.sleep(0.1)
        assert told == []
        lane.settled_seq = 41

        await eventually(lambda: len(told) > 1, 5, "it to trim, and after the failure once more")
        lane.position, lane.outcome_seq = 900, 60  # applied, and settled only later
        await asyncio.sleep(0.1)
        assert set(told) == {700}
        lane.settled_seq = 60

        await eventually(lambda: told[-1] == 900, 5, "it to follow")
    assert "trim_failed" in events.seen
