"""What the writer's role may do: change rows of the tables it needs, and no more."""

from collections.abc import Iterable

import asyncpg

from schema.catalog import Catalog

_MACHINERY = {
    "lane": "SELECT, UPDATE",
    "ledger": "SELECT, INSERT, UPDATE",
    "idempotency_key": "SELECT, INSERT, DELETE",
    "parked": "SELECT, INSERT, UPDATE, DELETE",
    "dead_letter": "SELECT, INSERT, UPDATE, DELETE",
    "audit_log": "SELECT, INSERT, UPDATE",
}
_CONTENT = "SELECT, INSERT, UPDATE, DELETE"

_TOO_MUCH = """
SELECT 'is superuser, or may create roles or databases' FROM pg_roles
WHERE rolname = current_user AND (rolsuper OR rolcreaterole OR rolcreatedb)
UNION ALL
SELECT 'may create in schema ' || nspname FROM pg_namespace
WHERE nspname IN ('public', 'afterwrite') AND has_schema_privilege(oid, 'CREATE')
UNION ALL
SELECT 'may truncate ' || c.oid::regclass FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname IN ('public', 'afterwrite') AND c.relkind IN ('r', 'p')
    AND has_table_privilege(c.oid, 'TRUNCATE')
"""


async def writer_faults(connection: asyncpg.Connection, catalog: Catalog) -> list[str]:
    """What the connected role lacks, and what it has too much."""
    wanted = {f"afterwrite.{table}": rights for table, rights in _MACHINERY.items()}
    wanted |= {f'public."{kind.name}"': _CONTENT for kind in catalog}
    faults = []
    for table, rights in wanted.items():
        if await connection.fetchval("SELECT to_regclass($1)", table) is None:
            faults.append(f"{table} is not there, or the role may not see its schema")
            continue
        faults += [
            f"lacks {right} on {table}" for right in await _lacking(connection, table, rights)
        ]
    faults += [row[0] for row in await connection.fetch(_TOO_MUCH)]
    return faults


async def _lacking(connection: asyncpg.Connection, table: str, rights: str) -> Iterable[str]:
    lacking = []
    for right in rights.split(", "):
        has = await connection.fetchval("SELECT has_table_privilege($1, $2)", table, right)
        if not has:
            lacking.append(right)
    return lacking
