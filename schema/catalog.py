"""The catalog: all content types of a site, checked against one another when it is loaded."""

import importlib
import re
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Final

from schema.content import ContentType, Kind, Listing
from schema.rules import RuleSyntaxError

_IDENTIFIER: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_PLURAL: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_TAKEN: Final = frozenset({"commands", "events"})
_OF_A_NOTICE: Final = {
    "user_id": "uuid",
    "kind": "text",
    "command_id": "uuid",
    "code": "text",
    "detail": "text",
    "returned": "json",
}
_OF_A_PREFERENCE: Final = {"user_id": "uuid", "mail": "bool", "locale": "text"}


class CatalogError(Exception):
    """A declaration contradicts itself or another; nothing may start with it."""


@dataclass(frozen=True)
class ListOf:
    """One list of the site: which rows, selected by which reference."""

    name: str
    kind: Kind
    listing: Listing
    parent: Kind | None


class Catalog:
    """The content types by name, and the lists, in the order of dependence: parents first."""

    def __init__(self, models: Iterable[type[ContentType]], migrations: str = "") -> None:
        self.migrations = migrations
        declared = [_kind(model) for model in models]
        _once("a content type", [kind.name for kind in declared])
        _once("a plural", [kind.plural for kind in declared])
        _once("a list", [name for kind in declared for name in kind.model.lists])
        kinds = {kind.name: kind for kind in declared}
        self._kinds = {name: kinds[name] for name in _parents_first(kinds)}
        for kind in self:
            self._check(kind)
        for kind in self:
            for ref, column in kind.model.counted_in.items():
                parent = self.parent(kind, ref)
                if column in parent.columns or not _IDENTIFIER.fullmatch(column):
                    raise CatalogError(
                        f"{kind.name} cannot be counted in {parent.name}.{column}: a counter needs a "
                        "lower-case name of its own"
                    )
                parent.counters = (*parent.counters, column)
                kind.counted = (*kind.counted, (parent, ref, column))
        for kind in self:
            kind.children = [
                (child, f.name)
                for child in self
                for f in child.refs
                if f.ref is not None and f.ref.type == kind.name and not f.ref.weak
            ]
        self.lists = {lst.name: lst for lst in self._lists()}
        self.plurals = {kind.plural: kind for kind in self}
        self.shares = any(k.model.visible_while_pending == "everyone" for k in self)
        """Whether others may see anything while it is pending."""
        self.actor = self._only("is_actor")
        self.notice = self._only("is_notice")
        self._check_notice()
        self.preference = self._preference()
        """How users want to be told; None if this site does not ask them."""

    def __iter__(self) -> Iterator[Kind]:
        return iter(self._kinds.values())

    def __getitem__(self, name: str) -> Kind:
        return self._kinds[name]

    def __contains__(self, name: object) -> bool:
        return name in self._kinds

    def get(self, name: str) -> Kind | None:
        return self._kinds.get(name)

    def _only(self, mark: str) -> Kind:
        marked = [kind for kind in self if getattr(kind.model, mark)]
        if len(marked) != 1:
            raise CatalogError(
                f"exactly one content type must have {mark} = True, "
                f"{' and '.join(k.name for k in marked) or 'none'} has it; "
                "schema.forum has User and Notice to begin with"
            )
        return marked[0]

    def parent(self, kind: Kind, ref: str) -> Kind:
        """The kind that a reference field points to."""
        field = kind.fields.get(ref)
        if field is None or field.ref is None:
            raise CatalogError(f"{kind.name}.{ref} is not a reference")
        if field.ref.type not in self._kinds:
            raise CatalogError(
                f"{kind.name}.{ref} refers to {field.ref.type!r}, which is not declared; "
                f"CONTENT_TYPES has {', '.join(self._kinds)}"
            )
        return self._kinds[field.ref.type]

    def children(self, parent: Kind) -> list[tuple[Kind, str]]:
        """(kind, reference) of the rows that vanish with a row of this kind."""
        return parent.children

    def lists_of(self, kind: Kind) -> list[ListOf]:
        return [lst for lst in self.lists.values() if lst.kind is kind]

    def stream_path(self, kind: Kind) -> tuple[str, ...]:
        """The references that lead from a row to its stream; empty for an aggregate root."""
        return kind.stream_path

    def root_of(self, kind: Kind) -> Kind:
        """The kind whose ids are the streams of this kind."""
        for step in self.stream_path(kind):
            kind = self.parent(kind, step)
        return kind

    def _lists(self) -> Iterator[ListOf]:
        for kind in self:
            for name, listing in kind.model.lists.items():
                parent = self.parent(kind, listing.by) if listing.by else None
                yield ListOf(name, kind, listing, parent)

    def _check_notice(self) -> None:
        """The writer fills these in; without them a rejection could not be told."""
        for name, type_ in _OF_A_NOTICE.items():
            field = self.notice.fields.get(name)
            if field is None or field.kind != type_:
                raise CatalogError(
                    f"{self.notice.name} is the notice, so it needs a field {name!r} of type {type_}, "
                    "annotated with Internal(); schema.forum.Notice has them all"
                )

    def _preference(self) -> Kind | None:
        """What it must be so that a user has one, of his own, that nobody else can read."""
        marked = [kind for kind in self if kind.model.is_preference]
        if not marked:
            return None
        if len(marked) > 1:
            names = " and ".join(kind.name for kind in marked)
            raise CatalogError(f"one content type may have is_preference = True, {names} have it")
        kind = marked[0]
        for name, type_ in _OF_A_PREFERENCE.items():
            field = kind.fields.get(name)
            if field is None or field.kind != type_:
                raise CatalogError(
                    f"{kind.name} is the preference, so it needs a field {name!r} of type {type_}; "
                    "schema.forum.Preference has them all"
                )
        of_user = kind.author_field, kind.model.private_to, kind.model.natural_key
        if of_user != ("user_id", "user_id", ("user_id",)):
            raise CatalogError(
                f"{kind.name} is the preference: one row for each user, so its user_id must be "
                'annotated with Author(), and private_to = "user_id", natural_key = ("user_id",)'
            )
        return kind

    def _check_names(self, kind: Kind) -> None:
        for name in kind.columns:
            if not _IDENTIFIER.fullmatch(name):
                raise CatalogError(f"{kind.name}.{name} is no lower-case name for a column")
        if not _IDENTIFIER.fullmatch(kind.name):
            raise CatalogError(f"{kind.name!r} is no lower-case name for a table")
        if not _PLURAL.fullmatch(kind.plural) or kind.plural in _TAKEN:
            raise CatalogError(
                f"{kind.name}: {kind.plural!r} cannot be a plural; it is the path under /v1/"
            )

    def _check(self, kind: Kind) -> None:
        self._check_names(kind)
        at: Kind = kind
        for step in self.stream_path(kind):
            at = self.parent(at, step)
        if self.stream_path(at):
            raise CatalogError(f"the stream of {kind.name} does not end at an aggregate root")
        for name in (*kind.model.natural_key, *filter(None, [kind.model.private_to])):
            if name not in kind.fields:
                raise CatalogError(f"{kind.name} has no field {name!r}")
        if kind.model.private_to and kind.model.visible_while_pending == "everyone":
            raise CatalogError(f"{kind.name} is private: it cannot be visible to everyone")
        private_to = kind.model.private_to
        if private_to is not None and kind.fields[private_to].kind != "uuid":
            raise CatalogError(
                f"{kind.name}.{private_to} must be a UUID: the id of the only reader"
            )
        self._check_opening(kind)
        self._check_rules(kind)

    def _check_opening(self, kind: Kind) -> None:
        opening = kind.model.opens_with
        if opening is None:
            return
        if opening.type not in self:
            raise CatalogError(f"{kind.name} opens with {opening.type!r}, which is not declared")
        opened = self[opening.type]
        if self.parent(opened, opening.by) is not kind:
            raise CatalogError(f"{opened.name}.{opening.by} does not refer to {kind.name}")
        for name in opening.fields:
            if name not in opened.fields:
                raise CatalogError(f"{opened.name} has no field {name!r}")
            if name in kind.fields:
                raise CatalogError(
                    f"{kind.name} opens with {opened.name}, so they cannot share the field {name!r}: "
                    "a request could not tell them apart"
                )

    def _check_rules(self, kind: Kind) -> None:
        for rule in filter(None, [*kind.rules.values(), *kind.field_rules.values()]):
            for name in rule.names:
                self._type_of(kind, name)
            for pair in rule.measured:
                self._check_measured(kind, pair)

    def _check_measured(self, kind: Kind, pair: tuple[str, str]) -> None:
        types = {
            "int" if side.lstrip("-").isdigit() else self._type_of(kind, side) for side in pair
        }
        if types not in ({"int"}, {"time"}):
            raise CatalogError(
                f"{kind.name}: {pair[0]!r} and {pair[1]!r} are not two numbers or two times; "
                "nothing else can be less or greater"
            )

    def _type_of(self, kind: Kind, name: str) -> str:
        """The field type of a name in a rule. Raises `CatalogError` if it names nothing."""
        root, _, rest = name.partition(".")
        if root == "actor":
            return "actor"
        if root in ("row", "new"):
            return self._column_type(kind, rest, name)
        if root != "parent":
            raise CatalogError(
                f"{kind.name}: a rule knows actor, row, new and parent, not {name!r}"
            )
        ref, _, column = rest.partition(".")
        fields = {f.parent_name: f for f in kind.refs}
        if ref not in fields:
            raise CatalogError(
                f"{kind.name}: no reference is called {ref!r} in {name!r}; "
                f"there are {', '.join(map(repr, fields)) or 'none'}"
            )
        return self._column_type(self.parent(kind, fields[ref].name), column, name)

    @staticmethod
    def _column_type(kind: Kind, column: str, name: str) -> str:
        # `updated_at` is not among them: when a rule is asked, the two sides have different ones.
        types = {"id": "uuid", "version": "int", "created_at": "time"}
        types |= {field.name: field.kind for field in kind.fields.values()}
        if column not in types:
            raise CatalogError(
                f"{kind.name} has no field {column!r}, named in rule as {name!r}; "
                f"a rule can read {', '.join(types)}"
            )
        return types[column]


def load_catalog(module: str) -> Catalog:
    """The catalog of the module that `AFTERWRITE_CONTENT` names: its `CONTENT_TYPES`.

    `MIGRATIONS` there names the package with the migrations of their tables.
    """
    declared = _import(module)
    missing = [n for n in ("CONTENT_TYPES", "MIGRATIONS") if not hasattr(declared, n)]
    if missing:
        raise CatalogError(f"{module} does not define {' and '.join(missing)}")
    try:
        return Catalog(declared.CONTENT_TYPES, declared.MIGRATIONS)
    except CatalogError as error:
        raise CatalogError(f"{module}: {error}") from error


def _import(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            raise CatalogError(
                f"AFTERWRITE_CONTENT={module}: there is no module {error.name!r}. Call afterwrite in "
                "the folder that holds it, install it, or name its folder in PYTHONPATH"
            ) from error
        raise CatalogError(f"{module} cannot be imported: {_where(error)}") from error
    except Exception as error:  # whatever a site's module raises is a fault of its declarations
        raise CatalogError(f"{module} cannot be imported: {_where(error)}") from error


def _where(error: Exception) -> str:
    """What went wrong while importing, and in which line of the module at fault."""
    text = f"{type(error).__name__}: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, SyntaxError) or not frames or "importlib" in frames[-1].filename:
        return text  # a syntax error says its line itself
    return f"{text} ({frames[-1].filename}, line {frames[-1].lineno})"


def _kind(model: type[ContentType]) -> Kind:
    try:
        return Kind(model)
    except (AttributeError, TypeError, RuleSyntaxError) as error:
        raise CatalogError(f"{model.__name__}: {error}") from error


def _once(what: str, names: Iterable[str]) -> None:
    for name, times in Counter(names).items():
        if times > 1:
            raise CatalogError(f"{what} is called {name!r} twice")


def _parents_first(kinds: dict[str, Kind]) -> list[str]:
    ordered: list[str] = []
    visiting: set[str] = set()

    def visit(name: str) -> None:
        if name in ordered or name not in kinds:
            return
        if name in visiting:
            raise CatalogError(f"content types refer to each other in a circle at {name!r}")
        visiting.add(name)
        for field in kinds[name].refs:
            if field.ref is not None and field.ref.type != name and not field.ref.weak:
                visit(field.ref.type)
        ordered.append(name)

    for name in kinds:
        visit(name)
    return ordered
