"""Commands: which there are, and the life of one of them."""

import asyncio
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from frontend_api.admin.facts import CommandsFound, Picture, Row
from frontend_api.admin.filters import PENDING, CommandFilter, moment_of
from frontend_api.admin.frame import AT, Frame, Page
from frontend_api.admin.log_look import Found
from frontend_api.admin.payloads import Payload, command_of, payload_of
from frontend_api.admin.statements import MOST_LOOKED_AT, STATES
from frontend_api.admin.views import STATE_OF
from frontend_api.pages.rendering import see_other
from frontend_api.pages.session import Visitor
from frontend_api.problems import fail
from frontend_api.rebuild_log import LogUnavailable
from frontend_api.validation import path_id
from frontend_api.view import DatabaseUnavailable
from schema.clock import now

_PENDING_SHOWN: Final = 100


class CommandRoutes:
    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._parts = frame.parts

    def add_to(self, router: APIRouter) -> None:
        for path, work in [("/commands", self.commands), ("/commands/{id}", self.command)]:
            router.add_api_route(
                AT + path, self._frame.handler(work), methods=["GET"], include_in_schema=False
            )

    async def commands(self, request: Request, visitor: Visitor) -> Response:
        query = request.query_params
        if query.get("id", "").strip():
            return see_other(f"{AT}/commands/{path_id(query['id'].strip())}")
        filter_ = CommandFilter.of(query)
        before = path_id(query["before"]) if query.get("before") else None
        context: dict[str, Any] = {
            "filter": filter_,
            "states": [*STATES, PENDING],
            "types": sorted(kind.name for kind in self._frame.services.catalog),
            "before": before,
            "next": None,
            "most": MOST_LOOKED_AT,
        }
        if filter_.state == PENDING:
            context |= await self._pending(filter_)
        else:
            found = await self._parts.store.commands(filter_, before)
            names = await self._names({row["author_id"] for row in found.rows} - {None})
            context |= _listed(found, names)
            if found.next_before is not None:
                context["next"] = filter_.query(before=str(found.next_before))
        page = Page("Commands", "commands.html", context)
        return self._frame.respond(request, visitor, page)

    async def _pending(self, filter_: CommandFilter) -> dict[str, Any]:
        """What is in the log and not decided, the oldest first; read from the log itself."""
        picture = self._parts.picture()
        positions = positions_of(picture)
        time = now()
        since, until = moment_of(filter_.since, time), moment_of(filter_.until, time)

        def wanted(found: Found) -> bool:
            if (since and found.at < since) or (until and found.at >= until):
                return False
            if not (filter_.type or filter_.user):
                return True
            command = command_of(found.value)
            if command is None:
                return False
            types = {m.type for m in command.mutations}
            return (not filter_.type or filter_.type in types) and (
                not filter_.user or command.author.id == filter_.author
            )

        found, complete = await self._parts.look.waiting(positions, wanted, _PENDING_SHOWN)
        rows = [_waiting(one) for one in found]
        known = bool(positions)
        return {"rows": rows, "names": {}, "partial": not complete, "positions_known": known}

    async def _names(self, users: set[uuid.UUID]) -> Mapping[uuid.UUID, str]:
        try:
            return await self._parts.store.names(sorted(users)) if users else {}
        except DatabaseUnavailable:
            return {}

    async def command(self, request: Request, visitor: Visitor) -> Response:
        """Its whole life, from whoever knows of it: ledger, dead letters, parked, log."""
        id_ = path_id(request.path_params["id"])
        unknown: list[str] = []
        rows, settled_seq = await self._ledger(id_, unknown)
        row = next((r for r in rows if r["outcome"] != "duplicate"), rows[0] if rows else None)
        letter, held, record = await self._bytes(id_, row, unknown)
        if row is None and record is None:
            if unknown:
                raise fail("database_unavailable", "")
            raise fail("not_found", "There is no such command, neither decided nor waiting.")
        payload = _payload(letter, held, record)
        author = row["author_id"] if row else payload.command.author.id if payload.command else None
        context = {
            "id": id_,
            "row": row,
            "status": STATE_OF[row["outcome"]] if row else PENDING,
            "repeats": [r for r in rows if r is not row],
            "settled": row is not None and settled_seq is not None and settled_seq >= row["seq"],
            "letter": letter,
            "held": held,
            "record": record,
            "payload": payload,
            "accepted_at": _accepted(row, payload),
            "author": author,
            "name": (await self._names({author} - {None})).get(author) if author else None,
            "notice": _notice(row),
        }
        page = Page(
            "Command", "command.html", context,
            here=f"{AT}/commands/{id_}",
            live=row is None or row["outcome"] == "parked" or not context["settled"],
            banners=tuple(unknown),
        )  # fmt: skip
        return self._frame.respond(request, visitor, page)

    async def _ledger(self, id_: uuid.UUID, unknown: list[str]) -> tuple[list[Row], int | None]:
        try:
            return await self._parts.store.command(id_)
        except DatabaseUnavailable:
            unknown.append(
                "PostgreSQL cannot be asked: what became of this command is not known now."
            )
            return [], None

    async def _bytes(
        self, id_: uuid.UUID, row: Row | None, unknown: list[str]
    ) -> tuple[Row | None, Row | None, Found | None]:
        """Its dead letter, what is parked of it, and its record in the log, where they are there."""
        letter = held = None
        try:
            if row is not None:
                place = (row["lane"], row["offset"])
                letter, held = await asyncio.gather(
                    self._parts.store.letter(place), self._parts.store.held(place)
                )
                return letter, held, await self._parts.look.record(*place)
            positions = positions_of(self._parts.picture())
            found, _ = await self._parts.look.waiting(positions, lambda f: f.command == id_, 1)
            return None, None, found[0] if found else None
        except LogUnavailable:
            unknown.append("Kafka cannot be asked: the record of this command is not shown.")
        except DatabaseUnavailable:
            unknown.append("PostgreSQL cannot be asked any more.")
        return letter, held, None


def positions_of(picture: Picture) -> dict[int, int]:
    """Where the writer is, or was when anybody could say."""
    positions = {lane.lane: lane.position for lane in picture.lanes}
    if picture.log.value is not None:
        for lane, position in picture.log.value.positions.items():
            positions[lane] = max(position, positions.get(lane, 0))
    return positions


def _listed(found: CommandsFound, names: Mapping[uuid.UUID, str]) -> dict[str, Any]:
    rows = [dict(row) | {"state": STATE_OF[row["outcome"]]} for row in found.rows]
    return {"rows": rows, "names": names, "partial": found.partial, "positions_known": True}


def _waiting(found: Found) -> dict[str, Any]:
    """A record of the log as a row of the list."""
    command = command_of(found.value)
    mutations = command.mutations if command is not None else ()
    return {
        "command_id": command.command_id if command is not None else found.command,
        "state": PENDING,
        "outcome": PENDING,
        "lane": found.lane,
        "offset": found.offset,
        "author_id": command.author.id if command is not None else None,
        "accepted_at": command.accepted_at if command is not None else found.at,
        "decided_at": None,
        "effects": [{"op": m.op, "type": m.type} for m in mutations],
        "problem": None,
        "dead_type": None,
    }


def _payload(letter: Row | None, held: Row | None, record: Found | None) -> Payload:
    kept = letter or held
    if kept is not None:
        return payload_of(kept["key"], kept["value"], kept["headers"])
    if record is not None:
        return payload_of(record.key, record.value, record.headers)
    return payload_of(None, None, ())


def _accepted(row: Row | None, payload: Payload) -> datetime | None:
    if row is not None and row["accepted_at"] is not None:
        at: datetime = row["accepted_at"]
        return at
    return payload.command.accepted_at if payload.command is not None else None


def _notice(row: Row | None) -> str | None:
    """The notice that its author got, of a rejected command."""
    if row is None or row["outcome"] != "rejected" or not row["effects"]:
        return None
    last = row["effects"][-1]
    return str(last["id"]) if last.get("type") == "notice" else None
