"""Operation without a server: what a replay becomes, edits, times, tables, paces."""

import json
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from deploy.commands import dead, dead_mending, operating, tail
from deploy.errors import UsageTrouble
from schema import clock
from schema.catalog import load_catalog
from schema.commands import Command
from schema.identifiers import new_command_id, user_id_for
from schema.pace import duration
from schema.strict_json import encode
from tests.commands import author, command, create, delete, reaction, topic_with_post, update
from writer.operation.executor import brief
from writer.operation.letters import DeadLetter, letter_of
from writer.operation.mending import (
    Edit,
    NotReplayable,
    check_edit,
    command_of,
    edited_mutations,
    replayed,
)
from writer.state import LaneState, SystemState, pace

pytestmark = pytest.mark.unit

FORUM = load_catalog("schema.forum")
ADA = author("ada", "moderator")
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TOPIC, POST = topic_with_post()
BOTH = replace(command(ADA, TOPIC, POST, key="k", fingerprint="f"), system=False)


def test_a_replay_is_another_command_of_the_same_author_about_the_same_rows() -> None:
    again = replayed(BOTH, new_command_id(), NOW)
    assert again.command_id != BOTH.command_id
    assert again == replace(
        BOTH,
        command_id=again.command_id,
        accepted_at=NOW,
        idempotency_key=None,
        fingerprint=None,
        replays=BOTH.command_id,
    )
    assert replayed(again, new_command_id(), NOW).replays == again.command_id


def test_an_edit_is_a_merge_patch_of_each_mutations_values() -> None:
    change = update("topic", TOPIC.id, 3, title="old", locked=True)
    made = command(ADA, create("post", topic_id=str(TOPIC.id), body="b", reply_to=None), change)
    edit = Edit({0: {"reply_to": None, "body": "new"}, 1: {"locked": None}}, any_version=True)
    first, second = edited_mutations(made, edit)
    assert first.values == {"topic_id": str(TOPIC.id), "body": "new"}
    assert (second.values, second.expected_version) == ({"title": "old", "locked": None}, None)
    assert edited_mutations(made, Edit({}))[1].expected_version == 3
    assert Edit.from_json(json.loads(json.dumps(edit.to_json()))) == edit


@pytest.mark.parametrize(
    ("what", "values", "why"),
    [
        (BOTH, {2: {"body": "x"}}, "no mutation 2; they are numbered 0 to 1"),
        (BOTH, {0: {"nonsense": "x"}}, "topic has no field 'nonsense'"),
        (BOTH, {0: {"title": ""}}, "/title: is empty"),
        (BOTH, {0: {"title": 5}}, "/title: Input should be a valid string"),
        (BOTH, {0: {"title": "a\nb"}}, "/title: contains a control character"),
        (BOTH, {0: {"title": None}}, "/title"),
        (BOTH, {0: {"author_id": str(ADA.id)}}, "author_id cannot be set"),
        (BOTH, {1: {"topic_id": str(uuid.uuid4())}}, "to which stream it belongs"),
        (BOTH, {1: {"reply_to": "no id"}}, "wrong form"),
        (command(ADA, reaction(POST.id, ADA, "x")), {0: {"emoji": "y"}}, "what names the row"),
        (command(ADA, delete("post", POST.id)), {0: {"body": "x"}}, "a deletion has no values"),
        (command(ADA, update("post", POST.id, body="x")), {0: {"body": ""}}, "/body: is empty"),
        (command(ADA, update("post", POST.id, body="x")), {0: {"reply_to": None}}, "cannot be set"),
        (command(ADA, create("unheard_of")), {0: {"body": "x"}}, "not known here"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_an_edit_that_the_declaration_refuses_is_refused_before_anything_is_sent(
    what: Command, values: dict[int, dict[str, Any]], why: str
) -> None:
    with pytest.raises(NotReplayable) as refused:
        check_edit(FORUM, what, Edit(values))
    assert why in str(refused.value)


def test_an_edit_that_the_declaration_allows_is_left_to_the_writer() -> None:
    check_edit(FORUM, BOTH, Edit({0: {"title": "Fine"}, 1: {"body": "Fine, too"}}))
    check_edit(FORUM, command(ADA, update("post", POST.id, body="x")), Edit({0: {"body": "y"}}))


def _row(value: bytes | None, command_id: uuid.UUID | None) -> dict[str, Any]:
    return {
        "lane": 1,
        "offset": 5,
        "command_id": command_id,
        "author_id": ADA.id if command_id else None,
        "key": b"k",
        "value": value,
        "headers": '[["a", "=b"]]',
        "code": "invalid",
        "detail": "why",
        "sqlstate": None,
        "constraint_name": None,
        "attempts": 1,
        "died_at": NOW,
        "type": "topic",
        "closed": None,
        "closed_at": None,
        "replay_id": None,
        "replay_edit": None,
    }


def _letter(what: Command) -> DeadLetter:
    value = encode({"v": 1, "log_id": str(uuid.uuid4())} | what.to_json())
    return letter_of(_row(value, what.command_id))


@pytest.mark.parametrize(
    ("value", "command_id"),
    [
        (encode({"v": 1} | BOTH.to_json()), None),
        (None, BOTH.command_id),
        (b"\xff", BOTH.command_id),
        (b"{}", BOTH.command_id),
        (b"[]", BOTH.command_id),
        (encode({"v": 2} | BOTH.to_json()), BOTH.command_id),
        (encode({"v": 1} | BOTH.to_json() | {"author": 5}), BOTH.command_id),
    ],
)
def test_only_what_the_writer_knew_as_a_command_can_be_replayed(
    value: bytes | None, command_id: uuid.UUID | None
) -> None:
    """A letter without an id was signed by nobody, whatever its bytes say."""
    with pytest.raises(NotReplayable):
        command_of(command_id, value, "bad_signature")
    letter = letter_of(_row(value, command_id))
    assert letter.command is None
    assert letter.why_not
    assert letter.whole()["replayable"] is False


def test_a_letter_shows_what_was_sent() -> None:
    letter = _letter(BOTH)
    assert letter.command == BOTH
    assert letter.name == "1:5"
    shown = dead._shown(letter)
    assert f"mutation 1 create post {POST.id}" in shown
    assert 'title = "A topic"' in shown
    assert "mutation 0 update topic" in dead._shown(
        _letter(command(ADA, update("topic", TOPIC.id, 7, title="x")))
    )


def test_what_users_wrote_steers_neither_a_terminal_nor_a_spreadsheet() -> None:
    evil = _letter(
        command(author('=HYPERLINK("http://x")\x1b[2J'), create("topic", title="\x1b[2J"))
    )
    assert "\x1b" not in dead._shown(evil)
    assert "\x1b" not in "".join(dead._table([dead._columns(evil)]))
    row = dead.to_csv([evil]).splitlines()[1]
    assert ",\"'=HYPERLINK" in row
    assert "\x1b" not in dead._shown(replace(evil, detail="\x1b[2J"))


def test_times_are_told_as_people_tell_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "now", lambda: NOW)
    assert operating.moment(None) is None
    assert operating.moment("90s") == NOW - timedelta(seconds=90)
    assert operating.moment("2h") == NOW - timedelta(hours=2)
    assert operating.moment("1w") == NOW - timedelta(days=7)
    assert operating.moment("2026-02-01T00:00:00+01:00") == datetime(2026, 1, 31, 23, tzinfo=UTC)
    for wrong in ("", "2 h", "h", "yesterday", "2026-02-01T00:00:00", "99999999999w"):
        with pytest.raises(UsageTrouble):
            operating.moment(wrong)


def test_an_author_is_an_id_or_a_trial_users_name() -> None:
    assert operating.author_id("ada") == user_id_for("ada")
    assert operating.author_id(str(ADA.id)) == ADA.id


@pytest.mark.parametrize(
    ("name", "where"),
    [("title", (0, "title")), ("body", (1, "body")), ("1.reply_to", (1, "reply_to"))],
)
def test_a_field_is_found_in_its_mutation(name: str, where: tuple[int, str]) -> None:
    assert dead_mending._where(BOTH, name) == where


def test_a_field_of_several_mutations_must_say_which() -> None:
    two = command(ADA, create("topic", title="a"), create("topic", title="b"))
    with pytest.raises(UsageTrouble, match="several mutations"):
        dead_mending._where(two, "title")


def test_what_was_changed_in_the_editor_becomes_a_patch(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i 's/A topic/A better topic/' \"$1\"\n")
    editor.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(editor))
    assert dead_mending._from_editor(BOTH) == {0: {"title": "A better topic"}}
    assert dead_mending._patch({"a": 1, "b": 2}, {"a": 1, "c": 3}) == {"b": None, "c": 3}
    monkeypatch.setenv("VISUAL", "false")
    with pytest.raises(UsageTrouble):
        dead_mending._from_editor(BOTH)


def test_the_result_of_a_large_act_fits_into_a_message() -> None:
    many = [{"letter": f"0:{n}", "why": "x" * 200} for n in range(10_000)]
    told = brief({"ok": False, "refused": many, "replayed": []})
    assert len(json.dumps(told)) < 100_000
    assert (told["refused_count"], told["refused"][0], told["replayed"]) == (10_000, many[0], [])
    assert brief({"lanes": [0]}) == {"lanes": [0]}


def _state(seconds: float, *lanes: tuple[int, int | None]) -> SystemState:
    states = [
        LaneState(n, position, 0, end, 1, "w", None, None, 0)
        for n, (position, end) in enumerate(lanes)
    ]
    return SystemState(NOW + timedelta(seconds=seconds), states, 0, 0, 0)


def test_a_pace_says_when_all_is_decided() -> None:
    found = pace(_state(0, (0, 100), (10, 10)), _state(10, (50, 110), (10, 10)))
    assert found is not None
    assert (found.accepted, found.applied, found.drained_in_s) == (1.0, 5.0, 15.0)
    behind = pace(_state(0, (0, 100)), _state(10, (10, 200)))
    assert behind is not None
    assert behind.drained_in_s is None, "it grows"
    done = pace(_state(0, (0, 5)), _state(1, (5, 5)))
    assert done is not None
    assert done.drained_in_s == 0
    for before, after in (
        (_state(0, (0, 1)), _state(0, (0, 1))),
        (_state(0, (0, None)), _state(1, (0, 1))),
        (_state(0), _state(1)),
        (_state(0, (0, 1)), _state(1, (0, 1), (0, 1))),
    ):
        assert pace(before, after) is None


def test_durations_are_told_as_people_tell_them() -> None:
    told = [duration(s) for s in (0, 89, 90, 5340, 5400, 100_000, 200_000)]
    assert told == ["0 s", "89 s", "2 min", "89 min", "1 h 30 min", "27 h 47 min", "2 d 7 h"]


def test_one_line_for_each_outcome() -> None:
    message = {
        "told_at": "2026-03-01T12:00:00.000000Z", "command_id": "c", "outcome": "rejected",
        "lane": 0, "offset": 4, "rows": [], "problem": {"code": "forbidden", "detail": "No."},
    }  # fmt: skip
    assert tail.line_of(message) == "2026-03-01 12:00:00  rejected   c  0:4  forbidden: No."
    act = {"told_at": message["told_at"], "kind": "act", "act_id": "a", "ok": True}
    assert tail.line_of(act) == "2026-03-01 12:00:00  act        a  done"
    saved = message | {"outcome": "saved", "problem": None, "rows": [{"op": "create", "type": "t"}]}
    assert tail.line_of(saved).endswith("saved      c  0:4  create t")
