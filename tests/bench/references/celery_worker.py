"""Celery on Redis: an INSERT a task, in two worker processes with a connection each.

`python -m tests.bench.references.celery_worker run REDIS_URL QUEUE URL` works until it is ended;
`… fill REDIS_URL QUEUE BASE_MS COUNT` puts the rows of the creates into its queue beforehand. A task is
acknowledged after it is done (`acks_late`), as is needed to lose nothing with a worker.
"""

import asyncio
import json
import sys
import uuid
from typing import Any

import asyncpg
from celery import Celery  # type: ignore[import-untyped]

from tests.bench.references import sink
from tests.bench.references.rows import INSERT, row_of
from tests.bench.workload import Origin

PROCESSES = 2


def application(redis_url: str, queue: str, url: str = "") -> Celery:
    """The Celery app with its one task."""
    app = Celery("references", broker=redis_url)
    app.conf.update(
        task_default_queue=queue,
        task_acks_late=True,
        task_ignore_result=True,
        worker_prefetch_multiplier=100,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        task_serializer="json",
    )
    state: dict[str, Any] = {}

    @app.task(name="save")  # type: ignore[untyped-decorator]
    def save(row: dict[str, Any]) -> None:
        if not state:
            state["loop"] = asyncio.new_event_loop()
            state["connection"] = state["loop"].run_until_complete(asyncpg.connect(url))
        insert = state["connection"].execute(INSERT, *row_of(json.dumps(row).encode()))
        state["loop"].run_until_complete(insert)

    return app


def fill(redis_url: str, queue: str, base_ms: int, count: int) -> None:
    app = application(redis_url, queue)
    origin = Origin(base_ms, uuid.UUID(int=0))
    with app.producer_pool.acquire(block=True) as producer:
        for record in sink.records(origin, count):
            app.send_task("save", (json.loads(record.value),), producer=producer)


def run(redis_url: str, queue: str, url: str) -> None:
    app = application(redis_url, queue, url)
    app.worker_main(
        [
            "worker",
            f"--concurrency={PROCESSES}",
            "--loglevel=WARNING",
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
        ]
    )


if __name__ == "__main__":
    if sys.argv[1] == "fill":
        fill(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    else:
        run(*sys.argv[2:5])
