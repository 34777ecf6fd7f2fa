"""Migrations: idempotent, one at a time, never edited; and who may do what afterwards, tried for real."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import date
from typing import Any

import asyncpg
import pytest

from schema import sql as schema_sql
from schema.catalog import Catalog, load_catalog
from schema.sql import MACHINERY, migrations
from schema.sql.tables import TablesDiffer
from tests.installation import Installation, create_database, fresh_name
from tests.services import Services
from writer import migrate
from writer.migrate import MigrationError, check_tables, migrate_database

pytestmark = pytest.mark.integration

FORUM = load_catalog("schema.forum")
PACKAGES = [MACHINERY, "schema.sql.forum"]
CONTENT = ["notice", "post", "preference", "reaction", "topic", "user"]

GRANTS: dict[str, dict[str, str]] = {
    # The writer changes rows and nothing else; what is proof (ledger) or place (lane) is not deleted.
    "afterwrite_writer": {
        **{f"public.{name}": "DELETE INSERT SELECT UPDATE" for name in CONTENT},
        "afterwrite.lane": "SELECT UPDATE",
        "afterwrite.ledger": "INSERT SELECT UPDATE",
        "afterwrite.idempotency_key": "DELETE INSERT SELECT",
        "afterwrite.parked": "DELETE INSERT SELECT UPDATE",
        "afterwrite.dead_letter": "DELETE INSERT SELECT UPDATE",
        # What an operator did is not deleted; the result of an act is written when it is known.
        "afterwrite.audit_log": "INSERT SELECT UPDATE",
    },
    # The front end reads content, and of the machinery what it needs to merge.
    "afterwrite_frontend": {
        **{f"public.{name}": "SELECT" for name in CONTENT},
        "afterwrite.lane": "SELECT",
        "afterwrite.ledger": "SELECT",
        # Only the rebuild of the overlay reads what is parked.
        "afterwrite.parked": "SELECT",
        # The operators' pages.
        "afterwrite.dead_letter": "SELECT",
        "afterwrite.audit_log": "SELECT",
    },
    "PUBLIC": {},
}


def _silent(line: str) -> None:
    pass


class Fresh:
    """A database that nobody has migrated."""

    def __init__(self, services: Services) -> None:
        self._made = Installation(services, fresh_name(), folder=None)  # type: ignore[arg-type]
        self._services = services

    async def create(self) -> None:
        await create_database(self._services.admin_url, self._made.name)

    async def destroy(self) -> None:
        await self._made.destroy()

    async def migrate(self, lanes: int = 1, catalog: Catalog = FORUM) -> list[str]:
        """What the migration said it did."""
        said: list[str] = []
        connection = await asyncpg.connect(self._made.owner_url)
        try:
            await migrate_database(connection, catalog, lanes, said.append)
        finally:
            await connection.close()
        return said

    async def fetch(self, query: str, *args: object) -> list[asyncpg.Record]:
        return await self._made.fetch(query, *args)

    async def execute(self, script: str) -> None:
        """Several statements at once, as a migration has them."""
        connection = await asyncpg.connect(self._made.owner_url)
        try:
            await connection.execute(script)
        finally:
            await connection.close()

    async def described(self) -> dict[str, Any]:
        """Everything that migrations make: tables, columns, indexes, constraints, rights, functions."""
        queries = {
            "columns": """SELECT table_schema, table_name, column_name, data_type, is_nullable,
                column_default FROM information_schema.columns
                WHERE table_schema IN ('public', 'afterwrite') ORDER BY 1, 2, ordinal_position""",
            "indexes": """SELECT indexdef FROM pg_indexes
                WHERE schemaname IN ('public', 'afterwrite') ORDER BY 1""",
            "constraints": """SELECT conrelid::regclass::text, pg_get_constraintdef(oid)
                FROM pg_constraint WHERE connamespace IN ('public'::regnamespace,
                'afterwrite'::regnamespace) ORDER BY 1, 2""",
            "rights": """SELECT table_schema, table_name, grantee, privilege_type
                FROM information_schema.role_table_grants ORDER BY 1, 2, 3, 4""",
            "functions": """SELECT proname, prosecdef, proacl::text FROM pg_proc
                WHERE pronamespace = 'afterwrite'::regnamespace ORDER BY 1""",
            "migrations": "SELECT package, version, checksum FROM afterwrite.migration ORDER BY 1, 2",
            "lanes": "SELECT * FROM afterwrite.lane ORDER BY lane",
        }
        return {name: [tuple(r) for r in await self.fetch(q)] for name, q in queries.items()}


@pytest.fixture
async def fresh(services: Services) -> AsyncIterator[Fresh]:
    made = Fresh(services)
    await made.create()
    yield made
    await made.destroy()


# -- applying ------------------------------------------------------------------------------------------


async def test_migrating_twice_is_migrating_once(fresh: Fresh) -> None:
    first = await fresh.migrate(lanes=2)
    assert first == [
        f"applying {package} {migration.name}"
        for package in PACKAGES
        for migration in migrations(package)
    ]
    before = await fresh.described()
    assert await fresh.migrate(lanes=2) == []
    assert await fresh.described() == before


async def test_two_that_migrate_at_once_do_it_once(fresh: Fresh) -> None:
    said = await asyncio.gather(*(fresh.migrate(lanes=2) for _ in range(3)))
    done = [line for lines in said for line in lines]
    assert len(done) == len(set(done)) == sum(len(migrations(p)) for p in PACKAGES)
    assert len(await fresh.fetch("SELECT FROM afterwrite.lane")) == 2


async def test_a_migration_that_was_edited_is_refused(
    fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fresh.migrate()
    before = await fresh.described()

    def edited(package: str) -> list[schema_sql.Migration]:
        return [replace(m, up="drop table public.post", checksum="x") for m in migrations(package)]

    monkeypatch.setattr(migrate, "migrations", edited)
    with pytest.raises(MigrationError, match="was edited after it had been applied"):
        await fresh.migrate()
    assert await fresh.described() == before


async def test_a_migration_that_fails_leaves_nothing_of_itself(
    fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fresh.migrate()

    def with_another(package: str) -> list[schema_sql.Migration]:
        broken = "create table public.half (a integer); select 1 / 0"
        return [*migrations(package), schema_sql.Migration(9999, "9999_broken.sql", broken, "x")]

    monkeypatch.setattr(migrate, "migrations", with_another)
    with pytest.raises(asyncpg.DivisionByZeroError):
        await fresh.migrate()
    assert (await fresh.fetch("SELECT to_regclass('public.half') AS t"))[0]["t"] is None
    monkeypatch.undo()
    assert await fresh.migrate() == [], "and the lock is free again"


async def test_a_missing_role_is_said_with_what_to_do(
    fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "_ROLES", ("afterwrite_owner", "afterwrite_nobody"))
    with pytest.raises(MigrationError, match=r"no role afterwrite_nobody.*deploy/roles\.sql"):
        await fresh.migrate()
    assert (await fresh.fetch("SELECT to_regnamespace('afterwrite') AS n"))[0]["n"] is None


async def test_lanes_are_added_to_the_same_log_and_never_taken_away(fresh: Fresh) -> None:
    await fresh.migrate(lanes=2)
    await fresh.fetch("UPDATE afterwrite.lane SET position = 40 + lane, epoch = 3")
    before = [dict(row) for row in await fresh.fetch("SELECT * FROM afterwrite.lane ORDER BY lane")]
    await fresh.migrate(lanes=4)
    after = [dict(row) for row in await fresh.fetch("SELECT * FROM afterwrite.lane ORDER BY lane")]
    assert after[:2] == before
    assert [(row["lane"], row["position"], row["epoch"]) for row in after[2:]] == [
        (2, 0, 0),
        (3, 0, 0),
    ]
    assert len({row["log_id"] for row in after}) == 1
    with pytest.raises(MigrationError, match="there are 4 lanes, AFTERWRITE_LANES asks for 3"):
        await fresh.migrate(lanes=3)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("ALTER TABLE post DROP COLUMN body", "post.body is missing"),
        ("ALTER TABLE post ALTER body TYPE varchar", "post.body is character varying, declared as"),
        ("ALTER TABLE topic DROP COLUMN post_count", "topic.post_count is missing"),
        (
            "ALTER TABLE topic ALTER post_count TYPE integer",
            "topic.post_count is integer, declared",
        ),
        ("DROP TABLE notice", "there is no table notice"),
        ("ALTER TABLE reaction RENAME TO response", "there is no table reaction"),
        ("ALTER TABLE post DROP COLUMN body", "write a new migration that changes"),
    ],
)
async def test_tables_that_disagree_with_their_types_are_refused(
    fresh: Fresh, change: str, fault: str
) -> None:
    await fresh.migrate()
    await fresh.fetch(change)
    with pytest.raises((MigrationError, TablesDiffer), match=fault):
        await fresh.migrate()


async def test_columns_of_the_sites_own_do_not_disturb(database: Installation) -> None:
    await database.fetch("ALTER TABLE post ADD COLUMN search tsvector")
    connection = await asyncpg.connect(database.owner_url)
    try:
        await check_tables(connection, FORUM)
    finally:
        await connection.close()


# -- who may do what -------------------------------------------------------------------------------------


async def test_the_rights_on_tables_are_exactly_these(database: Installation) -> None:
    rows = await database.fetch(
        """
        SELECT grantee, table_schema || '.' || table_name AS name,
               string_agg(privilege_type, ' ' ORDER BY privilege_type) AS rights
        FROM information_schema.role_table_grants
        WHERE table_schema IN ('public', 'afterwrite') AND grantee <> 'afterwrite_owner'
        GROUP BY 1, 2
        """
    )
    found: dict[str, dict[str, str]] = {"PUBLIC": {}}
    for row in rows:
        found.setdefault(row["grantee"], {})[row["name"]] = row["rights"]
    assert found == GRANTS
    columns = await database.fetch(
        "SELECT 1 FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid "
        "WHERE c.relnamespace IN ('public'::regnamespace, 'afterwrite'::regnamespace) "
        "AND a.attacl IS NOT NULL"
    )
    assert columns == [], "no right on a single column"


async def _tables(database: Installation) -> list[str]:
    """Every table, partitions too, and the names of those that migrations keep."""
    rows = await database.fetch(
        "SELECT format('%I.%I', n.nspname, c.relname) AS name FROM pg_class c "
        "JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname IN ('public', 'afterwrite') AND c.relkind IN ('r', 'p') ORDER BY 1"
    )
    return [row["name"] for row in rows]


async def _first_column(database: Installation, table: str) -> str:
    name: str = await database.value(
        "SELECT quote_ident(attname) FROM pg_attribute "
        "WHERE attrelid = $1::regclass AND attnum = 1",
        table,
    )
    return name


DEFINING = (
    "ALTER TABLE {table} ADD COLUMN mine integer",
    "ALTER TABLE {table} DISABLE TRIGGER ALL",
    "DROP TABLE {table}",
    "TRUNCATE {table}",
    "CREATE INDEX mine ON {table} ({column})",
    "CREATE TRIGGER mine BEFORE INSERT ON {table} EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "GRANT ALL ON {table} TO PUBLIC",
    "COMMENT ON TABLE {table} IS 'mine'",
    "VACUUM FULL {table}",
)
CHANGING = (
    "INSERT INTO {table} DEFAULT VALUES",
    "UPDATE {table} SET {column} = {column}",
    "UPDATE {table} SET {column} = {column} WHERE false",
    "DELETE FROM {table}",
    "DELETE FROM {table} WHERE false",
    "MERGE INTO {table} USING (SELECT 1) s ON false WHEN NOT MATCHED THEN INSERT DEFAULT VALUES",
    "SELECT FROM {table} FOR UPDATE",
    "SELECT FROM {table} FOR KEY SHARE",
    "BEGIN; LOCK TABLE {table} IN ROW EXCLUSIVE MODE",
    "BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE",
    "COPY {table} FROM '/dev/null'",
    "WITH gone AS (DELETE FROM {table} RETURNING 1) SELECT FROM gone",
)
ANYWHERE = (
    "CREATE TABLE public.mine (a integer)",
    "CREATE TABLE afterwrite.mine (a integer)",
    "CREATE TABLE public.mine AS SELECT 1",
    "SELECT 1 INTO public.mine",
    "CREATE TEMPORARY TABLE mine (a integer)",
    "CREATE VIEW public.mine AS SELECT 1",
    "CREATE SEQUENCE public.mine",
    "CREATE SCHEMA mine",
    "CREATE FUNCTION public.mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    "CREATE EXTENSION hstore",
    "CREATE ROLE mine",
    "CREATE DATABASE mine",
    "ALTER SYSTEM SET work_mem = '1GB'",
    "DROP SCHEMA afterwrite CASCADE",
    "SET ROLE afterwrite_owner",
    "SET SESSION AUTHORIZATION afterwrite_owner",
    "COPY (SELECT 1) TO PROGRAM 'true'",
)
# Of another's table these are skipped with a warning instead of being refused; nothing changes.
_WARNED = {
    "VACUUM": (
        "permission denied",
        "only table or database owner",
    ),  # the latter until PostgreSQL 15
    "GRANT": ("no privileges were granted",),
}


async def _permitted(url: str, statements: list[str]) -> list[str]:
    """Those of the statements that were not refused for want of a right, each tried for real."""
    permitted = []
    connection = await asyncpg.connect(url)
    warnings: list[str] = []
    connection.add_log_listener(lambda _, message: warnings.append(message.message))
    try:
        for statement in statements:
            warnings.clear()
            try:
                await connection.execute(statement)
            except asyncpg.InsufficientPrivilegeError:
                continue
            except asyncpg.PostgresError as error:
                permitted.append(f"{statement}: {error.sqlstate} {error}")
                continue
            finally:
                await connection.execute("ROLLBACK")
            skipped = _WARNED.get(statement.split()[0], ())
            if any(words in text for words in skipped for text in warnings):
                continue
            permitted.append(statement)
    finally:
        connection.terminate()
    return permitted


async def _on_every_table(database: Installation, verbs: tuple[str, ...]) -> list[str]:
    return [
        verb.format(table=table, column=await _first_column(database, table))
        for table in await _tables(database)
        for verb in verbs
    ]


async def test_the_front_end_is_denied_every_writing_verb_on_every_table(
    database: Installation,
) -> None:
    await database.fetch("SELECT afterwrite.ensure_ledger_period($1)", date(2026, 1, 1))
    statements = await _on_every_table(database, CHANGING + DEFINING)
    assert len(statements) >= 12 * len(CHANGING + DEFINING)
    assert await _permitted(database.frontend_url, [*statements, *ANYWHERE]) == []


async def test_the_front_end_calls_nothing_that_writes_with_the_rights_of_another(
    database: Installation,
) -> None:
    call = "SELECT afterwrite.ensure_ledger_period('2031-01-01')"
    assert await _permitted(database.frontend_url, [call]) == []
    callable_ = await database.fetch(
        "SELECT p.oid::regprocedure::text FROM pg_proc p "
        "WHERE p.prosecdef AND has_function_privilege('afterwrite_frontend', p.oid, 'EXECUTE')"
    )
    assert callable_ == []


async def test_the_front_end_reads_what_it_needs_and_no_more(database: Installation) -> None:
    readable = set(GRANTS["afterwrite_frontend"])
    connection = await asyncpg.connect(database.frontend_url)
    try:
        for table in await _tables(database):
            query = f"SELECT * FROM {table} LIMIT 0"
            if table.replace('"', "") in readable:
                await connection.execute(query)
            else:
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(query)
    finally:
        await connection.close()


async def test_the_writer_cannot_change_what_tables_are(database: Installation) -> None:
    statements = await _on_every_table(database, DEFINING)
    assert await _permitted(database.writer_url, [*statements, *ANYWHERE]) == []


async def test_the_writer_cannot_remove_proof_or_place(database: Installation) -> None:
    statements = [
        "DELETE FROM afterwrite.ledger",
        "DELETE FROM afterwrite.ledger_other",
        "DELETE FROM afterwrite.lane",
        "INSERT INTO afterwrite.lane (lane, log_id) VALUES (9, gen_random_uuid())",
        "UPDATE afterwrite.idempotency_key SET key = 'x'",
        "SELECT FROM afterwrite.migration",
        "UPDATE afterwrite.migration SET checksum = 'x'",
        "DELETE FROM afterwrite.migration",
    ]
    assert await _permitted(database.writer_url, statements) == []


async def test_the_writer_gets_a_ledger_partition_for_each_month_once(
    database: Installation,
) -> None:
    async def call(connection: asyncpg.Connection) -> None:
        for _ in range(2):
            await connection.execute(
                "SELECT afterwrite.ensure_ledger_period($1)", date(2031, 2, 17)
            )

    connections = [await asyncpg.connect(database.writer_url) for _ in range(3)]
    try:
        await asyncio.gather(*(call(connection) for connection in connections))
        for connection in connections:
            await connection.execute("SELECT afterwrite.ensure_ledger_period($1)", date(2031, 3, 1))
    finally:
        for connection in connections:
            await connection.close()
    rows = await database.fetch(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits "
        "WHERE inhparent = 'afterwrite.ledger'::regclass ORDER BY 1"
    )
    names = [row["name"] for row in rows]
    assert names == [
        "afterwrite.ledger_203102",
        "afterwrite.ledger_203103",
        "afterwrite.ledger_other",
    ]


async def test_a_stranger_cannot_even_connect(services: Services, database: Installation) -> None:
    stranger = f"stranger_{uuid.uuid4().hex[:8]}"
    admin = await asyncpg.connect(database.admin_url)
    try:
        await admin.execute(f"CREATE ROLE {stranger} LOGIN PASSWORD 'test-only'")
        try:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await asyncpg.connect(database.url_of(stranger))
            tables = await _tables(database)
            rights = [
                await admin.fetchval(
                    "SELECT has_table_privilege($1, $2, "
                    "'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')",
                    stranger,
                    table,
                )
                for table in tables
            ]
            assert not any(rights)
            for schema, right in (("afterwrite", "USAGE"), ("public", "CREATE")):
                query = "SELECT has_schema_privilege($1, $2, $3)"
                assert not await admin.fetchval(query, stranger, schema, right)
        finally:
            await admin.execute(f"DROP ROLE {stranger}")
    finally:
        await admin.close()


# -- the files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", PACKAGES)
def test_migrations_are_numbered_without_a_gap(package: str) -> None:
    found = migrations(package)
    assert [m.version for m in found] == list(range(1, len(found) + 1))
    assert all(m.up for m in found)


async def test_what_goes_up_can_come_down(fresh: Fresh) -> None:
    await fresh.migrate()
    from importlib.resources import files

    for package in reversed(PACKAGES):
        for migration in reversed(migrations(package)):
            text = (files(package) / migration.name).read_text(encoding="utf-8")
            down = text.partition("-- migrate:down")[2].strip()
            assert down, migration.name
            if package != MACHINERY:
                await fresh.fetch("DELETE FROM afterwrite.migration WHERE package = $1", package)
            await fresh.execute(down)
    left = await fresh.fetch("SELECT 1 FROM pg_tables WHERE schemaname IN ('public', 'afterwrite')")
    assert left == []
    await fresh.migrate()
