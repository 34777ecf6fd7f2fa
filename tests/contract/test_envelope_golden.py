"""Old commands stay readable: the bytes of every version of the envelope, for ever.

A golden file holds a command and the record it was sealed to, byte for byte. Opening these bytes must
give the command, and sealing it must give them, if they are of the form that is written now. To add a
file, seal a command with a new name once, and never touch it again.

`envelope_v1_*` have `ce_time`, `ce_partitionkey` and a signature in hexadecimal, as was written at first;
`envelope_v1_lean_*` are of the same commands, as they are written since.
"""

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from schema.commands import Command
from schema.envelope import VERSION, BadSignature, Envelope, Keyring, open_record, seal

pytestmark = pytest.mark.contract

GOLDEN = sorted((Path(__file__).parent / "golden").glob("envelope_v*.json"))
WRITTEN = [path for path in GOLDEN if path.name.startswith(f"envelope_v{VERSION}_lean_")]
NAMES = ("topic_with_post", "edit_and_delete", "replay", "text")
KEYRING = Keyring({"golden": b"a-key-of-golden-bytes-0123456789abcdef"})


def _read(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return data


def _envelope(data: dict[str, Any]) -> Envelope:
    command = Command.from_json(data["command"])
    return Envelope(command, uuid.UUID(data["log_id"]), data.get("traceparent"))


def _record(data: dict[str, Any]) -> tuple[bytes, bytes, list[tuple[str, bytes]]]:
    record = data["record"]
    headers = [(name, text.encode()) for name, text in record["headers"]]
    return record["key"].encode(), record["value"].encode(), headers


def test_there_are_golden_bytes_of_every_form() -> None:
    assert {path.name for path in GOLDEN} >= {
        f"envelope_{form}_{name}.json" for form in ("v1", "v1_lean") for name in NAMES
    }


@pytest.mark.parametrize("name", NAMES)
def test_both_forms_are_of_the_same_commands(name: str) -> None:
    """What went from one to the other is none of the command, and is not asked for."""
    by_form = {path.name: _read(path) for path in GOLDEN if path.name.endswith(f"_{name}.json")}
    first, lean = by_form[f"envelope_v1_{name}.json"], by_form[f"envelope_v1_lean_{name}.json"]
    assert first["record"]["value"] == lean["record"]["value"]
    names = [{header for header, _ in form["record"]["headers"]} for form in (first, lean)]
    assert names[0] - names[1] == {"ce_time", "ce_partitionkey"}
    assert not names[1] - names[0]


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_opening_golden_bytes_gives_the_command(path: Path) -> None:
    data = _read(path)
    key, value, headers = _record(data)
    opened = open_record(key, value, headers, KEYRING)
    assert opened == _envelope(data)
    assert opened.command.to_json() == data["command"]


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.stem)
def test_sealing_the_command_gives_the_golden_bytes(path: Path) -> None:
    data = _read(path)
    key, value, headers = _record(data)
    sealed = seal(_envelope(data), KEYRING, "/afterwrite/golden")
    assert sealed.value == value
    assert sealed.key == key
    assert list(sealed.headers) == headers


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_bytes_are_signed(path: Path) -> None:
    key, value, headers = _record(_read(path))
    with pytest.raises(BadSignature):
        open_record(key, value.replace(b'"v":', b'"v" :', 1), headers, KEYRING)
