"""From a dead letter to the command that repeats it. Pure: no server is asked."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from schema.catalog import Catalog
from schema.commands import Command, Mutation
from schema.content import Kind
from schema.envelope import VERSION
from schema.identifiers import CommandId
from schema.strict_json import JsonError, decode
from writer.failures import Halt, Refused
from writer.values import new_row, values_of


class NotReplayable(Exception):
    """This letter cannot be replayed, or not with these values; the message says why."""


@dataclass(frozen=True)
class Edit:
    """What a replay does otherwise: `values` by number of the mutation (a JSON merge patch of its
    values: null takes a value away from a creation, and sets it to null in an update)."""

    values: Mapping[int, Mapping[str, Any]]
    any_version: bool = False

    def to_json(self) -> dict[str, Any]:
        shown: dict[str, Any] = {"values": {str(n): dict(v) for n, v in self.values.items()}}
        return shown | ({"any_version": True} if self.any_version else {})

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Edit":
        values = {int(n): dict(changed) for n, changed in data["values"].items()}
        return cls(values, data.get("any_version") is True)


def command_of(command_id: uuid.UUID | None, value: bytes | None, code: str) -> Command:
    """The command of a letter. Raises `NotReplayable` for bytes that are none.

    The writer had verified the signature before it wrote down a command id; a letter without one was
    signed by nobody we know, and whoever replayed it would sign what he had not been asked to.
    """
    if command_id is None or value is None:
        raise NotReplayable(f"these bytes are no command of ours ({code})")
    try:
        data = decode(value)
        if data["v"] != VERSION:
            raise NotReplayable(f"it is of version {data['v']}, which is not known here")
        return Command.from_json(data)
    except (JsonError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotReplayable(f"it cannot be read as a command: {error!r}") from error


def replayed(
    command: Command, replay_id: uuid.UUID, now: datetime, edit: Edit | None = None
) -> Command:
    """A new command that repeats this one: same author, same stream, same rows, accepted now.

    The Idempotency-Key stays with the first: it was used by a request that was answered.
    """
    mutations = command.mutations if edit is None else edited_mutations(command, edit)
    return replace(
        command,
        command_id=CommandId(replay_id),
        accepted_at=now,
        mutations=mutations,
        idempotency_key=None,
        fingerprint=None,
        replays=command.command_id,
    )


def edited_mutations(command: Command, edit: Edit) -> tuple[Mutation, ...]:
    """The mutations with other values. Raises `NotReplayable` for a mutation that is not there."""
    beyond = sorted(set(edit.values) - set(range(len(command.mutations))))
    if beyond:
        last = len(command.mutations) - 1
        raise NotReplayable(f"there is no mutation {beyond[0]}; they are numbered 0 to {last}")
    return tuple(
        _edited(mutation, edit.values.get(number, {}), edit.any_version)
        for number, mutation in enumerate(command.mutations)
    )


def _edited(mutation: Mutation, changed: Mapping[str, Any], any_version: bool) -> Mutation:
    if changed and mutation.op == "delete":
        raise NotReplayable("a deletion has no values")
    values = dict(mutation.values)
    for name, value in changed.items():
        if value is None and mutation.op == "create":
            values.pop(name, None)
        else:
            values[name] = value
    version = None if any_version else mutation.expected_version
    return replace(mutation, values=values, expected_version=version)


def check_edit(catalog: Catalog, command: Command, edit: Edit) -> None:
    """Hold an edit against the content types. Raises `NotReplayable` with what is wrong.

    What the values mean together with the rows in the database is the writer's to say.
    """
    for number, mutation in enumerate(edited_mutations(command, edit)):
        changed = edit.values.get(number, {})
        if not changed:
            continue
        if mutation.type not in catalog:
            raise NotReplayable(f"content type {mutation.type!r} is not known here")
        kind = catalog[mutation.type]
        _check_names(catalog, kind, mutation, changed)
        _check_values(kind, mutation, command)


def _check_names(
    catalog: Catalog, kind: Kind, mutation: Mutation, changed: Mapping[str, Any]
) -> None:
    path = catalog.stream_path(kind)
    for name in changed:
        if name not in kind.fields:
            raise NotReplayable(f"{kind.name} has no field {name!r}; it has {sorted(kind.fields)}")
        if name in kind.model.natural_key:
            raise NotReplayable(f"{name} is part of what names the row: its id would be another")
        if mutation.op == "create" and path and name == path[0]:
            raise NotReplayable(f"{name} says to which stream it belongs, and that must stay")


def _check_values(kind: Kind, mutation: Mutation, command: Command) -> None:
    try:
        values = values_of(kind, mutation)
        if mutation.op == "create":
            new_row(kind, mutation.id, values, command)
            return
        kind.model.model_validate(values)
    except Refused as error:
        faults = "; ".join(f"{f['pointer']}: {f['detail']}" for f in error.problem.errors)
        raise NotReplayable(faults or error.problem.detail) from error
    except Halt as error:
        raise NotReplayable(str(error)) from error
    except ValidationError as error:
        # An update has some of the fields; the others are in the database.
        found = error.errors(include_url=False, include_input=False, include_context=False)
        ours = [f"/{f['loc'][0]}: {f['msg']}" for f in found if f["loc"][0] in mutation.values]
        if ours:
            raise NotReplayable("; ".join(ours)) from error
