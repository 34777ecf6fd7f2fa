"""A lane in PostgreSQL: lease, epoch, position. The fence that lets one writer commit.

Taking a lane raises its epoch under the row lock, and only then reads the position: whatever the
previous owner had committed by then is behind it, and what he tries later finds another epoch.

When a lane may be taken is another matter, and only of speed. Its owner's connection holds an advisory
lock: once that is free, the owner has ended or lost its connection, and nobody waits any longer. An
owner whose connection stays though it does nothing any more, because it is frozen or its host has
vanished, has the lane until its lease has run out.
"""

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NoReturn

import asyncpg

from writer import statements as sql
from writer.failures import Fenced, Halt, Paused, SilentRollback


@dataclass(frozen=True)
class Look:
    """What an operator wants of a writer, and what it has to do beside.

    `paused`: why an operator wants the lane to stand still. `due`: when the next parked stream is
    to be tried, as a time.
    """

    paused: str | None
    due: datetime | None


@dataclass
class Lane:
    """A lane that we hold. `position` is the next offset to apply."""

    number: int
    epoch: int
    position: int
    log_id: uuid.UUID
    settled_seq: int
    deaths: int
    lease: timedelta
    owner: str
    outcome_seq: int = 0
    """The last outcome number given, as far as we know; `settled_seq` follows it."""

    async def renew(self, connection: asyncpg.Connection) -> None:
        """Keep the lease while there is nothing to apply. Raises `Fenced` or `Halt`."""
        row = await connection.fetchrow(
            sql.RENEW_LANE, self.number, self.epoch, self.lease, self.settled_seq
        )
        if row is None:
            raise Fenced(f"lane {self.number} has another epoch")
        if row["halted"] is not None:
            raise Halt(row["halted"])

    async def look(self, connection: asyncpg.Connection) -> Look:
        row = await connection.fetchrow(sql.LOOK, self.number)
        return Look(row["paused"], row["due"]) if row is not None else Look(None, None)

    async def keep(self, connection: asyncpg.Connection) -> None:
        """Keep the lease while the lane is paused. Raises `Fenced` or `Halt`."""
        row = await connection.fetchrow(
            sql.KEEP_LANE, self.number, self.epoch, self.lease, self.settled_seq
        )
        if row is None:
            raise Fenced(f"lane {self.number} has another epoch")
        if row["halted"] is not None:
            raise Halt(row["halted"])

    async def begin(self, connection: asyncpg.Connection, to: int) -> int:
        """Open a transaction and move the position in it; returns the last outcome number given.

        Raises `Fenced`, or `Paused` with no transaction open.
        """
        script = sql.BEGIN_BATCH.format(
            lane=self.number,
            epoch=self.epoch,
            position=self.position,
            seq=self.outcome_seq,
            to=to,
            settled=self.settled_seq,
            lease_ms=self._lease_ms,
        )
        if await connection.execute(script) != "UPDATE 1":
            await self._refused(connection)
        return self.outcome_seq

    async def _refused(self, connection: asyncpg.Connection) -> NoReturn:
        """Why the position could not be moved."""
        place = self.number, self.epoch, self.position, self.outcome_seq
        if await connection.fetchrow(sql.IS_HELD, *place) is None:
            raise Fenced(f"lane {self.number} is not at {self.position} in epoch {self.epoch}")
        await connection.execute("ROLLBACK")
        raise Paused(f"lane {self.number} is paused")

    async def commit(self, connection: asyncpg.Connection, seq: int, to: int) -> None:
        """Commit. The server's tag is checked: after a swallowed error it says ROLLBACK."""
        tag = await connection.execute(
            sql.COMMIT_BATCH.format(lane=self.number, seq=seq, lease_ms=self._lease_ms)
        )
        if tag != "COMMIT":
            raise SilentRollback(f"lane {self.number}: COMMIT answered {tag}")
        self.position, self.outcome_seq = to, seq

    @property
    def _lease_ms(self) -> int:
        return self.lease // timedelta(milliseconds=1)

    async def release(self, connection: asyncpg.Connection) -> None:
        await connection.execute(sql.RELEASE_LANE, self.number, self.epoch, self.settled_seq)

    async def halt(self, connection: asyncpg.Connection, reason: str) -> None:
        """Write down why the lane stands still, for the operator who resumes it."""
        await connection.execute(sql.HALT_LANE, self.number, self.epoch, reason[:2000])


async def take_lane(
    connection: asyncpg.Connection, number: int, owner: str, lease: timedelta
) -> Lane | None:
    """Lease a lane, or None while another writer holds it. Raises `Halt` when it stands still.

    The lane is held by this connection: it may be taken by another as soon as the connection ends.
    """
    seen = await connection.fetchrow(sql.CLAIM_LANE, number, owner)
    if seen is None:
        raise Halt(f"lane {number} has no row: run `afterwrite migrate`")
    if seen["halted"] is not None:
        raise Halt(seen["halted"])
    if not seen["claimed"]:
        if seen["taken_for_dead"]:
            await connection.execute(sql.NOT_DEAD, number, owner)
        return None
    row = await connection.fetchrow(sql.TAKE_LANE, number, owner, lease, seen["epoch"])
    if row is None:  # it was free a moment ago
        await connection.execute(sql.UNCLAIM_LANE, number, seen["epoch"])
        return None
    return Lane(
        number=number,
        epoch=row["epoch"],
        position=row["position"],
        log_id=row["log_id"],
        settled_seq=row["settled_seq"],
        deaths=row["deaths"],
        lease=lease,
        owner=owner,
        outcome_seq=row["outcome_seq"],
    )
