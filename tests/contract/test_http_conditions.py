"""Which version a change is meant for: If-Match, and what happens without it."""

import asyncio

import pytest

from schema.identifiers import new_row_id, user_id_for
from schema.outcomes import Problem
from tests.frontend import FrontEnd, front_end

pytestmark = pytest.mark.contract

GOOD = {"title": "A title", "body": "A body"}


async def topic_of(site: FrontEnd) -> str:
    async with site.client() as ada:
        return f"/v1/topics/{(await ada.post('/v1/topics', json=GOOD)).json()['id']}"


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
async def test_a_change_must_say_which_version_it_is_meant_for(method: str) -> None:
    async with front_end() as site:
        address = await topic_of(site)
        body = {"title": "x"} if method == "PATCH" else None
        async with site.client() as ada, site.client("eve") as eve:
            for client in (ada, eve):
                client.event_hooks["request"] = []
            refused = await ada.request(method, address, json=body)
            problem = refused.json()
            assert (refused.status_code, problem["code"]) == (428, "precondition_required")
            assert (refused.headers["etag"], problem["current_version"]) == ('"v1"', 1)
            assert '"v1"' in problem["detail"]
            assert "*" in problem["detail"]
            assert len(site.backends.log.records) == 1

            # What is not there for somebody has no version either.
            hidden = await eve.request(method, address, json=body)
            assert (hidden.status_code, "etag" in hidden.headers) == (404, False)
            gone = await ada.request(method, f"/v1/topics/{new_row_id()}", json=body)
            assert gone.status_code == 404

            tag = {"If-Match": refused.headers["etag"]}
            assert (await ada.request(method, address, json=body, headers=tag)).status_code == 202


async def test_without_postgresql_the_answer_cannot_name_the_version() -> None:
    async with front_end() as site:
        address = await topic_of(site)
        while site.backends.apply_next() and site.backends.settle_next():
            site.backends.overlay.sweep(site.backends.log.commands()[-1])
        site.backends.database.available = False
        async with site.client() as ada:
            ada.event_hooks["request"] = []
            refused = await ada.patch(address, json={"title": "x"})
            assert refused.status_code == 428
            assert "etag" not in refused.headers
            assert "current_version" not in refused.json()


async def test_an_author_without_a_row_is_asked_too() -> None:
    async with front_end() as site, site.client() as ada:
        ada.event_hooks["request"] = []
        address = f"/v1/users/{user_id_for('ada')}"
        assert (await ada.patch(address, json={"name": "Ada"})).status_code == 428
        any_ = {"If-Match": "*"}
        assert (await ada.patch(address, json={"name": "Ada"}, headers=any_)).status_code == 202


async def test_an_installation_may_do_without() -> None:
    async with front_end(require_if_match=False) as site:
        address = await topic_of(site)
        async with site.client() as ada:
            ada.event_hooks["request"] = []
            assert (await ada.patch(address, json={"title": "x"})).status_code == 202


async def test_what_has_its_own_address_needs_no_version() -> None:
    async with front_end() as site, site.client() as ada:
        ada.event_hooks["request"] = []
        post = (await ada.post("/v1/topics", json=GOOD)).json()["post"]["id"]
        address = f"/v1/posts/{post}/reactions/x"
        assert (await ada.put(address)).status_code == 202
        assert (await ada.delete(address)).status_code == 202


async def test_any_tag_of_a_list_will_do_and_weak_ones_never_do() -> None:
    async with front_end() as site:
        address = await topic_of(site)
        async with site.client() as ada:
            for tags, status in (
                ('"v7", "v8"', 412), ('W/"v1"', 412), ('"other"', 412), ("v1", 400),
                ('W/"v9", "v1", "v5"', 202), ('"v1", "v5"', 412), ('"v1","v2"', 202),
            ):  # fmt: skip
                answer = await ada.patch(address, json={"title": "x"}, headers={"If-Match": tags})
                assert answer.status_code == status, tags
            versions = [c.mutations[0].expected_version for c in site.backends.log.commands()]
            assert versions == [None, 1, 2]


async def test_if_none_match_is_not_passed_over() -> None:
    async with front_end() as site:
        address = await topic_of(site)
        async with site.client() as ada:
            none = {"If-None-Match": "*"}
            assert (await ada.patch(address, json={"title": "x"}, headers=none)).status_code == 400
            assert (await ada.post("/v1/topics", json=GOOD, headers=none)).status_code == 400
            # A stored answer could be of a state that has passed: there is no 304.
            tag = {"If-None-Match": '"v1"'}
            assert (await ada.get(address, headers=tag)).status_code == 200


async def test_who_waits_for_a_conflict_at_the_writer_is_told_the_present_tag() -> None:
    async with front_end() as site:
        address = await topic_of(site)
        async with site.client() as ada:
            headers = {"If-Match": '"v1"', "Prefer": "wait=20"}
            asked = ada.patch(address, json={"title": "x"}, headers=headers)
            request = asyncio.create_task(asked)
            while len(site.backends.log.records) < 2:  # noqa: ASYNC110 - the fake has no event
                await asyncio.sleep(0)
            [(command, future)] = site.backends.outcomes.waiting.items()
            extra = {"current_version": 7}
            problem = Problem("version_conflict", "It has version 7 now.", extra=extra)
            future.set_result(
                {
                    "command_id": str(command),
                    "outcome": "rejected",
                    "problem": problem.to_json(),
                }
            )
            refused = await request
            assert (refused.status_code, refused.headers["etag"]) == (412, '"v7"')
            assert refused.headers["preference-applied"] == "wait=20"
            assert refused.json()["trace_id"] in refused.headers["traceparent"]
