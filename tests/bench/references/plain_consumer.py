"""A plain aiokafka consumer: a transaction a command, the offset committed in groups after that.

`python -m tests.bench.references.plain_consumer BOOTSTRAP TOPIC URL`. Runs until it is ended.
"""

import sys
import uuid

import asyncpg
import uvloop
from aiokafka import AIOKafkaConsumer

from tests.bench.references.rows import INSERT, row_of


async def main(bootstrap: str, topic: str, url: str) -> None:
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        group_id=f"plain-{uuid.uuid4()}",
        auto_offset_reset="earliest",
        enable_auto_commit=True,
        auto_commit_interval_ms=1000,
    )
    connection = await asyncpg.connect(url)
    await consumer.start()
    async for record in consumer:
        async with connection.transaction():
            await connection.execute(INSERT, *row_of(record.value))


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:4]))
