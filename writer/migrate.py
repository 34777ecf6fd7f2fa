"""`afterwrite migrate`: bring PostgreSQL and Kafka to what schema/ declares. Idempotent."""

import uuid
from collections.abc import Callable

import asyncpg

from schema.catalog import Catalog
from schema.sql import MACHINERY, Migration, migrations
from schema.sql.tables import COLUMNS, TablesDiffer, check_columns

_LOCK = 0x61667465  # "afte": one migration at a time in a database
_ROLES = ("afterwrite_owner", "afterwrite_writer", "afterwrite_frontend")


class MigrationError(Exception):
    """The database cannot be migrated; the message says what to do."""


async def migrate_database(
    connection: asyncpg.Connection, catalog: Catalog, lanes: int, say: Callable[[str], None]
) -> None:
    """Apply what is missing, one transaction a migration, and make the rows of the lanes.

    Raises `MigrationError` when roles are missing, when an applied migration was edited, or when
    fewer lanes are asked for than there are.
    """
    await _require_roles(connection)
    await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
    try:
        await _make_table(connection)
        for package in (MACHINERY, catalog.migrations):
            await _apply_missing(connection, package, say)
        await _make_lanes(connection, lanes)
        await check_tables(connection, catalog)
    except TablesDiffer as error:
        raise MigrationError(str(error)) from error
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", _LOCK)


async def _require_roles(connection: asyncpg.Connection) -> None:
    rows = await connection.fetch("SELECT rolname FROM pg_roles WHERE rolname = ANY($1)", _ROLES)
    missing = sorted(set(_ROLES) - {row["rolname"] for row in rows})
    if missing:
        raise MigrationError(
            f"PostgreSQL has no role {', '.join(missing)}. Let an administrator run deploy/roles.sql."
        )


async def _make_table(connection: asyncpg.Connection) -> None:
    await connection.execute(
        """
        CREATE SCHEMA IF NOT EXISTS afterwrite;
        CREATE TABLE IF NOT EXISTS afterwrite.migration (
            package text, version integer, name text NOT NULL, checksum text NOT NULL,
            applied_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (package, version))
        """
    )


async def _apply_missing(
    connection: asyncpg.Connection, package: str, say: Callable[[str], None]
) -> None:
    applied = {
        row["version"]: row["checksum"]
        for row in await connection.fetch(
            "SELECT version, checksum FROM afterwrite.migration WHERE package = $1", package
        )
    }
    for migration in migrations(package):
        known = applied.get(migration.version)
        if known is None:
            say(f"applying {package} {migration.name}")
            await _apply(connection, package, migration)
        elif known != migration.checksum:
            raise MigrationError(
                f"{package} {migration.name} was edited after it had been applied. "
                "Restore it and put the change into a new migration."
            )


async def _apply(connection: asyncpg.Connection, package: str, migration: Migration) -> None:
    async with connection.transaction():
        await connection.execute("SET LOCAL lock_timeout = '5s'")
        await connection.execute(migration.up)
        await connection.execute(
            "INSERT INTO afterwrite.migration (package, version, name, checksum) VALUES ($1, $2, $3, $4)",
            package,
            migration.version,
            migration.name,
            migration.checksum,
        )


async def _make_lanes(connection: asyncpg.Connection, lanes: int) -> None:
    """One row a lane. All lanes are partitions of one log, so they share its identity."""
    known = await connection.fetch("SELECT lane, log_id FROM afterwrite.lane ORDER BY lane")
    if len(known) > lanes:
        raise MigrationError(
            f"there are {len(known)} lanes, AFTERWRITE_LANES asks for {lanes}: lanes are never taken away"
        )
    log_id = known[0]["log_id"] if known else uuid.uuid4()
    await connection.executemany(
        "INSERT INTO afterwrite.lane (lane, log_id) VALUES ($1, $2)",
        [(lane, log_id) for lane in range(len(known), lanes)],
    )


async def check_tables(connection: asyncpg.Connection, catalog: Catalog) -> None:
    """Raises `TablesDiffer` unless every content type has its table with what it declares."""
    check_columns(catalog, [dict(row) for row in await connection.fetch(COLUMNS)])
