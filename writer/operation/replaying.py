"""Replaying dead letters: each becomes a new command, confirmed by Kafka before the letter is closed.

1. The id of the new command is written to the letter (`replay_id`), with what it changes, and committed.
2. The command is published, and its confirmation awaited.
3. The letter is closed and the act's row in the audit log brought up to date, in one transaction.

Whoever is killed in between leaves an open letter with a `replay_id`: replaying it again publishes the
same id, which the writer takes once, or only closes it, when the ledger has that id already. Letters go
in the order of (lane, offset), so that a stream keeps its order.
"""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

import asyncpg

from schema import clock
from schema.acts import Act
from schema.catalog import Catalog
from schema.commands import Command
from schema.envelope import Envelope, Keyring, seal
from schema.failpoints import reach
from schema.identifiers import new_command_id
from schema.strict_json import encode
from schema.topics import MAX_REQUEST_BYTES, lane_of
from writer.operation import audit_log
from writer.operation.letters import DeadLetter, edit_of
from writer.operation.mending import Edit, NotReplayable, check_edit, replayed
from writer.operation.trial import forecast
from writer.publisher import Message

BATCH: Final = 100
"""Letters that are closed together, where no rate is asked for."""
SOURCE: Final = "/afterwrite/operator"

_CHOOSE: Final = """
UPDATE afterwrite.dead_letter d
SET replay_id = coalesce(d.replay_id, u.replay_id),
    replay_edit = CASE WHEN d.replay_id IS NULL THEN $4::jsonb ELSE d.replay_edit END
FROM unnest($1::int[], $2::bigint[], $3::uuid[]) AS u(lane, "offset", replay_id)
WHERE d.lane = u.lane AND d."offset" = u."offset" AND d.closed IS NULL
RETURNING d.lane, d."offset", d.replay_id, d.replay_edit
"""
_THERE: Final = """
SELECT command_id, lane, "offset" FROM afterwrite.ledger
WHERE command_id = ANY($1::uuid[]) AND outcome <> 'duplicate'
"""
_CLOSE: Final = """
UPDATE afterwrite.dead_letter d SET closed = 'replayed', closed_at = $1, replay_lane = u.at_lane,
    replay_offset = u.at_offset
FROM unnest($2::int[], $3::bigint[], $4::int[], $5::bigint[])
    AS u(lane, "offset", at_lane, at_offset)
WHERE d.lane = u.lane AND d."offset" = u."offset" AND d.closed IS NULL
"""


class Publisher(Protocol):
    """Publishes with confirmation: the offset of each message, None where it is not told."""

    async def publish(self, messages: Sequence[Message]) -> Sequence[int | None]: ...


Progress = Callable[[dict[str, Any]], None]
"""Called with what became of each letter, as it becomes of it."""


@dataclass(frozen=True)
class _Replay:
    """One letter with the command that is to repeat it."""

    letter: DeadLetter
    command: Command
    begun: bool = False

    def lane(self, lanes: int) -> int:
        return lane_of(self.command.stream, lanes)


@dataclass
class Replaying:
    """One act that replays letters, a chunk of them at a time. `result` is what the audit log keeps."""

    connection: asyncpg.Connection
    publisher: Publisher
    keyring: Keyring
    catalog: Catalog
    topic: str
    lanes: int
    act: Act
    progress: Progress = lambda step: None
    result: dict[str, Any] = field(default_factory=lambda: {"replayed": [], "refused": []})
    _due: float = field(default_factory=time.monotonic)

    async def run(self, letters: Sequence[DeadLetter]) -> None:
        """Replay these letters, which are in order; with `dry_run`, say what would happen.

        Raises `LogUnavailable` or `TimeoutError` when Kafka does not confirm, and what the database
        raises: what was begun then is completed by asking again.
        """
        size = 1 if self.act.rate is not None else BATCH
        replays = [r for r in map(self._prepared, letters) if r is not None]
        if self.act.dry_run:
            await self._foretell(replays)
            return
        log_ids = {
            row["lane"]: row["log_id"]
            for row in await self.connection.fetch("SELECT lane, log_id FROM afterwrite.lane")
        }
        for at in range(0, len(replays), size):
            await asyncio.sleep(max(self._due - time.monotonic(), 0))
            self._due = time.monotonic() + (1 / self.act.rate if self.act.rate else 0)
            await self._batch(replays[at : at + size], log_ids)

    def refuse(self, letter: str, why: str) -> None:
        """Note a letter that this act leaves as it is."""
        step = {"letter": letter, "why": why}
        self.result["refused"].append(step)
        self.progress(step)

    def _prepared(self, letter: DeadLetter) -> _Replay | None:
        """The command that is to repeat a letter, or None after saying why there is none."""
        try:
            command = self._command(letter)
        except NotReplayable as error:
            self.refuse(letter.name, str(error))
            return None
        return _Replay(letter, command, begun=letter.replay_id is not None)

    def _command(self, letter: DeadLetter) -> Command:
        if letter.command is None:
            raise NotReplayable(f"{letter.why_not}; it can be peeked at, exported and discarded")
        edit = self._edit(letter)
        if edit is not None:
            check_edit(self.catalog, letter.command, edit)
        replay_id = letter.replay_id or new_command_id()
        command = replayed(letter.command, replay_id, clock.now(), edit)
        if len(encode(command.to_json())) > MAX_REQUEST_BYTES:
            raise NotReplayable(f"it would have more than {MAX_REQUEST_BYTES} bytes")
        return command

    def _edit(self, letter: DeadLetter) -> Edit | None:
        """What is to be otherwise. A replay that was begun must stay what it was: it may be saved."""
        wanted = Edit(self.act.values, self.act.any_version) if self.act.kind == "edit" else None
        if letter.replay_id is None:
            return wanted
        begun = Edit.from_json(letter.replay_edit) if letter.replay_edit is not None else None
        if wanted is not None and wanted != begun:
            raise NotReplayable(
                f"a replay of it was begun as {letter.replay_id} and may be in the log; `replay` "
                "completes that one, and what becomes of it can be edited"
            )
        return begun

    async def _foretell(self, replays: Sequence[_Replay]) -> None:
        by_lane: dict[int, list[_Replay]] = {}
        for one in replays:
            by_lane.setdefault(one.lane(self.lanes), []).append(one)
        for lane, ours in sorted(by_lane.items()):
            found = await forecast(self.connection, self.catalog, lane, [r.command for r in ours])
            for one, likely in zip(ours, found, strict=True):
                self._done(one, {"forecast": likely.to_json()})

    async def _batch(self, replays: Sequence[_Replay], log_ids: dict[int, Any]) -> None:
        reach("operator_before_replay_id")
        chosen = await self._chosen(replays)
        reach("operator_after_replay_id")
        there = await self._there(chosen)
        fresh = [one for one in chosen if one.command.command_id not in there]
        offsets = await self.publisher.publish([self._message(one, log_ids) for one in fresh])
        reach("operator_after_publish")
        places = there | {
            one.command.command_id: (one.lane(self.lanes), offset)
            for one, offset in zip(fresh, offsets, strict=True)
        }
        async with self.connection.transaction():
            at = [places[one.command.command_id] for one in chosen]
            await self.connection.execute(
                _CLOSE,
                clock.now(),
                [one.letter.lane for one in chosen],
                [one.letter.offset for one in chosen],
                [lane for lane, _ in at],
                [offset for _, offset in at],
            )
            for one in chosen:
                lane, offset = places[one.command.command_id]
                self._done(one, {"lane": lane, "offset": offset})
            await audit_log.write_result(self.connection, self.act, self.result, done=False)
            reach("operator_before_close")
        reach("operator_after_close")

    async def _chosen(self, replays: Sequence[_Replay]) -> list[_Replay]:
        """Write the new ids down. Another operator may have been faster: then his id is taken."""
        edit = Edit(self.act.values, self.act.any_version) if self.act.kind == "edit" else None
        rows = await self.connection.fetch(
            _CHOOSE,
            [one.letter.lane for one in replays],
            [one.letter.offset for one in replays],
            [one.command.command_id for one in replays],
            None if edit is None else json.dumps(edit.to_json()),
        )
        found = {(row["lane"], row["offset"]): row for row in rows}
        chosen = []
        for one in replays:
            row = found.get(one.letter.place)
            if row is None:
                self.refuse(one.letter.name, "somebody else has dealt with it meanwhile")
            elif row["replay_id"] == one.command.command_id:
                chosen.append(one)
            else:
                begun = replace(
                    one.letter,
                    replay_id=row["replay_id"],
                    replay_edit=edit_of(row["replay_edit"]),
                )
                again = self._prepared(begun)
                chosen += [again] if again is not None else []
        return chosen

    async def _there(self, replays: Sequence[_Replay]) -> dict[Any, tuple[int, int | None]]:
        """Where those are that were begun before and that the writer has met."""
        begun = [one.command.command_id for one in replays if one.begun]
        rows = await self.connection.fetch(_THERE, begun) if begun else []
        return {row["command_id"]: (row["lane"], row["offset"]) for row in rows}

    def _message(self, one: _Replay, log_ids: dict[int, Any]) -> Message:
        lane = one.lane(self.lanes)
        traced = {name: content.decode() for name, content in one.letter.headers
                  if name in ("traceparent", "tracestate") and content is not None}  # fmt: skip
        envelope = Envelope(one.command, log_ids[lane], **traced)
        record = seal(envelope, self.keyring, SOURCE)
        return Message(self.topic, record.key, record.value, record.headers, lane)

    def _done(self, one: _Replay, more: dict[str, Any]) -> None:
        step = {
            "letter": one.letter.name,
            "command_id": str(one.letter.command_id),
            "replay_id": str(one.command.command_id),
        }
        if self.act.dry_run and not one.begun:
            del step["replay_id"]  # it will be another
        self.result["replayed"].append(step | more)
        self.progress(step | more)
