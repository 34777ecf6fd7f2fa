"""What spares work must not spare a check: remembered tokens, the directory of routes, shared glances."""

import asyncio
import json
import re
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from frontend_api import authentication
from frontend_api.authentication import Authentication, mint_token
from frontend_api.direct import Directory
from frontend_api.glances import Glances
from frontend_api.messages import Request, Response
from frontend_api.problems import ProblemError
from frontend_api.statements import Statements
from frontend_api.view import DatabaseUnavailable
from schema.catalog import load_catalog

pytestmark = pytest.mark.unit

SECRET = "a-secret-for-tests-only-0123456789abcdef"
CATALOG = load_catalog("schema.forum")


class Clock:
    """What `time` is to the module that looks at tokens."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def time(self) -> float:
        return time.time() + self.ahead_s

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(authentication, "time", made)
    return made


async def test_a_remembered_token_ends_when_it_expires(clock: Clock) -> None:
    checks = Authentication(SECRET, None, None)
    header = f"Bearer {mint_token(SECRET, 'ada', ttl_s=100)}"
    author = await checks.author(header)
    assert await checks.author(header) == author
    clock.ahead_s = 101.0
    claimed = checks._verified[header]
    assert not await checks._still_holds(claimed)


async def test_a_remembered_token_is_not_taken_before_it_begins(clock: Clock) -> None:
    checks = Authentication(SECRET, None, None)
    header = f"Bearer {mint_token(SECRET, 'ada')}"
    await checks.author(header)
    clock.ahead_s = -3600.0  # the clock is set back
    assert not await checks._still_holds(checks._verified[header])


async def test_another_token_is_not_taken_for_a_remembered_one() -> None:
    checks = Authentication(SECRET, None, None)
    token = mint_token(SECRET, "ada")
    await checks.author(f"Bearer {token}")
    for other in (token[:-1], token + "A", token.upper(), token.replace(".", "..", 1)):
        with pytest.raises(ProblemError):
            await checks.author(f"Bearer {other}")


async def test_a_remembered_token_goes_with_its_key(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "jwks.json"

    def publish(key: ec.EllipticCurvePrivateKey) -> None:
        public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key()))
        path.write_text(json.dumps({"keys": [public | {"kid": "a", "alg": "ES256"}]}))

    first, second = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    claims = {"sub": str(uuid.uuid4()), "name": "ada", "exp": int(time.time()) + 3600}
    header = f"Bearer {jwt.encode(claims, first, algorithm='ES256', headers={'kid': 'a'})}"
    checks = Authentication(None, str(path), None)
    publish(first)
    await checks.author(header)
    publish(second)
    await checks.author(header)  # the keys are not old enough to be loaded again
    clock.ahead_s = 301.0
    with pytest.raises(ProblemError):
        await checks.author(header)


async def test_only_so_many_tokens_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "_REMEMBERED", 3)
    checks = Authentication(SECRET, None, None)
    for number in range(5):
        await checks.author(f"Bearer {mint_token(SECRET, f'user-{number}')}")
    await checks.author(f"Bearer {mint_token(SECRET, 'ada', ['r' * 90] * 30)}")  # too long
    assert len(checks._verified) == 3


def test_the_directory_finds_what_the_framework_would() -> None:
    directory = Directory()

    def add(method: str, path: str) -> Any:
        async def handler(_: Request) -> Response:
            return Response(b"", 200, {})

        directory.route(method, path, handler, name=path, summary="", tag="", operation={})
        return handler

    listing, one = add("GET", "/v1/posts"), add("GET", "/v1/posts/{id}")
    change, read = add("PATCH", "/v1/posts/{id}"), add("PUT", "/v1/notices/{id}/read")
    put = add("PUT", "/v1/posts/{id}/reactions/{emoji}")
    assert directory.find("GET", "/v1/posts") == (listing, {})
    assert directory.find("GET", "/v1/posts/7") == (one, {"id": "7"})
    assert directory.find("PATCH", "/v1/posts/7") == (change, {"id": "7"})
    assert directory.find("PUT", "/v1/notices/7/read") == (read, {"id": "7"})
    assert directory.find("PUT", "/v1/posts/7/reactions/☕") == (put, {"id": "7", "emoji": "☕"})
    for method, path in [
        ("GET", "/v1/posts/"), ("GET", "/v1/posts/7/"), ("GET", "v1/posts"), ("GET", "//v1/posts"),
        ("POST", "/v1/posts"), ("HEAD", "/v1/posts"), ("GET", "/v1"), ("GET", "/"), ("GET", ""),
        ("PUT", "/v1/posts//reactions/x"), ("PUT", "/v1/notices/7/else"),
    ]:  # fmt: skip
        assert directory.find(method, path) is None


class Statement:
    """Counts what is run; finds nothing."""

    def __init__(self) -> None:
        self.ran: list[Sequence[Any]] = []
        self.error: Exception | None = None

    async def run(self, statement: str, args: Sequence[Any], timeout_s: float | None) -> Any:
        self.ran.append(args)
        assert set(re.findall(r"\$([0-9]+)", statement)) == {f"{n + 1}" for n in range(len(args))}
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        ledger: list[Any] = [[]] if "afterwrite.ledger" in statement else []
        return [[(0, 7, 0, "3,5")], *ledger, *([] for _ in args[2 * len(ledger) :])]


async def test_what_is_asked_in_one_turn_is_one_statement() -> None:
    statement = Statement()
    glances = Glances(Statements.of(CATALOG), statement.run)
    ada, bob, post = uuid.uuid4(), uuid.uuid4(), uuid.uuid4()
    user, posts = CATALOG["user"], CATALOG["post"]
    asked = [
        glances.ask([(user, ada)], ada, [], None),
        glances.ask([(user, bob), (posts, post)], bob, [post], None),
        glances.ask([(user, ada)], ada, [], 0.25),
    ]
    asked[0].cancel()
    seen = await asked[1]
    assert seen.positions[0].position == 7
    assert seen.positions[0].parked == {3, 5}
    assert (await asked[2]).positions == seen.positions
    assert statement.ran[1] == [[ada]]  # of the ledger nothing is asked
    await glances.ask([(user, ada)], ada, [post], 0.25)
    assert statement.ran.pop() == [[ada], [post], [ada]]
    authors, commands, found_posts, found_users = statement.ran[0]
    assert (authors, commands, found_posts, set(found_users)) == ([bob], [post], [post], {bob})
    assert len(statement.ran) == 2  # whoever has less time is not kept waiting by the others


async def test_a_failure_is_told_to_everybody_who_asked() -> None:
    statement = Statement()
    statement.error = OSError("gone")
    glances = Glances(Statements.of(CATALOG), statement.run)
    asked = [glances.ask([(CATALOG["user"], uuid.uuid4())], uuid.uuid4(), [], None) for _ in "ab"]
    for one in asked:
        with pytest.raises(OSError, match="gone"):
            await one
    assert len(statement.ran) == 1


class Still(Statement):
    """A server that stands still while `moves` is not set."""

    def __init__(self) -> None:
        super().__init__()
        self.moves = asyncio.Event()
        self.moves.set()

    async def run(self, statement: str, args: Sequence[Any], timeout_s: float | None) -> Any:
        found = await super().run(statement, args, timeout_s)
        await self.moves.wait()
        return found


async def test_while_a_statement_takes_unusually_long_nobody_else_waits_for_it() -> None:
    statement = Still()
    glances = Glances(Statements.of(CATALOG), statement.run)

    def ask(timeout_s: float | None = 30.0) -> "asyncio.Future[Any]":
        return glances.ask([(CATALOG["user"], uuid.uuid4())], uuid.uuid4(), [], timeout_s)

    await ask()  # now it is known what is usual
    statement.moves.clear()
    first = ask()
    await asyncio.sleep(0)
    waits, patient = ask(), ask(None)
    with pytest.raises(DatabaseUnavailable):
        async with asyncio.timeout(10):
            await waits  # gone on without it, long before its limit
    comes_then = ask()
    assert comes_then.done()
    with pytest.raises(DatabaseUnavailable):
        await comes_then
    assert not first.done()  # it is its statement
    assert not patient.done()  # it has all the time
    statement.moves.set()
    await asyncio.gather(first, patient)
    await ask()  # as before
    assert len(statement.ran) == 4  # none for those who went on without
