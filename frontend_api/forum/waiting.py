"""What a row or a command waits for, and how long it is tried."""

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from frontend_api.commands_view import Patience
from frontend_api.merge import Shown
from schema.identifiers import is_uuid7, time_of
from schema.outcomes import State

_WAITING: Final = frozenset({State.PENDING, State.DELAYED, State.PARKED})
_LONG_S: Final = 10


@dataclass(frozen=True)
class Waiting:
    """A command that a row waits for, and for how long it has. `long`: longer than is usual.

    `until` is told once it is delayed: how long it is tried.
    """

    command: uuid.UUID
    seconds: int
    parked: bool
    until: datetime | None = None

    @property
    def long(self) -> bool:
        return self.parked or self.seconds >= _LONG_S


def waiting(shown: Shown, patience: Patience) -> Waiting | None:
    """What a row waits for; None if it is saved. A row that waits was changed last by its command."""
    if shown.state not in _WAITING or shown.command is None:
        return None
    since = shown.row.get("updated_at")
    if since is None and is_uuid7(shown.command):
        since = time_of(shown.command)
    # What Kafka may not have is not called safe.
    late = shown.confirmed and since is not None and patience.delayed(since)
    state = State.DELAYED if late and shown.state is State.PENDING else shown.state
    return of_command(shown.command, state, since, patience)


def of_command(
    command: uuid.UUID, state: State, since: datetime | None, patience: Patience
) -> Waiting | None:
    """What a command waits for that was accepted then; None if it is decided."""
    if state not in _WAITING:
        return None
    if since is None:
        return Waiting(command, 0, state is State.PARKED)
    age_s = (patience.clock() - since).total_seconds()
    late = state is State.DELAYED or (state is State.PARKED and patience.delayed(since))
    until = patience.tried_until(since) if late else None
    return Waiting(command, min(max(0, int(age_s)), _LONG_S), state is State.PARKED, until)
