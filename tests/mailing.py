"""Queued mail for tests: putting it on the topic, workers that send it, and what became of it."""

import asyncio
import re
import urllib.request
import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiokafka import AIOKafkaProducer

from schema.mail import Mail
from schema.mail_templates import SavedAfterAll, queue
from schema.settings import Settings
from schema.topics import Topics, topics
from tests.installation import Installation, Running, eventually, free_port
from tests.smtp_sink import SmtpSink
from writer.mail.operation import DeadMail, dead_mails, read_memory
from writer.mail.state import State, encoded

QUICK = {"mail_backoff_min_s": "0.5", "mail_backoff_max_s": "1"}


def mail_to(address: str, **other: Any) -> Mail:
    """A mail of one short template."""
    return queue(
        SavedAfterAll(name="Ada", count=2, link="https://forum.example/me"),
        **{
            "mail_id": uuid.uuid4(),
            "to": address,
            "locale": "en",
            "created_at": datetime.now(UTC),
            **other,
        },
    )


@dataclass
class Mailing:
    """An installation's mail, and the server it is sent to."""

    installation: Installation
    sink: SmtpSink

    @property
    def topics(self) -> Topics:
        return topics(Settings.model_validate({"prefix": self.installation.name}))

    @property
    def bootstrap(self) -> str:
        return self.installation.services.kafka_bootstrap

    async def queue(self, mails: Iterable[Mail], partition: int | None = None) -> None:
        await self.put(
            [(str(m.mail_id).encode(), encoded(m.to_json()), ()) for m in mails], partition
        )

    async def put(
        self,
        records: Iterable[tuple[bytes | None, bytes | None, tuple[tuple[str, bytes], ...]]],
        partition: int | None = None,
    ) -> None:
        """Any bytes at all."""
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap, acks="all", linger_ms=5)
        await producer.start()
        try:
            for key, value, headers in records:
                await producer.send(
                    self.topics.mail.name,
                    key=key,
                    value=value,
                    headers=list(headers),
                    partition=partition,
                )
            await producer.flush()
        finally:
            await producer.stop()

    def worker(self, name: str = "worker", **settings: str) -> "MailWorker":
        given = {
            "smtp_url": self.sink.url,
            "mail_from": "Forum <forum@example.org>",
            "mail_metrics_port": str(free_port()),
            **QUICK,
            **settings,
        }
        return MailWorker(self.installation.start("mail-worker", name, **given), given)

    async def received(self, count: int, timeout: float = 30) -> None:
        """Wait until so many mails have arrived."""
        sink = self.sink
        await eventually(lambda: len(sink.received) >= count, timeout, f"{count} mails to arrive")

    async def dead(self) -> list[DeadMail]:
        return await dead_mails(self.bootstrap, self.topics, limit=1000)

    async def remembered(self, mails: Iterable[Mail]) -> set[State | None]:
        """What the state topic says of these mails."""
        memory = await read_memory(self.bootstrap, self.topics)
        return {memory.state_of(mail.mail_id) for mail in mails}

    async def stalled(self) -> None:
        """Wait until the server has heard of a recipient, and hears nothing more for half a second."""
        loop = asyncio.get_running_loop()
        seen, since = (-1, -1), loop.time()

        def still() -> bool:
            nonlocal seen, since
            now = self.sink.commands, len(self.sink.received)
            if now != seen:
                seen, since = now, loop.time()
            return loop.time() - since > 0.5

        await eventually(still, 30, "the worker to stand still")

    def twice(self) -> dict[str, int]:
        """Addresses that got more than one."""
        return {to: n for to, n in Counter(self.sink.recipients).items() if n > 1}


@dataclass
class MailWorker:
    """A worker process."""

    running: Running
    settings: dict[str, str]

    async def ready(self, partitions: int = 8) -> "MailWorker":
        """Wait until it has so many partitions."""

        def has() -> bool:
            assert self.running.popen.poll() is None, self.running.log.read_text()[-3000:]
            given = [e for e in self.running.events() if e.get("event") == "mail_partitions"]
            return bool(given) and len(given[-1]["partitions"]) == partitions

        await eventually(has, 30, f"{self.running.name} to have {partitions} partitions")
        return self

    async def terminated(self) -> int:
        """SIGTERM; returns the exit code. The server goes on meanwhile: it lives in this loop."""
        return await asyncio.to_thread(self.running.terminate)

    def metric(self, name: str) -> float:
        """The value of a metric, with its labels as in the page; 0 if it is not there."""
        url = f"http://127.0.0.1:{self.settings['mail_metrics_port']}/metrics"
        with urllib.request.urlopen(url, timeout=5) as answer:
            page = answer.read().decode()
        found = re.search(rf"^{re.escape(name)} (\S+)$", page, re.MULTILINE)
        return float(found[1]) if found else 0.0
