"""While a broker's disk is nearly full, new changes are refused, and all else goes on."""

import pytest

from tests.frontend import front_end

pytestmark = pytest.mark.contract

GOOD = {"title": "A title", "body": "A body"}


async def test_new_changes_are_refused_and_reads_go_on() -> None:
    async with front_end() as site, site.client() as ada:
        made = await ada.post("/v1/topics", json=GOOD)
        address = made.headers["location"]
        site.backends.log_full = True
        for method, path, body in (
            ("POST", "/v1/topics", GOOD),
            ("PATCH", address, {"title": "Another"}),
            ("DELETE", address, None),
        ):
            refused = await ada.request(method, path, json=body)
            assert (refused.status_code, refused.json()["code"]) == (503, "log_full"), method
            assert refused.headers["retry-after"] == "30"
            assert refused.headers["content-type"] == "application/problem+json"
        assert len(site.backends.log.records) == 1
        shown = await ada.get(address)
        assert (shown.status_code, shown.json()["title"]) == (200, "A title")
        assert (await ada.get("/v1/topics")).json()["items"] != []
        counted = (await ada.get("/metrics")).text
        assert 'afterwrite_submissions_total{result="log_full"} 3.0' in counted

        site.backends.log_full = False
        assert (await ada.post("/v1/topics", json=GOOD)).status_code == 202


async def test_it_is_said_to_those_who_run_it_and_does_not_end_the_reads() -> None:
    async with front_end() as site, site.client(None) as anyone:
        assert (await anyone.get("/readyz")).json()["checks"]["disk"] == {"ok": True}
        site.backends.log_full = True
        answer = await anyone.get("/readyz")
        assert answer.status_code == 200
        told = answer.json()
        assert (told["status"], told["degraded"]) == ("degraded", ["disk"])
        assert told["checks"]["disk"] == {"ok": False}


async def test_a_repeat_of_what_was_taken_is_answered_and_a_new_one_keeps_its_key() -> None:
    async with front_end() as site, site.client() as ada:
        taken, new = {"Idempotency-Key": "taken"}, {"Idempotency-Key": "new"}
        first = await ada.post("/v1/topics", json=GOOD, headers=taken)
        site.backends.log_full = True
        again = await ada.post("/v1/topics", json=GOOD, headers=taken)
        assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
        refused = await ada.post("/v1/topics", json=GOOD, headers=new)
        assert refused.json()["code"] == "log_full"
        site.backends.log_full = False
        assert (await ada.post("/v1/topics", json=GOOD, headers=new)).status_code == 202
        assert len(site.backends.log.records) == 2


async def test_what_nobody_knows_the_outcome_of_is_brought_to_its_end() -> None:
    async with front_end() as site, site.client() as ada:
        key = {"Idempotency-Key": "k"}
        site.backends.log.mode = "lose"
        unknown = await ada.post("/v1/topics", json=GOOD, headers=key)
        assert unknown.json()["code"] == "outcome_unknown"
        site.backends.log.mode, site.backends.log_full = "ok", True
        assert (await ada.post("/v1/topics", json=GOOD, headers=key)).status_code == 202
