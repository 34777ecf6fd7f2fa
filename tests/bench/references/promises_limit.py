"""The limit of whoever keeps the promises: what PostgreSQL has to do for them, and nothing else.

`python -m tests.bench.references.promises_limit URL BASE_MS COUNT CHUNK`. In transactions of 5,000 over one
connection: position and epoch are compared and moved, the command ids looked up, topics and authors read,
posts copied, counters counted, ledger rows copied. All rows are made beforehand, in memory: nothing is read
from a log, verified, decided or told. No program that keeps its ledger so can be faster with one connection.
"""

import asyncio
import sys
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import asyncpg

from schema.catalog import load_catalog
from schema.commands import Command
from schema.envelope import Envelope
from schema.outcomes import Outcome
from tests.bench import workload
from tests.bench.references.copy_limit import COLUMNS, row
from tests.bench.workload import FIRST, FOUNDING, Origin
from writer.decisions import Change, Decision
from writer.lane import Lane, take_lane
from writer.ledger import LedgerRow, Numbered, ledger_rows
from writer.record import LaneRecord
from writer.statements import LEDGER_COLUMNS

POST = load_catalog("schema.forum")["post"]
DECIDED = """
SELECT command_id FROM afterwrite.ledger WHERE command_id = ANY($1::uuid[]) AND period = ANY($2::date[])
"""
COUNT = """
UPDATE topic t SET post_count = t.post_count + u.delta
FROM unnest($1::uuid[], $2::bigint[]) AS u(id, delta) WHERE t.id = u.id
"""


@dataclass(frozen=True)
class Batch:
    """What the statements of one transaction take."""

    posts: Sequence[tuple[object, ...]]
    ledger: Sequence[LedgerRow]
    ids: Sequence[uuid.UUID]
    periods: Sequence[date]
    topics: Counter[uuid.UUID]
    authors: Sequence[uuid.UUID]

    @classmethod
    def of(cls, origin: Origin, first: int, commands: Sequence[Command], lane: Lane) -> "Batch":
        """`first`: how many commands of the plan are in batches before this one."""
        at = FIRST + first
        posts = [row(origin, n) for n in range(at, at + len(commands))]
        numbered = []
        for n, (command, post) in enumerate(zip(commands, posts, strict=True), first):
            envelope = Envelope(command, lane.log_id)
            record = LaneRecord(lane.number, FOUNDING + n, 0, None, None, (), envelope)
            change = Change(POST, "create", dict(zip(COLUMNS, post, strict=True)))
            decision = Decision(record, Outcome.SAVED, command.stream, [change])
            numbered.append(Numbered.of(lane.outcome_seq + 1 + n, decision))
        periods = [made.decision.record.period for made in numbered]
        return cls(
            posts,
            list(ledger_rows(numbered, periods, lane.number, lane.epoch, datetime.now(UTC))),
            [command.command_id for command in commands],
            list(set(periods)),
            Counter(command.stream for command in commands),
            list({command.author.id for command in commands}),
        )


async def main(url: str, base_ms: int, count: int, chunk: int) -> None:
    connection = await asyncpg.connect(url)
    try:
        lane = await take_lane(connection, 0, "limit", timedelta(minutes=5))
        assert lane is not None
        assert lane.position == FOUNDING
        commands = list(workload.creates(origin := Origin(base_ms, lane.log_id), 0, count))
        batches = [
            Batch.of(origin, first, commands[first : first + chunk], lane)
            for first in range(0, count, chunk)
        ]
        for period in {period for batch in batches for period in batch.periods}:
            await connection.execute("SELECT afterwrite.ensure_ledger_period($1)", period)
        for batch in batches:
            await _apply(connection, lane, batch)
    finally:
        await connection.close()


async def _apply(connection: asyncpg.Connection, lane: Lane, batch: Batch) -> None:
    to = lane.position + len(batch.ids)
    seq = await lane.begin(connection, to)
    decided = await connection.fetch(DECIDED, batch.ids, batch.periods)
    there = await connection.fetch(
        "SELECT * FROM post WHERE id = ANY($1::uuid[]) ORDER BY id FOR UPDATE",
        [post[0] for post in batch.posts],
    )
    assert not decided
    assert not there
    await connection.fetch('SELECT * FROM "user" WHERE id = ANY($1::uuid[])', batch.authors)
    await connection.fetch("SELECT * FROM topic WHERE id = ANY($1::uuid[])", list(batch.topics))
    await connection.copy_records_to_table("post", records=batch.posts, columns=COLUMNS)
    await connection.execute(COUNT, list(batch.topics), list(batch.topics.values()))
    await connection.copy_records_to_table(
        "ledger", schema_name="afterwrite", records=batch.ledger, columns=LEDGER_COLUMNS
    )
    await lane.commit(connection, seq + len(batch.ids), to)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
