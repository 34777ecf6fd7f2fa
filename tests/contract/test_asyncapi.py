"""The AsyncAPI description: whole, valid, kept as a snapshot, and true of the bytes in Kafka."""

import copy
import json
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from deploy.cli import build
from schema.catalog import load_catalog
from schema.envelope import Keyring, Record, headers_to_json, open_record, seal
from schema.outcomes import Outcome, Problem
from schema.settings import Settings
from schema.strict_json import encode
from schema.topics import topics
from tests import node_tools
from tests.described_messages import Messages, NotDescribed
from tests.descriptions import CONTENT, asyncapi, must_be_as_kept, names_of_components, references
from tests.frontend import front_end
from writer.publisher import Message, Told, dead_letter_message, outcome_message

pytestmark = pytest.mark.contract

FORUM = asyncapi()
GOLDEN = sorted((Path(__file__).parent / "golden").glob("envelope_v*.json"))


def test_it_is_as_it_was_kept() -> None:
    must_be_as_kept(FORUM, "asyncapi")


def test_the_command_prints_it() -> None:
    answer = CliRunner().invoke(build(["asyncapi"]), ["asyncapi"])
    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.stdout) == FORUM


async def test_a_running_api_serves_it_to_anybody() -> None:
    async with front_end() as site, site.client(None) as nobody:
        answer = await nobody.get("/asyncapi.json")
    assert answer.status_code == 200
    prefix = Settings().prefix
    assert answer.json()["channels"]["commands"]["address"] == f"{prefix}.commands"
    assert answer.json() == FORUM


@pytest.mark.parametrize("content", CONTENT)
def test_every_content_type_set_has_one_without_loose_ends(content: str) -> None:
    document = asyncapi(content)
    channels = {f"#/channels/{name}" for name in document["channels"]}
    assert references(document) == names_of_components(document) | channels


def test_it_has_every_topic_that_something_is_published_to() -> None:
    """Topics that are made and not yet used have nothing to be told of."""
    names = topics(Settings())
    described = {channel["address"] for channel in FORUM["channels"].values()}
    assert described == {
        names.commands.name,
        names.dead_letters.name,
        names.outcomes.name,
        names.mail.name,
        names.mail_dead_letters.name,
        names.alerts.name,
    }
    partitions = {
        channel["address"]: channel["bindings"]["kafka"]["partitions"]
        for channel in asyncapi_with(lanes=4)["channels"].values()
    }
    assert partitions[names.commands.name] == 4


def asyncapi_with(**settings: Any) -> dict[str, Any]:
    from schema.asyncapi import asyncapi_document

    return asyncapi_document(load_catalog("schema.forum"), topics(Settings(**settings)))


def test_the_parser_finds_nothing(tmp_path: Path) -> None:
    files = [node_tools.written(tmp_path, content, asyncapi(content)) for content in CONTENT]
    assert node_tools.asyncapi(*files) == {str(file): [] for file in files}


def test_the_parser_would_find_what_it_is_for(tmp_path: Path) -> None:
    broken = {}
    for name in ("version", "schema", "binding", "operation", "reference"):
        broken[name] = copy.deepcopy(FORUM)
    broken["version"]["asyncapi"] = "9.0.0"
    broken["schema"]["components"]["schemas"]["Command"]["type"] = "none"
    broken["binding"]["channels"]["commands"]["bindings"]["kafka"]["partitions"] = "many"
    broken["operation"]["operations"]["sendCommand"]["action"] = "shout"
    broken["reference"]["operations"]["sendCommand"]["channel"]["$ref"] = "#/channels/none"
    files = {name: node_tools.written(tmp_path, name, doc) for name, doc in broken.items()}
    found = node_tools.asyncapi(*files.values())
    assert [name for name, file in files.items() if not found[str(file)]] == []


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_bytes_are_as_described(path: Path) -> None:
    record = json.loads(path.read_text(encoding="utf-8"))["record"]
    headers = tuple((name, text.encode()) for name, text in record["headers"])
    Messages(FORUM).check(
        "commands", Record(record["key"].encode(), record["value"].encode(), headers)
    )


@pytest.mark.parametrize("content", CONTENT)
def test_examples_are_what_the_schemas_say(content: str) -> None:
    """The parser looks at examples of version 2 only."""
    document = asyncapi(content)
    messages = Messages(document)
    for message in document["components"]["messages"].values():
        assert message["examples"]
        for example in message["examples"]:
            messages.check_example(message, example)
            with pytest.raises(NotDescribed):
                messages.check_example(message, {"headers": {"more": "x"}, "payload": {"more": 1}})


@pytest.mark.parametrize("content", CONTENT)
def test_the_example_of_a_command_is_one(content: str) -> None:
    document = asyncapi(content)
    example = document["components"]["messages"]["Command"]["examples"][0]
    headers = [(name, text.encode()) for name, text in example["headers"].items()]
    keyring = Keyring({"example": b"an-example-key-0123456789abcdefghij"})
    key = example["payload"]["stream"].encode()
    opened = open_record(key, encode(example["payload"]), headers, keyring)
    assert str(opened.command.command_id) == example["headers"]["ce_id"]
    assert opened.traceparent == example["headers"]["traceparent"]
    again = seal(opened, keyring, example["headers"]["ce_source"])
    Messages(document).check("commands", again)


def _ledger_row(outcome: Outcome, **more: Any) -> dict[str, Any]:
    effects = [
        {"type": "post", "id": str(uuid.uuid4()), "op": "update", "version": 3, "digest": "x"}
    ]
    row = {
        "command_id": uuid.uuid4(),
        "author_id": uuid.uuid4(),
        "outcome": outcome,
        "offset": 7,
        "seq": 8,
        "effects": json.dumps(effects),
        "problem": None,
        "duplicate_of": None,
    }
    return row | more


PROBLEM = json.dumps(Problem("version_conflict", "Other.", extra={"current_version": 3}).to_json())


@pytest.mark.parametrize(
    "row",
    [
        _ledger_row(Outcome.SAVED),
        _ledger_row(Outcome.REJECTED, problem=PROBLEM),
        _ledger_row(Outcome.PARKED, problem=PROBLEM, effects="[]"),
        _ledger_row(Outcome.DUPLICATE, duplicate_of=uuid.uuid4()),
    ],
    ids=lambda row: row["outcome"].value,
)
def test_outcomes_are_as_described(row: dict[str, Any]) -> None:
    Messages(FORUM).check("outcomes", _record(outcome_message("t", 0, Told.of(row))))


def test_notices_are_as_described_and_outcomes_are_none_of_them() -> None:
    value = FORUM["components"]["messages"]["NoticeMade"]["examples"][0]["payload"]
    Messages(FORUM).check("outcomes", Record(value["author"].encode(), encode(value), ()))
    outcome = outcome_message("t", 0, Told.of(_ledger_row(Outcome.SAVED)))
    for wrong in (value | {"command": "none"}, value | {"kind": "something"}):
        with pytest.raises(NotDescribed):
            Messages(FORUM).check("outcomes", Record(outcome.key or b"", encode(wrong), ()))


@pytest.mark.parametrize("sqlstate", [None, "23505"])
def test_dead_letters_are_as_described(sqlstate: str | None) -> None:
    row = {
        "offset": 7,
        "command_id": None,
        "key": b"\xff",
        "value": b"\x00not a command",
        "headers": headers_to_json([("ce_id", b"x"), ("odd", None)]),
        "code": "malformed",
        "detail": "no key, no value, no ce_type or no ce_signature",
        "sqlstate": sqlstate,
        "constraint_name": sqlstate and "one_per_day",
        "attempts": 1,
        "died_at": datetime.now(tz=UTC),
        "first_died_at": datetime.now(tz=UTC),
        "replay_of": uuid.uuid4() if sqlstate else None,
    }
    group = "afterwrite.writer" if sqlstate else None
    mirrored = dead_letter_message("t", "source", 0, row, group)
    Messages(FORUM).check("deadLetters", _record(mirrored))


def _record(message: Message) -> Record:
    return Record(message.key or b"", message.value or b"", message.headers)


def _with_value(value: dict[str, Any], **more: Any) -> bytes:
    return encode(value | more)


def test_a_record_that_is_not_as_described_is_found() -> None:
    data = json.loads(GOLDEN[0].read_text(encoding="utf-8"))
    record = data["record"]
    key, value = record["key"].encode(), json.loads(record["value"])
    headers = tuple((name, text.encode()) for name, text in record["headers"])
    mutation = value["mutations"][0]
    for wrong in (
        Record(b"no-uuid", encode(value), headers),
        Record(key, encode(value), headers[1:]),
        Record(key, encode(value), (*headers, ("more", b"x"))),
        Record(key, encode({n: v for n, v in value.items() if n != "author"}), headers),
        Record(key, _with_value(value, more=1), headers),
        Record(key, _with_value(value, v=2), headers),
        Record(key, _with_value(value, mutations=[]), headers),
        Record(key, _with_value(value, mutations=[mutation | {"type": "none"}]), headers),
        Record(key, _with_value(value, mutations=[mutation | {"values": {"no": 1}}]), headers),
    ):
        with pytest.raises(NotDescribed):
            Messages(FORUM).check("commands", wrong)
