"""Every naughty string in every text field: refused with a 422, or the same byte for byte everywhere.

API → Kafka → PostgreSQL → API → page, pending and saved, created and edited.
"""

import httpx2
import pytest

from tests.acceptance.helpers import Site, figure
from tests.described_messages import records_as_described
from tests.installation import Installation
from tests.naughty import STRINGS, Naughty

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(400)]


async def test_every_naughty_string_is_refused_or_kept_exactly(installation: Installation) -> None:
    async with Site(installation) as site:
        api = await site.start_api(site="forum")
        async with httpx2.AsyncClient(base_url=api.url) as client:
            naughty = Naughty(installation, client)
            writer = await installation.start("writer").ready()
            await naughty.begin()
            writer.terminate()
            for change in (naughty.create, naughty.edit):
                await change()
                edited = change == naughty.edit
                await naughty.shown_one_by_one("ada", "pending", names=edited)
                await naughty.shown_in_lists("ada")
                await naughty.shown_by_pages("ada", names=False)
                writer = await installation.start("writer").ready()
                await site.audited()
                if edited:
                    await naughty.shown_one_by_one("ada", "saved")
                await naughty.shown_in_lists("eve")
                await naughty.shown_by_pages("eve", names=True)
                await naughty.stored()
                writer.terminate()
            described = (await client.get("/asyncapi.json")).json()
        for what, statuses in sorted(naughty.answers.items()):
            figure(f"{len(STRINGS)} naughty strings as {what}", dict(statuses))
        assert naughty.conformance is not None
        figure("answers that were as described", sum(naughty.conformance.checked.values()))
        records = await records_as_described(installation, described)
        figure("records that were as described", records)
        assert records["commands"] == records["outcomes"] > len(STRINGS) * 7
        assert [e for e in api.events() if e["event"] == "unexpected_error"] == []
    _must_have_got_in(naughty)


def _must_have_got_in(naughty: Naughty) -> None:
    """What is refused is what its field cannot keep: empty, no text, several lines, too long."""
    refused = {what: answers[422] + answers[401] for what, answers in naughty.answers.items()}
    assert refused == {
        "title, create": 15,
        "title, edit": 15,
        "body, create": 3,
        "body, create with its topic": 3,
        "body, edit": 3,
        "name, create (token)": 29,
        "name, edit": 29,
        "emoji, create": 320,
        "emoji, put": 160,
        "emoji, put (not an address)": 0,
    }
