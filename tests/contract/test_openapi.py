"""The OpenAPI description: whole, valid, kept as a snapshot, and true of what the API answers."""

import copy
import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import jsonschema_rs
import pytest
from typer.testing import CliRunner

from deploy.cli import build
from frontend_api.api_parts import NAMES
from frontend_api.events import EVENTS, EXAMPLE, events_of
from schema.outcomes import CODES, Problem
from tests import node_tools
from tests.conformance import Conformance, NotAsDescribed, closed
from tests.descriptions import (
    CONTENT,
    must_be_as_kept,
    names_of_components,
    openapi,
    references,
)
from tests.frontend import front_end

pytestmark = pytest.mark.contract

FORUM = openapi()
TOPICS = "/v1/topics"


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_it_is_as_it_was_kept() -> None:
    must_be_as_kept(FORUM, "openapi")


def test_the_command_prints_it() -> None:
    answer = CliRunner().invoke(build(["openapi"]), ["openapi"])
    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.stdout) == FORUM


async def test_a_running_api_serves_it_to_anybody() -> None:
    async with front_end() as site, site.client(None) as nobody:
        answer = await nobody.get("/openapi.json")
    assert answer.status_code == 200
    assert answer.json() == FORUM


@pytest.mark.parametrize("content", CONTENT)
def test_every_content_type_set_has_one_without_loose_ends(content: str) -> None:
    document = openapi(content)
    components = names_of_components(document)
    schemes = {name for name in components if name.startswith("#/components/securitySchemes/")}
    assert references(document) == components - schemes
    ids = [operation["operationId"] for _, operation in operations(document)]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("content", CONTENT)
def test_examples_are_what_the_schemas_say(content: str) -> None:
    document = openapi(content)
    seen = 0
    for where, operation in operations(document):
        bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
        for body in bodies:
            for media_type, described in _followed(document, body).get("content", {}).items():
                if "json" not in media_type:
                    continue
                whole = {**described["schema"], "components": document["components"]}
                validator = jsonschema_rs.Draft202012Validator(whole, validate_formats=True)
                for name, example in described["examples"].items():
                    errors = [error.message for error in validator.iter_errors(example["value"])]
                    assert errors == [], (where, media_type, name)
                    seen += 1
    for name, schema in document["components"]["schemas"].items():
        whole = {"components": document["components"], "$ref": f"#/components/schemas/{name}"}
        validator = jsonschema_rs.Draft202012Validator(whole, validate_formats=True)
        for example in schema.get("examples", ()):
            assert validator.is_valid(example), name
            seen += 1
    assert seen > 100


def _followed(document: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in part:
        return part
    _, _, section, name = part["$ref"].split("/")
    found: dict[str, Any] = document["components"][section][name]
    return found


def test_events_are_as_described() -> None:
    schemas = FORUM["components"]["schemas"]
    described = schemas["Event"]["properties"]["data"]["contentSchema"]
    whole = {"components": closed({"schemas": schemas}), **closed(described)}
    validator = jsonschema_rs.Draft202012Validator(whole, validate_formats=True)
    ids = {name: str(uuid.uuid4()) for name in ("command_id", "notice", "duplicate_of")}
    row = {"type": "post", "id": str(uuid.uuid4()), "op": "create", "version": None}
    problem = Problem("forbidden", "You may not.").to_json()
    names = {EXAMPLE.name, "reset"}
    assert validator.is_valid(EXAMPLE.data)
    assert validator.is_valid({}), "the data of a reset"
    for outcome in ("saved", "rejected", "parked", "duplicate"):
        told = events_of({**ids, "outcome": outcome, "rows": [row], "problem": problem}, "0-1")
        names |= {event.name for event in told}
        for event in told:
            assert list(validator.iter_errors(event.data)) == []
            assert not validator.is_valid({**event.data, "more": 1})
    assert names == set(EVENTS) == set(schemas["Event"]["properties"]["event"]["enum"])


def test_every_code_stands_in_the_answer_of_its_status() -> None:
    answers = FORUM["components"]["responses"]
    for code in CODES.values():
        if code.status == 405:  # there is no operation that is answered so
            continue
        examples = answers[NAMES[code.status]]["content"]["application/problem+json"]["examples"]
        assert examples[code.name]["value"]["code"] == code.name
    assert set(NAMES) == {code.status for code in CODES.values()}


def test_a_linter_finds_nothing(tmp_path: Path) -> None:
    files = [node_tools.written(tmp_path, content, openapi(content)) for content in CONTENT]
    assert node_tools.spectral(*files) == {str(file): [] for file in files}


def _without(*path: str) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        part = document
        for name in path[:-1]:
            part = part[name]
        del part[path[-1]]

    return change


def _with(value: Any, *path: str) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        part = document
        for name in path[:-1]:
            part = part[name]
        part[path[-1]] = value

    return change


_GET = ("paths", TOPICS, "get")
_POST = ("paths", TOPICS, "post")
_DELETE = ("paths", f"{TOPICS}/{{id}}", "delete")
_JSON = ("content", "application/json")
BROKEN = {
    "oas3-schema": _with([{"in": "query"}], *_DELETE, "parameters"),
    "oas3-valid-media-example": _with(
        {"a": 1}, *_GET, "responses", "200", *_JSON, "examples", "example", "value"
    ),
    "oas3-unused-component": _with({"type": "string"}, "components", "schemas", "Unused"),
    "operation-description": _without(*_GET, "description"),
    "operation-operationId": _without(*_POST, "operationId"),
    "operation-tag-defined": _with(["nobody"], *_GET, "tags"),
    "operation-success-response": _with({}, *_DELETE, "responses"),
    "house-operation-id": _with("listTopics", *_GET, "operationId"),
    "house-summary": _with("Ends with a stop.", *_GET, "summary"),
    "house-problems": _with(
        {"application/json": {}}, "components", "responses", "NotFound", "content"
    ),
    "house-examples": _without(*_POST, "responses", "202", *_JSON, "examples"),
    "house-body-examples": _without(*_POST, "requestBody", *_JSON, "examples"),
    "house-any-request": _without(*_GET, "responses", "413"),
    "house-token": _with([], *_GET, "security"),
    "house-parameters": _without("components", "parameters", "Limit", "description"),
}
"""What breaks each rule, in places that have nothing to do with each other."""


def test_the_linter_would_find_what_it_is_for(tmp_path: Path) -> None:
    document = copy.deepcopy(FORUM)
    for change in BROKEN.values():
        change(document)
    file = node_tools.written(tmp_path, "broken", document)
    found = {said.partition(" at ")[0] for said in node_tools.spectral(file)[str(file)]}
    assert found >= set(BROKEN)


GOOD = {"title": "A title", "body": "A body"}


@pytest.mark.parametrize(
    "change",
    [
        _without(*_POST, "responses", "202"),
        _without(*_POST, "responses", "202", "content", "application/json"),
        _without(*_POST, "responses", "202", "headers", "Link"),
        _without("components", "schemas", "Topic", "properties", "locked"),
        _without("components", "schemas", "TopicCreated", "properties", "display"),
        _with(["never"], "components", "schemas", "TopicCreated", "required"),
        _with({"type": "integer"}, "components", "schemas", "TopicCreated", "properties", "title"),
        _with(
            {"schema": {"type": "string"}, "required": True},
            *_POST, "responses", "202", "headers", "X-Never",
        ),
    ],
)  # fmt: skip
async def test_an_answer_that_is_not_as_described_is_found(
    change: Callable[[dict[str, Any]], None],
) -> None:
    document = copy.deepcopy(FORUM)
    change(document)
    async with front_end() as site, site.client() as client:
        answer = await client.post(TOPICS, json=GOOD)
        listed = await client.get(TOPICS)
        site.backends.overlay.available = False
        hidden = await client.post(TOPICS, json=GOOD)
    assert (answer.status_code, hidden.json()["display"]) == (202, "delayed")
    with pytest.raises(NotAsDescribed):
        _check_all(Conformance(document), answer, listed, hidden)
    _check_all(Conformance(FORUM), answer, listed, hidden)


def _check_all(conformance: Conformance, *answers: httpx2.Response) -> None:
    for answer in answers:
        conformance.check(answer)
