"""Composition root of a mail worker: settings → clients → worker; signals; order of stopping."""

import asyncio
import os
import signal
import socket
import uuid

from schema.clock import now
from schema.settings import MailSettings
from schema.tasks import end_tasks
from schema.telemetry import Log, configure_logging
from schema.topics import MAIL_PARTITIONS, topics
from writer.mail.addresses import BadAddress
from writer.mail.breaker import PROBE_MAX_S, PROBE_MIN_S, Backoff, Breaker
from writer.mail.membership import is_member
from writer.mail.message import Sender
from writer.mail.metrics import Metrics
from writer.mail.rendering import Rendering
from writer.mail.sending import Sending
from writer.mail.smtp import Smtp
from writer.mail.smtp_url import BadSmtpUrl, SmtpServer
from writer.mail.state_log import StateLog
from writer.mail.watch import EXIT_CODE, Doubt, Pulse, Stuck
from writer.mail.worker import Worker
from writer.publisher import OutcomePublisher

__all__ = ["BadAddress", "BadSmtpUrl", "check", "serve"]

_ASK_EVERY_S = 10.0


def check(settings: MailSettings) -> tuple[SmtpServer, Sender]:
    """The settings as objects. Raises `BadSmtpUrl` or `BadAddress`."""
    return SmtpServer.parse(settings.smtp_url.get_secret_value()), Sender.parse(settings.mail_from)


def serve(settings: MailSettings) -> int:
    """Send mail until SIGTERM or SIGINT: the one in work is finished. Returns the exit code, which is
    not 0 when the worker had to give up: start it again then."""
    configure_logging(settings.log_level, settings.log_format)
    return asyncio.run(run(settings))


async def run(settings: MailSettings) -> int:
    log = Log("mail")
    server, sender = check(settings)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    metrics = Metrics()
    metrics.serve(settings.mail_metrics_port)
    names = topics(settings)
    name = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    publisher = OutcomePublisher(settings.kafka_bootstrap)
    states = StateLog(
        settings.kafka_bootstrap, names.mail_state.name, MAIL_PARTITIONS, publisher, log
    )
    probes = Backoff(
        min(PROBE_MIN_S, settings.mail_backoff_max_s), min(PROBE_MAX_S, settings.mail_backoff_max_s)
    )
    breaker = Breaker(probes)
    smtp = Smtp(server, settings.smtp_timeout_s)
    pulse = Pulse(log)
    sending = Sending(
        worker=name,
        topics=names,
        sender=sender,
        public_url=settings.public_url,
        horizon_s=settings.horizon_s,
        backoff=Backoff(settings.mail_backoff_min_s, settings.mail_backoff_max_s),
        rendering=Rendering(),
        server=smtp,
        breaker=breaker,
        states=states,
        letters=publisher,
        metrics=metrics,
        clock=now,
        log=log,
    )
    group = f"{settings.prefix}.mail"
    worker = Worker(
        worker=name,
        bootstrap=settings.kafka_bootstrap,
        topic=names.mail.name,
        group=group,
        horizon_s=settings.horizon_s,
        states=states,
        sending=sending,
        breaker=breaker,
        metrics=metrics,
        pulse=pulse,
        clock=now,
        log=log,
        stopping=stopping,
    )
    member = worker.consumer.client_id
    log.info("started", worker=name, member=member, server=f"{server.host}:{server.port}")
    pulse.start()
    working = asyncio.create_task(worker.run())
    watching = asyncio.create_task(_watch(settings.kafka_bootstrap, group, member, stopping))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        for task in (watching, working):
            if task.done():
                task.result()
        return 0
    except Stuck as error:
        log.error("stuck", reason=str(error))
        return EXIT_CODE
    except Exception as error:  # a supervisor starts us again, and the log says why
        log.error("unexpected_error", error=repr(error), exc_info=error)
        return EXIT_CODE
    finally:
        log.info("stopping")
        await end_tasks(watching, working)
        await smtp.close()
        await publisher.close()
        pulse.stop()
        log.info("stopped")


async def _watch(bootstrap: str, group: str, client_id: str, stopping: asyncio.Event) -> None:
    """Ask whether the group knows us, until we stop. Raises `Stuck` when it does not for a minute."""
    doubt = Doubt("the group has not known this worker, although it polls")
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(_ASK_EVERY_S)
        if not stopping.is_set():
            doubt.note(await is_member(bootstrap, group, client_id), loop.time())
