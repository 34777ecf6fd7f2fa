"""The snapshot that an audit looks at: one read-only transaction, and cursors over it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

FETCH = 2000
CONNECT_TIMEOUT_S = 10.0
_SETTINGS = {
    "application_name": "afterwrite-audit",
    # An audit may run long, and reads each result to its end: plan for all rows, not for the first.
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "cursor_tuple_fraction": "1",
    "jit": "off",
    # Every join here is of whole tables. A wrong guess at the number of effects must not make one
    # of them a loop in a loop.
    "enable_nestloop": "off",
}

Snapshot = asyncpg.Connection


class CannotConnect(Exception):
    """PostgreSQL does not let the audit in; the message says why, without the password."""


@asynccontextmanager
async def open_snapshot(url: str) -> AsyncIterator[Snapshot]:
    """A connection inside a REPEATABLE READ, READ ONLY transaction: everything read is of one
    moment, while the writer goes on. Raises `CannotConnect`."""
    try:
        connection = await asyncpg.connect(
            url, timeout=CONNECT_TIMEOUT_S, server_settings=_SETTINGS
        )
    except (
        OSError,
        TimeoutError,
        ValueError,
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
    ) as error:
        raise CannotConnect(str(error) or type(error).__name__) from error
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            yield connection
    finally:
        await connection.close()


async def rows_of(
    snapshot: Snapshot, query: str, *arguments: object
) -> AsyncIterator[asyncpg.Record]:
    """The rows of a query through a server-side cursor, `FETCH` at a time."""
    async for row in snapshot.cursor(query, *arguments, prefetch=FETCH):
        yield row
