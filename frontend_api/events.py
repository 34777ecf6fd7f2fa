"""Events: what an outcome or a notice tells its author, and how it is written into a stream (SSE)."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from schema.outcomes import Outcome

EVENTS: Final = {
    "command.saved": "A command of the caller was saved.",
    "command.rejected": "A command of the caller was rejected; `problem` says why.",
    "command.parked": "A command of the caller waits for something and will be tried again.",
    "command.duplicate": "A command repeated another one, named in `duplicate_of`.",
    "notice": "A notice was made for the caller; `row` is it, unless it is saved already.",
    "reset": "Something may have been missed: read again what is shown. The stream goes on.",
}
"""Every event by its name. The names are part of the contract."""
RETRY_MS: Final = 2000
"""How long a browser waits before it connects again."""
PING: Final = b": ping\n\n"
RETRY: Final = f"retry: {RETRY_MS}\n\n".encode()

_ID = re.compile(r"([0-9]{1,4})-([0-9]{0,18})")
_NAMES: Final = {
    Outcome.SAVED: "command.saved",
    Outcome.REJECTED: "command.rejected",
    Outcome.PARKED: "command.parked",
    Outcome.DUPLICATE: "command.duplicate",
}


@dataclass(frozen=True)
class Event:
    """One event of an author. `data` is shared by all of his streams: it must not be changed.

    `id` is None for all but the last event of one outcome: who has the id has had all of them.
    """

    id: str | None
    name: str
    data: Mapping[str, Any]


def event_id(partition: int, offset: int) -> str:
    """The id of what is at an offset of the outcomes topic; -1 is in front of the first one."""
    return f"{partition}-{offset if offset >= 0 else ''}"


def read_event_id(text: str) -> tuple[int, int] | None:
    """Partition and offset; None if it is no id of ours."""
    match = _ID.fullmatch(text)
    return (int(match[1]), int(match[2] or -1)) if match else None


NOTICE: Final = "notice"
"""The `kind` of a message that carries a notice. One without a `kind` is an outcome."""


def events_of(message: Mapping[str, Any], id_: str, notice_type: str | None = None) -> list[Event]:
    """The events of one message of the outcomes topic; none if there is nothing to tell.

    `notice_type` is what notices are called here. Messages of older writers lack `rows` and `notice`.
    A record that Kafka has twice is no news: its command is told of at the other offset. Nor is it
    news that a notice was saved: nobody but Afterwrite creates any, and it told of it before.
    """
    if "kind" in message:
        return _noticed(message, id_) if message["kind"] == NOTICE else []
    try:
        command, kind = str(message["command_id"]), Outcome(message["outcome"])
    except (KeyError, ValueError):
        return []
    if kind not in _NAMES or message.get("duplicate_of") == command:
        return []
    rows = message.get("rows") or []
    if kind is Outcome.SAVED and any(_makes(row, notice_type) for row in rows):
        return []
    data: dict[str, Any] = {
        "command": command,
        # What became of the command that this one repeats is told by that one's own events.
        "state": None if kind is Outcome.DUPLICATE else kind.value,
        "outcome": kind.value,
        "rows": rows,
    }
    for name in ("problem", "duplicate_of", "notice"):
        if message.get(name) is not None:
            data[name] = message[name]
    told = [(_NAMES[kind], data)]
    if data.get("notice") is not None:
        told.append(("notice", {"notice": data["notice"], "command": command}))
    last = len(told) - 1
    return [Event(id_ if n == last else None, name, d) for n, (name, d) in enumerate(told)]


def _makes(row: Any, type_: str | None) -> bool:
    return isinstance(row, Mapping) and (row.get("type"), row.get("op")) == (type_, "create")


def _noticed(message: Mapping[str, Any], id_: str) -> list[Event]:
    """A notice that is not saved yet: its row goes along, for it may be all that can be read of it."""
    row = message.get("notice")
    if not isinstance(row, Mapping) or not isinstance(row.get("id"), str):
        return []
    waits = {"state": "pending", "command": str(message.get("command"))}
    about = row.get("command_id", waits["command"])
    return [Event(id_, "notice", {"notice": row["id"], "command": about, "row": {**row, **waits}})]


def written(event: Event) -> bytes:
    """The event in the format of a stream. JSON in ASCII has no line ends that could break it."""
    lines = [f"event: {event.name}"]
    if event.id is not None:
        lines.append(f"id: {event.id}")
    data = json.dumps(event.data, ensure_ascii=True, separators=(",", ":"))
    return "\n".join([*lines, f"data: {data}", "", ""]).encode()


def position(id_: str) -> bytes:
    """A block that tells nobody anything, but sets where a client goes on after a break."""
    return f"id: {id_}\n\n".encode()


EXAMPLE: Final = Event(
    "0-42",
    "command.saved",
    {
        "command": "01999f6e-3a51-7c3a-8f0e-6c1d2b3a4f5e",
        "state": "saved",
        "outcome": "saved",
        "rows": [
            {
                "type": "post",
                "id": "01999f6e-3a52-7d11-9c1f-0a2b3c4d5e6f",
                "op": "create",
                "version": 1,
            }
        ],
    },
)
