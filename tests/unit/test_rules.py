"""Permission rules: the grammar, SQL's three-valued logic against a small model, errors with a place."""

import operator
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.rules import RuleSyntaxError, UnknownFact, parse

pytestmark = pytest.mark.unit

FACTS: dict[str, Any] = {"t": True, "f": False, "u": None, "x": "x", "y": "y", "n": 1, "m": 2}
Model = tuple[str, Any]  # the text of an expression, and what SQL says it is


def _and(a: Any, b: Any) -> Any:
    if a is False or b is False:
        return False
    return None if a is None or b is None else True


def _or(a: Any, b: Any) -> Any:
    if a is True or b is True:
        return True
    return None if a is None or b is None else False


def _not(a: Any) -> Any:
    return None if a is None else not a


def _compare(a: Any, b: Any, by: Callable[[Any, Any], bool]) -> Any:
    return None if a is None or b is None else by(a, b)


conditions: st.SearchStrategy[Model] = st.sampled_from(
    [("t", True), ("f", False), ("u", None), ("true", True), ("false", False), ("null", None)]
)
operands: st.SearchStrategy[Model] = st.sampled_from(
    [
        ("x", "x"),
        ("y", "y"),
        ("u", None),
        ("'x'", "x"),
        ("'it is not'", "it is not"),
        ("null", None),
    ]
)
measures: st.SearchStrategy[Model] = st.sampled_from(
    [("n", 1), ("m", 2), ("u", None), ("-7", -7), ("0", 0), ("2", 2)]
)
orders: st.SearchStrategy[tuple[str, Callable[[Any, Any], bool]]] = st.sampled_from(
    [("<", operator.lt), ("<=", operator.le), (">", operator.gt), (">=", operator.ge)]
)
comparisons = st.one_of(
    st.tuples(measures, orders, measures).map(
        lambda aob: (
            f"{aob[0][0]} {aob[1][0]} {aob[2][0]}",
            _compare(aob[0][1], aob[2][1], aob[1][1]),
        )
    ),
    st.tuples(operands, operands).map(
        lambda ab: (f"{ab[0][0]} = {ab[1][0]}", _compare(ab[0][1], ab[1][1], operator.eq))
    ),
    st.tuples(operands, operands).map(
        lambda ab: (f"{ab[0][0]} <> {ab[1][0]}", _compare(ab[0][1], ab[1][1], operator.ne))
    ),
    operands.map(lambda a: (f"{a[0]} is null", a[1] is None)),
    operands.map(lambda a: (f"{a[0]} is not null", a[1] is not None)),
)


def _bigger(inner: st.SearchStrategy[Model]) -> st.SearchStrategy[Model]:
    pairs = st.tuples(inner, inner)
    return st.one_of(
        pairs.map(lambda ab: (f"({ab[0][0]}) and ({ab[1][0]})", _and(ab[0][1], ab[1][1]))),
        pairs.map(lambda ab: (f"({ab[0][0]}) or ({ab[1][0]})", _or(ab[0][1], ab[1][1]))),
        inner.map(lambda a: (f"not ({a[0]})", _not(a[1]))),
        inner.map(lambda a: (f"({a[0]}) is null", a[1] is None)),
    )


expressions = st.recursive(conditions | comparisons, _bigger, max_leaves=12)


@given(expressions)
def test_a_rule_permits_when_sql_would_say_true_and_only_then(expression: Model) -> None:
    text, value = expression
    assert parse(text).permits(FACTS) is (value is True)


@given(st.lists(st.tuples(st.sampled_from(["and", "or"]), st.booleans(), conditions), min_size=1))
def test_not_binds_closer_than_and_and_closer_than_or(
    parts: list[tuple[str, bool, Model]],
) -> None:
    words: list[str] = []
    groups: list[list[Any]] = [[]]
    for number, (word, negated, (text, value)) in enumerate(parts):
        words += [word] if number else []
        words += ["not", text] if negated else [text]
        if word == "or" and number:
            groups.append([])
        groups[-1].append(_not(value) if negated else value)
    wanted: Any = False
    for number, group in enumerate(groups):
        value = True
        for part in group:
            value = _and(value, part)
        wanted = value if number == 0 else _or(wanted, value)
    assert parse(" ".join(words)).permits(FACTS) is (wanted is True)


def test_only_true_permits_not_what_python_finds_truthy() -> None:
    for value in ("yes", 1, [1], None, "", 0, False):
        assert not parse("row.flag").permits({"row": {"flag": value}})
    assert parse("row.flag").permits({"row": {"flag": True}})


def test_names_are_the_facts_a_rule_reads_each_once_in_order() -> None:
    rule = parse("row.a = actor.id and (parent.topic.locked or row.a is null) and 'row.text' = x")
    assert rule.names == ("row.a", "actor.id", "parent.topic.locked", "x")
    assert rule.text.startswith("row.a = ")


def test_what_a_rule_measures_is_told_so_that_it_can_be_checked() -> None:
    rule = parse("row.at <= parent.task.due_at and (new.points > -1 or 3 < row.a) and row.b = 2")
    assert rule.measured == (("row.at", "parent.task.due_at"), ("new.points", "-1"), ("3", "row.a"))


def test_times_are_compared_as_times() -> None:
    due = datetime(2026, 3, 1, 12, tzinfo=UTC)
    facts = {"row": {"at": due}, "due": due.astimezone(timezone(timedelta(hours=5)))}
    assert parse("row.at <= due").permits(facts)
    assert not parse("row.at < due").permits(facts)


def test_a_value_of_another_type_than_declared_permits_nothing_and_breaks_nothing() -> None:
    for value in ("5", b"5", None, [5], datetime(2026, 3, 1, tzinfo=UTC)):
        assert not parse("row.points <= 10").permits({"row": {"points": value}})
        assert not parse("not row.points <= 10").permits({"row": {"points": value}})


def test_a_null_on_the_way_to_a_fact_makes_it_null() -> None:
    rule = parse("parent.reply_to.topic_id = row.topic_id")
    facts = {"parent": {"reply_to": None}, "row": {"topic_id": "t"}}
    assert not rule.permits(facts)
    assert parse("parent.reply_to.topic_id is null").permits(facts)


def test_a_fact_that_is_not_at_hand_is_unknown_and_named() -> None:
    with pytest.raises(UnknownFact, match=r"parent\.topic\.locked"):
        parse("not parent.topic.locked").permits({"parent": {}})
    with pytest.raises(UnknownFact, match=r"actor\.banned"):
        parse("x and actor.banned").permits({"x": True, "actor": {}})


def test_a_fact_is_not_asked_for_when_it_does_not_matter() -> None:
    assert not parse("x and actor.banned").permits({"x": False})
    assert parse("x or actor.banned").permits({"x": True})


@pytest.mark.parametrize(
    ("text", "at", "problem"),
    [
        ("", 0, "expected a name"),
        ("and", 0, "expected a name"),
        ("a and", 5, "expected a name"),
        ("a or or b", 4, "expected a name"),
        ("not", 3, "expected a name"),
        ("a b", 1, "expected 'and', 'or' or the end"),
        ("a = = b", 3, "expected a name"),
        ("a is b", 4, "expected 'null'"),
        ("a is not true", 8, "expected 'null'"),
        ("(a", 2, r"expected '\)'"),
        ("a)", 1, "expected 'and', 'or' or the end"),
        ("a.", 2, "expected a name"),
        ("a.b.", 4, "expected a name"),
        ("a.'b'", 2, "expected a name"),
        ("a = 'b", 3, "cannot read character"),
        ("a == b", 3, "expected a name"),
        ("a ! b", 1, "cannot read character"),
        ("a = 1.5", 5, "expected 'and', 'or' or the end"),
        ("a = --1", 3, "cannot read character"),
        ("a < 'b'", 3, "only names and numbers can be less or greater"),
        ("a >= true", 4, "only names and numbers can be less or greater"),
        ("null < a", 0, "only names and numbers can be less or greater"),
        ("(a) < b", 0, "only names and numbers can be less or greater"),
        ("a <= (b)", 4, "only names and numbers can be less or greater"),
        ("a < b < c", 5, "expected 'and', 'or' or the end"),
        ("a <", 3, "expected a name"),
        ("a; drop", 1, "cannot read character"),
        ("a and b = c = d", 11, "expected 'and', 'or' or the end"),
    ],
)
def test_a_rule_that_cannot_be_read_is_refused_with_the_place(
    text: str, at: int, problem: str
) -> None:
    with pytest.raises(RuleSyntaxError, match=problem) as refused:
        parse(text)
    assert f"character {at} of rule {text!r}" in str(refused.value)


@given(st.text(alphabet="ab1-.()'=<> \tnotandornull", max_size=30))
def test_any_text_is_a_rule_or_a_syntax_error(text: str) -> None:
    try:
        rule = parse(text)
    except RuleSyntaxError:
        return
    assert all(name for name in rule.names)
