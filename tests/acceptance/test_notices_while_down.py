"""PostgreSQL goes away; authors are told that their changes are safe, and later that they are saved."""

import uuid
from typing import Any

import pytest

from tests.acceptance.helpers import Site, down
from tests.installation import Installation, eventually_async

pytestmark = pytest.mark.acceptance

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
    async with Site(installation) as site:
        await site.start()
        notifier = installation.start("notifier", **SOON)
        await notifier.logged("leading")
        topics = {user: (await site.accepted(user, f"{user} opens")).topic for user in AUTHORS}
        await site.drained()
        with down(installation.services, "postgres"):
            for n in range(3):
                for user in AUTHORS:
                    await site.accepted(user, f"{user} waits {n} {uuid.uuid4()}", topics[user])
            delayed = {user: await told(site, user, "delayed") for user in AUTHORS}
        for user in AUTHORS:
            (notice,) = delayed[user]
            assert notice["returned"]["count"] == 3
            assert "3 changes are safe" in notice["detail"]
        for user in AUTHORS:
            await told(site, user, "saved_after_all")
        await site.prove()
        for user in AUTHORS:
            assert sorted(n["kind"] for n in await notices(site, user)) == [
                "delayed", "saved_after_all",
            ]  # fmt: skip
