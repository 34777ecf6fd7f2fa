"""FastStream: a batch subscriber that writes each batch with executemany in one transaction.

`python -m tests.bench.references.faststream_consumer BOOTSTRAP TOPIC URL`. Offsets are committed after
the handler has returned (`AckPolicy.ACK`). The body is left as bytes: FastStream's own decoding of each message
would only cost it time.
"""

import sys
import uuid

import asyncpg
import uvloop
from faststream import AckPolicy, FastStream
from faststream.kafka import KafkaBroker
from faststream.kafka.annotations import KafkaMessage

from tests.bench.references.rows import INSERT, row_of

BATCH = 3_000


async def main(bootstrap: str, topic: str, url: str) -> None:
    broker = KafkaBroker(bootstrap, logger=None)
    pool = await asyncpg.create_pool(url, min_size=1, max_size=1)

    @broker.subscriber(
        topic,
        batch=True,
        max_records=BATCH,
        group_id=f"faststream-{uuid.uuid4()}",
        auto_offset_reset="earliest",
        ack_policy=AckPolicy.ACK,
    )
    async def save(_body: object, message: KafkaMessage) -> None:
        rows = [row_of(record.value) for record in message.raw_message]
        async with pool.acquire() as connection, connection.transaction():
            await connection.executemany(INSERT, rows)

    await FastStream(broker, logger=None).run()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:4]))
