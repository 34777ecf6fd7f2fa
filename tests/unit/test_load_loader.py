"""Loading a dump against an API in memory: nothing lost, nothing doubled, everything listed."""

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import jwt
import pytest

from deploy.errors import NotReachable, Trouble, UsageTrouble
from deploy.load.api import Api, Patience, Tokens
from deploy.load.loader import Limits, Loader
from deploy.load.report import Report
from deploy.load.stackexchange import survey
from deploy.load.state import LoadState
from schema.identifiers import user_id_for

pytestmark = pytest.mark.unit

SECRET = "s" * 32
COFFEE = Path(__file__).parents[1] / "data" / "coffee" / "Posts.xml"
SMALL = """<posts>
<row Id="2" PostTypeId="2" ParentId="1" OwnerUserId="8" Body="first answer"/>
<row Id="1" PostTypeId="1" OwnerUserId="4" Title="Why?" Body="because&#xA;"/>
<row Id="3" PostTypeId="2" ParentId="1" Body="second answer"/>
</posts>"""


@dataclass
class Clock:
    """Time that passes only while somebody sleeps."""

    now: float = 0.0
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Quiet:
    """Shows nothing, remembers what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def stage(self, name: str, total: int) -> None: ...

    def advance(self) -> None: ...

    def say(self, text: str) -> None:
        self.said.append(text)


class Site:
    """The API in memory, as its contract says. `settles_after` is how often a command is asked for
    until it is settled; `faults` are taken first, one a request: see `_fault`."""

    def __init__(self) -> None:
        self.topics: dict[str, dict[str, str]] = {}
        self.posts: dict[str, dict[str, str]] = {}
        self.commands: dict[str, dict[str, Any]] = {}
        self.answers: dict[tuple[str, str], dict[str, Any]] = {}
        self.ledger: dict[tuple[str, str], str] = {}
        self.settles_after = 1
        self.rejects: Callable[[dict[str, str]], bool] = lambda body: False
        self.faults: list[int | str] = []
        self.requests = 0

    async def handle(self, request: httpx2.Request) -> httpx2.Response:
        self.requests += 1
        fault = self.faults.pop(0) if self.faults else None
        if fault == "refused":
            raise httpx2.ConnectError("connection refused")
        if isinstance(fault, int):
            return _problem(fault, {503: "not_accepted", 409: "in_flight"}.get(fault, "other"))
        answer = self._route(request)
        if fault == "lost":
            raise httpx2.ReadTimeout("no answer")
        if fault == "cut":
            return httpx2.Response(202, content=b'{"id": "')
        return answer

    def _route(self, request: httpx2.Request) -> httpx2.Response:
        token = request.headers["Authorization"].removeprefix("Bearer ")
        try:
            claims = jwt.decode(token, SECRET, algorithms=["HS256"])
        except jwt.InvalidTokenError:
            return _problem(401, "unauthenticated")
        assert claims["sub"] == str(user_id_for(claims["name"]))
        if request.method == "GET":
            return self._look(request.url.path.rsplit("/", 1)[1])
        return self._accept(request, claims["name"])

    def _accept(self, request: httpx2.Request, author: str) -> httpx2.Response:
        key = (author, request.headers["Idempotency-Key"])
        if key in self.answers:
            return httpx2.Response(202, json=self.answers[key])
        body = json.loads(request.content)
        if body["body"] == "refuse me":
            return _problem(422, "invalid")
        command, id_ = str(uuid.uuid4()), str(uuid.uuid4())
        parts = request.url.path.split("/")
        made = {"post": id_, "topic": parts[3]} if len(parts) == 5 else {"topic": id_}
        self.commands[command] = {"key": key, "made": made, "body": body, "asked": 0}
        self.answers[key] = {"id": id_, "version": 1, "state": "pending", "command": command}
        return httpx2.Response(202, json=self.answers[key])

    def _look(self, command: str) -> httpx2.Response:
        known = self.commands.get(command)
        if known is None:
            return _problem(404, "not_found")
        known["asked"] += 1
        if known["asked"] < self.settles_after:
            return httpx2.Response(200, json={"id": command, "state": "pending", "rows": []})
        return httpx2.Response(200, json={"id": command} | self._apply(command, known))

    def _apply(self, command: str, known: dict[str, Any]) -> dict[str, Any]:
        """What the writer does: the ledger takes each key once."""
        if self.rejects(known["body"]):
            return {
                "state": "rejected",
                "rows": [],
                "problem": {"code": "forbidden", "detail": "You may not."},
            }
        first = self.commands[self.ledger.setdefault(known["key"], command)]
        made, body, author = first["made"], first["body"], first["key"][0]
        if "post" in made:
            assert made["topic"] in self.topics, "an answer without its topic"
            row = {"topic": made["topic"], "author": author, **body}
            self.posts[made["post"]] = row
            rows = [{"type": "post", "id": made["post"], "op": "create"}]
        else:
            self.topics[made["topic"]] = {"author": author, **body}
            rows = [
                {"type": "topic", "id": made["topic"], "op": "create"},
                {"type": "post", "id": str(uuid.uuid4()), "op": "create"},
            ]
        return {"state": "saved", "rows": rows}


def _problem(status: int, code: str) -> httpx2.Response:
    headers = {"Retry-After": "7"} if status == 503 else {}
    return httpx2.Response(status, json={"code": code, "detail": "no"}, headers=headers)


@dataclass
class Load:
    """Loads a dump into a site, as often as a test likes."""

    folder: Path
    site: Site = field(default_factory=Site)
    clock: Clock = field(default_factory=Clock)
    shown: Quiet = field(default_factory=Quiet)
    secret: str = SECRET

    async def __call__(
        self, dump: str | Path = SMALL, state: str = "state.jsonl", give_up_after_s: float = 600
    ) -> Report:
        path = dump if isinstance(dump, Path) else self.folder / "Posts.xml"
        if isinstance(dump, str):
            path.write_text(dump, "utf-8")
        found = survey(path)
        transport = httpx2.MockTransport(self.site.handle)
        with LoadState(self.folder / state, found.digest) as kept:
            async with httpx2.AsyncClient(transport=transport, base_url="http://site") as client:
                patience = Patience(give_up_after_s, self.shown.say, self.clock, self.clock.sleep)
                api = Api(client, Tokens(self.secret), patience)
                limits = Limits(in_flight=4, settle_within_s=100)
                loader = Loader(
                    path, found, api, kept, self.shown, limits, self.clock, self.clock.sleep
                )
                return await loader.load()


@pytest.fixture
def load(tmp_path: Path) -> Load:
    return Load(tmp_path)


async def test_questions_become_topics_and_answers_their_posts(load: Load) -> None:
    report = await load()
    ((topic_id, topic),) = load.site.topics.items()
    assert topic == {"author": "user-4", "title": "Why?", "body": "because\n"}
    assert sorted(post["body"] for post in load.site.posts.values()) == [
        "first answer",
        "second answer",
    ]
    assert {post["topic"] for post in load.site.posts.values()} == {topic_id}
    assert {post["author"] for post in load.site.posts.values()} == {"user-8", "anonymous"}
    assert (report.accepted, report.saved, report.exit_code(strict=True)) == (3, 3, 0)


async def test_the_coffee_dump_goes_through(load: Load) -> None:
    report = await load(COFFEE)
    assert (len(load.site.topics), len(load.site.posts)) == (225, 327)
    assert (report.rows, report.accepted, report.saved) == (592, 552, 552)
    assert len(report.skipped) == 40
    assert (report.exit_code(strict=False), report.exit_code(strict=True)) == (0, 1)


async def test_a_second_run_sends_nothing(load: Load) -> None:
    await load()
    before = load.site.requests
    report = await load()
    assert load.site.requests == before + 1  # whether the site is the same
    assert (report.accepted, report.earlier, report.saved) == (0, 3, 3)


async def test_a_lost_state_file_doubles_nothing(load: Load) -> None:
    await load()
    report = await load(state="another.jsonl")
    assert (len(load.site.topics), len(load.site.posts)) == (1, 2)
    assert report.saved == 3


async def test_a_lost_state_file_and_a_lost_cache_double_nothing(load: Load) -> None:
    """Then a 202 names new ids. Only the settled command tells the first ones, among them the topic
    that an answer belongs in which had not been sent before."""
    await load()
    (topic_id,) = load.site.topics
    load.site.answers.clear()
    ((unsent, _),) = [p for p in load.site.posts.items() if p[1]["body"] == "second answer"]
    del load.site.posts[unsent]
    (key,) = [key for key in load.site.ledger if key[1].endswith("-3")]
    del load.site.ledger[key]
    report = await load(state="another.jsonl")
    assert set(load.site.topics) == {topic_id}
    assert [post["topic"] for post in load.site.posts.values()] == [topic_id] * 2
    assert report.saved == 3
    lines = (load.folder / "another.jsonl").read_text("utf-8").splitlines()
    assert {json.loads(line)["topic"] for line in lines[-2:]} == {topic_id}


@pytest.mark.parametrize("fault", [503, 500, 502, 429, 409, "refused", "lost", "cut"])
async def test_what_may_pass_is_tried_again(load: Load, fault: int | str) -> None:
    load.site.faults = [fault] * 3
    report = await load()
    assert (report.saved, len(load.site.topics), len(load.site.posts)) == (3, 1, 2)
    assert any("trying on" in text for text in load.shown.said)
    assert any("answers again" in text for text in load.shown.said)


async def test_retry_after_is_honoured(load: Load) -> None:
    load.site.faults = [503]
    await load()
    assert load.clock.slept[0] == 7


async def test_it_gives_up_when_nothing_is_answered_and_goes_on_later(load: Load) -> None:
    load.site.faults = ["refused"] * 10_000
    with pytest.raises(NotReachable, match="60 s"):
        await load(give_up_after_s=60)
    assert 59 <= load.clock.now <= 90
    load.site.faults = []
    assert (await load()).saved == 3


async def test_a_wrong_secret_is_said(load: Load) -> None:
    load.secret = "w" * 32
    with pytest.raises(UsageTrouble, match="tokens"):
        await load()


async def test_what_the_api_refuses_is_listed_with_its_answers(load: Load) -> None:
    report = await load(SMALL.replace("because&#xA;", "refuse me"))
    assert [(r.row, r.reason) for r in report.rejected] == [("1", "invalid: no")]
    assert sorted(r.row for r in report.skipped) == ["2", "3"]
    assert (report.saved, report.exit_code(strict=False)) == (0, 1)


async def test_what_the_writer_rejects_is_listed(load: Load) -> None:
    load.site.rejects = lambda body: body["body"] == "first answer"
    report = await load()
    assert [(r.row, r.reason) for r in report.rejected] == [("2", "forbidden: You may not.")]
    assert (report.saved, report.exit_code(strict=False)) == (2, 1)
    again = await load()
    assert (again.accepted, len(again.rejected)) == (0, 1)


async def test_an_answer_without_its_question_is_listed(load: Load) -> None:
    report = await load(SMALL.replace('ParentId="1" Body', 'ParentId="9" Body'))
    assert [r.row for r in report.skipped] == ["3"]
    assert "row 9" in report.skipped[0].reason


async def test_commands_are_waited_for(load: Load) -> None:
    load.site.settles_after = 5
    report = await load()
    assert (report.saved, report.unsettled) == (3, [])


async def test_commands_that_never_settle_are_listed_and_settled_later(load: Load) -> None:
    load.site.settles_after = 10**9
    report = await load()
    assert sorted(r.row for r in report.unsettled) == ["1", "2", "3"]
    assert report.exit_code(strict=False) == 1
    load.site.settles_after = 1
    again = await load()
    assert (again.saved, again.unsettled) == (3, [])


async def test_a_state_file_of_another_site_is_refused(load: Load) -> None:
    await load()
    load.site = Site()
    with pytest.raises(Trouble, match="not about this site"):
        await load()
    assert load.site.commands == {}


async def test_a_state_file_of_another_dump_is_refused(load: Load) -> None:
    await load()
    with pytest.raises(Trouble, match="another dump"):
        await load(SMALL.replace("first", "1st"))


async def test_a_line_cut_off_by_a_crash_is_dropped(load: Load) -> None:
    await load()
    path = load.folder / "state.jsonl"
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + lines[2][:10])
    report = await load()
    assert (report.saved, len(load.site.topics), len(load.site.posts)) == (3, 1, 2)


async def test_a_spoilt_state_file_is_said(load: Load) -> None:
    await load()
    path = load.folder / "state.jsonl"
    path.write_text(path.read_text("utf-8").replace('"row"', '"wor"', 1), "utf-8")
    with pytest.raises(Trouble, match="line 2"):
        await load()


async def test_two_loads_of_one_dump_do_not_meet(load: Load, tmp_path: Path) -> None:
    await load()
    digest = survey(tmp_path / "Posts.xml").digest
    with (
        LoadState(tmp_path / "state.jsonl", digest),
        pytest.raises(Trouble, match="Another load"),
    ):
        await load()


def test_the_report_tells_every_row() -> None:
    report = Report(rows=4, accepted=2, saved=1, seconds=2.0)
    assert report.to_json()["per_second"] == 1.0
    assert json.loads(json.dumps(report.to_json()))["rejected"] == []
    assert "saved     1" in report.to_text()


def test_a_token_is_not_shown() -> None:
    tokens = Tokens(SECRET)
    tokens.of("user-8")
    assert SECRET not in repr(tokens)
    assert "ey" not in repr(tokens)
