"""Answers: rows and commands as JSON, with the headers that belong to them."""

import functools
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, urlencode

from pydantic_core import to_json

from frontend_api.idempotency import Answer
from frontend_api.merge import Shown
from frontend_api.messages import Response
from frontend_api.overlay import OverlayState
from frontend_api.planning import Effect
from frontend_api.seen import Freshness
from frontend_api.submission import Accepted
from schema.catalog import Catalog
from schema.content import Kind
from schema.fields import render_time
from schema.outcomes import State

MINIMAL: Final = ("id", "version", "state", "command", "deleted", "display")
"""What an answer to a change has at least, as far as it applies."""


def json_response(
    body: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    all_headers = {"Content-Type": "application/json", "Cache-Control": "private, no-store"}
    if headers is not None:
        all_headers |= headers
    return Response(to_json(body), status, all_headers)


def row_json(kind: Kind, shown: Shown) -> dict[str, Any]:
    """A row as every answer has it: id, version, state, the command it waits for, its fields."""
    row = shown.row
    body: dict[str, Any] = {"id": str(row["id"]), "version": row["version"], "state": shown.state}
    if shown.command is not None:
        body["command"] = str(shown.command)
    for name in ("created_at", "updated_at"):
        body[name] = render_time(row[name])
    return body | kind.to_json(row)


def row_listed(kind: Kind, shown: Shown) -> dict[str, Any]:
    """The same, for `json_response`, which writes ids and times by itself."""
    row = shown.row
    body: dict[str, Any] = {
        "id": _id(row["id"]),
        "version": row["version"],
        "state": f"{shown.state}",
    }
    if shown.command is not None:
        body["command"] = _id(shown.command)
    body["created_at"] = _time(row["created_at"])
    body["updated_at"] = _time(row["updated_at"])
    for name, rendered in _layout(kind):
        if name in row:
            body[name] = rendered(row[name]) if rendered is not None else row[name]
    return body


def _id(value: uuid.UUID | None) -> uuid.UUID | str | None:
    """The encoder is fast with ids of the standard's own type only, and PostgreSQL's are of another."""
    return value if value is None or type(value) is uuid.UUID else str(value)


def _time(value: datetime) -> datetime | str:
    """What `json_response` writes as `render_time` does, which it does by itself but for a full second."""
    return value if value.microsecond and value.tzinfo is UTC else render_time(value)


@functools.lru_cache(maxsize=256)
def _layout(kind: Kind) -> tuple[tuple[str, Callable[[Any], Any] | None], ...]:
    """Fields and counters in their order, with what makes a JSON value of those that need it."""
    fields = [
        (f.name, {"uuid": _id, "time": f.to_json, "json": f.to_json}.get(f.kind))
        for f in kind.fields.values()
    ]
    return (*fields, *((name, None) for name in kind.counters))


def mark(body: dict[str, Any], headers: dict[str, str], freshness: Freshness) -> None:
    """Say in an answer what may be missing or old in it; nothing when it is exact."""
    if freshness.overlay is not OverlayState.COMPLETE:
        body["overlay"] = freshness.overlay
    if freshness.stale_s is not None:
        body["stale_s"] = round(freshness.stale_s, 1)
        headers["Age"] = str(int(freshness.stale_s))
    if freshness.older_missing:
        body["older"] = "unavailable"


def etag(shown: Shown) -> str:
    return f'"v{shown.version}"'


def row_url(kind: Kind, row_id: uuid.UUID) -> str:
    return f"/v1/{kind.plural}/{row_id}"


def command_url(command: uuid.UUID) -> str:
    return f"/v1/commands/{command}"


def effect_json(effect: Effect, command: uuid.UUID, state: State) -> dict[str, Any]:
    """What one mutation leaves: the row as it will look, or that it is deleted."""
    kind = effect.planned.kind
    if effect.after is None:
        body: dict[str, Any] = {"id": str(effect.planned.mutation.id), "state": state}
        if effect.before is not None:
            body["version"] = effect.before["version"]
        if effect.planned.mutation.op == "delete":
            body["deleted"] = True
        else:
            body |= dict(effect.planned.mutation.values)  # the rest could not be read now
    else:
        body = row_listed(kind, Shown(effect.after, state))
    if state is not State.SAVED:
        body["command"] = str(command)
    return body


@dataclass(frozen=True)
class Presenter:
    """Builds the answers to submissions."""

    catalog: Catalog

    def accepted(self, accepted: Accepted, *, as_command: bool) -> Answer:
        """202: the row as it will look; the row it opens with is a member named after its type."""
        command = accepted.command.command_id
        if as_command:
            body = self._command_body(accepted)
            location = command_url(command)
        else:
            body = self.row_body(accepted.effects, command, State.PENDING)
            first = accepted.effects[0].planned
            location = row_url(first.kind, first.mutation.id)
        if not accepted.shown:
            body["display"] = "delayed"
        headers = {
            "Location": location,
            "Link": f'<{command_url(command)}>; rel="monitor"',
            "Retry-After": "1",
        }
        asked_for, others = _asked_for(accepted.effects)
        after = asked_for.after
        if not as_command and after is not None:
            headers["ETag"] = f'"v{after["version"]}"'
        if as_command or (after is not None and not others):
            headers["Content-Location"] = location
        return Answer(202, headers, body)

    def saved(self, accepted: Accepted, body: dict[str, Any], *, as_command: bool) -> Answer:
        """201 for a creation, else 200: settled while the request waited."""
        first, others = accepted.effects[0], _asked_for(accepted.effects)[1]
        created = not as_command and first.planned.mutation.op == "create"
        location = row_url(first.planned.kind, first.planned.mutation.id)
        headers = {"Location": location} if created else {}
        if as_command:
            headers["Content-Location"] = command_url(accepted.command.command_id)
        elif not others and not body.get("deleted"):
            headers["Content-Location"] = location
        if not as_command and "version" in body and not body.get("deleted"):
            headers["ETag"] = f'"v{body["version"]}"'
        return Answer(201 if created else 200, headers, body)

    def row_body(
        self, effects: Sequence[Effect], command: uuid.UUID, state: State
    ) -> dict[str, Any]:
        asked_for, others = _asked_for(effects)
        body = effect_json(asked_for, command, state)
        for opened in others:
            body[opened.planned.kind.name] = effect_json(opened, command, state)
        return body

    def _command_body(self, accepted: Accepted) -> dict[str, Any]:
        command = accepted.command
        return {
            "id": str(command.command_id),
            "state": State.PENDING,
            "accepted_at": render_time(command.accepted_at),
            "settled_at": None,
            "outcome": None,
            "rows": [
                {"type": e.planned.kind.name, "op": e.planned.mutation.op}
                | effect_json(e, command.command_id, State.PENDING)
                for e in accepted.effects
            ],
        }


def _asked_for(effects: Sequence[Effect]) -> tuple[Effect, Sequence[Effect]]:
    """What becomes in the end of the row that a request is about, and the effects on other rows."""

    if len(effects) == 1:
        return effects[0], ()

    def ref(effect: Effect) -> tuple[str, uuid.UUID]:
        return effect.planned.kind.name, effect.planned.mutation.id

    own = [effect for effect in effects if ref(effect) == ref(effects[0])]
    return own[-1], [effect for effect in effects if ref(effect) != ref(effects[0])]


def minimal(answer: Answer) -> Answer:
    """What is left of an answer for a client that asks for little (`Prefer: return=minimal`)."""
    headers = {k: v for k, v in answer.headers.items() if k != "Content-Location"}
    body = {k: v for k, v in answer.body.items() if k in MINIMAL}
    return Answer(answer.status, headers, body)


def next_link(path: str, cursor: str, limit: int) -> str:
    query = urlencode({"limit": limit, "after": cursor})
    return f'<{quote(path)}?{query}>; rel="next"'
