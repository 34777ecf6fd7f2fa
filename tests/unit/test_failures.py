"""Every SQLSTATE has a class, row by row; and no error of any kind upsets the classifier."""

import builtins
import re
from typing import Any

import asyncpg
import pytest
from asyncpg import exceptions
from hypothesis import given
from hypothesis import strategies as st

from schema.outcomes import CODES, Problem
from writer.failures import (
    FailureClass,
    Fenced,
    Halt,
    LogMismatch,
    LogUnavailable,
    Refused,
    SilentRollback,
    classify,
    constraint_of,
    may_be_one_commands_fault,
    problem_of,
    sqlstate_of,
)

pytestmark = pytest.mark.unit

PERMANENT, TRANSIENT = FailureClass.PERMANENT, FailureClass.TRANSIENT
AMBIGUOUS, SYSTEMIC = FailureClass.AMBIGUOUS, FailureClass.SYSTEMIC

ROWS: list[tuple[str, FailureClass, str]] = [
    # what the value of this one command causes
    ("22000 22001 22003 22007 22008 22012 22021 22023 22026 22P02 22P05", PERMANENT, "data"),
    ("23000 23001 23502 23503 23505 23514 23P01", PERMANENT, "integrity"),
    ("54000 54001 54011 54023", PERMANENT, "limits of the program"),
    ("P0001 44000 Z0001 ZZZZZ", PERMANENT, "a rule of the site, raised in the database"),
    ("21000", PERMANENT, "cardinality"),
    ("40002", PERMANENT, "integrity at the end of the transaction: the batch is taken apart"),
    # what passes
    ("40000 40001 40P01 55P03 55006", TRANSIENT, "serialization, deadlock, lock"),
    ("53000 53100 53200 53300 53400", TRANSIENT, "disk, memory, connections"),
    ("57P01 57P02 57P03 57P05 25P03 25006", TRANSIENT, "the server goes, or only reads"),
    ("57014", TRANSIENT, "cancelled"),
    ("58000 58030 58P01 XX000", TRANSIENT, "system, internal"),
    # it may have happened or not: recover, then look
    ("08000 08001 08003 08004 08006 08007 08P01 40003", AMBIGUOUS, "the connection"),
    # what no waiting mends, and no author has caused
    ("42501 42601 42703 42804 42883 42P01 42P07", SYSTEMIC, "our schema or grants"),
    ("26000 28000 28P01 3D000 3F000 0A000 57P04 F0000 F0001", SYSTEMIC, "the deployment"),
    ("25P02 25001 25P01 25000 3B000 3B001 2D000", SYSTEMIC, "transactions misused by us"),
    ("XX001 XX002", SYSTEMIC, "corruption"),
    ("55000 55P02 55P04", SYSTEMIC, "not as it must be"),
    ("P0000 P0002 P0003 P0004 HV000 72000 00000 QQQQQ", SYSTEMIC, "unknown"),
]
CODES_OF_ROWS = [
    pytest.param(code, wanted, id=f"{code} {why}")
    for codes, wanted, why in ROWS
    for code in codes.split()
]


def _error(sqlstate: str, **fields: Any) -> asyncpg.PostgresError:
    """The error that asyncpg raises when the server answers with this SQLSTATE."""
    made: asyncpg.PostgresError = asyncpg.PostgresError.new({"C": sqlstate, "M": "a text"} | fields)
    return made


@pytest.mark.parametrize(("sqlstate", "wanted"), CODES_OF_ROWS)
def test_a_sqlstate_has_its_class(sqlstate: str, wanted: FailureClass) -> None:
    assert classify(_error(sqlstate)) is wanted


@pytest.mark.parametrize(("sqlstate", "wanted"), CODES_OF_ROWS)
def test_the_message_does_not_matter(sqlstate: str, wanted: FailureClass) -> None:
    for message in ("deadlock detected", "permission denied", "duplicate key", ""):
        assert classify(_error(sqlstate, M=message)) is wanted


def test_what_is_refused_before_it_is_sent_is_the_commands_fault() -> None:
    assert classify(asyncpg.DataError("invalid input for query argument $1")) is PERMANENT


def test_a_table_changed_under_a_cached_statement_passes_with_the_connection() -> None:
    """It has the SQLSTATE of a feature that is not supported, which would stop the line."""
    assert classify(asyncpg.InvalidCachedStatementError("changed")) is TRANSIENT
    assert classify(asyncpg.OutdatedSchemaCacheError("changed")) is AMBIGUOUS


@pytest.mark.parametrize(
    "error",
    [
        OSError(),
        ConnectionResetError(),
        BrokenPipeError(),
        TimeoutError(),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.InternalClientError("unexpected"),
        asyncpg.ProtocolError("unexpected"),
    ],
    ids=repr,
)
def test_a_connection_in_doubt_is_ambiguous(error: Exception) -> None:
    assert classify(error) is AMBIGUOUS


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (Refused(Problem("forbidden", "no")), PERMANENT),
        (LogUnavailable("no broker"), TRANSIENT),
        (Halt("stop"), SYSTEMIC),
        (LogMismatch("a hole"), SYSTEMIC),
        (SilentRollback("ROLLBACK"), SYSTEMIC),
        (Fenced("another"), SYSTEMIC),
        (KeyError("a fault of ours"), SYSTEMIC),
        (ValueError("a fault of ours"), SYSTEMIC),
        (AssertionError(), SYSTEMIC),
        (MemoryError(), SYSTEMIC),
        (asyncpg.UnknownPostgresError("no code"), SYSTEMIC),
    ],
    ids=repr,
)
def test_our_own_errors_have_their_class(error: Exception, wanted: FailureClass) -> None:
    assert classify(error) is wanted


ERRORS: list[type[BaseException]] = [
    kind
    for module in (exceptions, builtins)
    for kind in vars(module).values()
    if isinstance(kind, type)
    and issubclass(kind, BaseException)
    and not issubclass(kind, BaseExceptionGroup)  # cannot be made without what is in it
]


@given(st.sampled_from(ERRORS), st.none() | st.text(max_size=5), st.none() | st.text())
def test_no_error_upsets_the_classifier(
    kind: type[BaseException], sqlstate: str | None, constraint: str | None
) -> None:
    error = kind.__new__(kind)
    if isinstance(error, asyncpg.PostgresError):
        vars(error).update(sqlstate=sqlstate, constraint_name=constraint)
    assert isinstance(classify(error), FailureClass)
    assert sqlstate_of(error) is None or isinstance(sqlstate_of(error), str)
    assert constraint_of(error) is None or isinstance(constraint_of(error), str)
    assert problem_of(error).code in CODES


@given(st.from_regex(r"[0-9A-Z]{5}", fullmatch=True))
def test_only_what_the_table_names_may_reject(sqlstate: str) -> None:
    """Whatever else a server may say, nobody is told that his text was refused."""
    named = re.compile(r"22|23|54|P0001|44000|21000|40002|Z")
    assert (classify(_error(sqlstate)) is PERMANENT) is bool(named.match(sqlstate))


@pytest.mark.parametrize(
    ("sqlstate", "code"),
    [
        ("23505", "unique_violation"),
        ("23503", "target_missing"),
        ("23514", "check_violation"),
        ("23502", "check_violation"),
        ("P0001", "check_violation"),
        ("54000", "limit_exceeded"),
        ("22021", "data_exception"),
        ("40002", "check_violation"),
        ("21000", "check_violation"),
    ],
)
def test_the_author_is_told_a_reason_but_not_the_databases_words(sqlstate: str, code: str) -> None:
    error = _error(sqlstate, M="Key (name)=(Geheimnis) exists", n="topic_title", D="(Geheimnis)")
    told = problem_of(error)
    assert told.code == code
    assert told.extra == {"sqlstate": sqlstate, "constraint": "topic_title"}
    assert "Geheimnis" not in str(told.to_json())


@pytest.mark.parametrize(
    ("where", "wanted", "code"),
    [
        (("public", "post", "post_pkey"), PERMANENT, "id_taken"),
        (("public", "topic", "topic_title_key"), PERMANENT, "unique_violation"),
        (("public", "idempotency_key", "idempotency_key_key"), PERMANENT, "unique_violation"),
        (("afterwrite", "idempotency_key", "idempotency_key_pkey"), TRANSIENT, None),
        (("afterwrite", "ledger_202605", "ledger_202605_command_id_period_idx"), TRANSIENT, None),
        (("afterwrite", "parked", "parked_command_id_key"), TRANSIENT, None),
        (("afterwrite", "ledger_202605", "ledger_202605_pkey"), SYSTEMIC, None),
        (("afterwrite", "parked", "parked_pkey"), SYSTEMIC, None),
    ],
)
def test_a_double_asks_for_what_its_constraint_is(
    where: tuple[str, str, str], wanted: FailureClass, code: str | None
) -> None:
    error = _error("23505", s=where[0], t=where[1], n=where[2])
    assert classify(error) is wanted
    assert not may_be_one_commands_fault(error)
    if code is not None:
        assert problem_of(error).code == code


def test_what_may_be_one_commands_fault_is_counted_and_an_outage_is_not() -> None:
    counted = ["57014", "40001", "40P01", "55P03", "55006", "53200", "XX000"]
    for sqlstate in CODES_OF_ROWS:
        code = str(sqlstate.values[0])
        expected = code in counted or code == "40000"
        assert may_be_one_commands_fault(_error(code)) is expected, code
    for error in (OSError(), TimeoutError(), asyncpg.InterfaceError("gone"), Halt("x")):
        assert not may_be_one_commands_fault(error)


def test_a_refusal_carries_its_own_problem() -> None:
    problem = Problem("version_conflict", "It has version 3 now.", extra={"current_version": 3})
    assert problem_of(Refused(problem)) is problem


def test_every_sqlstate_that_asyncpg_knows_has_a_row_or_is_systemic() -> None:
    rows = {code: wanted for codes, wanted, _ in ROWS for code in codes.split()}
    by_class = {code[:2]: wanted for code, wanted in rows.items() if wanted is PERMANENT}
    for kind in ERRORS:
        sqlstate = getattr(kind, "sqlstate", None)
        if not isinstance(sqlstate, str) or kind is asyncpg.InvalidCachedStatementError:
            continue
        if sqlstate not in rows and sqlstate[:2] not in by_class:
            found = classify(_error(sqlstate))
            assert found is not PERMANENT, sqlstate
