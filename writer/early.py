"""What decides a command before its mutations are looked at: it is known already, or it is too old."""

import uuid
from datetime import datetime

from schema.commands import Command
from schema.outcomes import Problem
from writer.failures import Refused
from writer.knowledge import Knowledge, brings
from writer.parking import ParkPolicy


def repeats(command: Command, known: Knowledge) -> uuid.UUID | None:
    """The command that this one repeats: itself, delivered again, or another under its key.

    Raises `Refused` when the key came with another request.
    """
    if command.command_id in known.decided:
        return command.command_id
    if command.idempotency_key is None:
        return None
    first = known.keys.get((command.author.id, command.idempotency_key))
    if first is None:
        return None
    first_id, fingerprint = first
    if fingerprint != command.fingerprint:
        raise Refused(
            Problem(
                "idempotency_key_reused", "This Idempotency-Key came with another request before."
            )
        )
    return first_id


def waits_behind(command: Command, stream: uuid.UUID, known: Knowledge) -> bool:
    """Order within a stream: behind a parked command everything waits but what it waits for."""
    held = known.parked.get(stream)
    return bool(held and not held[0].waits_for & set(brings(command)))


def must_be_in_time(command: Command, policy: ParkPolicy, now: datetime) -> None:
    """Raises `Refused` when the command has reached its horizon: now it is given up."""
    if policy.expired(command, now):
        since = f"{command.accepted_at:%Y-%m-%d %H:%M} UTC"
        detail = f"It was tried since {since} and could not be saved in time."
        raise Refused(Problem("expired", detail))
