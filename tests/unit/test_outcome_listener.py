"""The listener beside requests: a backlog's outcomes must not keep them waiting."""

import asyncio
import json
import uuid
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from frontend_api.event_hub import EventHub
from frontend_api.outcome_listener import OutcomeListener, partition_of
from schema.tasks import end_tasks

pytestmark = pytest.mark.unit

PLACE = TopicPartition("outcomes", 0)
MANY = 3000
IN_A_MOMENT = 100
"""Outcomes that a request may have to wait for: some two milliseconds."""


class Backlog:
    """A consumer that has fetched many outcomes already; behind them nothing comes."""

    def __init__(self, count: int) -> None:
        author = str(uuid.uuid4())
        self._records = [
            SimpleNamespace(
                offset=n,
                value=json.dumps(
                    {"command_id": str(uuid.uuid4()), "author_id": author, "outcome": "saved"}
                    | {"lane": 0, "seq": n, "rows": []}
                ).encode(),
            )
            for n in range(count)
        ]

    async def getmany(
        self, *, timeout_ms: int, max_records: int | None = None
    ) -> dict[TopicPartition, list[Any]]:
        if not self._records:
            await asyncio.Event().wait()
        most = max_records if max_records is not None else len(self._records)
        found, self._records = self._records[:most], self._records[most:]
        return {PLACE: found}


async def test_requests_have_their_turn_while_a_backlog_of_outcomes_is_read() -> None:
    hub = EventHub(partition_of)
    hub.places({0: 0}, {0: 0})
    listener = OutcomeListener("localhost:1", "outcomes", hub)
    told = 0

    def count(outcome: dict[str, Any]) -> None:
        nonlocal told
        told += 1

    listener.tell = count  # type: ignore[method-assign]
    reading = asyncio.create_task(listener._read(Backlog(MANY), [PLACE]))
    waited = []
    try:
        async with asyncio.timeout(20):
            while told < MANY:
                before = told
                await asyncio.sleep(0)  # what a request does between two of its steps
                waited.append(told - before)
    finally:
        await end_tasks(reading)
    assert sum(waited) == MANY
    assert max(waited) <= IN_A_MOMENT
