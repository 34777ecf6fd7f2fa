"""The writer's connections to PostgreSQL: dedicated, direct, every wait bounded."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg

from schema.settings import WriterSettings
from schema.telemetry import Log
from writer.breaker import Breaker, Circuit

_COMMAND_S = 30.0
_CLOSE_S = 2.0


@dataclass(frozen=True)
class Database:
    """Opens connections for the writer's role."""

    url: str
    statement_timeout_s: float
    breaker: Breaker

    @classmethod
    def of(
        cls, settings: WriterSettings, log: Log, on_change: Callable[[Circuit], None]
    ) -> "Database":
        """One for the process: what is known of the server belongs to all who ask it.

        `on_change` is told the state of its breaker, now and whenever it changes.
        """
        low_s, high_s = settings.database_backoff_min_s, settings.database_backoff_max_s
        return cls(
            settings.writer_database_url.get_secret_value(),
            settings.statement_timeout_s,
            Breaker(low_s, high_s, log, on_change),
        )

    @asynccontextmanager
    async def connect(self, purpose: str) -> AsyncIterator[asyncpg.Connection]:
        """A connection that is dropped at the end, with whatever transaction is open on it.

        Raises `DatabaseAway` at once while the server is known not to let anybody in.
        """
        async with self.breaker.attempt():
            connection = await self._open(purpose)
        try:
            yield connection
        finally:
            await _close(connection)

    async def _open(self, purpose: str) -> asyncpg.Connection:
        connection = await asyncpg.connect(
            self.url,
            timeout=10,
            command_timeout=_COMMAND_S,
            server_settings={
                "application_name": f"afterwrite {purpose}",
                "statement_timeout": str(int(self.statement_timeout_s * 1000)),
                "lock_timeout": "5000",
                "idle_in_transaction_session_timeout": "10000",
            },
        )
        try:
            await connection.set_type_codec(
                "json", encoder=json.dumps, decoder=json.loads, schema="pg_catalog"
            )
        except BaseException:
            connection.terminate()
            raise
        return connection


async def roll_back(connection: asyncpg.Connection) -> None:
    """End whatever transaction is open, so that no row stays locked; with the connection if need be.

    The connection itself stays open if it can: while it does, nobody else takes the lane that it holds.
    """
    try:
        await connection.execute("ROLLBACK", timeout=_CLOSE_S)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()


async def _close(connection: asyncpg.Connection) -> None:
    """Close politely if the server still answers, else at once."""
    if connection.is_closed():
        return
    if connection.is_in_transaction():
        connection.terminate()
        return
    try:
        await connection.close(timeout=_CLOSE_S)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()
