"""An operator's connection to PostgreSQL, from a command line. The writer process has its own way."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

_CONNECT_S = 5.0
_COMMAND_S = 30.0


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection as the owner or as the writer's role, every wait bounded.

    Raises OSError, TimeoutError or `asyncpg.PostgresError` when there is none to be had.
    """
    connection = await asyncpg.connect(
        url,
        timeout=_CONNECT_S,
        command_timeout=_COMMAND_S,
        server_settings={"application_name": "afterwrite operator", "lock_timeout": "5000"},
    )
    try:
        await connection.set_type_codec(
            "json", encoder=json.dumps, decoder=json.loads, schema="pg_catalog"
        )
        yield connection
    finally:
        await connection.close(timeout=_CONNECT_S)
