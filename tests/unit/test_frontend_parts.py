"""Single parts of the front end: tokens, headers, cursors, statements, ghosts."""

import json
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from frontend_api.authentication import Authentication, mint_token
from frontend_api.ghosts import Ghosts
from frontend_api.merge import Entry
from frontend_api.planning import Planner
from frontend_api.problems import ProblemError
from frontend_api.statements import Statements, quoted
from frontend_api.validation import (
    fingerprint,
    idempotency_key,
    preferences,
    read_cursor,
    versions_of,
    write_cursor,
)
from schema.catalog import load_catalog
from schema.commands import Author
from schema.facts import actor_facts, decide
from schema.identifiers import user_id_for
from schema.outcomes import CODES
from schema.rules import UnknownFact
from tests.fakes import SECRET, FakeDatabase, FakeOverlay
from tests.frontend import front_end

pytestmark = pytest.mark.unit

CATALOG = load_catalog("schema.forum")
ADA = Author(user_id_for("ada"), "ada")


def claims(**changes: Any) -> dict[str, Any]:
    good = {"sub": str(user_id_for("ada")), "name": "ada", "exp": int(time.time()) + 60}
    return {k: v for k, v in (good | changes).items() if v is not ...}


async def test_a_minted_token_is_its_user() -> None:
    token = mint_token(SECRET, "ada", ["moderator"], 60)
    author = await Authentication(SECRET, None, None).author(f"Bearer {token}")
    assert author == Author(user_id_for("ada"), "ada", ("moderator",))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        # Made in the test: what is made while tests are collected has expired when they run.
        (lambda: jwt.encode(claims(exp=1), SECRET), "expired"),
        (lambda: jwt.encode(claims(exp=...), SECRET), "'exp'"),
        (lambda: jwt.encode(claims(sub="ada"), SECRET), "UUID"),
        (lambda: jwt.encode(claims(sub=...), SECRET), "'sub'"),
        (lambda: jwt.encode(claims(name="a\nb"), SECRET), "name"),
        (lambda: jwt.encode(claims(name="x" * 101), SECRET), "name"),
        (lambda: jwt.encode(claims(roles="admin"), SECRET), "roles"),
        (lambda: jwt.encode(claims(roles=[1]), SECRET), "roles"),
        (lambda: jwt.encode(claims(), "another-secret-for-tests-0123456789abcdef"), "not valid"),
        (lambda: jwt.encode(claims(), "", algorithm="none"), "not valid"),
    ],
)
async def test_tokens_that_are_refused(make: Callable[[], str], says: str) -> None:
    token = make()
    with pytest.raises(ProblemError) as error:
        await Authentication(SECRET, None, None).author(f"Bearer {token}")
    assert error.value.problem.status == 401
    assert says in error.value.problem.detail


async def test_keys_from_a_jwks_file(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    public = json.loads(ECAlgorithm.to_jwk(key.public_key()))
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [public | {"kid": "a", "alg": "ES256"}]}))
    authentication = Authentication(None, str(path), "site")
    good = jwt.encode(claims(aud="site"), key, algorithm="ES256", headers={"kid": "a"})
    assert (await authentication.author(f"Bearer {good}")).name == "ada"
    for bad in (
        jwt.encode(claims(aud="other"), key, algorithm="ES256", headers={"kid": "a"}),
        jwt.encode(claims(aud="site"), key, algorithm="ES256", headers={"kid": "b"}),
        jwt.encode(claims(aud="site"), SECRET, algorithm="HS256", headers={"kid": "a"}),
    ):
        with pytest.raises(ProblemError):
            await authentication.author(f"Bearer {bad}")


@pytest.mark.parametrize(
    ("header", "key"),
    [(None, None), ("abc", "abc"), ('"abc"', "abc"), (' "a\\"b" ', 'a"b'), ("x" * 255, "x" * 255)],
)
def test_idempotency_keys(header: str | None, key: str | None) -> None:
    assert idempotency_key(header) == key


def test_the_fingerprint_is_of_the_meaning() -> None:
    assert fingerprint("POST", "/a", {"x": 1, "y": 2}) == fingerprint(
        "POST", "/a", {"y": 2, "x": 1}
    )
    others = [("PUT", "/a", {"x": 1}), ("POST", "/b", {"x": 1}), ("POST", "/a", {"x": 2})]
    assert len({fingerprint(*other) for other in others}) == 3


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [([], None), (["wait=5"], 5), (["respond-async, wait=100"], 30), (["foo=1"], None),
     (["wait=x"], None), (["await=5"], None), (['wait="2"'], 2)],
)  # fmt: skip
def test_preferences(prefer: list[str], seconds: float | None) -> None:
    assert preferences(prefer, 30).wait_s == seconds


def test_versions_in_if_match() -> None:
    assert versions_of('"v12"') == frozenset({12})
    assert versions_of(' "v1" ,"x,\u00ff", W/"v7", ,"v3",') == frozenset({1, 3})
    assert versions_of(" * ") is None
    for nothing_matches in ('W/"v12"', '"12"', '"v012"', "", ","):
        with pytest.raises(ProblemError) as refused:
            versions_of(nothing_matches)
        assert refused.value.problem.code == "version_conflict"
    for malformed in ("v12", '"v1" "v2"', '"v1', "*, *", '"v1", *', 'w/"v1"', "\n"):
        with pytest.raises(ProblemError) as refused:
            versions_of(malformed)
        assert refused.value.problem.code == "bad_request"


def test_cursors_belong_to_their_list() -> None:
    row, parent = uuid.uuid4(), uuid.uuid4()
    cursor = write_cursor("posts", parent, row)
    assert read_cursor("posts", parent, cursor) == row
    for name, of in (("posts", None), ("topics", parent)):
        with pytest.raises(ProblemError):
            read_cursor(name, of, cursor)


def test_statements_quote_what_is_declared_and_nothing_else() -> None:
    statements = Statements.of(CATALOG)
    assert 'from public."user" where id' in statements.by_id["user"]
    assert statements.pages["topics", False].endswith("order by id desc limit $1")
    assert '"user_id" = $2' in statements.pages["notices", False]
    assert 'id < $2::uuid and "user_id" = $3' in statements.pages["notices", True]
    with pytest.raises(ValueError, match="identifier"):
        quoted('post"; drop table post; --')


def test_rules_with_facts_that_are_not_known() -> None:
    kind = CATALOG["topic"]
    row = {"id": uuid.uuid4(), "author_id": ADA.id, "title": "T", "locked": False, "version": 1}
    known = actor_facts(CATALOG, ADA, None)
    assert decide(kind, "update", known, row, row | {"title": "x"}, {}) is None
    assert decide(kind, "update", known, row, row | {"locked": True}, {}) == "forbidden"
    unknown = actor_facts(CATALOG, ADA, None, known=False)
    with pytest.raises(UnknownFact):
        decide(kind, "create", unknown, row, row, {})
    moderator = actor_facts(CATALOG, Author(ADA.id, "ada", ("moderator",)), None, known=False)
    assert decide(kind, "delete", moderator, row | {"author_id": uuid.uuid4()}, None, {}) is None
    assert decide(CATALOG["notice"], "create", known, None, row, {}) == "forbidden"


def test_ids_are_renamed_when_a_claim_is_taken_over() -> None:
    planner = Planner(CATALOG, ADA)
    planner.create(CATALOG["topic"], {"title": "T", "body": "B"})
    plan = planner.plan("k", "f")
    theirs = tuple(uuid.uuid4() for _ in plan.ids)
    renamed = plan.with_ids(theirs)
    assert renamed.ids == theirs
    topic, post = (planned.mutation for planned in renamed.mutations)
    assert (topic.id, post.id, post.values["topic_id"]) == (theirs[1], theirs[2], str(theirs[1]))


async def test_a_ghost_is_forgotten_once_the_writer_has_passed_the_end_of_the_log() -> None:
    async with front_end() as site, site.client() as client:
        site.backends.log.mode = "lose"
        await client.post("/v1/topics", json={"title": "T", "body": "B"})
        overlay: FakeOverlay = site.backends.overlay
        database: FakeDatabase = site.backends.database
        await client.get("/v1/topics")
        (entry,) = site.backends.suspected[-1:]
        end = {0: 0}

        async def ends() -> dict[int, int]:
            return end

        ghosts = Ghosts(overlay, database, ends, lanes=1, age_s=0)
        end[0] = 3
        ghosts.suspect(entry)
        await ghosts.look()
        assert (await client.get("/v1/topics")).json()["items"] != []  # the writer is not there yet
        database.tables.position = 3
        await ghosts.look()
        assert (await client.get("/v1/topics")).json()["items"] == []


async def test_a_suspect_that_the_ledger_knows_is_none() -> None:
    async with front_end() as site, site.client() as client:
        site.backends.log.mode = "hide"
        await client.post("/v1/topics", json={"title": "T", "body": "B"})
        await client.get("/v1/topics")
        entry: Entry = site.backends.suspected[-1]
        site.backends.apply_next()

        async def ends() -> dict[int, int]:
            return {0: 1}

        overlay: FakeOverlay = site.backends.overlay
        ghosts = Ghosts(overlay, site.backends.database, ends, lanes=1, age_s=0)
        ghosts.suspect(entry)
        await ghosts.look()
        assert len((await client.get("/v1/topics")).json()["items"]) == 1
        assert any(overlay.entries.values()), "it may have to be shown from a replica that lags"
        late = Ghosts(overlay, site.backends.database, ends, lanes=1, age_s=0, grace_s=0)
        late.suspect(entry)
        await late.look()
        assert not any(overlay.entries.values()), "a repeat has put it there, and died"
        assert len((await client.get("/v1/topics")).json()["items"]) == 1


def test_every_problem_has_a_status_that_is_an_error() -> None:
    assert all(400 <= code.status < 600 for code in CODES.values())
