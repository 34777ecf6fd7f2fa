"""Facts that rules are asked with, and the one place where a rule decides.

Both sides build the facts here: the writer from its transaction, the front end from what it can
read in time. What a side does not know it leaves out, and `UnknownFact` is raised when it matters.
"""

from collections.abc import Mapping
from typing import Any

from schema.catalog import Catalog
from schema.commands import Author, Op
from schema.content import Kind
from schema.rules import Facts

FORBIDDEN = "forbidden"


class ActorFacts(dict[str, Any]):
    """What is known of an author. A name that stands for nothing is a role he does not have."""

    _unknown: frozenset[str] = frozenset()

    def leave_open(self, names: frozenset[str]) -> None:
        """These names are unknown facts, as far as there is nothing of that name."""
        self._unknown = names

    def __missing__(self, name: str) -> bool:
        if name in self._unknown:
            raise KeyError(name)
        return False


def actor_facts(
    catalog: Catalog, author: Author, actor_row: Mapping[str, Any] | None, *, known: bool = True
) -> ActorFacts:
    """The author as rules see him: his id, his row's fields, his roles.

    A flag is true when his row says so or his token has a role of that name. `actor_row` is None
    when he has no row yet: the defaults count. With `known=False` the row could not be read: flags
    that no role grants are unknown facts.
    """
    facts = ActorFacts()
    if known:
        facts.update(catalog.actor.defaults)
        if actor_row is not None:
            facts.update({n: actor_row.get(n, d) for n, d in catalog.actor.defaults.items()})
    else:
        facts.leave_open(frozenset(catalog.actor.fields))
    facts["name"] = author.name
    for role in author.roles:
        facts[role] = True
    facts["id"] = author.id  # a role of that name must not shadow it
    return facts


def decide(
    kind: Kind,
    op: Op,
    actor: Mapping[str, Any],
    row: Mapping[str, Any] | None,
    new: Mapping[str, Any] | None,
    parents: Mapping[str, Mapping[str, Any] | None],
) -> str | None:
    """`forbidden`, or None when the author may do it.

    `row` is the row as it is, `new` as it will be; of a creation they are the same. `parents` has
    the row (or None) behind each reference, by its name in rules; one that could not be read is
    left out. Values are Python values. Raises `UnknownFact`.
    """
    rule = kind.rules[op]
    if rule is None:
        return FORBIDDEN
    facts: Facts = {
        "actor": actor,
        "row": new if op == "create" else row,
        "new": new,
        "parent": parents,
    }
    if not rule.permits(facts):
        return FORBIDDEN
    if kind.field_rules:
        for name in fields_set(kind, op, row, new):
            if not kind.field_rules[name].permits(facts):
                return FORBIDDEN
    return None


def fields_set(
    kind: Kind, op: Op, row: Mapping[str, Any] | None, new: Mapping[str, Any] | None
) -> list[str]:
    """The fields with a rule of their own that this mutation gives another value."""
    if new is None or op == "delete":
        return []
    before = row if op == "update" and row is not None else {}
    return [
        name
        for name in kind.field_rules
        if name in new and new[name] != before.get(name, kind.fields[name].default)
    ]
