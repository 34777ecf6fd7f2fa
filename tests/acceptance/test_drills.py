"""Drills: PostgreSQL stays away, and everybody who has to hear of it hears of it, once.

Real processes, and at the other ends of their channels real servers: SMTP, an SMS gateway, a webhook.
"""

import asyncio
import json
import signal
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from redis.asyncio import Redis

from tests.acceptance.helpers import Sent, Site, down, figure
from tests.alerting import SECRET, Server, answers, serving
from tests.installation import Installation, eventually_async
from tests.smtp_sink import SmtpSink, smtp_sink

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(240)]

PEOPLE = [f"author-{n}" for n in range(40)]
CHANGES = 50
"""Of each of them, while PostgreSQL is away."""
SHORT = {
    "incident_after_s": "2",
    "delay_notice_after": "4",
    "mail_per_minute": "100000",
    "alert_secret": SECRET,
}


@dataclass
class Duty:
    """Who is on call: what reached him by each of his three channels. And the users' mail."""

    webhook: Server
    sms: Server
    mail: SmtpSink
    users: SmtpSink

    @property
    def urls(self) -> str:
        return ", ".join(
            (
                f"json://127.0.0.1:{self.webhook.port}/alerts",
                f"form://127.0.0.1:{self.sms.port}/send?:to=%2B491701234567",
                f"mailto://127.0.0.1:{self.mail.port}?to=ops@example.org&mode=insecure",
            )
        )

    def alerts(self, incident: str = "database_down") -> list[dict[str, Any]]:
        return [body for body in self.webhook.bodies() if body["incident"] == incident]

    def heard(self, title: str) -> list[int]:
        """How often each channel has told something of this title."""
        by_sms = [parse_qs(request.body.decode()) for request in self.sms.requests]
        subjects = [str(one.message["subject"]) for one in self.mail.received]
        return [
            sum(body["title"] == title for body in self.webhook.bodies()),
            sum(form["title"] == [f"[afterwrite] {title}"] for form in by_sms),
            sum(subject.endswith(f"[afterwrite] {title}") for subject in subjects),
        ]


@asynccontextmanager
async def duty() -> AsyncIterator[Duty]:
    async with (
        serving(answers(200)) as webhook,
        serving(answers(200)) as sms,
        smtp_sink() as mail,
        smtp_sink() as users,
    ):
        yield Duty(webhook, sms, mail, users)


async def started(site: Site, on: Duty, **settings: str) -> None:
    """API, writer, notifier and a mail worker."""
    installation = site.installation
    installation.addresses = True
    installation.extra |= {f"AFTERWRITE_{n.upper()}": v for n, v in (SHORT | settings).items()}
    await site.start()
    notifier = installation.start("notifier", alert_urls=on.urls)
    worker = installation.start("mail-worker", smtp_url=on.users.url)
    await notifier.logged("leading")
    await worker.ready()


async def wait_in_vain(site: Site, topics: dict[str, uuid.UUID]) -> list[Sent]:
    """Everybody changes something again and again, all at the same time."""

    async def goes_on(user: str) -> list[Sent]:
        return [
            await site.accepted(user, f"{user} waits {n} {uuid.uuid4()}", topics[user])
            for n in range(CHANGES)
        ]

    return [sent for one in await asyncio.gather(*map(goes_on, PEOPLE)) for sent in one]


async def notices(site: Site, user: str) -> Counter[str]:
    """How many notices of each kind a user is shown."""
    answer = await site.ask(user, "GET", "/v1/notices?limit=100")
    return Counter(n["kind"] for n in answer.json().get("items", ()))


async def shown_to_all(
    site: Site, kind: str, timeout: float, people: Sequence[str] = PEOPLE
) -> None:
    left = set(people)

    async def shown() -> bool:
        for user in sorted(left):
            if (await notices(site, user))[kind]:
                left.discard(user)
        return not left

    await eventually_async(shown, timeout, f"everybody to be told {kind}")


async def until(check: Any, timeout: float, what: str) -> None:
    async def there() -> bool:
        return bool(check())

    await eventually_async(there, timeout, what)


@pytest.mark.parametrize("trouble", ["alone", "with Redis flushed and the writer killed"])
async def test_while_postgresql_is_away_everybody_is_told_and_nothing_is_lost(
    installation: Installation, trouble: str
) -> None:
    async with duty() as on, Site(installation) as site:
        await started(site, on)
        opened = await asyncio.gather(*(site.accepted(u, f"{u} opens") for u in PEOPLE))
        topics = {sent.user: sent.topic for sent in opened}
        await site.drained()
        writer = installation.processes["writer"]
        with down(installation.services, "postgres"):
            away = time.monotonic()
            waiting = asyncio.create_task(wait_in_vain(site, topics))
            await until(lambda: on.alerts(), 15, "administrators to be alerted")
            title = on.alerts()[0]["title"]
            await until(lambda: on.heard(title) == [1, 1, 1], 15, "all channels to have told it")
            figure("alerted_after_s", round(time.monotonic() - away, 1))
            assert time.monotonic() - away < 10
            sent = await waiting
            assert len(sent) == len(PEOPLE) * CHANGES == 2000
            if trouble != "alone":
                await flushed(installation)
                writer.signal(signal.SIGKILL)
                await writer.ended()
            await shown_to_all(site, "delayed", 60)
            for user in PEOPLE:
                assert await notices(site, user) == {"delayed": 1}
        if trouble != "alone":
            await installation.start("writer", "second").ready()
        await shown_to_all(site, "saved_after_all", 60)
        await until(lambda: on.alerts()[-1]["phase"] == "closed", 30, "the incident to be over")
        assert [alert["phase"] for alert in on.alerts()] == ["opened", "closed"]
        over = on.alerts()[-1]["title"]
        await until(lambda: on.heard(over) == [1, 1, 1], 15, "all channels to have told the end")
        assert on.heard(title) == [1, 1, 1]
        await site.prove()
        told = await installation.fetch(
            "SELECT user_id, array_agg(kind::text ORDER BY kind) AS kinds FROM notice GROUP BY user_id"
        )
        assert len(told) == len(PEOPLE)
        assert {tuple(row["kinds"]) for row in told} == {("delayed", "saved_after_all")}
        await until(
            lambda: len(on.users.received) >= 2 * len(PEOPLE), 60, "the users' mail to be sent"
        )
        by_mail = Counter((one.to, str(one.message["subject"])) for one in on.users.received)
        assert len(by_mail) == 2 * len(PEOPLE)
        assert set(by_mail.values()) == {1}


async def flushed(installation: Installation) -> None:
    redis = Redis.from_url(installation.services.redis_url)
    try:
        await redis.flushall()
    finally:
        await redis.aclose()


async def test_five_days_pass_and_what_could_not_be_saved_bounces_and_is_replayed(
    installation: Installation, tmp_path: Path
) -> None:
    clock = tmp_path / "clock"
    installation.extra["AFTERWRITE_CLOCK"] = str(clock)

    def later(hours: float) -> None:
        there = tmp_path / "clock.new"
        there.write_text(str(hours * 3600), encoding="utf-8")
        there.replace(clock)

    people = PEOPLE[:5]
    async with duty() as on, Site(installation) as site:
        await started(site, on, delay_notice_after="20")
        opened = await asyncio.gather(*(site.accepted(u, f"{u} opens") for u in people))
        await site.drained()
        with down(installation.services, "postgres"):
            sent = [
                await site.accepted(s.user, f"{s.user} waits {n}", s.topic)
                for s in opened
                for n in range(4)
            ]
            await until(lambda: on.alerts(), 15, "administrators to be alerted")
            for told, hours in enumerate((0.3, 1.1, 4.1, 28.2, 52.3, 76.4, 100.5), 2):
                later(hours)
                await until(
                    lambda told=told: len(on.alerts()) >= told,
                    20,
                    f"a reminder after {hours} hours",
                )
            assert [alert["phase"] for alert in on.alerts()] == ["opened", *["reminder"] * 7]
            await shown_to_all(site, "delayed", 30, people)
            for user in people:
                assert await notices(site, user) == {"delayed": 1}
                states = [await site.state(user, one.command) for one in sent if one.user == user]
                assert set(states) == {"delayed"}
            later(5 * 24 + 1)
        for one in sent:
            bounced = await site.reaches(one.user, one.command, "rejected")
            assert bounced["problem"]["code"] == "expired"
        await until(lambda: on.alerts()[-1]["phase"] == "closed", 30, "the incident to be over")
        rows = await installation.fetch(
            "SELECT kind, returned, command_id FROM notice WHERE kind = 'rejected'"
        )
        returned = json.dumps([row["returned"] for row in rows])
        assert all(one.body in returned for one in sent)
        dead = installation.run("dead", "list", "--code", "expired", "--json")
        assert dead.returncode == 0, dead.stderr
        assert len(dead.stdout.splitlines()) == len(sent)
        replayed = installation.run("dead", "replay", "--code", "expired", "--yes", "--by", "ops")
        assert replayed.returncode == 0, replayed.stdout + replayed.stderr

        async def all_there() -> bool:
            bodies = await installation.fetch("SELECT body FROM post")
            return {one.body for one in sent} <= {row["body"] for row in bodies}

        await eventually_async(all_there, 30, "what was replayed to be saved")
        for first in opened:
            shown = [post["body"] for post in await site.posts(first.user, first.topic)]
            mine = [one.body for one in sent if one.topic == first.topic]
            assert shown == [first.body, *mine]
        await site.audited()
        subjects = Counter(str(one.message["subject"]) for one in on.users.received)
        figure("users_mail", dict(subjects))
