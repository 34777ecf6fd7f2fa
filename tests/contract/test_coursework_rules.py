"""Who may do what on a course platform: every rule permitted and refused, and no part of one idle."""

import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from schema.catalog import load_catalog
from schema.commands import Author
from schema.facts import actor_facts, decide
from schema.identifiers import UserId, user_id_for
from schema.rules import Rule, parse

pytestmark = pytest.mark.contract

CATALOG = load_catalog("schema.coursework")
TINA, SAM, EVE = (user_id_for(name) for name in ("tina", "sam", "eve"))  # teacher, student, other
COURSE, OTHER_COURSE, TASK, OTHER_TASK, HANDIN, OTHER_HANDIN = (uuid.uuid4() for _ in range(6))
DUE = datetime(2026, 3, 1, 12, tzinfo=UTC)
IN_TIME, LATE = DUE - timedelta(seconds=1), DUE + timedelta(microseconds=1)
FILE = {
    "file_url": "https://files.example/a",
    "file_name": "a",
    "file_bytes": 1,
    "file_sha256": "0" * 64,
    "media_type": "text/plain",
}
Facts = dict[str, Any]
Case = tuple[str, Facts, bool]  # what is different, how, and whether it is permitted then
ROLES = {"actor.roles": ("student",)}
SUSPENDED: Case = ("suspended", {"actor.suspended": True}, False)


def by(user: UserId, **facts: Any) -> Facts:
    named = {name.replace("__", "."): value for name, value in facts.items()}
    return {"actor.id": user, "actor.suspended": False, "actor.roles": (), **named}


def rows(prefix: str, **values: Any) -> Facts:
    return {f"{prefix}.{name}": value for name, value in values.items()}


ASSIGNMENT_ROW = {"course_id": COURSE, "due_at": DUE, "max_points": 20}
SUBMISSION_ROW = {
    "student_id": SAM,
    "handin_id": HANDIN,
    "assignment_id": TASK,
    "created_at": IN_TIME,
    **FILE,
}
STAFF: list[Case] = [
    ("staff", {"actor.id": EVE, "actor.roles": ("staff",)}, True),
    ("an administrator", {"actor.id": EVE, "actor.roles": ("admin",)}, True),
    (
        "suspended staff",
        {"actor.id": EVE, "actor.roles": ("staff",), "actor.suspended": True},
        False,
    ),
    ("somebody else", {"actor.id": EVE}, False),
]

TABLE: dict[tuple[str, str], tuple[Facts, list[Case]]] = {
    ("user", "update"): (
        by(SAM) | rows("row", id=SAM, name="sam", suspended=False) | rows("new", name="Sam", suspended=False),
        [
            SUSPENDED,
            ("somebody else", {"actor.id": EVE}, False),
            ("suspended, but staff", {"actor.suspended": True, "actor.roles": ("staff",)}, True),
            ("another's, by an administrator", {"actor.id": EVE, "actor.roles": ("admin",)}, True),
            ("he suspends himself", {"new.suspended": True}, False),
            ("staff suspends him", {"new.suspended": True, "actor.roles": ("staff",)}, True),
            ("an administrator does", {"new.suspended": True, "actor.roles": ("admin",)}, True),
        ],
    ),
    ("course", "create"): (
        by(TINA, actor__roles=("teacher",)) | rows("row", teacher_id=TINA),
        [
            SUSPENDED,
            ("staff", {"actor.roles": ("staff",)}, True),
            ("an administrator", {"actor.roles": ("admin",)}, True),
            ("no teacher", ROLES, False),
            ("no role at all", {"actor.roles": ()}, False),
        ],
    ),
    ("course", "update"): (by(TINA) | rows("row", teacher_id=TINA), [SUSPENDED, *STAFF]),
    ("assignment", "create"): (
        by(TINA) | rows("parent.course", teacher_id=TINA),
        [SUSPENDED, *STAFF],
    ),
    ("assignment", "update"): (
        by(TINA) | rows("parent.course", teacher_id=TINA),
        [SUSPENDED, *STAFF],
    ),
    ("enrolment", "create"): (
        by(TINA) | rows("parent.course", teacher_id=TINA),
        [SUSPENDED, ("somebody else", {"actor.id": EVE}, False)],
    ),
    ("enrolment", "delete"): (
        by(TINA) | rows("row", teacher_id=TINA),
        [SUSPENDED, ("somebody else", {"actor.id": EVE}, False)],
    ),
    ("place", "create"): (
        by(TINA)
        | rows("row", course_id=COURSE, student_id=SAM)
        | rows("parent.enrolment", teacher_id=TINA, course_id=COURSE, student_id=SAM),
        [
            SUSPENDED,
            ("somebody else", {"actor.id": EVE}, False),
            ("in another course", {"row.course_id": OTHER_COURSE}, False),
            ("for another student", {"row.student_id": EVE}, False),
        ],
    ),
    ("handin", "create"): (
        by(SAM) | rows("row", course_id=COURSE, marked=False) | rows("parent.assignment", **ASSIGNMENT_ROW),
        [
            SUSPENDED,
            ("of another course", {"row.course_id": OTHER_COURSE}, False),
            ("marked at once", {"row.marked": True}, False),
        ],
    ),
    ("handin", "update"): (
        by(TINA) | rows("parent.course", teacher_id=TINA),
        [SUSPENDED, ("somebody else", {"actor.id": EVE}, False)],
    ),
    ("submission", "create"): (
        by(SAM)
        | rows("row", assignment_id=TASK, created_at=IN_TIME)
        | rows("parent.handin", assignment_id=TASK, marked=False)
        | rows("parent.place", student_id=SAM, course_id=COURSE)
        | rows("parent.assignment", **ASSIGNMENT_ROW),
        [
            SUSPENDED,
            ("marked already", {"parent.handin.marked": True}, False),
            ("in the hand-in of another assignment", {"parent.handin.assignment_id": OTHER_TASK}, False),
            ("on another's place", {"parent.place.student_id": EVE}, False),
            ("on a place in another course", {"parent.place.course_id": OTHER_COURSE}, False),
            ("just in time", {"row.created_at": DUE}, True),
            ("too late", {"row.created_at": LATE}, False),
            ("without a deadline", {"parent.assignment.due_at": None, "row.created_at": LATE}, True),
        ],
    ),
    ("submission", "delete"): (
        by(SAM) | rows("row", student_id=SAM) | rows("parent.handin", marked=False),
        [
            SUSPENDED,
            ("somebody else", {"actor.id": EVE}, False),
            ("the teacher", {"actor.id": TINA, "actor.roles": ("teacher",)}, False),
            ("marked already", {"parent.handin.marked": True}, False),
        ],
    ),
    ("paper", "create"): (
        by(SAM)
        | rows("row", course_id=COURSE, teacher_id=TINA, points=None, feedback="", **SUBMISSION_ROW)
        | rows("parent.submission", **SUBMISSION_ROW)
        | rows("parent.assignment", **ASSIGNMENT_ROW)
        | rows("parent.course", teacher_id=TINA),
        [
            ("of another's submission", {"actor.id": EVE}, False),
            ("later than its submission", {"row.created_at": DUE}, False),
            ("in another hand-in", {"row.handin_id": OTHER_HANDIN}, False),
            ("of another assignment", {"row.assignment_id": OTHER_TASK}, False),
            ("of another course", {"row.course_id": OTHER_COURSE}, False),
            ("for another reader", {"row.teacher_id": EVE}, False),
            *[(f"with another {name}", {f"row.{name}": "other"}, False) for name in FILE],
            ("with marks of his own", {"row.points": 20}, False),
            ("with praise of his own", {"row.feedback": "Brilliant."}, False),
        ],
    ),
    ("paper", "update"): (
        by(TINA)
        | rows("row", teacher_id=TINA, points=None)
        | rows("new", points=20, feedback="")
        | rows("parent.assignment", **ASSIGNMENT_ROW),
        [
            SUSPENDED,
            ("somebody else", {"actor.id": EVE}, False),
            ("the student himself", {"actor.id": SAM}, False),
            ("no points", {"new.points": 0}, True),
            ("less than none", {"new.points": -1}, False),
            ("more than there are", {"new.points": 21}, False),
            ("words only", {"new.points": None}, False),
        ],
    ),
    ("grade", "create"): (
        by(TINA)
        | rows("row", handin_id=HANDIN, assignment_id=TASK, student_id=SAM, points=7, feedback="")
        | rows(
            "parent.paper",
            teacher_id=TINA,
            handin_id=HANDIN,
            assignment_id=TASK,
            student_id=SAM,
            points=7,
            feedback="",
        )
        | rows("parent.handin", marked=True),
        [
            SUSPENDED,
            ("another teacher", {"actor.id": EVE, "actor.roles": ("teacher",)}, False),
            ("not marked", {"parent.handin.marked": False}, False),
            ("in another hand-in", {"row.handin_id": OTHER_HANDIN}, False),
            ("of another assignment", {"row.assignment_id": OTHER_TASK}, False),
            ("for another reader", {"row.student_id": EVE}, False),
            ("with other points", {"row.points": 8}, False),
            ("with other words", {"row.feedback": "no"}, False),
        ],
    ),
    ("notice", "update"): (
        by(SAM) | rows("row", user_id=SAM),
        [("somebody else", {"actor.id": EVE}, False)],
    ),
}  # fmt: skip


def permitted(type_: str, op: Any, facts: Facts) -> bool:
    """What the front end and the writer would decide of these facts."""
    kind = CATALOG[type_]
    nested: dict[str, Any] = {"actor": {}, "row": {}, "new": {}, "parent": {}}
    for name, value in facts.items():
        *path, last = name.split(".")
        at = nested
        for step in path:
            at = at.setdefault(step, {})
        at[last] = value
    who = nested["actor"]
    author = Author(who["id"], "somebody", who["roles"])
    actor = actor_facts(CATALOG, author, {"name": "somebody", "suspended": who["suspended"]})
    new = nested["row"] if op == "create" else nested["row"] | nested["new"]
    return decide(kind, op, actor, nested["row"], new, nested["parent"]) is None


CASES = [
    pytest.param(type_, op, base | changes, expected, id=f"{op} {type_}: {what}")
    for (type_, op), (base, cases) in TABLE.items()
    for what, changes, expected in [("as it should be", {}, True), *cases]
]


@pytest.mark.parametrize(("type_", "op", "facts", "expected"), CASES)
def test_a_rule(type_: str, op: str, facts: Facts, expected: bool) -> None:
    assert permitted(type_, op, facts) is expected


def test_every_rule_is_in_the_table() -> None:
    declared = {(k.name, op) for k in CATALOG for op, rule in k.rules.items() if rule is not None}
    assert declared == set(TABLE)
    assert {k.name for k in CATALOG if k.field_rules} == {"user"}


def _parts(text: str) -> Iterator[tuple[str, str, str]]:
    """Every condition of a rule, with the rule in which it is always true, and always false."""
    for found in re.finditer(r"[^()]+?(?= and | or |[()]|$)", text):
        part = re.sub(r"^( and | or )", "", found[0])
        if not part.strip():
            continue
        at = found.start() + found[0].index(part)
        before, behind = text[:at], text[at + len(part) :]
        yield part, f"{before} true {behind}", f"{before} false {behind}"


MUTANTS = [
    pytest.param(name, op, mutant, id=f"{op} {name}: {part.strip()} always {word}")
    for (name, op) in TABLE
    for rule in [CATALOG[name].rules[op]]
    if rule is not None
    for part, *mutants in _parts(rule.text)
    for word, mutant in zip(("true", "false"), mutants, strict=True)
]


@pytest.mark.parametrize(("type_", "op", "mutant"), MUTANTS)
def test_no_part_of_a_rule_is_idle(
    type_: str, op: str, mutant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With any condition taken away, some case of the table comes out otherwise."""
    changed: Rule = parse(mutant)
    monkeypatch.setitem(CATALOG[type_].rules, op, changed)
    base, cases = TABLE[type_, op]
    verdicts = [permitted(type_, op, base | c) is e for _, c, e in [("", {}, True), *cases]]
    assert not all(verdicts)
