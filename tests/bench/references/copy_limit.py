"""The limit: the same rows by COPY, in chunks of 5,000 with a commit each. No log, no check, no ledger.

`python -m tests.bench.references.copy_limit URL BASE_MS COUNT CHUNK`. The rows are made beforehand, in
memory: what is measured is asyncpg and PostgreSQL. The table is ours, with two indexes and foreign keys.
"""

import asyncio
import sys
import uuid

import asyncpg

from tests.bench import workload
from tests.bench.workload import FIRST, Origin

COLUMNS = (
    "id",
    "version",
    "created_at",
    "updated_at",
    "topic_id",
    "author_id",
    "reply_to",
    "body",
    "reaction_count",
)


async def main(url: str, base_ms: int, count: int, chunk: int) -> None:
    origin = Origin(base_ms, uuid.UUID(int=0))
    rows = [row(origin, n) for n in range(FIRST, FIRST + count)]
    connection = await asyncpg.connect(url)
    try:
        for start in range(0, count, chunk):
            async with connection.transaction():
                await connection.copy_records_to_table(
                    "post", records=rows[start : start + chunk], columns=COLUMNS
                )
    finally:
        await connection.close()


def row(origin: Origin, n: int) -> tuple[object, ...]:
    """Create number `n` as a row."""
    at = origin.at(n)
    topic, author = workload.create_topic(origin, n), workload.create_author(n).id
    return (origin.row_id(n), 1, at, at, topic, author, None, workload.body_of(n), 0)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
