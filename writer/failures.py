"""Failures by what they ask for, and what a SQLSTATE means.

    WriterError
    ├── Fenced           another writer has the lane: stop applying, stand by
    ├── Halt             something is wrong that waiting does not mend: stop the lane, page, reject nothing
    │   ├── LogMismatch      the log is not the one that PostgreSQL knows, or has a hole
    │   └── SilentRollback   COMMIT did not answer COMMIT
    ├── LogUnavailable   Kafka cannot be read: try again
    └── Refused          this command cannot be saved as it is; carries the problem

Everything else that is raised while applying — a lost connection, a time-out, a deadlock — has one
answer: drop the connection, take the lane again, read the position, seek.
"""

from enum import Enum

import asyncpg

from schema.outcomes import Problem
from schema.sql.tables import TablesDiffer


class WriterError(Exception):
    """Base of the writer's own errors."""


class Fenced(WriterError):
    """The lane's epoch or position is not ours any more."""


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


# Longest prefix wins. Not listed is systemic: better to stand still than to reject by mistake.
_BY_SQLSTATE: dict[str, FailureClass] = {
    "22": FailureClass.PERMANENT,
    "23": FailureClass.PERMANENT,
    "44000": FailureClass.PERMANENT,
    "54": FailureClass.PERMANENT,
    "P0001": FailureClass.PERMANENT,
    "21000": FailureClass.PERMANENT,
    "Z": FailureClass.PERMANENT,
    "40": FailureClass.TRANSIENT,
    "40002": FailureClass.PERMANENT,  # a constraint at the end of the transaction: take it apart
    "55006": FailureClass.TRANSIENT,
    "55P03": FailureClass.TRANSIENT,
    "53": FailureClass.TRANSIENT,
    "57": FailureClass.TRANSIENT,
    "25P03": FailureClass.TRANSIENT,
    "25006": FailureClass.TRANSIENT,
    "58": FailureClass.TRANSIENT,
    "XX": FailureClass.TRANSIENT,
    "XX001": FailureClass.SYSTEMIC,
    "XX002": FailureClass.SYSTEMIC,
    "57P04": FailureClass.SYSTEMIC,
    "08": FailureClass.AMBIGUOUS,
    "40003": FailureClass.AMBIGUOUS,
}


def classify(error: BaseException) -> FailureClass:
    """The class of an error met while applying, by SQLSTATE, never by message.

    An error without a SQLSTATE means that the connection is gone or in doubt. (When asyncpg refuses
    to encode a value, before anything is sent, its error has the SQLSTATE 22000.)
    """
    if isinstance(error, asyncpg.InvalidCachedStatementError):
        return FailureClass.TRANSIENT  # tables were migrated under us; a new connection knows them
    if isinstance(error, asyncpg.PostgresError):
        sqlstate = error.sqlstate or ""
        for length in (5, 2, 1):
            found = _BY_SQLSTATE.get(sqlstate[:length])
            if found is not None:
                return found
        return FailureClass.SYSTEMIC
    if isinstance(error, Refused):
        return FailureClass.PERMANENT
    if isinstance(error, LogUnavailable | TablesDiffer):
        return FailureClass.TRANSIENT
    if isinstance(
        error, OSError | TimeoutError | asyncpg.InterfaceError | asyncpg.InternalClientError
    ):
        return FailureClass.AMBIGUOUS
    return FailureClass.SYSTEMIC


def sqlstate_of(error: BaseException) -> str | None:
    return error.sqlstate if isinstance(error, asyncpg.PostgresError) else None


def constraint_of(error: BaseException) -> str | None:
    name = getattr(error, "constraint_name", None)
    return name if isinstance(name, str) else None


def problem_of(error: BaseException) -> Problem:
    """What the author is told of a permanent database error. The database's own words stay inside."""
    if isinstance(error, Refused):
        return error.problem
    sqlstate = sqlstate_of(error) or "22000"
    constraint = constraint_of(error)
    extra = {"sqlstate": sqlstate} | ({"constraint": constraint} if constraint else {})
    if sqlstate == "23505":
        return Problem("unique_violation", "Something like this exists already.", extra=extra)
    if sqlstate == "23503":
        return Problem("target_missing", "What this refers to does not exist.", extra=extra)
    if sqlstate.startswith("54"):
        return Problem("limit_exceeded", "This is more than the database can hold.", extra=extra)
    if sqlstate.startswith("22"):
        return Problem("data_exception", "The database cannot store this value.", extra=extra)
    return Problem("check_violation", "A rule of the database refuses this.", extra=extra)
