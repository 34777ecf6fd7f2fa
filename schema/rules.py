"""Permission rules: a small expression language, parsed once, evaluated on both sides.

    rule       = disjunct { "or" disjunct }
    disjunct   = conjunct { "and" conjunct }
    conjunct   = "not" conjunct | comparison
    comparison = operand [ ("=" | "<>") operand | "is" ["not"] "null" ]
               | measure ("<" | "<=" | ">" | ">=") measure
    operand    = name { "." name } | "'" text "'" | number | "true" | "false" | "null" | "(" rule ")"
    measure    = name { "." name } | number

It reads like SQL and follows SQL's three-valued logic: a comparison with null is unknown, and only
a rule that is *true* permits. Numbers are whole; what can be less or greater is two numbers or two
times. A fact that the asking side cannot read raises `UnknownFact`: the front end then leaves the
decision to the writer, which can read them all.
"""

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

Facts = Mapping[str, Any]
Verdict = Any  # True, False or None (unknown) for a condition; any value for an operand
_Node = Callable[[Facts], Verdict]

_TOKEN = re.compile(r"\s*(?:(<>|<=|>=|[<>=().])|'([^']*)'|(-?[0-9]+)|([A-Za-z_][A-Za-z0-9_]*))")
_KEYWORDS = frozenset({"and", "or", "not", "is", "null", "true", "false"})
_LITERALS: dict[str, Verdict] = {"null": None, "true": True, "false": False}
_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class RuleSyntaxError(ValueError):
    """The text of a rule is wrong; raised when content types are loaded."""


class UnknownFact(LookupError):
    """A rule needs a fact that is not at hand."""


@dataclass(frozen=True)
class Rule:
    """A parsed rule; `names` are the dotted facts it reads.

    `measured` are the pairs that it asks which is the greater: names, or numbers as text.
    """

    text: str
    names: tuple[str, ...]
    measured: tuple[tuple[str, str], ...]
    _root: _Node

    def permits(self, facts: Facts) -> bool:
        """Whether the rule is true for the facts. Raises `UnknownFact` when one is missing."""
        return self._root(facts) is True


def parse(text: str) -> Rule:
    """Parse a rule; raises `RuleSyntaxError` with the place of the fault."""
    parser = _Parser(text)
    root = parser.rule()
    parser.expect_end()
    return Rule(text, tuple(dict.fromkeys(parser.names)), tuple(parser.measured), root)


@dataclass(frozen=True)
class _Token:
    kind: str  # "symbol", "text", "number", "word", "end"
    value: str
    at: int


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(_tokens(text))
        self._next = 0
        self.names: list[str] = []
        self.measured: list[tuple[str, str]] = []

    def rule(self) -> _Node:
        node = self._conjunction()
        while self._take("or"):
            node = _or(node, self._conjunction())
        return node

    def expect_end(self) -> None:
        if self._peek().kind != "end":
            self._fail("expected 'and', 'or' or the end")

    def _conjunction(self) -> _Node:
        node = self._negation()
        while self._take("and"):
            node = _and(node, self._negation())
        return node

    def _negation(self) -> _Node:
        if self._take("not"):
            return _not(self._negation())
        return self._comparison()

    def _comparison(self) -> _Node:
        start = self._next
        left = self._operand()
        order = _ORDERS.get(self._peek().value) if self._peek().kind == "symbol" else None
        if order is not None:
            measure = self._measure(start)
            self._next += 1
            start = self._next
            right = self._operand()
            self.measured.append((measure, self._measure(start)))
            return _ordered(left, order, right)
        if self._take("="):
            return _equal(left, self._operand())
        if self._take("<>"):
            return _not(_equal(left, self._operand()))
        if self._take("is"):
            negated = self._take("not")
            if not self._take("null"):
                self._fail("expected 'null'")
            return _is_null(left, negated)
        return left

    def _measure(self, start: int) -> str:
        """What was read from token `start` on, which must be a name or a number."""
        read = self._tokens[start : self._next]
        if read[0].kind == "number" or (read[0].kind == "word" and read[0].value not in _KEYWORDS):
            return "".join(token.value for token in read)
        self._next = start
        return self._fail("only names and numbers can be less or greater")

    def _operand(self) -> _Node:
        if self._take("("):
            node = self.rule()
            if not self._take(")"):
                self._fail("expected ')'")
            return node
        token = self._peek()
        if token.kind == "text":
            self._next += 1
            return _constant(token.value)
        if token.kind == "number":
            self._next += 1
            return _constant(int(token.value))
        if token.kind == "word" and token.value in _LITERALS:
            self._next += 1
            return _constant(_LITERALS[token.value])
        return self._fact()

    def _fact(self) -> _Node:
        path = [self._word()]
        while self._take("."):
            path.append(self._word())
        self.names.append(".".join(path))
        return _fact(tuple(path))

    def _word(self) -> str:
        token = self._peek()
        if token.kind != "word" or token.value in _KEYWORDS:
            self._fail("expected a name")
        self._next += 1
        return token.value

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self, value: str) -> bool:
        token = self._peek()
        if token.kind in ("symbol", "word") and token.value == value:
            self._next += 1
            return True
        return False

    def _fail(self, problem: str) -> NoReturn:
        raise RuleSyntaxError(f"{problem} at character {self._peek().at} of rule {self._text!r}")


def _tokens(text: str) -> list[_Token]:
    found, at = [], 0
    while at < len(text.rstrip()):
        match = _TOKEN.match(text, at)
        if match is None:
            raise RuleSyntaxError(f"cannot read character {at} of rule {text!r}")
        symbol, literal, number, word = match.groups()
        if symbol is not None:
            found.append(_Token("symbol", symbol, at))
        elif literal is not None:
            found.append(_Token("text", literal, at))
        elif number is not None:
            found.append(_Token("number", number, at))
        else:
            found.append(_Token("word", word, at))
        at = match.end()
    return [*found, _Token("end", "", len(text))]


def _fact(path: tuple[str, ...]) -> _Node:
    def node(facts: Facts) -> Verdict:
        value: Any = facts
        for name in path:
            if value is None:
                return None
            try:
                value = value[name]
            except KeyError:
                raise UnknownFact(".".join(path)) from None
        return value

    return node


def _constant(value: Verdict) -> _Node:
    return lambda facts: value


def _equal(left: _Node, right: _Node) -> _Node:
    def node(facts: Facts) -> Verdict:
        a, b = left(facts), right(facts)
        return None if a is None or b is None else a == b

    return node


def _ordered(left: _Node, order: Callable[[Any, Any], bool], right: _Node) -> _Node:
    def node(facts: Facts) -> Verdict:
        a, b = left(facts), right(facts)
        if a is None or b is None:
            return None
        try:
            return order(a, b)
        except (
            TypeError
        ):  # a value that is not what its field declares: it is refused later, by name
            return None

    return node


def _is_null(operand: _Node, negated: bool) -> _Node:
    return lambda facts: (operand(facts) is None) is not negated


def _not(operand: _Node) -> _Node:
    def node(facts: Facts) -> Verdict:
        value = operand(facts)
        return None if value is None else not value

    return node


def _and(left: _Node, right: _Node) -> _Node:
    def node(facts: Facts) -> Verdict:
        a = left(facts)
        if a is False:
            return False
        b = right(facts)
        if b is False:
            return False
        return None if a is None or b is None else True

    return node


def _or(left: _Node, right: _Node) -> _Node:
    def node(facts: Facts) -> Verdict:
        a = left(facts)
        if a is True:
            return True
        b = right(facts)
        if b is True:
            return True
        return None if a is None or b is None else False

    return node
