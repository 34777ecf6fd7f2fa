"""Acts: what will be done, said before it is ordered; the order; and what became of it.

The same act is ordered by the same `act_id`, so that a form sent twice is done once.
"""

import re
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final, cast, get_args

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from frontend_api.admin.dead_routes import letter_place
from frontend_api.admin.facts import Row
from frontend_api.admin.filters import LetterFilter, moment_of
from frontend_api.admin.frame import AT, Frame, Page, asked_id, asked_place
from frontend_api.admin.payloads import fields_of, payload_of, values_of
from frontend_api.pages.forms import Form, read_form
from frontend_api.pages.rendering import see_other
from frontend_api.pages.session import Visitor
from frontend_api.problems import ProblemError, fail, invalid
from frontend_api.view import DatabaseUnavailable
from schema.acts import LETTER_KINDS, MAX_LETTERS, MAX_REASON, Act, ActKind, Letters, Operator
from schema.clock import now
from schema.fields import render_time
from schema.identifiers import is_uuid7, new_id, time_of

MOST_SELECTED: Final = 100
_LIMIT: Final = 100
_RATE: Final = 50
_SHOWN: Final = 20
_NUMBER: Final = re.compile(r"^[0-9]{1,6}$")
_LANE_ACTS: Final = {"pause": "Pause", "resume": "Resume", "continue": "Continue"}
"""`resume` is for a lane that an operator paused, `continue` for one that the writer halted."""
_ON_ITS_WAY: Final = timedelta(hours=1)
_FILTER: Final = ("type", "user", "code", "since", "until")


@dataclass(frozen=True)
class Choice:
    """Which dead letters, as a form or an address says it: places, or a filter with a limit."""

    places: tuple[tuple[int, int], ...] | None
    filter: LetterFilter
    limit: int

    @classmethod
    def of(cls, fields: Mapping[str, str], places: Sequence[str]) -> "Choice":
        """Raises `ProblemError` 404 or 422. Relative times become what they mean now."""
        chosen = tuple(dict.fromkeys(asked_place(place) for place in places))
        if len(chosen) > MOST_SELECTED:
            raise invalid(f"has more than {MOST_SELECTED} letters", "/row")
        filter_ = replace(LetterFilter.of(fields), closed="open")
        if not chosen:
            if filter_.type == "-":
                raise invalid("letters that are no commands are chosen one by one", "/type")
            time = now()
            since, until = moment_of(filter_.since, time), moment_of(filter_.until, time)
            filter_ = replace(
                filter_,
                since=render_time(since) if since else "",
                # What dies after this was looked at is not meant.
                until=render_time(until or time),
            )
        return cls(chosen or None, filter_, _number(fields, "limit", _LIMIT, MAX_LETTERS))

    @property
    def letters(self) -> Letters:
        if self.places is not None:
            return Letters(places=self.places)
        time, f = now(), self.filter
        return Letters(
            code=f.code or None,
            type=f.type or None,
            author=f.author,
            since=moment_of(f.since, time),
            until=moment_of(f.until, time),
            limit=self.limit,
        )

    @property
    def rows(self) -> str:
        return ",".join(f"{lane}:{offset}" for lane, offset in self.places or ())


class ActRoutes:
    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._store, self._desk = frame.parts.store, frame.parts.desk

    def add_to(self, router: APIRouter) -> None:
        for method, path, work, acts in [
            ("GET", "/dead/confirm", self.confirm, True),
            ("GET", "/dead/{lane}/{offset}/edit", self.edit_form, True),
            ("POST", "/dead/{lane}/{offset}/edit", self.edit, True),
            ("GET", "/lanes/{lane}/{act}", self.lane_form, True),
            ("POST", "/acts", self.order, True),
            ("GET", "/acts/{id}", self.act, False),
        ]:
            endpoint = self._frame.handler(work, acts=acts)
            router.add_api_route(AT + path, endpoint, methods=[method], include_in_schema=False)

    # -- before ---------------------------------------------------------------------------------

    async def confirm(self, request: Request, visitor: Visitor) -> Response:
        """The dry run: which letters it would be, in which order, and what stands in the way."""
        query = request.query_params
        kind = query.get("act", "")
        if kind not in ("replay", "discard"):
            raise fail("not_found", "There is no such act.")
        places = query.getlist("row") or [p for p in query.get("rows", "").split(",") if p]
        choice = Choice.of(query, places)
        return await self._confirm(request, visitor, kind, choice, dict(query))

    async def _confirm(
        self,
        request: Request,
        visitor: Visitor,
        kind: str,
        choice: Choice,
        fields: Mapping[str, str],
        error: ProblemError | None = None,
    ) -> Response:
        more = False
        if choice.places is not None:
            rows: Sequence[Row] = await self._store.at(choice.places)
        else:
            found = await self._store.in_order(choice.filter, choice.limit)
            rows, more = found.rows, found.more
        open_ = [row for row in rows if row["closed"] is None]
        commands = [row for row in open_ if row["command_id"] is not None]
        taken = commands if kind == "replay" else open_
        rate = _number(fields, "rate", _RATE, 10_000)
        context = {
            "kind": kind,
            "choice": choice,
            "act_id": new_id(),
            "rate": rate,
            "reason": fields.get("reason", ""),
            "taken": taken,
            "shown": taken[:_SHOWN],
            "groups": Counter((r["code"], r["type"] or "–") for r in taken).most_common(),
            "authors": len({row["author_id"] for row in taken} - {None}),
            "closed": len(rows) - len(open_),
            "gone": len(choice.places or ()) - len(rows) if choice.places is not None else 0,
            "no_commands": len(open_) - len(taken),
            "more": more,
            "seconds": len(taken) / rate,
            "problem": _said(error),
            "most": MAX_LETTERS,
        }
        title = "Replay" if kind == "replay" else "Discard"
        status = error.problem.status if error is not None else 200
        return self._frame.respond(
            request, visitor, Page(f"{title} dead letters", "confirm.html", context, status=status)
        )

    async def lane_form(self, request: Request, visitor: Visitor) -> Response:
        """Pause, resume or continue a lane: what that means, and why it is done."""
        lane, kind = request.path_params["lane"], request.path_params["act"]
        if kind not in _LANE_ACTS or not _NUMBER.match(lane):
            raise fail("not_found", "There is no such act.")
        return self._lane_form(request, visitor, kind, int(lane))

    def _lane_form(
        self,
        request: Request,
        visitor: Visitor,
        kind: str,
        lane: int,
        error: ProblemError | None = None,
    ) -> Response:
        picture = self._frame.parts.picture()
        state = next((one for one in picture.lanes if one.lane == lane), None)
        if state is None and picture.ledger.ok:
            raise fail("not_found", "There is no such lane.")
        context = {
            "kind": kind,
            "lane": lane,
            "state": state,
            "lag": picture.lag(lane),
            "act_id": new_id(),
            "problem": _said(error),
        }
        status = error.problem.status if error is not None else 200
        title = f"{_LANE_ACTS[kind]} lane {lane}"
        return self._frame.respond(
            request, visitor, Page(title, "lane.html", context, status=status)
        )

    async def edit_form(self, request: Request, visitor: Visitor) -> Response:
        return await self._edit_form(request, visitor, Form())

    async def _edit_form(
        self, request: Request, visitor: Visitor, form: Form, error: ProblemError | None = None
    ) -> Response:
        row, payload = await self._letter(request)
        assert payload.command is not None
        fields = [
            replace(field, value=form.text(field.name)) if field.name in form.fields else field
            for field in fields_of(payload.command)
        ]
        context = {
            "letter": row,
            "command": payload.command,
            "fields": fields,
            "act_id": form.fields.get("act_id") or new_id(),
            "reason": form.text("reason"),
            "any_version": form.fields.get("any_version") == "yes",
            "versions": any(m.expected_version is not None for m in payload.command.mutations),
            "problem": _said(error),
        }
        status = error.problem.status if error is not None else 200
        return self._frame.respond(
            request, visitor, Page("Edit and replay", "edit.html", context, status=status)
        )

    async def _letter(self, request: Request) -> tuple[Row, Any]:
        row = await self._store.letter(letter_place(request))
        if row is None or row["closed"] is not None:
            raise fail("not_found", "There is no open dead letter at this place.")
        payload = payload_of(row["key"], row["value"], row["headers"])
        if payload.command is None:
            raise fail("not_found", "This is no command of ours: it cannot be edited.")
        return row, payload

    # -- the order ------------------------------------------------------------------------------

    async def edit(self, request: Request, visitor: Visitor) -> Response:
        form = await read_form(request)
        row, payload = await self._letter(request)
        try:
            act = _act(
                form,
                visitor,
                "edit",
                letters=Letters(places=((row["lane"], row["offset"]),)),
                values=values_of(payload.command, form.fields),
                any_version=form.fields.get("any_version") == "yes",
            )
        except ProblemError as error:
            return await self._edit_form(request, visitor, form, error)
        return await self._ordered(act)

    async def order(self, request: Request, visitor: Visitor) -> Response:
        """Publish an act. What is wrong with the form is said in the form."""
        form = await read_form(request)
        kind = form.fields.get("act", "")
        if kind not in get_args(ActKind) or kind == "edit":
            raise fail("not_found", "There is no such act.")
        if kind in _LANE_ACTS:
            lane = _number(form.fields, "lane", 0, 9999)
            try:
                act = _act(form, visitor, cast(ActKind, kind), lane=lane)
            except ProblemError as error:
                return self._lane_form(request, visitor, kind, lane, error)
            return await self._ordered(act)
        places = [p for p in form.fields.get("rows", "").split(",") if p]
        if kind == "retry_parked":
            letters = Letters(places=tuple(asked_place(p) for p in places)) if places else None
            return await self._ordered(_act(form, visitor, "retry_parked", letters=letters))
        if not places and "limit" not in form.fields:
            raise invalid("nothing is chosen", "/rows")
        fields = {name: form.fields.get(name, "") for name in _FILTER}
        choice = Choice.of(fields | {"limit": form.fields.get("limit", "")}, places)
        try:
            rate = float(_number(form.fields, "rate", _RATE, 10_000)) if kind == "replay" else None
            act = _act(form, visitor, cast(ActKind, kind), letters=choice.letters, rate=rate)
        except ProblemError as error:
            return await self._confirm(request, visitor, kind, choice, form.fields, error)
        return await self._ordered(act)

    async def _ordered(self, act: Act) -> Response:
        await self._desk.order(act)
        return see_other(f"{AT}/acts/{act.act_id}")

    # -- after ----------------------------------------------------------------------------------

    async def act(self, request: Request, visitor: Visitor) -> Response:
        """What became of an act: as the writer tells, else as the audit log has it."""
        id_ = asked_id(request)
        told, ordered = self._desk.result(id_), self._desk.ordered(id_)
        logged: Row | None = None
        known = True
        try:
            logged = await self._store.act(id_)
        except DatabaseUnavailable:
            known = False
        if told is None and ordered is None and logged is None and not _lately(id_):
            if not known:
                raise fail("database_unavailable", "")
            raise fail("not_found", "There is no such act.")
        if told is not None:
            done: bool | None = told.get("ok") is True
        else:
            done = logged["result"].get("done") is True or None if logged is not None else None
        result = told.get("result") if told is not None else logged["result"] if logged else None
        context = {
            "id": id_,
            "done": done,
            "result": result,
            "ordered": ordered,
            "logged": logged,
            "known": known,
            "dry_run": bool(ordered and ordered.dry_run) or bool(result and result.get("dry_run")),
        }
        live = told is None and (logged is None or not done)
        page = Page("Act", "act.html", context, here=f"{AT}/acts/{id_}", live=live)
        return self._frame.respond(request, visitor, page)


def _lately(act: uuid.UUID) -> bool:
    """Whether it may have been ordered just now, by way of another process."""
    return is_uuid7(act) and abs(now() - time_of(act)) < _ON_ITS_WAY


def _act(form: Form, visitor: Visitor, kind: ActKind, **what: Any) -> Act:
    """Raises `ProblemError` 422."""
    reason = form.text("reason").strip() or None
    if reason is not None and len(reason) > MAX_REASON:
        raise invalid(f"has more than {MAX_REASON} characters", "/reason")
    if reason is None and kind in ("discard", "pause"):
        raise invalid("say why", "/reason")
    if kind == "edit" and not (what["values"] or what["any_version"]):
        raise invalid("nothing was changed", "/form")
    author = visitor.author
    who = Operator(author.id, author.name, author.roles)
    dry_run = kind in LETTER_KINDS and form.fields.get("dry_run") == "yes"
    id_ = new_id() if dry_run else _act_id(form)  # to try is another act than to do
    try:
        return Act(id_, kind, who, now(), reason, **what, dry_run=dry_run)
    except ValueError as error:
        raise invalid(str(error), "/form") from None


def _act_id(form: Form) -> uuid.UUID:
    """The id that the form was given, or a new one: a form without one is sent by a button."""
    text = form.fields.get("act_id")
    if text is None:
        return new_id()
    try:
        id_ = uuid.UUID(text)
    except ValueError:
        raise invalid("this form was changed; reload the page", "/form") from None
    if not is_uuid7(id_):
        raise invalid("this form was changed; reload the page", "/form")
    return id_


def _number(fields: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = fields.get(name, "").strip()
    if not text:
        return default
    if not _NUMBER.match(text) or not (0 if name == "lane" else 1) <= int(text) <= most:
        raise invalid(f"is a number from 1 to {most}", f"/{name}")
    return int(text)


def _said(error: ProblemError | None) -> str | None:
    if error is None:
        return None
    names = {"/reason": "The reason", "/form": "The form"}
    return " ".join(
        f"{names.get(e['pointer'], e['pointer'].lstrip('/'))}: {e['detail']}."
        for e in error.problem.errors
    )
