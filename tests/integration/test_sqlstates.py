"""Every line of the failure table, provoked on a real PostgreSQL: the server says it, the line fits.

Most are provoked as they come about in life. What would need a broken disk, a server that goes down or
corrupted data is raised with its SQLSTATE in a DO block, and stands in `RAISED`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from schema.outcomes import CODES
from schema.sql import MACHINERY, migrations
from tests.installation import create_database, eventually_async, fresh_name
from tests.services import Services
from writer.failures import (
    TABLE,
    FailureClass,
    Line,
    classify,
    line_of,
    may_be_one_commands_fault,
    problem_of,
)

pytestmark = [
    pytest.mark.integration,
    pytest.mark.once,
    pytest.mark.asyncio(loop_scope="module"),
]

TABLES = """
    CREATE TABLE public.thing (id uuid PRIMARY KEY, name text UNIQUE, size smallint NOT NULL DEFAULT 1
        CHECK (size > 0), place int, parent uuid REFERENCES public.thing ON DELETE RESTRICT,
        EXCLUDE USING btree (place WITH =));
    CREATE VIEW public.small AS SELECT * FROM public.thing WHERE size < 5 WITH CHECK OPTION;
    INSERT INTO public.thing (id, name, place) VALUES
        ('00000000-0000-0000-0000-000000000001', 'one', 1);
    INSERT INTO public.thing (id, parent) VALUES
        ('00000000-0000-0000-0000-000000000002', '00000000-0000-0000-0000-000000000001');
    INSERT INTO afterwrite.idempotency_key VALUES (gen_random_uuid(), 'k', gen_random_uuid(), null, now());
    INSERT INTO afterwrite.ledger (lane, "offset", period, seq, epoch, outcome, command_id, decided_at)
        VALUES (0, 0, '2026-05-01', 1, 1, 'saved', gen_random_uuid(), now());
"""
_THING = "INSERT INTO public.thing (id, {}) VALUES (gen_random_uuid(), {})"
_RAISED = "DO $$ BEGIN RAISE 'as if' USING ERRCODE = '{}'; END $$"
_NESTED = "SELECT (repeat('[', 200000) || repeat(']', 200000))::jsonb"
_COLUMNS = "CREATE TEMP TABLE wide ({})".format(", ".join(f"c{n} int" for n in range(1700)))
_ARGUMENTS = "SELECT concat({})".format(", ".join("1" for _ in range(101)))
_LEDGER_AGAIN = (
    'INSERT INTO afterwrite.ledger (lane, "offset", period, seq, epoch, outcome, command_id, decided_at) '
    "SELECT lane, {}, period, seq, epoch, outcome, {}, decided_at FROM afterwrite.ledger LIMIT 1"
)

STATEMENTS: list[tuple[str, str, str]] = [
    # line, the SQLSTATE that comes, the statement
    ("22", "22001", "CREATE TEMP TABLE t (a varchar(3)); INSERT INTO t VALUES ('four')"),
    ("22", "22003", _THING.format("size", "100000")),
    ("22", "22007", "SELECT 'yesterday at noon'::timestamptz"),
    ("22", "22008", "SELECT '2026-02-30'::date"),
    ("22", "22012", "SELECT 1 / 0"),
    ("22", "22P02", "SELECT 'no number'::int"),
    ("22", "22P05", """SELECT '"\\u0000"'::jsonb"""),
    ("23", "23502", _THING.format("size", "null")),
    ("23", "23514", _THING.format("size", "0")),
    ("23", "23P01", _THING.format("place", "1")),
    ("23503", "23503", _THING.format("parent", "gen_random_uuid()")),
    ("23505", "23505", _THING.format("name", "'one'")),
    (
        "23505 public.*_pkey",
        "23505",
        "INSERT INTO public.thing (id) VALUES ('00000000-0000-0000-0000-000000000001')",
    ),
    ("21000", "21000", "SELECT (SELECT * FROM unnest(array[1, 2]))"),
    ("44000", "44000", "INSERT INTO public.small (id, size) VALUES (gen_random_uuid(), 9)"),
    (
        "54",
        "54000",
        _THING.format(
            "name", "(SELECT string_agg(md5(n::text), '') FROM generate_series(1, 999) n)"
        ),
    ),
    ("54", "54001", _NESTED),
    ("54", "54011", _COLUMNS),
    ("54", "54023", _ARGUMENTS),
    ("P0001", "P0001", "DO $$ BEGIN RAISE 'no shouting'; END $$"),
    ("Z", "Z0001", _RAISED.format("Z0001")),
    (
        "23505 afterwrite.*.idempotency_key_pkey",
        "23505",
        "INSERT INTO afterwrite.idempotency_key SELECT * FROM afterwrite.idempotency_key",
    ),
    ("23505 afterwrite.*command_id*", "23505", _LEDGER_AGAIN.format('"offset" + 1', "command_id")),
    ("23 afterwrite.*", "23505", _LEDGER_AGAIN.format('"offset"', "gen_random_uuid()")),
    ("23 afterwrite.*", "23514", "UPDATE afterwrite.lane SET settled_seq = outcome_seq + 1"),
    ("57014", "57014", "SET LOCAL statement_timeout = 20; SELECT pg_sleep(10)"),
    (
        "53",
        "53400",
        "SET LOCAL temp_file_limit = 0; SET LOCAL work_mem = '64kB'; "
        "SELECT count(*) FROM (SELECT n FROM generate_series(1, 100000) n ORDER BY -n) sorted",
    ),
    (
        "25006",
        "25006",
        "SET LOCAL transaction_read_only = on; INSERT INTO public.thing (id) VALUES (gen_random_uuid())",
    ),
    ("58", "58P01", "SELECT pg_read_file('there is no such file')"),
    ("0A", "0A000", "SELECT 1 UNION SELECT 2 FOR UPDATE"),
    ("25", "25001", "BEGIN; VACUUM public.thing"),
    ("25", "25P01", "SELECT 1; SAVEPOINT outside"),
    ("26", "26000", "EXECUTE nothing_prepared"),
    ("2D", "2D000", "BEGIN; DO $$ BEGIN COMMIT; END $$"),
    ("3B", "3B001", "BEGIN; ROLLBACK TO SAVEPOINT never_made"),
    ("3D", "3D000", "DROP DATABASE never_made"),
    ("3F", "3F000", "CREATE TABLE never_made.t (a int)"),
    ("42", "42P01", "SELECT * FROM never_made"),
    ("42", "42703", "SELECT never_made FROM public.thing"),
    ("42", "42501", "SET LOCAL ROLE afterwrite_frontend; DELETE FROM afterwrite.ledger"),
    ("55", "55000", "SELECT lastval()"),
    ("", "P0004", "DO $$ BEGIN ASSERT false; END $$"),
]
RAISED: list[tuple[str, str]] = [
    ("23", "23001"),  # PostgreSQL before 18 calls a refused ON DELETE RESTRICT 23503
    ("40002", "40002"),  # reserved by the standard; no PostgreSQL says it
    ("40", "40000"),
    ("53", "53100"),
    ("57", "57P01"),  # the driver calls it 08003: the session is over when it comes
    ("57", "57P02"),
    ("57", "57P03"),
    ("57", "57P05"),
    ("25P03", "25P03"),
    ("53200", "53200"),
    ("XX000", "XX000"),
    ("58", "58030"),
    ("XX", "XX00A"),
    ("08", "08006"),
    ("40003", "40003"),
    ("57P04", "57P04"),
    ("F0", "F0000"),
    ("XX001", "XX001"),
    ("XX002", "XX002"),
    ("", "QQQQQ"),
]


class Server:
    """A database with the machinery and a table of a site, and sessions in it."""

    def __init__(self, url: str, name: str) -> None:
        self.url, self.name = url, name
        self.session: asyncpg.Connection | None = None

    async def connect(self, **changed: Any) -> asyncpg.Connection:
        return await asyncpg.connect(self.url, timeout=10, **changed)

    async def says(self, statement: str) -> BaseException:
        """The error that this statement is answered with."""
        if self.session is None or self.session.is_closed():
            self.session = await self.connect()
        try:
            await self.session.execute(statement)
        except asyncpg.PostgresError as error:
            return error
        finally:
            if self.session.is_in_transaction():
                await self.session.execute("ROLLBACK")
        raise AssertionError(f"nothing was wrong with {statement}")

    @asynccontextmanager
    async def two(self) -> AsyncIterator[tuple[asyncpg.Connection, asyncpg.Connection]]:
        one, other = await self.connect(), await self.connect()
        try:
            yield one, other
        finally:
            one.terminate()
            other.terminate()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def server(services: Services) -> AsyncIterator[Server]:
    name = fresh_name()
    await create_database(services.admin_url, name)
    url = services.admin_url.rsplit("/", 1)[0] + f"/{name}"
    made = Server(url, name)
    connection = await made.connect()
    for package in (MACHINERY, "schema.sql.forum"):
        for migration in migrations(package):
            await connection.execute(migration.up)
    await connection.execute(
        "INSERT INTO afterwrite.lane (lane, log_id) VALUES (0, gen_random_uuid())"
    )
    await connection.execute(TABLES)
    await connection.close()
    yield made
    if made.session is not None:
        await made.session.close()
    admin = await asyncpg.connect(services.admin_url)
    await admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    await admin.close()


# -- what one statement alone cannot provoke ----------------------------------------------------


async def text_with_nul(server: Server) -> None:
    async with server.two() as (session, _):
        await session.fetchval("SELECT $1::text", "a\0b")


async def refused_by_the_driver(server: Server) -> None:
    async with server.two() as (session, _):
        await session.fetchval("SELECT $1::int4", 2**40)


async def both_read_and_write_what_the_other_read(server: Server) -> None:
    count = "INSERT INTO public.thing (id, name) SELECT gen_random_uuid(), $1 || count(*) FROM public.thing"
    async with server.two() as sessions:
        for session in sessions:
            await session.execute("BEGIN ISOLATION LEVEL SERIALIZABLE")
            await session.execute("SELECT count(*) FROM public.thing")
        for session in sessions:
            await session.execute(count, str(id(session)))
        for session in sessions:
            await session.execute("COMMIT")


async def each_waits_for_the_other(server: Server) -> None:
    lock = "SELECT pg_advisory_xact_lock($1)"
    async with server.two() as (one, other):
        for number, session in enumerate((one, other)):
            await session.execute("BEGIN; SET LOCAL deadlock_timeout = 20")
            await session.execute(lock, number)
        await asyncio.gather(one.execute(lock, 1), other.execute(lock, 0))


async def a_row_that_another_has_locked(server: Server) -> None:
    async with server.two() as (one, other):
        await one.execute("BEGIN; SELECT * FROM public.thing FOR UPDATE")
        await other.execute("SET lock_timeout = 20")
        await other.execute("UPDATE public.thing SET name = name")


async def no_connection_is_left(server: Server) -> None:
    role = f"limited_{server.name}"
    async with server.two() as (session, _):
        await session.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x' CONNECTION LIMIT 0")
        try:
            await server.connect(user=role, password="x")
        finally:
            await session.execute(f"DROP ROLE {role}")


async def ended_by_an_administrator(server: Server) -> None:
    async with server.two() as (one, other):
        sleeping = asyncio.ensure_future(one.execute("SELECT pg_sleep(30)"))
        pid, ended = one.get_server_pid(), "SELECT pg_terminate_backend($1)"
        asleep = "SELECT 1 FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep'"

        async def sleeps() -> bool:
            return await other.fetchval(asleep, pid) is not None

        await eventually_async(sleeps, 10, "the session to sleep")
        await other.execute(ended, pid)
        await sleeping


async def a_statement_after_an_error(server: Server) -> None:
    async with server.two() as (session, _):
        await session.execute("BEGIN")
        with pytest.raises(asyncpg.DivisionByZeroError):
            await session.execute("SELECT 1 / 0")
        await session.execute("SELECT 1")


async def a_role_that_is_not_there(server: Server) -> None:
    await server.connect(user="never_made", password="x")


async def the_database_one_is_in(server: Server) -> None:
    async with server.two() as (session, _):
        await session.execute(f'DROP DATABASE "{server.name}"')


async def a_connection_that_breaks(server: Server) -> None:
    async with server.two() as (session, _):
        asking = asyncio.ensure_future(session.execute("SELECT pg_sleep(30)"))
        await asyncio.sleep(0)
        session.terminate()
        await asking


Step = Callable[[Server], Awaitable[None]]
STEPS: list[tuple[str, tuple[str, ...], Step]] = [
    ("22", ("22021",), text_with_nul),
    ("22", ("22000",), refused_by_the_driver),
    ("40", ("40001",), both_read_and_write_what_the_other_read),
    ("40", ("40P01",), each_waits_for_the_other),
    ("55P03", ("55P03",), a_row_that_another_has_locked),
    ("55006", ("55006",), the_database_one_is_in),
    ("53", ("53300",), no_connection_is_left),
    ("08", ("08003",), ended_by_an_administrator),
    ("25", ("25P02",), a_statement_after_an_error),
    ("28", ("28000", "28P01"), a_role_that_is_not_there),
    ("08", ("08003", "08006"), a_connection_that_breaks),
]


def _line(name: str) -> Line:
    return next(line for line in TABLE if line.name == name)


def _means(error: BaseException, name: str) -> None:
    """The error is this line's, and is treated as the line says."""
    line = _line(name)
    assert isinstance(error, asyncpg.PostgresError)
    assert line_of(error) is line
    assert classify(error) is line.asks
    assert may_be_one_commands_fault(error) is line.counted
    if line.asks is FailureClass.PERMANENT:
        assert line.told in CODES
        assert problem_of(error).code == line.told
        assert problem_of(error).extra["sqlstate"] == error.sqlstate


@pytest.mark.parametrize(("name", "sqlstate", "statement"), STATEMENTS, ids=lambda v: str(v)[:30])
async def test_a_statement_is_answered_with_its_line(
    server: Server, name: str, sqlstate: str, statement: str
) -> None:
    error = await server.says(statement)
    assert getattr(error, "sqlstate", None) == sqlstate, repr(error)
    _means(error, name)


@pytest.mark.parametrize(("name", "sqlstate"), RAISED)
async def test_what_cannot_be_provoked_is_raised(server: Server, name: str, sqlstate: str) -> None:
    error = await server.says(_RAISED.format(sqlstate))
    assert getattr(error, "sqlstate", None) == sqlstate
    _means(error, name)


@pytest.mark.parametrize(
    ("name", "sqlstates", "step"), STEPS, ids=lambda v: getattr(v, "__name__", "")
)
async def test_what_takes_more_than_a_statement(
    server: Server, name: str, sqlstates: tuple[str, ...], step: Step
) -> None:
    with pytest.raises(asyncpg.PostgresError) as caught:
        await step(server)
    assert caught.value.sqlstate in sqlstates, repr(caught.value)
    _means(caught.value, name)


async def test_every_line_is_provoked() -> None:
    provoked = {row[0] for rows in (STATEMENTS, RAISED, STEPS) for row in rows}
    assert provoked == {line.name for line in TABLE}
    assert len({line.name for line in TABLE}) == len(TABLE), "a line stands there twice"
    assert all(len(line.why) > 10 for line in TABLE)
