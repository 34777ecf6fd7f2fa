"""Composition root of the writer: settings → clients → one loop a lane; signals; order of stopping."""

import asyncio
import os
import signal
import socket
import uuid

from schema.catalog import load_catalog
from schema.envelope import Keyring
from schema.redis_keys import RedisKeys
from schema.settings import WriterSettings
from schema.tasks import end_tasks
from schema.telemetry import Log, configure_logging
from schema.topics import topics
from writer.connection import Database
from writer.consumer import LaneWriter
from writer.garbage import collect_seldom
from writer.lag_hint import LagHint
from writer.metrics import Metrics
from writer.operation.executor import ActExecutor
from writer.overlay import SettledOverlay
from writer.publisher import OutcomePublisher
from writer.settlement import sweep_forever
from writer.trimming import Trimmer


def serve(settings: WriterSettings) -> None:
    """Run the writer until SIGTERM or SIGINT: the batch in work is finished, its lane released."""
    configure_logging(settings.log_level, settings.log_format)
    try:
        import uvloop
    except ImportError:
        asyncio.run(run(settings))
    else:
        uvloop.run(run(settings))


async def run(settings: WriterSettings) -> None:
    log = Log("writer")
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    metrics = Metrics()
    metrics.serve(settings.metrics_port)
    overlay = SettledOverlay(
        settings.redis_url, RedisKeys(settings.prefix), settings.settled_grace_s
    )
    publisher = OutcomePublisher(settings.kafka_bootstrap)
    names = topics(settings)
    hint = LagHint(settings.kafka_bootstrap, names.commands.name, f"{settings.prefix}.writer", log)
    trimmer = Trimmer(
        settings.kafka_bootstrap,
        names.commands.name,
        settings.trim_window_s,
        settings.settled_grace_s,
        metrics,
        log,
    )
    database = Database.of(settings, log, metrics.circuit.labels("postgresql").set)
    owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    lanes = [
        LaneWriter(
            number=number,
            owner=owner,
            settings=settings,
            catalog=load_catalog(settings.content),
            keyring=Keyring.parse(settings.signing_keys.get_secret_value()),
            topics=names,
            database=database,
            overlay=overlay,
            publisher=publisher,
            metrics=metrics,
            hint=hint,
            trimmer=trimmer,
            log=log,
            stopping=stopping,
        )
        for number in settings.own_lanes
    ]
    collect_seldom()
    log.info("started", owner=owner, lanes=len(lanes))
    executor = ActExecutor(
        database=database,
        bootstrap=settings.kafka_bootstrap,
        topics=names,
        lanes=settings.lanes,
        keyring=Keyring.parse(settings.signing_keys.get_secret_value()),
        catalog=load_catalog(settings.content),
        log=log,
    )
    beside = [
        asyncio.create_task(executor.run()),
        asyncio.create_task(sweep_forever(overlay, log)),
        asyncio.create_task(hint.commit_forever()),
    ]
    try:
        await asyncio.gather(*(lane.run() for lane in lanes))
    finally:
        log.info("stopping")
        await end_tasks(*beside)
        await publisher.close()
        await overlay.close()
        log.info("stopped")
