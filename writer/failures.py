"""Failures by what they ask for, and what a SQLSTATE means.

    WriterError
    ├── Fenced           another writer has the lane: stop applying, stand by
    ├── Paused           an operator wants the lane to stand still: keep it, apply nothing
    ├── Halt             something is wrong that waiting does not mend: stop the lane, page, reject nothing
    │   ├── LogMismatch      the log is not the one that PostgreSQL knows, or has a hole
    │   └── SilentRollback   COMMIT did not answer COMMIT
    ├── LogUnavailable   Kafka cannot be read: try again
    └── Refused          this command cannot be saved as it is; carries the problem

What a database says is looked up in `TABLE`, below. Everything else that is raised while applying — a
lost connection, a time-out — has one answer: drop the connection, take the lane again, read the
position, seek.
"""

from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase

import asyncpg

from schema.outcomes import Problem
from schema.sql.tables import TablesDiffer


class WriterError(Exception):
    """Base of the writer's own errors."""


class Fenced(WriterError):
    """The lane's epoch or position is not ours any more."""


class Paused(WriterError):
    """An operator wants the lane to stand still. Nothing was begun; the connection is as good as before."""


class Halt(WriterError):
    """The lane must stand still until somebody has looked."""


class LogMismatch(Halt):
    """The log contradicts the position or the log identity in PostgreSQL."""


class SilentRollback(Halt):
    """The server ended the transaction otherwise than by COMMIT, without an error."""


class LogUnavailable(WriterError):
    """Kafka cannot be read now."""


class Refused(WriterError):
    """The command is rejected; `problem` is what its author is told."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


class FailureClass(Enum):
    """What a database error asks for."""

    PERMANENT = "permanent"  # reject the command
    TRANSIENT = "transient"  # try again
    AMBIGUOUS = "ambiguous"  # recover, then look
    SYSTEMIC = "systemic"  # stop the line, reject nothing


@dataclass(frozen=True)
class Line:
    """What a SQLSTATE asks for, or all that begin like it, and why.

    `where`: the constraint at fault, as SCHEMA.TABLE.NAME, when only some of them ask for this; `*`
    stands for anything. `told`: what the author hears when his command is rejected for it.
    `counted`: it may be one command's fault; what keeps failing so is tried alone, then parked.
    """

    sqlstate: str
    asks: FailureClass
    why: str
    told: str | None = None
    where: str = "*"
    counted: bool = False

    @property
    def name(self) -> str:
        return self.sqlstate + ("" if self.where == "*" else f" {self.where}")


def _reject(sqlstate: str, told: str, why: str, where: str = "*") -> Line:
    return Line(sqlstate, FailureClass.PERMANENT, why, told, where)


def _again(sqlstate: str, why: str, *, counted: bool = False, where: str = "*") -> Line:
    return Line(sqlstate, FailureClass.TRANSIENT, why, None, where, counted)


def _look(sqlstate: str, why: str) -> Line:
    return Line(sqlstate, FailureClass.AMBIGUOUS, why)


def _stop(sqlstate: str, why: str, where: str = "*") -> Line:
    return Line(sqlstate, FailureClass.SYSTEMIC, why, None, where)


# Of the lines that fit, one that names a constraint goes first, then the longest SQLSTATE.
TABLE: tuple[Line, ...] = (
    # -- permanent: this command cannot be saved as it is, today or tomorrow ----------------------
    _reject("22", "data_exception", "a value that no column of that type can hold"),
    _reject("23", "check_violation", "a constraint of the site refuses the row"),
    _reject("23503", "target_missing", "what it refers to was deleted by somebody else meanwhile"),
    _reject("23505", "unique_violation", "the site wants it only once"),
    _reject("23505", "id_taken", "another lane made a row with this id", where="public.*_pkey"),
    _reject("21000", "check_violation", "more rows than a rule of the site can take"),
    _reject("40002", "check_violation", "a constraint that waited for the end; it is taken apart"),
    _reject("44000", "check_violation", "a view's WITH CHECK OPTION refuses the row"),
    _reject("54", "limit_exceeded", "more than the server can index, nest or hold"),
    _reject("P0001", "check_violation", "a trigger of the site refuses it: RAISE"),
    _reject("Z", "check_violation", "a trigger of the site refuses it, with a code of its own"),
    # -- transient: it passes ---------------------------------------------------------------------
    _again(
        "23505",
        "another lane has used this Idempotency-Key just now",
        where="afterwrite.*.idempotency_key_pkey",
    ),
    _again("23505", "another lane has had this command just now", where="afterwrite.*command_id*"),
    _again("40", "serialization, deadlock: another session was first", counted=True),
    _again("55006", "somebody else uses it", counted=True),
    _again("55P03", "somebody else holds the lock", counted=True),
    _again("57014", "it took longer than statement_timeout, or was cancelled", counted=True),
    _again("53200", "no memory for it", counted=True),
    _again("XX000", "an internal error of the server", counted=True),
    _again("53", "disk, connections: the server has no room for anybody"),
    _again("57", "the server goes down, starts, or has ended the session"),
    _again("25P03", "the server ended a transaction that had stood still"),
    _again("25006", "the server only reads: it is a replica, or being switched over"),
    _again("58", "the system below the server: files, I/O"),
    _again("XX", "an internal error of the server"),
    # -- ambiguous: it may have happened: recover, then look --------------------------------------
    _look("08", "the connection"),
    _look("40003", "the server does not know whether it was committed"),
    # -- systemic: no waiting mends it, and no author has caused it: stop the line ----------------
    _stop("23", "lane, ledger or parked commands contradict each other", where="afterwrite.*"),
    _stop("0A", "the server cannot do what we ask"),
    _stop("25", "transactions misused by us"),
    _stop("26", "a prepared statement that is not there"),
    _stop("28", "the role may not enter"),
    _stop("2D", "transactions misused by us"),
    _stop("3B", "savepoints misused by us"),
    _stop("3D", "there is no such database"),
    _stop("3F", "there is no such schema"),
    _stop("42", "our schema or grants: a migration or a right is missing"),
    _stop("55", "the server is not in the state that this needs"),
    _stop("57P04", "the database was dropped"),
    _stop("F0", "the server's configuration file"),
    _stop("XX001", "corrupted data"),
    _stop("XX002", "a corrupted index"),
    _stop("", "unknown: better to stand still than to reject by mistake"),
)

_DETAILS = {
    "data_exception": "The database cannot store this value.",
    "target_missing": "What this refers to does not exist, or something still refers to this.",
    "id_taken": "There is something with this id.",
    "unique_violation": "Something like this exists already.",
    "check_violation": "A rule of the database refuses this.",
    "limit_exceeded": "This is more than the database can hold.",
}


def line_of(error: asyncpg.PostgresError) -> Line:
    """The line of the table for what the server said: by SQLSTATE and constraint, never by message."""
    sqlstate = error.sqlstate or ""
    where = ".".join(
        str(getattr(error, name, None) or "")
        for name in ("schema_name", "table_name", "constraint_name")
    )
    fitting = (
        line
        for line in TABLE
        if sqlstate.startswith(line.sqlstate) and fnmatchcase(where, line.where)
    )
    return max(fitting, key=lambda line: (line.where != "*", len(line.sqlstate)))


def classify(error: BaseException) -> FailureClass:
    """The class of an error met while applying.

    An error without a SQLSTATE means that the connection is gone or in doubt. (When asyncpg refuses
    to encode a value, before anything is sent, its error has the SQLSTATE 22000.)
    """
    if isinstance(error, asyncpg.InvalidCachedStatementError):
        return FailureClass.TRANSIENT  # tables were migrated under us; a new connection knows them
    if isinstance(error, asyncpg.PostgresError):
        return line_of(error).asks
    if isinstance(error, Refused):
        return FailureClass.PERMANENT
    if isinstance(error, LogUnavailable | Paused | TablesDiffer):
        return FailureClass.TRANSIENT
    if isinstance(
        error, OSError | TimeoutError | asyncpg.InterfaceError | asyncpg.InternalClientError
    ):
        return FailureClass.AMBIGUOUS
    return FailureClass.SYSTEMIC


def may_be_one_commands_fault(error: BaseException) -> bool:
    """Whether an error that passes counts against the command at the position, if it comes again."""
    if isinstance(error, asyncpg.InvalidCachedStatementError):
        return False
    return isinstance(error, asyncpg.PostgresError) and line_of(error).counted


def sqlstate_of(error: BaseException) -> str | None:
    return error.sqlstate if isinstance(error, asyncpg.PostgresError) else None


def constraint_of(error: BaseException) -> str | None:
    name = getattr(error, "constraint_name", None)
    return name if isinstance(name, str) else None


def problem_of(error: BaseException) -> Problem:
    """What the author is told of a permanent database error. The database's own words stay inside."""
    if isinstance(error, Refused):
        return error.problem
    told = line_of(error).told if isinstance(error, asyncpg.PostgresError) else "data_exception"
    constraint = constraint_of(error)
    extra = {"sqlstate": sqlstate_of(error) or "22000"}
    extra |= {"constraint": constraint} if constraint else {}
    code = told or "check_violation"
    return Problem(code, _DETAILS[code], extra=extra)
