"""A course platform on the real processes: a deadline during an outage, a rejection, a grade, no leaks."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from schema.identifiers import user_id_for
from tests.acceptance.helpers import down
from tests.coursework import COURSE, HandIn, Task, assignment, enrolling
from tests.installation import Installation, eventually_async, fresh_name
from tests.services import Services

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(180)]

STUDENTS = [f"student-{n}" for n in range(30)]
FAR = datetime(2099, 1, 1, tzinfo=UTC)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


class Platform:
    """A running installation with `schema.coursework`. Course and places are made, and saved."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.course, self.teacher = "", ""
        self.places: dict[str, str] = {}
        self._clients: dict[str, httpx2.AsyncClient] = {}

    async def start(self) -> None:
        self.installation.start("writer")
        await self.installation.start("api").ready()
        course = (await self.send("tina", "/v1/courses", COURSE))[1]
        self.course, self.teacher = course["id"], course["teacher_id"]

    def client(self, user: str) -> httpx2.AsyncClient:
        if user not in self._clients:
            roles = ("teacher",) if user == "tina" else ()
            self._clients[user] = self.installation.client(user, *roles)
        return self._clients[user]

    async def send(self, user: str, path: str, body: Any) -> tuple[str, dict[str, Any]]:
        """POST and wait until it is saved; returns the command and the answer."""
        answer = await self.accepted(user, "POST", path, body)
        command = answer.get("command") or answer["id"]
        await self.reaches(user, command, "saved")
        return command, answer

    async def accepted(self, user: str, method: str, path: str, body: Any = None) -> dict[str, Any]:
        answer = await self.client(user).request(
            method, path, json=body, headers={"If-Match": "*"} if method == "DELETE" else {}
        )
        assert answer.status_code == 202, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def read(self, user: str, path: str) -> Any:
        answer = await self.client(user).get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def noticed(self, user: str) -> dict[str, Any]:
        """Wait for the latest notice: it is in PostgreSQL, which may just be coming back."""
        found: list[dict[str, Any]] = []

        async def there() -> bool:
            found[:] = (await self.read(user, "/v1/notices"))["items"]
            return bool(found)

        await eventually_async(there, 20, f"a notice to {user}")
        return found[0]

    async def reaches(self, user: str, command: str, state: str) -> dict[str, Any]:
        found: dict[str, Any] = {}

        async def there() -> bool:
            found.update(await self.read(user, f"/v1/commands/{command}"))
            # The overlay knows that it is rejected; why, the ledger tells, once it can be read again.
            return bool(found["state"] == state) and (state != "rejected" or "problem" in found)

        await eventually_async(there, 40, f"{command} of {user} to be {state}")
        return found

    async def task(self, due_at: datetime) -> Task:
        path = f"/v1/courses/{self.course}/assignments"
        made = (await self.send("tina", path, assignment(due_at)))[1]
        return Task(self.course, made["id"], self.teacher)

    async def enrol(self, *students: str) -> None:
        mutations = []
        for student in students:
            body, self.places[student] = enrolling(self.course, student)
            mutations += body["mutations"]
        await self.send("tina", "/v1/commands", {"mutations": mutations})

    def hand_in(self, task: Task, student: str) -> HandIn:
        return HandIn(task, student, self.places[student])

    async def audited(self) -> None:
        async def at_the_end() -> bool:
            status = await asyncio.to_thread(self.installation.run, "status", "--json")
            return status.returncode == 0 and json.loads(status.stdout)["pending"] == 0

        await eventually_async(at_the_end, 30, "the writer to come to the end of the log")
        audit = await asyncio.to_thread(self.installation.run, "audit")
        assert audit.returncode == 0, audit.stdout + audit.stderr

    async def close(self) -> None:
        for client in self._clients.values():
            await client.aclose()


@pytest.fixture
async def platform(services: Services, tmp_path: Path) -> AsyncIterator[Platform]:
    content = {"AFTERWRITE_CONTENT": "schema.coursework"}
    installation = Installation(services, fresh_name(), tmp_path, extra=content)
    await installation.create()
    made = Platform(installation)
    try:
        await made.start()
        yield made
    finally:
        await made.close()
        await installation.destroy()


async def test_a_deadline_that_passes_during_an_outage_makes_nobody_late(
    platform: Platform,
) -> None:
    await platform.enrol(*STUDENTS, "too-late")
    due_at = datetime.now(UTC) + timedelta(seconds=15)
    task = await platform.task(due_at)
    platform.installation.processes["writer"].kill()

    sent = {}
    for student in STUDENTS:
        mine = platform.hand_in(task, student)
        answer = await platform.accepted(student, "POST", "/v1/commands", mine.command())
        sent[student] = (answer["id"], mine)
    assert datetime.now(UTC) < due_at, "this machine is too slow for the deadline of this test"
    for student, (_, mine) in sent.items():
        listed = (await platform.read(student, "/v1/submissions"))["items"]
        assert [(r["id"], r["state"], r["paper_count"]) for r in listed] == [
            (mine.submission, "pending", 1)
        ]

    async def over() -> bool:
        return datetime.now(UTC) > due_at

    await eventually_async(over, 20, "the deadline")
    late = platform.hand_in(task, "too-late")
    refused = await platform.client("too-late").post("/v1/commands", json=late.command())
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")

    platform.installation.start("writer", name="writer-2")
    for student, (command, _) in sent.items():
        await platform.reaches(student, command, "saved")
    rows = await platform.installation.fetch(
        "SELECT s.id, s.file_url, s.student_id, p.id AS paper, p.file_url AS copy, p.teacher_id "
        "FROM submission s JOIN paper p ON p.submission_id = s.id ORDER BY s.id"
    )
    assert [(str(r["id"]), str(r["paper"]), r["file_url"]) for r in rows] == sorted(
        (mine.submission, mine.paper, mine.file["file_url"]) for _, mine in sent.values()
    )
    assert all(row["copy"] == row["file_url"] for row in rows)
    assert {str(row["teacher_id"]) for row in rows} == {platform.teacher}
    papers = await platform.read("tina", f"/v1/assignments/{task.assignment}/papers")
    assert {p["student_id"] for p in papers["items"]} == {str(user_id_for(s)) for s in STUDENTS}
    await platform.audited()


async def test_marks_come_before_a_withdrawal_that_was_accepted_after_them(
    platform: Platform,
) -> None:
    """Nobody can see the other's change while it waits: the writer decides, by the order accepted."""
    await platform.enrol("sam", "eve")
    task = await platform.task(FAR)
    mine, hers = platform.hand_in(task, "sam"), platform.hand_in(task, "eve")
    await platform.send("sam", "/v1/commands", mine.command())
    await platform.send("eve", "/v1/commands", hers.command())
    platform.installation.processes["writer"].kill()

    grading = (await platform.accepted("tina", "POST", "/v1/commands", mine.grading(17)))["id"]
    gone = await platform.accepted("sam", "DELETE", f"/v1/submissions/{mine.submission}")
    withdrawn = await platform.accepted("eve", "DELETE", f"/v1/submissions/{hers.submission}")
    missed = (await platform.accepted("tina", "POST", "/v1/commands", hers.grading(1)))["id"]
    assert (await platform.read("sam", "/v1/submissions"))["items"] == []
    assert (await platform.read("sam", "/v1/grades"))["items"] == []

    # The paper went with its submission, and nothing waits for it: the marks come too late.
    platform.installation.start("writer", name="writer-2")
    await platform.reaches("tina", grading, "saved")
    await platform.reaches("eve", withdrawn["command"], "saved")
    for user, command, code in (
        ("sam", gone["command"], "forbidden"),
        ("tina", missed, "not_found"),
    ):
        assert (await platform.reaches(user, command, "rejected"))["problem"]["code"] == code
        notice = (await platform.read(user, "/v1/notices"))["items"][0]
        assert (notice["command_id"], notice["code"]) == (command, code)
        assert notice["returned"]["mutations"], "what he sent comes back to him"
    submissions = (await platform.read("sam", "/v1/submissions"))["items"]
    assert [(s["id"], s["state"]) for s in submissions] == [(mine.submission, "saved")]
    grades = (await platform.read("sam", "/v1/grades"))["items"]
    assert [(g["points"], g["feedback"], g["state"]) for g in grades] == [
        (17, "Well done.", "saved")
    ]
    assert (await platform.read("eve", "/v1/submissions"))["items"] == []
    assert (await platform.read("eve", "/v1/grades"))["items"] == []
    await platform.audited()


async def test_another_student_finds_nothing_on_any_route(platform: Platform) -> None:
    await platform.enrol("sam", "eve")
    task = await platform.task(FAR)
    mine = platform.hand_in(task, "sam")
    command, _ = await platform.send("sam", "/v1/commands", mine.command())
    _, graded = await platform.send("tina", "/v1/commands", mine.grading(17))
    entry = (await platform.read("tina", f"/v1/courses/{task.course}/enrolments"))["items"][0]
    ids = {
        "users": user_id_for("tina"), "courses": task.course, "assignments": task.assignment,
        "enrolments": entry["id"], "places": mine.place, "handins": mine.handin,
        "submissions": mine.submission, "papers": mine.paper, "grades": graded["rows"][-1]["id"],
        "commands": command, "notices": mine.submission,
    }  # fmt: skip
    secrets = (str(user_id_for("sam")), mine.file["file_url"], mine.file_name, "Well done.")
    described = await platform.read("eve", "/openapi.json")
    told: dict[str, set[str]] = {"eve": set(), "sam": set(), "tina": set()}
    asked = 0
    for path, operations in described["paths"].items():
        plural = path.split("/")[2] if path.startswith("/v1/") else ""
        if "get" not in operations or plural in ("", "events"):
            continue
        asked += 1
        for user, seen in told.items():
            answer = await platform.client(user).get(path.replace("{id}", str(ids.get(plural))))
            assert answer.status_code in (200, 404), answer.text
            if any(secret in answer.text for secret in secrets):
                seen.add(path)
    assert asked >= 20
    assert told["eve"] == set()
    assert told["sam"] >= {"/v1/submissions", "/v1/submissions/{id}", "/v1/grades/{id}"}
    assert told["tina"] >= {"/v1/papers", "/v1/papers/{id}", "/v1/assignments/{id}/papers"}
    await platform.audited()


async def test_what_came_late_while_the_database_was_away_is_rejected_with_a_notice(
    services: Services, platform: Platform
) -> None:
    await platform.enrol("sam", "eve")
    open_, closed = await platform.task(FAR), await platform.task(LONG_AGO)
    in_time, late = platform.hand_in(open_, "sam"), platform.hand_in(closed, "eve")
    with down(services, "postgres"):
        first = (await platform.accepted("sam", "POST", "/v1/commands", in_time.command()))["id"]
        second = (await platform.accepted("eve", "POST", "/v1/commands", late.command()))["id"]
        shown = await platform.read("sam", f"/v1/submissions/{in_time.submission}")
        assert shown["state"] == "pending"
    await platform.reaches("sam", first, "saved")
    found = await platform.reaches("eve", second, "rejected")
    assert found["problem"]["code"] == "forbidden"
    notice = await platform.noticed("eve")
    returned = notice["returned"]["mutations"][1]["values"]
    assert returned["file_url"] == late.file["file_url"]
    assert (await platform.read("eve", "/v1/submissions"))["items"] == []
    await platform.audited()
