"""The catalog refuses every declaration that contradicts itself or another."""

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import pytest

from schema.catalog import Catalog, CatalogError, load_catalog
from schema.content import ContentType, Listing, Opening
from schema.fields import Author, Ref
from schema.forum import CONTENT_TYPES, Language, Notice, Post, Topic, User

pytestmark = pytest.mark.unit

FORUM = load_catalog("schema.forum")


def _type(name: str, fields: dict[str, Any] | None = None, **declared: Any) -> type[ContentType]:
    """A content type declared on the spot, as `class Name(ContentType)` would."""
    annotations = fields or {}
    namespace = {"table": name, "plural": f"{name}s", "__annotations__": annotations} | declared
    namespace["__module__"] = __name__
    return types.new_class(name.title(), (ContentType,), {}, lambda ns: ns.update(namespace))


def _catalog(*more: type[ContentType]) -> Catalog:
    return Catalog((User, Notice, *more))


TO_BOX, TO_ITEM = Annotated[UUID, Ref("box")], Annotated[UUID, Ref("item")]
WEAK_TO_ITEM = Annotated[UUID | None, Ref("item", weak=True)]
BOX = _type("box", {"label_id": Annotated[UUID, Author()]})

FAULTS: list[tuple[str, Callable[[], object], str]] = [
    (
        "no type for authors",
        lambda: Catalog([Notice]),
        "exactly one content type must have is_actor",
    ),
    (
        "two types for authors",
        lambda: _catalog(_type("robot", is_actor=True)),
        "exactly one content type must have is_actor",
    ),
    ("no notices", lambda: Catalog([User]), "exactly one content type must have is_notice"),
    ("a type twice", lambda: _catalog(User), "a content type is called 'user' twice"),
    (
        "a plural twice",
        lambda: _catalog(_type("person", plural="users")),
        "a plural is called 'users' twice",
    ),
    (
        "a list twice",
        lambda: _catalog(_type("box", lists={"users": Listing()})),
        "a list is called 'users' twice",
    ),
    (
        "a reference to nothing",
        lambda: _catalog(_type("item", {"box_id": TO_BOX}, stream="box_id")),
        r"item\.box_id refers to 'box', which is not declared",
    ),
    (
        "a list by what is no reference",
        lambda: _catalog(_type("box", lists={"boxes": Listing(by="label_id")})),
        r"box\.label_id is not a reference",
    ),
    (
        "counting in what is no reference",
        lambda: _catalog(_type("item", counted_in={"box_id": "items"})),
        r"item\.box_id is not a reference",
    ),
    (
        "a stream along what is no reference",
        lambda: _catalog(_type("item", stream="box_id")),
        r"item\.box_id is not a reference",
    ),
    (
        "a stream that ends too early",
        lambda: _catalog(
            BOX,
            _type("item", {"box_id": TO_BOX}, stream="box_id"),
            _type("part", {"item_id": TO_ITEM}, stream="item_id"),
        ),
        "the stream of part does not end at an aggregate root",
    ),
    (
        "a natural key of unknown fields",
        lambda: _catalog(_type("box", natural_key=("label",))),
        "box has no field 'label'",
    ),
    (
        "private to an unknown field",
        lambda: _catalog(_type("box", private_to="owner")),
        "box has no field 'owner'",
    ),
    (
        "private and visible to everyone",
        lambda: _catalog(
            _type(
                "box",
                {"label_id": Annotated[UUID, Author()]},
                private_to="label_id",
                visible_while_pending="everyone",
            )
        ),
        "box is private: it cannot be visible to everyone",
    ),
    (
        "a circle of references",
        lambda: _catalog(_type("box", {"item_id": TO_ITEM}), _type("item", {"box_id": TO_BOX})),
        "refer to each other in a circle at 'box'",
    ),
    (
        "a rule about an unknown field",
        lambda: _catalog(_type("box", may_change="row.owner = actor.id")),
        r"box has no field 'owner', named in rule as 'row\.owner'",
    ),
    (
        "a rule about an unknown new field",
        lambda: _catalog(_type("box", may_delete="new.owner = actor.id")),
        r"box has no field 'owner', named in rule as 'new\.owner'",
    ),
    (
        "a rule about an unknown parent",
        lambda: _catalog(_type("box", may_create="parent.shelf.open")),
        "no reference is called 'shelf'",
    ),
    (
        "a rule about a parent's unknown field",
        lambda: _catalog(
            BOX,
            _type("item", {"box_id": TO_BOX}, stream="box_id", may_create="parent.box.open"),
        ),
        "box has no field 'open'",
    ),
    (
        "a rule about something else",
        lambda: _catalog(_type("box", may_create="user.banned")),
        r"a rule knows actor, row, new and parent, not 'user\.banned'",
    ),
    (
        "a table that PostgreSQL would fold",
        lambda: _catalog(_type("Box", plural="boxes")),
        "'Box' is no lower-case name for a table",
    ),
    (
        "a column that PostgreSQL would fold",
        lambda: _catalog(_type("box", {"isOpen": bool})),
        r"box\.isOpen is no lower-case name for a column",
    ),
    (
        "a plural that is no path",
        lambda: _catalog(_type("box", plural="my boxes")),
        "box: 'my boxes' cannot be a plural",
    ),
    (
        "a plural that is a path already",
        lambda: _catalog(_type("box", plural="commands")),
        "box: 'commands' cannot be a plural",
    ),
    (
        "opening with a field of its own",
        lambda: _catalog(
            _type("box", {"size": int}, opens_with=Opening("item", "box_id", ("size",))),
            _type("item", {"box_id": TO_BOX, "size": int}, stream="box_id"),
        ),
        "box opens with item, so they cannot share the field 'size'",
    ),
    (
        "counting in a column that is there",
        lambda: _catalog(
            BOX,
            _type("item", {"box_id": TO_BOX}, stream="box_id", counted_in={"box_id": "label_id"}),
        ),
        r"item cannot be counted in box\.label_id",
    ),
    (
        "private to what is no user",
        lambda: _catalog(_type("box", {"size": int}, private_to="size")),
        r"box\.size must be a UUID: the id of the only reader",
    ),
    (
        "a notice that cannot hold what the writer says",
        lambda: Catalog([User, _type("letter", {"user_id": UUID}, is_notice=True)]),
        "letter is the notice, so it needs a field 'kind' of type text",
    ),
    (
        "measuring what is no measure",
        lambda: _catalog(_type("box", may_create="row.label < 3")),
        "box has no field 'label'",
    ),
    (
        "measuring a number against a time",
        lambda: _catalog(_type("box", may_delete="row.created_at < row.version")),
        "'row.created_at' and 'row.version' are not two numbers or two times",
    ),
    (
        "measuring ids",
        lambda: _catalog(_type("box", may_delete="row.id < row.id")),
        "'row.id' and 'row.id' are not two numbers or two times",
    ),
    (
        "measuring the actor, of whom a token may say anything",
        lambda: _catalog(_type("box", may_delete="actor.level > 3")),
        "'actor.level' and '3' are not two numbers or two times",
    ),
    (
        "a rule about the time of the last change, which the two sides know differently",
        lambda: _catalog(_type("box", may_change="new.updated_at < row.created_at")),
        "box has no field 'updated_at'",
    ),
    (
        "a rule that cannot be read",
        lambda: _catalog(_type("box", may_create="actor.id =")),
        "Box: expected a name at character 10",
    ),
    (
        "a field that has no column",
        lambda: _catalog(_type("box", {"size": float})),
        "Box: field 'size' has type",
    ),
    (
        "text without limits",
        lambda: _catalog(_type("box", {"label": str})),
        "Box: field 'label' is text without limits",
    ),
    (
        "opening with an unknown type",
        lambda: _catalog(_type("box", opens_with=Opening("item", "box_id", ()))),
        "box opens with 'item', which is not declared",
    ),
    (
        "opening with what does not refer to it",
        lambda: _catalog(_type("box", opens_with=Opening("notice", "user_id", ()))),
        r"notice\.user_id is not a reference",
    ),
    (
        "opening with what refers to another",
        lambda: _catalog(
            BOX,
            _type("item", {"box_id": TO_BOX}, stream="box_id"),
            _type("crate", opens_with=Opening("item", "box_id", ())),
        ),
        r"item\.box_id does not refer to crate",
    ),
    (
        "opening with unknown fields",
        lambda: _catalog(
            _type("box", opens_with=Opening("item", "box_id", ("text",))),
            _type("item", {"box_id": TO_BOX}, stream="box_id"),
        ),
        "item has no field 'text'",
    ),
]


@pytest.mark.parametrize(
    ("declare", "problem"), [pytest.param(d, p, id=name) for name, d, p in FAULTS]
)
def test_a_contradiction_is_refused(declare: Callable[[], object], problem: str) -> None:
    with pytest.raises(CatalogError, match=problem):
        declare()


def test_a_type_without_a_table_is_refused_by_name() -> None:
    nameless = types.new_class("Nameless", (ContentType,), {})
    with pytest.raises(CatalogError, match=r"Nameless: .*table"):
        _catalog(nameless)


def test_weak_references_may_form_a_circle() -> None:
    declared = _catalog(_type("item", {"next_id": WEAK_TO_ITEM, "box_id": TO_BOX}), BOX)
    assert [kind.name for kind in declared] == ["user", "notice", "box", "item"]


def test_parents_come_before_their_children_however_they_are_declared() -> None:
    declared = Catalog(reversed(CONTENT_TYPES))
    names = [kind.name for kind in declared]
    assert names.index("topic") < names.index("post") < names.index("reaction")


def test_a_site_may_do_without_preferences() -> None:
    assert _catalog().preference is None


def test_a_preference_is_one_row_for_each_user_and_his_own() -> None:
    fields = {"user_id": Annotated[UUID, Author()], "mail": bool, "locale": Language}
    own = {"private_to": "user_id", "natural_key": ("user_id",), "is_preference": True}
    declared = _catalog(_type("wish", fields, **own))
    assert declared.preference is declared["wish"]
    for name in fields:
        less = {n: t for n, t in fields.items() if n != name} | {"other": UUID}
        keyed = own | (
            {"natural_key": ("other",), "private_to": "other"} if name == "user_id" else {}
        )
        with pytest.raises(CatalogError, match=f"wish is the preference, so it needs .*'{name}'"):
            _catalog(_type("wish", less, **keyed))
    for mark, value in {"private_to": None, "natural_key": ("user_id", "mail")}.items():
        with pytest.raises(CatalogError, match="one row for each user"):
            _catalog(_type("wish", fields, **(own | {mark: value})))
    with pytest.raises(CatalogError, match="one row for each user"):
        _catalog(_type("wish", fields | {"user_id": UUID}, **own))
    with pytest.raises(CatalogError, match=r"wish and wont have it"):
        _catalog(_type("wish", fields, **own), _type("wont", fields, **own))


def test_the_forum() -> None:
    post, reaction, topic = FORUM["post"], FORUM["reaction"], FORUM["topic"]
    assert FORUM.actor.name == "user"
    assert FORUM.notice.name == "notice"
    assert FORUM.preference is FORUM["preference"]
    assert FORUM.stream_path(topic) == ()
    assert FORUM.stream_path(reaction) == ("post_id", "topic_id")
    assert FORUM.root_of(reaction) is FORUM.root_of(post) is FORUM.root_of(topic) is topic
    assert FORUM.children(topic) == [(post, "topic_id")]
    assert FORUM.children(post) == [(reaction, "post_id")], "a weak reference does not cascade"
    assert topic.counters == ("post_count",)
    assert post.counters == ("reaction_count",)
    assert FORUM.plurals["posts"] is post
    assert [lst.name for lst in FORUM.lists_of(post)] == ["topic_posts"]
    assert FORUM.lists["topic_posts"].parent is topic
    assert FORUM.lists["topics"].parent is None
    assert "post" in FORUM
    assert "nothing" not in FORUM


def test_a_catalog_is_loaded_from_the_module_that_a_setting_names() -> None:
    assert FORUM.migrations == "schema.sql.forum"
    assert {kind.model for kind in FORUM} == set(CONTENT_TYPES)
    with pytest.raises(CatalogError, match=r"AFTERWRITE_CONTENT=no\.such\.module"):
        load_catalog("no.such.module")
    with pytest.raises(CatalogError, match="does not define CONTENT_TYPES and MIGRATIONS"):
        load_catalog("schema.topics")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "import nothing_of_the_kind\n",
            r"cannot be imported: ModuleNotFoundError: No module named",
        ),
        ("from schema.fields import Number\n", r"ImportError: cannot import name 'Number'"),
        ("CONTENT_TYPES = (\n", r"SyntaxError: '\(' was never closed \(a_site\.py, line 1\)"),
        ("\nCONTENT_TYPES = (Book,)\n", r"NameError: name 'Book' .*a_site\.py, line 2\)"),
        ("import json\njson.nothing\n", r"AttributeError: module 'json' .*a_site\.py, line 2\)"),
        ("CONTENT_TYPES = ()\n", r"a_site does not define MIGRATIONS"),
        ("CONTENT_TYPES = ()\nMIGRATIONS = 'x'\n", r"a_site: exactly one content type must"),
    ],
)
def test_a_module_that_cannot_be_used_is_refused_with_the_line(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_site.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "a_site", raising=False)
    with pytest.raises(CatalogError, match=message):
        load_catalog("a_site")


def test_a_module_with_a_faulty_declaration_is_refused_for_that_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = types.ModuleType("a_site_of_tests")
    module.__dict__.update(CONTENT_TYPES=(User, Notice, Topic, Post, Post), MIGRATIONS="x")
    monkeypatch.setitem(sys.modules, "a_site_of_tests", module)
    with pytest.raises(CatalogError, match="'post' twice"):
        load_catalog("a_site_of_tests")
