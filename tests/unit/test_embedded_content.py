"""The content types of a home: found beside it, checked before anything starts, not mixed up."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.embedded import content
from deploy.embedded.children import OURS
from deploy.embedded.home import Home
from deploy.errors import Trouble, UsageTrouble
from schema.sql import MalformedMigration, migrations

pytestmark = pytest.mark.unit

CLUB = """
from typing import Annotated
from uuid import UUID
from schema.content import ContentType, Listing
from schema.fields import Author
from schema.forum import Notice, Title, User

class Book(ContentType):
    table = "book"
    plural = "books"
    lists = {"books": Listing()}
    author_id: Annotated[UUID, Author()]
    title: Title
    may_create = "not actor.banned"

CONTENT_TYPES = (User, Book, Notice)
MIGRATIONS = "club_sql"
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.path.mkdir()
    return made


def test_a_home_goes_on_with_the_set_that_made_it(home: Home) -> None:
    for environ in ({}, {"AFTERWRITE_CONTENT": "schema.forum"}, {"AFTERWRITE_CONTENT": ""}):
        content.check(home, environ)
        content.record(home, environ)


def test_a_home_is_not_taken_by_a_set_that_lacks_its_types(home: Home) -> None:
    content.record(home, {})
    with pytest.raises(Trouble, match="does not declare topic, post, reaction") as refused:
        content.check(home, {"AFTERWRITE_CONTENT": "schema.coursework"})
    assert "AFTERWRITE_CONTENT=schema.forum" in refused.value.todo
    assert "schema.forum" in str(home.read("version.json")), "nothing was changed"


def test_a_set_may_grow_and_move(home: Home) -> None:
    home.write("version.json", {"layout": 1, "content": {"module": "old", "types": ["user"]}})
    content.check(home, {})
    content.record(home, {})
    assert home.read("version.json")["layout"] == 1
    assert "topic" in home.read("version.json")["content"]["types"]


def test_a_home_of_before_says_nothing_of_its_types(home: Home) -> None:
    home.write("version.json", {"layout": 1})
    content.check(home, {"AFTERWRITE_CONTENT": "schema.coursework"})


@pytest.mark.parametrize("module", ["no.such.module", "schema.topics"])
def test_what_cannot_be_loaded_is_said_before_anything_starts(home: Home, module: str) -> None:
    with pytest.raises(UsageTrouble, match=r"The content types cannot be used\."):
        content.check(home, {"AFTERWRITE_CONTENT": module})


def test_a_module_without_its_migrations(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_club.py").write_text(CLUB, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "a_club", raising=False)
    with pytest.raises(UsageTrouble, match="there is no package 'club_sql' with migrations"):
        content.check(home, {"AFTERWRITE_CONTENT": "a_club"})


def test_migrations_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "some_sql"
    folder.mkdir()
    (folder / "tables.sql").touch()
    with pytest.raises(MalformedMigration, match="holds no file with a name like 0001_tables"):
        migrations("some_sql")
    (folder / "0001_tables.sql").write_text("create table x ();", encoding="utf-8")
    with pytest.raises(MalformedMigration, match=r"0001_tables\.sql has no line '-- migrate:up'"):
        migrations("some_sql")
    with pytest.raises(MalformedMigration, match=r"there is no package .some_sql\.deeper"):
        migrations("some_sql.deeper")


def test_files_of_a_site_do_not_take_the_place_of_ours(tmp_path: Path) -> None:
    """Its module is found in the working directory, and its `schema` is not mistaken for ours."""
    (tmp_path / "club.py").write_text(CLUB, encoding="utf-8")
    for name in ("schema", "writer", "json"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise RuntimeError({name!r})")
    clean = {k: v for k, v in os.environ.items() if not k.startswith("AFTERWRITE_")}
    described = subprocess.run(
        [*OURS, "openapi"],
        env={**clean, "AFTERWRITE_CONTENT": "club"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert described.returncode == 0, described.stderr
    assert '"/v1/books"' in described.stdout
    assert '"/v1/topics"' not in described.stdout
