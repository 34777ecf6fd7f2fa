"""The API under a fuzzer that knows its description: no fault, no leak, every answer as described.

AFTERWRITE_FUZZ_EXAMPLES and AFTERWRITE_FUZZ_SEED make a campaign of it (CONTRIBUTING.md).
"""

import asyncio
import os

import asyncpg
import pytest

from schema.identifiers import user_id_for
from tests.acceptance.helpers import Site, figure
from tests.described_messages import records_as_described
from tests.fuzzing import Fuzz
from tests.installation import PASSWORD, SECRET, Installation

EXAMPLES = int(os.environ.get("AFTERWRITE_FUZZ_EXAMPLES", "6"))
"""Requests that are made up for each operation, beside those that follow from its description."""
SEED = int(os.environ.get("AFTERWRITE_FUZZ_SEED", "1"))
LIMIT_S = 300 + 30 * EXAMPLES

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(LIMIT_S)]

HIDDEN = "REFUSED: a text of somebody else"
TOPICS = 15
"""Enough that some are left when the fuzzer has deleted what it could."""
EMOJI = ("x", "☕", "👍🏽")
NO_REFUSED = "ALTER TABLE post ADD CONSTRAINT no_refused CHECK (body NOT LIKE 'REFUSED%')"
INSIDE = ("Traceback", "asyncpg", "aiokafka", SECRET, PASSWORD, "/frontend_api/")
"""What nobody should be told of the inside, by mistake."""


async def rows_of(site: Site, user: str) -> dict[str, list[str]]:
    """Some of everything for the fuzzer to come upon, and things of another that he must not see."""
    connection = await asyncpg.connect(site.installation.owner_url)
    try:
        await connection.execute(NO_REFUSED)
    finally:
        await connection.close()
    own = [await site.accepted(user, f"{user} opens {n}") for n in range(TOPICS)]
    others = await site.many(4, "bob")
    refused = [
        (name, (await site.send_topic(name, text)).json()["command"])
        for name, text in [("eve", HIDDEN), *((user, f"REFUSED: {n}") for n in range(5))]
    ]
    del site.sent[-len(refused) :]  # they will not be saved
    for name, command in refused:
        await site.reaches(name, command, "rejected")
    await site.drained()
    reactions = [
        (await site.ask(user, "PUT", f"/v1/posts/{sent.post}/reactions/{emoji}")).json()["id"]
        for sent in own
        for emoji in EMOJI
    ]
    notices = await site.installation.fetch("SELECT id FROM notice")
    sent = [*own, *others]
    return {
        "topics": sorted({str(s.topic) for s in sent}),
        "posts": [str(s.post) for s in sent],
        "commands": [*(str(s.command) for s in sent), *(command for _, command in refused)],
        "reactions": reactions,
        "emoji": [*EMOJI],
        "notices": [str(row["id"]) for row in notices],
        "users": [str(user_id_for(name)) for name in (user, "bob", "eve")],
    }


@pytest.mark.parametrize("roles", [(), ("admin", "moderator")], ids=["user", "admin"])
async def test_the_fuzzer_finds_no_fault(
    installation: Installation, roles: tuple[str, ...]
) -> None:
    async with Site(installation) as site:
        await installation.start("writer").ready()
        # Waiting for each of thousands of requests is not what this is about.
        api = await site.start_api(max_wait_s="0.1")
        rows = await rows_of(site, "ada")
        token = installation.token("ada", *roles)
        fuzz = Fuzz(api.url, token, EXAMPLES, SEED, rows, (HIDDEN, *INSIDE))
        await asyncio.to_thread(fuzz.run)
        figure(f"fuzzer, {'+'.join(roles) or 'user'}", f"{fuzz.cases} requests, {fuzz.statuses}")
        assert fuzz.failures == []
        assert not [status for status in fuzz.statuses if status >= 500 and status != 503]
        assert [e for e in api.events() if e["event"] == "unexpected_error"] == []
        assert api.popen.poll() is None
        _came_somewhere(fuzz)
        await site.audited()
        document = (await site.ask("anyone", "GET", "/asyncapi.json")).json()
        records = await records_as_described(installation, document)
        assert all(records[name] for name in ("commands", "outcomes", "deadLetters")), records


def _came_somewhere(fuzz: Fuzz) -> None:
    """A fuzzer that is refused everywhere would find nothing."""
    assert set(fuzz.modes) == {"positive", "negative"}
    barren = {
        operation: dict(statuses)
        for operation, statuses in fuzz.operations.items()
        if not any(status < 300 for status in statuses)
    }
    assert barren == {}, "no request of these was ever accepted"
    assert fuzz.cases > 1000
