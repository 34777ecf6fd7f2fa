"""PostgreSQL, read only and bounded: a pool behind a breaker.

Nothing here waits for a server that is away: the first failure opens the breaker, requests are
turned away at once, and a background task tries the server until it answers. At each coming back
the role is proven unable to write before anything is read. A query that was merely slow looks the same
at first; so the server is asked something simple, and if it answers that, the connections stay.
"""

import asyncio
import random
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

import asyncpg
from prometheus_client import Gauge

from frontend_api.glances import Glances
from frontend_api.role_proof import RoleCanWrite, prove_read_only
from frontend_api.snapshots import Snapshot
from frontend_api.standstill import HEAR_S, stood_still
from frontend_api.statements import LOG_ID, Statements
from frontend_api.view import DatabaseUnavailable, Glance
from schema.catalog import Catalog, ListOf
from schema.content import Kind
from schema.sql.tables import COLUMNS, TablesDiffer, check_columns
from schema.tasks import end_tasks
from schema.telemetry import Log

_BACKOFF_MIN_S: Final = 0.1
_BACKOFF_MAX_S: Final = 2.0
_CONNECT_TIMEOUT_S: Final = 2.0
_PROBE_TIMEOUT_S: Final = 0.25
_PROOF_TIMEOUT_S: Final = 20.0
_CLOSE_TIMEOUT_S: Final = 2.0
_DISTURBANCES: Final = 5

T = TypeVar("T")
_log = Log("frontend_api")


class ContentReader:
    """`start()` begins connecting in the background; `close()` gives all connections back.

    `on_writable_role` is called once if the role turns out to be able to write; after that nothing
    is read any more.
    """

    def __init__(
        self,
        url: str,
        catalog: Catalog,
        *,
        pool_size: int,
        timeout_s: float,
        gauge: Gauge,
        on_writable_role: Callable[[str], None],
    ) -> None:
        self._url = url
        self._catalog = catalog
        self._statements = Statements.of(catalog)
        self._pool_size = pool_size
        self._timeout_s = timeout_s
        self._gauge = gauge
        self._on_writable_role = on_writable_role
        self._pool: asyncpg.Pool | None = None
        self._away = asyncio.Event()
        self._away.set()
        self._back = asyncio.Event()
        self._doubt = asyncio.Event()
        self._doubt.set()
        self._lost = False
        self._task: asyncio.Task[None] | None = None
        self._abandoned: set[asyncio.Task[Any]] = set()
        self._glances = Glances(self._statements, self._one)

    @property
    def available(self) -> bool:
        """False while the breaker is open."""
        return not self._away.is_set()

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep_connected(), name="content-reader")

    async def until_available(self) -> None:
        """Wait, without a limit of its own."""
        await self._back.wait()

    async def read(
        self,
        work: Callable[[Snapshot], Awaitable[T]],
        timeout_s: float | None = None,
        *,
        single: bool = False,
    ) -> T:
        """Run `work` in one REPEATABLE READ, READ ONLY transaction. Raises `DatabaseUnavailable`.

        With `single` it sends one statement, which is a snapshot by itself and needs no transaction.

        `timeout_s` is of one who would rather do without than wait long: while there is doubt whether
        the server answers, he is turned away at once. A connection that turns out dead is replaced
        once: the server may have restarted.
        """
        self._must_be_worth_asking(timeout_s)
        limit_s = min(timeout_s or self._timeout_s, self._timeout_s)
        try:
            result = await self._in_time(
                self._until_undisturbed(work, limit_s, single=single), limit_s
            )
        except _BUSY as error:
            self._note_slow(limit_s)
            raise DatabaseUnavailable(type(error).__name__) from error
        except _LOST as error:
            self._open_breaker(error)
            raise DatabaseUnavailable(type(error).__name__) from error
        except asyncpg.PostgresError as error:
            # Reachable, but not as it should be (a grant or a table is missing): nobody's request
            # is at fault, and accepting must go on without it.
            _log.error("database_unavailable", sqlstate=error.sqlstate, error=str(error))
            raise DatabaseUnavailable(str(error.sqlstate)) from error
        return result

    async def glance(
        self,
        wanted: Sequence[tuple[Kind, uuid.UUID]],
        author: uuid.UUID,
        commands: Sequence[uuid.UUID],
        timeout_s: float | None = None,
    ) -> Glance:
        """These rows, and what the ledger has of the author's commands, seen by one statement that
        others may share. Raises `DatabaseUnavailable`, at the times at which `read` does."""
        self._must_be_worth_asking(timeout_s)
        return await self._glances.ask(wanted, author, commands, timeout_s)

    async def glance_page(
        self,
        lst: ListOf,
        limit: int,
        after: uuid.UUID | None,
        parent: uuid.UUID | None,
        reader: uuid.UUID,
        commands: Sequence[uuid.UUID] | None,
    ) -> Glance:
        """A page with its parent, lanes, and what the ledger has of the reader's commands, seen by one
        statement; without `commands` page and parent alone. Raises `DatabaseUnavailable`."""
        return await self._glances.page(lst, limit, after, parent, reader, commands)

    async def _one(self, statement: str, args: Sequence[Any], timeout_s: float | None) -> Any:
        async def work(snapshot: Snapshot) -> Any:
            return await snapshot.connection.fetchrow(statement, *args)

        return await self.read(work, timeout_s, single=True)

    def _must_be_worth_asking(self, timeout_s: float | None) -> None:
        if not self.available:
            raise DatabaseUnavailable("the breaker is open")
        if timeout_s is not None and self._doubt.is_set():
            raise DatabaseUnavailable("it is not sure that the server answers")

    async def _until_undisturbed(
        self, work: Callable[[Snapshot], Awaitable[T]], limit_s: float, *, single: bool
    ) -> T:
        """Ask again what a replica cancelled because it was in the way of what is replayed."""
        for _ in range(_DISTURBANCES):
            try:
                return await self._attempt(work, limit_s, single=single)
            except asyncpg.TransactionRollbackError:  # 40001 or 40P01
                continue
        return await self._attempt(work, limit_s, single=single)

    async def _attempt(
        self, work: Callable[[Snapshot], Awaitable[T]], limit_s: float, *, single: bool
    ) -> T:
        try:
            return await self._in_snapshot(work, limit_s, single=single)
        except _BUSY:
            raise
        except _LOST:
            if self._pool is None:
                raise
            await self._pool.expire_connections()
            return await self._in_snapshot(work, limit_s, single=single)

    async def _in_time(self, work: Coroutine[Any, Any, T], limit_s: float) -> T:
        """Raises TimeoutError when the time is up, and then leaves the rest to itself.

        Rolling back on a server that hangs takes as long as the query did: nobody waits for that.
        """
        loop = asyncio.get_running_loop()
        attempt, begun = loop.create_task(work), loop.time()
        try:
            await asyncio.wait({attempt}, timeout=limit_s)
            if not attempt.done() and stood_still(begun + limit_s, loop.time()):
                await asyncio.wait({attempt}, timeout=HEAR_S)
        finally:
            if not attempt.done():
                self._abandon(attempt)
        if not attempt.done():
            raise TimeoutError
        return attempt.result()

    def _abandon(self, attempt: asyncio.Task[Any]) -> None:
        attempt.cancel()
        self._abandoned.add(attempt)
        attempt.add_done_callback(self._forget)

    def _forget(self, attempt: asyncio.Task[Any]) -> None:
        self._abandoned.discard(attempt)
        if not attempt.cancelled():
            attempt.exception()  # seen: it is nobody's any more

    def _note_slow(self, limit_s: float) -> None:
        """One impatient caller proves nothing, but it is time to ask."""
        if limit_s >= self._timeout_s:
            self._open_breaker(TimeoutError())
        self._doubt.set()

    async def log_id(self) -> uuid.UUID | None:
        """The identity of the log that the writer works on, if its table is there."""

        async def work(snapshot: Snapshot) -> uuid.UUID | None:
            found: uuid.UUID | None = await snapshot.connection.fetchval(LOG_ID)
            return found

        return await self.read(work)

    async def close(self) -> None:
        await end_tasks(self._task)
        await self._drop_pool()

    async def _in_snapshot(
        self, work: Callable[[Snapshot], Awaitable[T]], limit_s: float, *, single: bool = False
    ) -> T:
        pool = self._pool
        if pool is None:
            raise DatabaseUnavailable("not connected")
        # Whoever calls this limits all of it: a limit for acquiring alone would cost a task.
        connection = await pool.acquire()
        try:
            snapshot = Snapshot(connection, self._statements)
            if single:
                return await work(snapshot)
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                return await work(snapshot)
        finally:
            await pool.release(connection, timeout=limit_s)

    def _open_breaker(self, error: BaseException) -> None:
        if self.available:
            _log.warning("database_unavailable", error=type(error).__name__)
        self._lost = self._lost or not isinstance(error, _BUSY)
        self._gauge.set(0)
        self._back.clear()
        self._away.set()
        self._doubt.set()

    def _close_breaker(self) -> None:
        if not self.available:
            _log.info("database_available")
        self._lost = False
        self._gauge.set(1)
        self._away.clear()
        self._doubt.clear()
        self._back.set()

    async def _keep_connected(self) -> None:
        backoff_s = _BACKOFF_MIN_S
        while True:
            await self._doubt.wait()
            if await self._answers():
                self._close_breaker()
                continue
            self._open_breaker(TimeoutError())
            try:
                await self._connect()
            except RoleCanWrite as error:
                self._on_writable_role(str(error))
                return
            except (*_LOST, *_BUSY, asyncpg.PostgresError, ValueError, TablesDiffer) as error:
                why = str(error) if isinstance(error, TablesDiffer) else type(error).__name__
                _log.info("database_unavailable", error=why, retry_s=backoff_s)
                await asyncio.sleep(backoff_s * random.uniform(0.5, 1))  # noqa: S311 - no secret
                backoff_s = min(backoff_s * 2, _BACKOFF_MAX_S)
                continue
            backoff_s = _BACKOFF_MIN_S
            self._close_breaker()

    async def _answers(self) -> bool:
        """Whether the server answers on connections whose role is proven."""

        async def work(snapshot: Snapshot) -> None:
            await snapshot.connection.fetchval("select 1")

        if self._pool is None or self._lost:
            return False
        try:
            await self._in_time(self._in_snapshot(work, _PROBE_TIMEOUT_S), _PROBE_TIMEOUT_S)
        except (*_LOST, *_BUSY, asyncpg.PostgresError):
            return False
        return not self._lost

    async def _connect(self) -> None:
        """Reach the server in a bounded time, and prove the role."""
        await self._drop_pool()
        pool = await asyncpg.create_pool(
            self._url,
            min_size=0,
            max_size=self._pool_size,
            timeout=_CONNECT_TIMEOUT_S,
            command_timeout=max(self._timeout_s, _CONNECT_TIMEOUT_S),
            reset=_as_it_is,
            server_settings={
                "application_name": "afterwrite-frontend",
                "default_transaction_read_only": "on",
                "statement_timeout": str(int(self._timeout_s * 1000)),
            },
        )
        try:
            async with asyncio.timeout(_PROOF_TIMEOUT_S):
                denied = await self._prove(pool)
        except BaseException:
            pool.terminate()
            raise
        self._pool = pool
        _log.info("role_proven", writes_denied=denied)

    async def _prove(self, pool: asyncpg.Pool) -> int:
        connection = await pool.acquire(timeout=_CONNECT_TIMEOUT_S)
        try:
            # The proof reads the whole catalog and may have to wait for locks.
            await connection.execute(f"set statement_timeout = {int(_CONNECT_TIMEOUT_S * 1000)}")
            denied = await prove_read_only(connection)
            check_columns(self._catalog, [dict(r) for r in await connection.fetch(COLUMNS)])
            await connection.execute("reset statement_timeout")
        finally:
            await pool.release(connection, timeout=_CONNECT_TIMEOUT_S)
        return denied

    async def _drop_pool(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            try:
                await asyncio.wait_for(pool.close(), _CLOSE_TIMEOUT_S)
            except (TimeoutError, *_LOST):
                pool.terminate()


async def _as_it_is(_: Any) -> None:
    """Nothing that runs here leaves anything behind in its session: a reset would be one more round
    trip for each read. asyncpg itself ends a transaction that is still open."""


_LOST: Final = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the connection broke in the middle of a message
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.TooManyConnectionsError,
    asyncpg.CannotConnectNowError,
)
_BUSY: Final = (TimeoutError, asyncpg.QueryCanceledError)
"""Each is a kind of `_LOST`, too, but says less: no answer in time."""
