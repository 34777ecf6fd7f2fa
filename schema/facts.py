"""What rules are asked about: facts of the actor, the row, its parents; and the answer.

Both sides build facts here and decide here, so that a rule means the same early and late.
"""

from collections.abc import Mapping
from typing import Any, Literal

from schema.catalog import Catalog
from schema.commands import Author, Op
from schema.content import Kind

ParentRows = Mapping[str, Mapping[str, Any] | None]


class ActorFacts(dict[str, Any]):
    """Facts of an actor: a flag that nobody has set is false."""

    def __missing__(self, name: str) -> bool:
        return False


def actor_facts(catalog: Catalog, author: Author, row: Mapping[str, Any] | None) -> ActorFacts:
    """The author's id, his row's fields, and his roles.

    `row` is his row in the actor type, None when he has none yet. A flag is true when his row or a
    role of that name in his token says so.
    """
    facts = ActorFacts()
    for name, field in catalog.actor.fields.items():
        facts[name] = row.get(name, field.default) if row is not None else field.default
    facts["name"] = author.name
    for role in author.roles:
        facts[role] = True
    facts["id"] = author.id
    return facts


def decide(
    kind: Kind,
    op: Op,
    actor: Mapping[str, Any],
    row: Mapping[str, Any],
    new: Mapping[str, Any],
    parents: ParentRows,
) -> Literal["forbidden"] | None:
    """None when the rules permit, else the code of the refusal.

    `row` is the row as it is (for a create: as it would be), `new` as it would be. Raises
    `UnknownFact` when a rule needs what is not among the facts.
    """
    rule = kind.rules[op]
    facts = {"actor": actor, "row": row, "new": new, "parent": parents}
    if rule is None or not rule.permits(facts):
        return "forbidden"
    for name, field_rule in kind.field_rules.items():
        before = kind.fields[name].default if op == "create" else row.get(name)
        if op != "delete" and new.get(name) != before and not field_rule.permits(facts):
            return "forbidden"
    return None
