"""The front end's database role: what it is denied, and an API that is given more does not run."""

import asyncio
import contextlib
import signal
import subprocess
import sys

import asyncpg
import pytest

from tests.installation import ROOT, Installation

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(60)]

DENIED = (
    "INSERT INTO {t} DEFAULT VALUES",
    "UPDATE {t} SET {c} = DEFAULT",
    "DELETE FROM {t}",
    "TRUNCATE {t}",
    "DROP TABLE {t}",
    "ALTER TABLE {t} ADD COLUMN x integer",
    "ALTER TABLE {t} DISABLE TRIGGER ALL",
    "CREATE INDEX ON {t} ({c})",
    "DO $$BEGIN LOCK TABLE {t} IN ROW EXCLUSIVE MODE; END$$",
    "COPY {t} FROM STDIN",
    "MERGE INTO {t} USING (SELECT 1) s ON false WHEN NOT MATCHED THEN INSERT DEFAULT VALUES",
)
DENIED_ANYWHERE = (
    "CREATE TABLE public.mine (a integer)",
    "CREATE TABLE afterwrite.mine (a integer)",
    "CREATE SCHEMA mine",
    "CREATE FUNCTION public.f() RETURNS integer LANGUAGE sql AS 'select 1'",
    "CREATE ROLE mine",
    "DROP SCHEMA afterwrite CASCADE",
    "SET ROLE afterwrite_writer",
    "SET ROLE afterwrite_owner",
    "SET SESSION AUTHORIZATION afterwrite_writer",
    "ALTER ROLE afterwrite_frontend SUPERUSER",
    "GRANT afterwrite_writer TO afterwrite_frontend",
    "SELECT afterwrite.ensure_ledger_period('2030-01-01')",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "ALTER SYSTEM SET work_mem = '1MB'",
)


async def test_the_front_ends_role_is_denied_every_way_to_write(
    installation: Installation,
) -> None:
    tables = await installation.fetch(
        "SELECT c.oid::regclass::text AS t, "
        "(SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = c.oid AND attnum = 1) AS c "
        "FROM pg_class c WHERE c.relkind IN ('r', 'p') "
        "AND c.relnamespace IN ('public'::regnamespace, 'afterwrite'::regnamespace)"
    )
    assert len(tables) >= 11
    tries = [verb.format(t=row["t"], c=row["c"]) for row in tables for verb in DENIED]
    connection = await asyncpg.connect(installation.frontend_url)
    try:
        for statement in (*tries, *DENIED_ANYWHERE):
            await _denied(connection, statement)
        for row in tables:  # where it may read, PostgreSQL only warns that it grants nothing
            with contextlib.suppress(asyncpg.InsufficientPrivilegeError):
                await connection.execute(f"GRANT ALL ON {row['t']} TO afterwrite_frontend")
            for verb in ("INSERT", "UPDATE", "DELETE", "TRUNCATE"):
                may = await connection.fetchval(
                    "SELECT has_table_privilege($1, $2)", str(row["t"]), verb
                )
                assert may is False, (row["t"], verb)
    finally:
        await connection.close()


async def _denied(connection: asyncpg.Connection, statement: str) -> None:
    try:
        await connection.execute(statement)
    except asyncpg.InsufficientPrivilegeError:
        return
    except asyncpg.PostgresError as error:
        raise AssertionError(f"{statement}: {error.sqlstate} {error}") from error
    raise AssertionError(f"{statement}: was done")


@pytest.mark.parametrize("role", ["afterwrite_writer", "afterwrite_owner"])
async def test_an_api_that_could_write_does_not_run(installation: Installation, role: str) -> None:
    environment = installation.environment() | {
        "AFTERWRITE_FRONTEND_DATABASE_URL": installation.url_of(role),
        "AFTERWRITE_PORT": "0",
    }
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "deploy.cli", "serve", "api"],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert ended.returncode not in (0, 1, -signal.SIGKILL)
    assert "database role can write" in ended.stderr
    assert "Traceback" not in ended.stderr
