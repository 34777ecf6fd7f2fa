"""From a form to an accepted command: the same way as a request of the JSON API, in process."""

import asyncio
import uuid
from dataclasses import dataclass
from typing import Any, Final

from frontend_api.idempotency import Answer
from frontend_api.merge import Shown
from frontend_api.planning import Effect, Planner
from frontend_api.problems import ProblemError
from frontend_api.services import Services
from frontend_api.validation import fingerprint

_ASK_AGAIN_S: Final = 0.1


@dataclass(frozen=True)
class Sent:
    """An accepted command. Of one that was accepted before, only the first row's id is known.

    `shown` is False if its author cannot be shown it before it is saved.
    """

    row_id: uuid.UUID
    shown: bool = True
    command: uuid.UUID | None = None
    effects: tuple[Effect, ...] = ()


async def send(services: Services, planner: Planner, key: str | None, path: str, data: Any) -> Sent:
    """Submit what a form asks for. Raises `ProblemError`; see `Submissions.submit`.

    A form that is sent twice has the same key: it is one change, also when the second one comes
    while the first is still in work.
    """
    plan = planner.plan(key, fingerprint("POST", path, data))
    await services.rate_limit.count(plan.author.id)
    loop = asyncio.get_running_loop()
    until = loop.time() + services.settings.accept_deadline_s
    while True:
        try:
            with services.metrics.accept_seconds.time():
                result = await services.submissions.submit(plan)
            break
        except ProblemError as error:
            if error.problem.code != "in_flight" or loop.time() > until:
                services.metrics.submissions.labels(error.problem.code).inc()
                raise
        await asyncio.sleep(_ASK_AGAIN_S)
    services.metrics.submissions.labels("accepted").inc()
    if isinstance(result, Answer):
        return Sent(uuid.UUID(result.body["id"]), result.body.get("display") != "delayed")
    answer = services.presenter.accepted(result, as_command=False)
    await services.submissions.keep_answer(plan, result.ids, answer)
    for effect in result.effects:
        if effect.after is not None:
            services.remember_streams(effect.planned.kind, [Shown(effect.after)])
    first = result.effects[0].planned.mutation
    return Sent(first.id, result.shown, result.command.command_id, result.effects)
