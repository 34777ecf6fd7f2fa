"""A course platform over the front end: its routes, one hand-in as one command, and who may read what."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from schema.identifiers import user_id_for
from tests.coursework import COURSE, HandIn, Task, assignment, create, enrolling
from tests.frontend import FrontEnd, front_end

pytestmark = pytest.mark.contract

ROWS = {
    "user": {"PATCH"},
    "course": {"PATCH"},
    "assignment": {"PATCH"},
    "enrolment": {"DELETE"},
    "place": set(),
    "handin": {"PATCH"},
    "submission": {"DELETE"},
    "paper": {"PATCH"},
    "grade": set(),
}
LISTS = {
    "/v1/courses": {"GET", "POST"},
    "/v1/courses/{id}/assignments": {"GET", "POST"},
    "/v1/courses/{id}/enrolments": {"GET", "POST"},
    "/v1/assignments/{id}/papers": {"GET", "POST"},
    "/v1/handins": {"POST"},
    "/v1/places": {"GET"},
    "/v1/submissions": {"GET"},
    "/v1/papers": {"GET"},
    "/v1/grades": {"GET"},
}


@pytest.fixture
async def site() -> AsyncIterator[FrontEnd]:
    async with front_end(content="schema.coursework", lanes=1) as made:
        yield made


def written(site: FrontEnd) -> None:
    """Let the writer work."""
    while site.backends.apply_next():
        pass


async def a_task(site: FrontEnd, due_at: datetime | None = None) -> Task:
    async with site.client("tina", "teacher") as tina:
        course = (await tina.post("/v1/courses", json=COURSE)).json()
        made = await tina.post(
            f"/v1/courses/{course['id']}/assignments", json=assignment(due_at or IN_AN_HOUR)
        )
        assert made.status_code == 202, made.text
    written(site)
    return Task(course["id"], made.json()["id"], course["teacher_id"])


async def a_place(site: FrontEnd, task: Task, student: str) -> str:
    body, place = enrolling(task.course, student)
    async with site.client("tina") as tina:
        assert (await tina.post("/v1/commands", json=body)).status_code == 202
    written(site)
    return place


async def hand_in(site: FrontEnd, task: Task, student: str) -> HandIn:
    mine = HandIn(task, student, await a_place(site, task, student))
    async with site.client(student) as client:
        answer = await client.post("/v1/commands", json=mine.command())
    assert answer.status_code == 202, answer.text
    return mine


ANY = {"If-Match": "*"}
IN_AN_HOUR = datetime.now(UTC) + timedelta(hours=1)


def test_the_routes_follow_from_the_declarations(site: FrontEnd) -> None:
    wanted = LISTS | {f"/v1/{name}s/{{id}}": ops | {"GET"} for name, ops in ROWS.items()}
    machinery = {"commands", "events", "notices"}
    found = {
        path: {method.upper() for method in operations}
        for path, operations in site.app.openapi()["paths"].items()
        if path.startswith("/v1/") and path.split("/")[2] not in machinery
    }
    assert found == wanted


async def test_one_command_hands_in_and_its_student_sees_it_at_once(site: FrontEnd) -> None:
    mine = await hand_in(site, await a_task(site), "sam")
    commands = site.backends.log.commands()
    assert [m.type for m in commands[-1].mutations] == ["handin", "submission", "paper"]
    assert str(commands[-1].stream) == mine.handin
    async with site.client("sam") as sam:
        for state in ("pending", "saved"):
            found = (await sam.get(f"/v1/submissions/{mine.submission}")).json()
            assert (found["state"], found["paper_count"]) == (state, 1)
            assert {name: found[name] for name in mine.file} == mine.file
            listed = (await sam.get("/v1/submissions")).json()["items"]
            assert [row["id"] for row in listed] == [mine.submission]
            written(site)


async def test_a_hand_in_after_the_deadline_is_refused_at_once(site: FrontEnd) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    task = await a_task(site, past)
    mine = HandIn(task, "sam", await a_place(site, task, "sam"))
    async with site.client("sam") as sam:
        refused = await sam.post("/v1/commands", json=mine.command())
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")


@pytest.mark.parametrize(
    ("user", "falsified"),
    [
        ("sam", {"teacher_id": str(user_id_for("eve"))}),
        ("sam", {"file_url": "https://files.example/something/else"}),
        ("sam", {"file_sha256": "f" * 64}),
        ("sam", {"points": 20}),
        ("eve", {}),
    ],
    ids=["to another reader", "another file", "another sum", "his own marks", "on another's place"],
)
async def test_a_false_copy_is_refused(
    site: FrontEnd, user: str, falsified: dict[str, Any]
) -> None:
    task = await a_task(site)
    mine = HandIn(task, "sam", await a_place(site, task, "sam"))
    async with site.client(user) as client:
        refused = await client.post("/v1/commands", json=mine.command(**falsified))
    assert refused.status_code in (403, 422), refused.text
    assert len(site.backends.log.commands()) == 3, "course, assignment, enrolment"


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("file_url", "http://files.example/a"),
        ("file_url", "https://files.example/a b"),
        ("file_url", "javascript:alert(1)"),
        ("file_url", f"https://files.example/{'a' * 2048}"),
        ("file_bytes", 0),
        ("file_bytes", 2**40 + 1),
        ("file_bytes", "1"),
        ("file_sha256", "0" * 63),
        ("file_sha256", "G" * 64),
        ("file_name", "a\nb"),
        ("media_type", "application"),
        ("student_id", str(user_id_for("eve"))),
    ],
)
async def test_what_is_no_file(site: FrontEnd, field: str, wrong: object) -> None:
    task = await a_task(site)
    mine = HandIn(task, "sam", await a_place(site, task, "sam"))
    body = mine.command()
    body["mutations"][1]["values"][field] = wrong
    async with site.client("sam") as sam:
        answer = await sam.post("/v1/commands", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert answer.json()["errors"][0]["pointer"].startswith("/mutations/1/values")


async def test_a_submission_is_replaced_as_a_whole_and_takes_its_paper_along(
    site: FrontEnd,
) -> None:
    mine = await hand_in(site, await a_task(site), "sam")
    written(site)
    better = HandIn(mine.task, "sam", mine.place, "better.pdf", handin=mine.handin)
    body = better.command(without="handin")
    body["mutations"].insert(0, {"op": "delete", "type": "submission", "id": mine.submission})
    async with site.client("sam") as sam:
        assert (await sam.post("/v1/commands", json=body)).status_code == 202
        listed = (await sam.get("/v1/submissions")).json()["items"]
        assert [(row["file_name"], row["paper_count"]) for row in listed] == [("better.pdf", 1)]


async def test_grading_ends_withdrawing(site: FrontEnd) -> None:
    mine = await hand_in(site, await a_task(site), "sam")
    written(site)
    async with site.client("tina") as tina, site.client("sam") as sam:
        papers = (await tina.get(f"/v1/assignments/{mine.task.assignment}/papers")).json()
        assert [(p["id"], p["student_id"]) for p in papers["items"]] == [
            (mine.paper, str(user_id_for("sam")))
        ]
        too_many = await tina.post("/v1/commands", json=mine.grading(21))
        assert too_many.status_code == 403
        assert (await tina.post("/v1/commands", json=mine.grading(19))).status_code == 202
        written(site)
        grades = (await sam.get("/v1/grades")).json()["items"]
        assert [(g["points"], g["feedback"]) for g in grades] == [(19, "Well done.")]
        refused = await sam.delete(f"/v1/submissions/{mine.submission}", headers=ANY)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        assert (await tina.get("/v1/grades")).json()["items"] == []
        assert (await tina.get(f"/v1/papers/{mine.paper}")).json()["points"] == 19


async def test_who_leaves_the_course_keeps_his_work(site: FrontEnd) -> None:
    mine = await hand_in(site, await a_task(site), "sam")
    written(site)
    async with site.client("tina") as tina, site.client("sam") as sam:
        course = f"/v1/courses/{mine.task.course}/enrolments"
        entry = (await tina.get(course)).json()["items"][0]
        assert (await sam.get(course)).json()["items"] == []
        assert (await tina.delete(f"/v1/enrolments/{entry['id']}", headers=ANY)).status_code == 202
        written(site)
        assert (await sam.get(f"/v1/submissions/{mine.submission}")).status_code == 200


def addresses(site: FrontEnd, mine: HandIn, more: dict[str, str]) -> list[str]:
    """Every address that can be read, with the ids of somebody else's hand-in put in."""
    ids = {
        "users": str(user_id_for("tina")),
        "courses": mine.task.course,
        "assignments": mine.task.assignment,
        "places": mine.place,
        "handins": mine.handin,
        "submissions": mine.submission,
        "papers": mine.paper,
        **more,
    }
    found = []
    for path, operations in site.app.openapi()["paths"].items():
        if "get" in operations and path.startswith("/v1/"):
            plural = path.split("/")[2]
            found.append(path.replace("{id}", ids.get(plural, ids["submissions"])))
    return found


def tells(answer: httpx2.Response, mine: HandIn) -> bool:
    """Whether the answer says anything of the student, his file, or what his teacher told him."""
    secrets = (str(user_id_for(mine.student)), mine.file["file_url"], mine.file_name, "Well done.")
    return any(secret in answer.text for secret in secrets)


async def test_nobody_else_learns_anything_on_any_route(site: FrontEnd) -> None:
    """Pending and saved, graded and not; the fellow student is enrolled, and knows every id."""
    task = await a_task(site)
    await a_place(site, task, "eve")
    mine = await hand_in(site, task, "sam")
    more: dict[str, str] = {}
    async with (
        site.client("sam") as sam, site.client("tina") as tina, site.client("eve") as eve,
        site.client("kim", "teacher", "staff", "admin") as kim,
    ):  # fmt: skip

        async def look(expected: set[str]) -> None:
            seen = set()
            paths = addresses(site, mine, more)
            assert len(paths) >= 20
            for path in paths:
                if path.startswith("/v1/events"):
                    continue  # a stream without an end; it has tests of its own
                for other in (eve, kim):
                    answer = await other.get(path)
                    assert not tells(answer, mine), path
                    assert answer.status_code in (200, 404), path
                if tells(await sam.get(path), mine):
                    seen.add(path.split("/")[2])
            assert seen >= expected, "the student himself sees it, or this test sees nothing"

        more["commands"] = str(site.backends.log.commands()[-1].command_id)
        assert not tells(await tina.get(f"/v1/papers/{mine.paper}"), mine), "it is pending"
        await look({"submissions", "places"})
        written(site)
        await look({"submissions", "places"})
        assert tells(await tina.get(f"/v1/papers/{mine.paper}"), mine)
        graded = await tina.post("/v1/commands", json=mine.grading(12))
        more["grades"] = graded.json()["rows"][-1]["id"]
        await look({"submissions", "places"})
        written(site)
        await look({"submissions", "places", "grades"})
        enrolled = await tina.get(f"/v1/courses/{task.course}/enrolments")
        more["enrolments"] = enrolled.json()["items"][-1]["id"]
        await look({"submissions", "places", "grades"})


async def test_what_is_another_s_cannot_be_changed_or_built_upon(site: FrontEnd) -> None:
    mine = await hand_in(site, await a_task(site), "sam")
    written(site)
    paths: list[tuple[str, str, Any]] = [("DELETE", f"/v1/submissions/{mine.submission}", None)]
    paths += [("PATCH", f"/v1/papers/{mine.paper}", {"points": 1})]
    paths += [("PATCH", f"/v1/handins/{mine.handin}", {"marked": True})]
    grade = mine.grading(1)["mutations"][2]
    paths += [("POST", "/v1/commands", {"mutations": [grade]})]
    again = create("paper", None, **mine.command()["mutations"][2]["values"])
    paths += [("POST", "/v1/commands", {"mutations": [again]})]
    for user, roles in (("eve", ()), ("kim", ("teacher", "staff", "admin"))):
        async with site.client(user, *roles) as other:
            for method, path, body in paths:
                answer = await other.request(method, path, json=body, headers=ANY)
                assert answer.status_code in (403, 404, 422), (path, answer.text)
                assert not tells(answer, mine)
