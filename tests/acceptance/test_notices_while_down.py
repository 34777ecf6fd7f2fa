"""PostgreSQL goes away; authors are told that their changes are safe, and later that they are saved."""

import time
import uuid
from typing import Any

import pytest

from tests.acceptance.helpers import Site, down, figure
from tests.alerting import Server, answers, serving, until
from tests.installation import Installation, eventually_async

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(150)]

SOON = {"delay_notice_after": "2", "incident_after_s": "1"}
AUTHORS = ("ada", "bob", "cem")


async def notices(site: Site, user: str) -> list[dict[str, Any]]:
    answer = await site.ask(user, "GET", "/v1/notices?limit=100")
    return answer.json()["items"] if answer.status_code == 200 else []


async def told(site: Site, user: str, kind: str, timeout: float = 30) -> list[dict[str, Any]]:
    """Wait until the user has a notice of this kind; returns all of that kind."""
    found: list[dict[str, Any]] = []

    async def there() -> bool:
        found[:] = [n for n in await notices(site, user) if n["kind"] == kind]
        return bool(found)

    await eventually_async(there, timeout, f"{user} to be told {kind}")
    return found


async def test_authors_are_told_once_while_it_is_down_and_once_when_all_is_saved(
    installation: Installation,
) -> None:
    async with Site(installation) as site, serving(answers(200)) as administrators:
        await site.start()
        alerts = SOON | {"alert_urls": f"json://127.0.0.1:{administrators.port}/"}
        notifier = installation.start("notifier", **alerts)
        await notifier.logged("following")  # what is decided from here on it knows as decided
        topics = {user: (await site.accepted(user, f"{user} opens")).topic for user in AUTHORS}
        await site.drained()
        with down(installation.services, "postgres"):
            began = time.monotonic()
            for n in range(3):
                for user in AUTHORS:
                    await site.accepted(user, f"{user} waits {n} {uuid.uuid4()}", topics[user])
            await until(lambda: "database_down" in phases(administrators), 10)
            figure("seconds until administrators heard of it", round(time.monotonic() - began, 1))
            delayed = {user: await told(site, user, "delayed") for user in AUTHORS}
            notifier.kill()
            notifier = installation.start("notifier", **alerts)
            await notifier.logged("leading")
            await site.accepted("ada", f"ada waits, too {uuid.uuid4()}", topics["ada"])
        for user in AUTHORS:
            (notice,) = delayed[user]
            assert notice["state"] == "pending"
            assert notice["returned"]["count"] == 3
            assert "3 changes are safe" in notice["detail"]
        for user in AUTHORS:
            (saved,) = await told(site, user, "saved_after_all")
            # Ada's last one came in the last moment: whether it waited is a matter of that.
            wanted = (3, 4) if user == "ada" else (3,)
            assert saved["returned"]["saved"] in wanted
            assert saved["returned"]["rejected"] == 0
        await site.prove()
        await until(lambda: phases(administrators).get("database_down") == ["opened", "closed"], 20)
        for user in AUTHORS:
            assert sorted(n["kind"] for n in await notices(site, user)) == [
                "delayed", "saved_after_all",
            ]  # fmt: skip


async def test_with_redis_away_too_the_notice_is_shown_when_that_is_back(
    installation: Installation,
) -> None:
    async with Site(installation) as site, serving(answers(200)) as administrators:
        await site.start()
        notifier = installation.start(
            "notifier", **SOON, alert_urls=f"json://127.0.0.1:{administrators.port}/"
        )
        await notifier.logged("leading")
        topic = (await site.accepted("ada", "ada opens")).topic
        await site.drained()
        with down(installation.services, "postgres"):
            with down(installation.services, "redis"):
                await site.accepted("ada", f"ada waits {uuid.uuid4()}", topic)
                await notifier.logged("authors_told", 30)
                await until(lambda: {"database_down", "redis_down"} <= set(phases(administrators)))
            await told(site, "ada", "delayed")
        await told(site, "ada", "saved_after_all")
        await site.prove()
        assert len(await notices(site, "ada")) == 2


def phases(administrators: Server) -> dict[str, list[str]]:
    """What administrators were told of each incident, in order."""
    found: dict[str, list[str]] = {}
    for alert in administrators.bodies():
        found.setdefault(alert["incident"], []).append(alert["phase"])
    return found
