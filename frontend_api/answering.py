"""From a plan to the answer: submit it, wait for its outcome if asked to, keep the answer."""

import asyncio
import time
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from frontend_api.idempotency import Answer
from frontend_api.merge import Shown
from frontend_api.messages import Request, Response
from frontend_api.planning import Plan, Planner
from frontend_api.presentation import etag, json_response, mark, minimal, row_json
from frontend_api.problems import MEDIA_TYPE, ProblemError, fail, told
from frontend_api.seen import OverlayIncomplete, View
from frontend_api.services import Services
from frontend_api.submission import Accepted
from frontend_api.validation import Preferences, fingerprint, idempotency_key, preferences
from frontend_api.view import DatabaseUnavailable
from schema.commands import Author
from schema.content import Kind
from schema.outcomes import Outcome, State


async def submit(
    services: Services, request: Request, planner: Planner, data: Any, *, as_command: bool = False
) -> Response:
    """Submit what was planned, and count it."""
    if request.header(b"if-none-match") is not None:
        # Answers are not to be stored, so no client has a reason to; it must not be passed over.
        raise fail("bad_request", "If-None-Match is not supported; see If-Match.")
    key = idempotency_key(request.header(b"idempotency-key"))
    same = fingerprint(request.method, request.path, data) if key is not None else ""
    plan = planner.plan(key, same)
    limits: dict[str, str] = {}
    ahead = services.submissions.read_ahead(plan)
    try:
        limits = await services.rate_limit.count(plan.author.id)
        response = await _submit(services, request, plan, ahead, as_command=as_command)
    except ProblemError as error:
        services.metrics.submissions.labels(error.problem.code).inc()
        error.headers |= limits
        raise
    finally:
        ahead.cancel()
    services.metrics.accepted.inc()
    response.headers.update(limits)
    return response


async def _submit(
    services: Services,
    request: Request,
    plan: Plan,
    ahead: "asyncio.Task[View]",
    *,
    as_command: bool,
) -> Response:
    wanted = preferences(request.headers(b"prefer"), services.settings.max_wait_s)
    with ExitStack() as stack:
        if wanted.wait_s is not None:  # before publishing: the outcome may be there before we wait
            stack.enter_context(services.outcomes.expecting(plan.command_id))
        began = time.perf_counter()
        try:
            result = await services.submissions.submit(plan, ahead)
        finally:
            services.metrics.accept_seconds.observe(time.perf_counter() - began)
        if isinstance(result, Answer):
            return _answered(result, wanted, {"Idempotency-Replayed": "true"})
        answer = services.presenter.accepted(result, as_command=as_command)
        await services.submissions.keep_answer(plan, result.ids, answer)
        for effect in result.effects:
            if effect.after is not None:
                services.remember_streams(effect.planned.kind, [Shown(effect.after)])
        settled = None
        if wanted.wait_s is not None:
            settled = await _settled(
                services, plan.author, result, wanted.wait_s, as_command=as_command
            )
    if settled is None:
        return _answered(answer, wanted)
    if settled.status < 400:
        await services.submissions.keep_answer(plan, result.ids, settled)
    return _answered(settled, wanted, waited=True)


def _answered(
    answer: Answer,
    wanted: Preferences,
    more: Mapping[str, str] | None = None,
    *,
    waited: bool = False,
) -> Response:
    """The answer as the client prefers it, with what was done of its preferences."""
    applied = ["respond-async"] if wanted.respond_async and answer.status == 202 else []
    if waited:
        applied.append(f"wait={wanted.wait_s:g}")
    if wanted.minimal and answer.status < 400:
        applied.append("return=minimal")
        answer = minimal(answer)
    headers = {**answer.headers, **(more or {})}
    if applied:
        headers["Preference-Applied"] = ", ".join(applied)
    if answer.status >= 400:
        return Response(told(answer.body), answer.status, {"Content-Type": MEDIA_TYPE, **headers})
    return json_response(answer.body, answer.status, headers)


async def _settled(
    services: Services, author: Author, accepted: Accepted, wait_s: float, *, as_command: bool
) -> Answer | None:
    """The answer once the outcome is there; None when it did not come in time."""
    command = accepted.command.command_id
    with services.outcomes.expecting(command) as future:
        done, _ = await asyncio.wait({future}, timeout=wait_s)
    if not done or future.cancelled():
        return None
    outcome = future.result()
    if outcome["outcome"] == Outcome.REJECTED and isinstance(outcome.get("problem"), dict):
        problem = outcome["problem"] | {"command": str(command)}
        version = problem.get("current_version")
        headers = {"ETag": f'"v{version}"'} if version is not None else {}
        return Answer(int(problem.get("status", 422)), headers, problem)
    try:
        body = await _settled_body(services, author, accepted, as_command=as_command)
    except (DatabaseUnavailable, OverlayIncomplete):
        return None
    return services.presenter.saved(accepted, body, as_command=as_command) if body else None


async def _settled_body(
    services: Services, author: Author, accepted: Accepted, *, as_command: bool
) -> dict[str, Any] | None:
    """What is saved now, read back."""
    command = accepted.command.command_id
    if as_command:
        return await services.commands.command(author.id, command)
    effects = []
    for effect in accepted.effects:
        kind, row_id = effect.planned.kind, effect.planned.mutation.id
        shown, _ = await services.reader.row(author.id, kind, row_id)
        effects.append(replace(effect, after=shown.row if shown is not None else None))
    if effects[0].after is None and effects[0].planned.mutation.op != "delete":
        return None  # it repeats another command, or somebody has deleted it already
    return services.presenter.row_body(effects, command, State.SAVED)


async def read_row(services: Services, author: Author, kind: Kind, row_id: uuid.UUID) -> Response:
    """One row with its tag. Raises `ProblemError` 404 or 503."""
    try:
        shown, view = await services.reader.row(author.id, kind, row_id)
    except DatabaseUnavailable:
        raise fail("database_unavailable", "This cannot be read now.") from None
    except OverlayIncomplete:
        raise fail("overlay_incomplete", "It cannot be told yet whether this is there.") from None
    if shown is None and kind is services.catalog.actor and row_id == author.id:
        shown = await services.commands.actor_to_be(kind, author.id)
    if shown is None:
        raise fail("not_found", "There is no such row.")
    services.remember_streams(kind, [shown])
    body, headers = row_json(kind, shown), {"ETag": etag(shown)}
    mark(body, headers, view.freshness)
    return json_response(body, headers=headers)
