"""A command's text is its JSON, byte for byte, however it is put together."""

import json
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.commands import Command
from schema.envelope import VERSION, Envelope, Keyring, seal
from schema.overlay import pack, unpack
from schema.strict_json import encode
from tests.strategies import commands

pytestmark = pytest.mark.unit

KEYRING = Keyring({"new": b"new-secret-0123456789abcdef-0123456789"})


@given(commands(), st.booleans())
def test_the_text_is_the_json_with_sorted_keys(what: Command, system: bool) -> None:
    object.__setattr__(what, "system", system)
    assert what.text.encode() == encode(what.to_json())
    assert Command.from_json(json.loads(what.text)) == what


@given(commands(), st.uuids())
def test_the_record_has_the_same_text_with_version_and_log(
    what: Command, log_id: uuid.UUID
) -> None:
    sealed = seal(Envelope(what, log_id), KEYRING, "/test")
    assert sealed.value == encode({"v": VERSION, "log_id": str(log_id)} | what.to_json())


@given(commands(), st.lists(st.text(max_size=20), max_size=4), st.sampled_from([0, 5000]))
def test_a_payload_gives_back_members_and_command(
    what: Command, members: list[str], padding: int
) -> None:
    text = what.text + " " * padding
    payload = pack(members, text)
    assert json.loads(payload.split("\n")[0]) == members
    assert Command.from_json(unpack(payload)) == what
    assert pack(members, text) == payload, "nothing is left of one in the next"
