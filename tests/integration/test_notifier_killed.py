"""The notifier is killed at each of its steps: everybody is told once all the same."""

import asyncio
import uuid
from collections import Counter
from pathlib import Path
from typing import get_args

import pytest

from schema.failpoints import Point
from tests.alerting import answers, serving, until
from tests.commands import author, command, create, publish, sealed
from tests.installation import Installation, Running, eventually_async

pytestmark = [pytest.mark.integration, pytest.mark.once, pytest.mark.timeout(150)]

POINTS = [point for point in get_args(Point) if point.startswith("notifier_")]
TELLING = [point for point in POINTS if point != "notifier_before_alert"]


def start(installation: Installation, folder: Path, alerts: int) -> Running:
    armed = ",".join(f"{point}={folder / point}" for point in POINTS)
    return installation.start(
        "notifier",
        failpoints=armed,
        delay_notice_after="1",
        incident_after_s="0.5",
        alert_urls=f"json://127.0.0.1:{alerts}/",
    )


async def sent(installation: Installation, user: str) -> None:
    log_id = await installation.value("SELECT log_id FROM afterwrite.lane WHERE lane = 0")
    made = command(author(user), create("topic", title=f"{user} waits"))
    topic = f"{installation.name}.commands"
    await publish(installation.services.kafka_bootstrap, topic, [sealed(made, log_id)], lane=0)


async def told(installation: Installation) -> Counter[tuple[str, str]]:
    """How many notices of each kind each user has."""
    rows = await installation.fetch(
        'SELECT u.name, n.kind FROM notice n JOIN "user" u ON u.id = n.user_id'
    )
    return Counter((row["name"], row["kind"]) for row in rows)


async def test_killed_at_each_step_everybody_is_told_once(
    installation: Installation, tmp_path: Path
) -> None:
    async with serving(answers(200)) as administrators:
        # There is no writer, so whatever is sent waits. Administrators hear of that, once.
        (tmp_path / "notifier_before_alert").touch()
        notifier = start(installation, tmp_path, administrators.port)
        assert await notifier.ended(30) == -9
        assert administrators.bodies() == []
        notifier = start(installation, tmp_path, administrators.port)
        await until(lambda: bool(administrators.requests), 20)
        for point in TELLING:
            (tmp_path / point).touch()
            await sent(installation, point)
            assert await notifier.ended(30) == -9, point
            notifier = start(installation, tmp_path, administrators.port)
        await sent(installation, "last")
        await notifier.logged("authors_told", 30)
        installation.start("writer")
        users = [*TELLING, "last"]
        wanted = {(user, kind): 1 for user in users for kind in ("delayed", "saved_after_all")}

        async def all_told() -> bool:
            return set(await told(installation)) == set(wanted)

        await eventually_async(all_told, 40, f"all to be told, not {await told(installation)}")
        await asyncio.sleep(2)  # for what would be told again
        assert await told(installation) == wanted
        opened = [body for body in administrators.bodies() if body["phase"] == "opened"]
        ids = {uuid.UUID(body["alert_id"]) for body in opened if "no_writer" in body["incident"]}
        assert len(ids) == 1
