"""Proof that the front end's role cannot write: first from the catalogs, then by trying.

A role counts as able to write if it, or any role it could become, holds a privilege that writes.
"""

from typing import Any, Final

import asyncpg

_LOCK_TIMEOUT: Final = "1s"

# Every check returns what could be written; all of them must return nothing. `reachable` holds the
# role itself and all roles it is a member of, directly or not, inheriting or not (SET ROLE).
_REACHABLE: Final = """
with recursive reachable(oid) as (
    select oid from pg_catalog.pg_roles where rolname = session_user
    union
    select m.roleid from pg_catalog.pg_auth_members m join reachable r on m.member = r.oid
), site as (
    select oid, nspname from pg_catalog.pg_namespace
    where nspname not in ('pg_catalog', 'information_schema') and nspname !~ '^pg_(toast|temp)'
)
"""

_CHECKS: Final = (
    """select 'role ' || r.rolname || ' is superuser, createrole, createdb, replication or bypassrls'
       from reachable join pg_catalog.pg_roles r using (oid)
       where r.rolsuper or r.rolcreaterole or r.rolcreatedb or r.rolreplication or r.rolbypassrls""",
    """select 'member of ' || r.rolname from reachable join pg_catalog.pg_roles r using (oid)
       where r.rolname in ('pg_write_all_data', 'pg_write_server_files', 'pg_maintain',
                           'pg_execute_server_program', 'pg_create_subscription',
                           'pg_signal_backend')""",
    """select 'writes ' || c.oid::regclass
       from reachable, pg_catalog.pg_class c join site on site.oid = c.relnamespace
       where c.relkind in ('r', 'p', 'v', 'm', 'f') and (
           pg_catalog.has_table_privilege(reachable.oid, c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')
           or pg_catalog.has_any_column_privilege(reachable.oid, c.oid, 'INSERT, UPDATE'))""",
    """select 'draws from sequence ' || c.oid::regclass
       from reachable, pg_catalog.pg_class c join site on site.oid = c.relnamespace
       where c.relkind = 'S'
         and pg_catalog.has_sequence_privilege(reachable.oid, c.oid, 'USAGE, UPDATE')""",
    """select 'creates in schema ' || site.nspname from reachable, site
       where pg_catalog.has_schema_privilege(reachable.oid, site.oid, 'CREATE')""",
    """select 'creates in or owns database ' || d.datname
       from reachable, pg_catalog.pg_database d
       where d.datname = pg_catalog.current_database() and (
           d.datdba = reachable.oid
           or pg_catalog.has_database_privilege(reachable.oid, d.oid, 'CREATE'))""",
    """select 'may call ' || p.oid::regprocedure || ', which runs with the rights of its owner'
       from reachable, pg_catalog.pg_proc p join site on site.oid = p.pronamespace
       where p.prosecdef and pg_catalog.has_function_privilege(reachable.oid, p.oid, 'EXECUTE')""",
)

_TABLES: Final = """
select n.nspname, c.relname from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname in ('public', 'afterwrite') and c.relkind in ('r', 'p')
order by 1, 2
"""

_OTHER_ROLES: Final = """
select rolname from pg_catalog.pg_roles
where rolname in ('afterwrite_owner', 'afterwrite_writer') and rolname <> session_user
"""

Connection = Any  # an asyncpg connection, its own or a pool's


class RoleCanWrite(Exception):
    """The role of AFTERWRITE_FRONTEND_DATABASE_URL can change the database; nothing may start."""


async def prove_read_only(connection: Connection) -> int:
    """Raises `RoleCanWrite` with all ways found. Returns how many writes were tried and denied."""
    found: list[str] = []
    for check in _CHECKS:
        rows = await connection.fetch(_REACHABLE + check)
        found += [str(row[0]) for row in rows]
    if found:
        raise RoleCanWrite("; ".join(dict.fromkeys(found)))
    if await connection.fetchval("select pg_catalog.pg_is_in_recovery()"):
        return 0  # a replica refuses every write, whoever asks; its catalogs are the primary's
    attempts = await _attempts(connection)
    for attempt in attempts:
        await _must_be_denied(connection, attempt)
    return len(attempts)


async def _attempts(connection: Connection) -> list[str]:
    attempts: list[str] = [
        "create table public.afterwrite_probe (a integer)",
        "create schema afterwrite_probe",
    ]
    for (role,) in await connection.fetch(_OTHER_ROLES):
        attempts.append(f'set local role "{role}"')
    for schema, table in await connection.fetch(_TABLES):
        name = f'"{schema}"."{table}"'
        attempts += [
            f"insert into {name} default values",
            f"delete from {name} where false",  # noqa: S608 - names from the system catalog
            f"truncate {name}",
        ]
        column = await connection.fetchval(
            "select quote_ident(attname) from pg_catalog.pg_attribute "
            "where attrelid = $1::regclass and attnum > 0 and not attisdropped limit 1",
            name,
        )
        if column is not None:
            attempts.append(f"update {name} set {column} = default where false")  # noqa: S608
    return attempts


async def _must_be_denied(connection: Connection, attempt: str) -> None:
    """Try it in a transaction that may write and is never committed."""
    await connection.execute("begin read write")
    try:
        await connection.execute(f"set local lock_timeout = '{_LOCK_TIMEOUT}'")
        await connection.execute(attempt)
    except asyncpg.InsufficientPrivilegeError:
        return
    except asyncpg.PostgresError as error:
        if error.sqlstate[:2] in ("08", "57") or isinstance(error, asyncpg.LockNotAvailableError):
            # The server went away or was slow, or somebody holds the table: nothing is proven, and
            # the caller tries again.
            raise
        raise RoleCanWrite(f"{attempt!r} failed with {error.sqlstate}, not with 42501") from error
    else:
        raise RoleCanWrite(f"{attempt!r} was permitted")
    finally:
        if not connection.is_closed():
            await connection.execute("rollback")
