"""Content types that have nothing to do with a forum: the front end must not notice."""

from collections.abc import Mapping
from typing import Annotated, ClassVar
from uuid import UUID

from pydantic import AfterValidator

from schema.content import ContentType, Listing, Opening
from schema.fields import Author, ByRule, Fixed, Internal, Ref, Text

_LINE = Text(max_bytes=400, one_line=True)
Line = Annotated[str, AfterValidator(_LINE.check), _LINE]


class Reader(ContentType):
    """Who writes."""

    table = "reader"
    plural = "readers"
    is_actor = True

    name: Line
    barred: Annotated[bool, ByRule("actor.librarian")] = False


class Shelf(ContentType):
    """An aggregate root without a list of its own."""

    table = "shelf"
    plural = "shelves"
    opens_with = Opening("book", by="shelf_id", fields=("isbn",))

    place: Line

    may_create = "actor.librarian"


class Book(ContentType):
    """Numbers, JSON, a private owner."""

    table = "book"
    plural = "books"
    stream = "shelf_id"
    lists: ClassVar[Mapping[str, Listing]] = {
        "shelf_books": Listing(by="shelf_id", newest_first=True)
    }
    counted_in: ClassVar[Mapping[str, str]] = {"shelf_id": "book_count"}

    shelf_id: Annotated[UUID, Ref("shelf")]
    isbn: Annotated[Line, Fixed()]
    pages: int | None = None
    tags: dict[str, object] | None = None

    may_create = "actor.librarian"
    may_change = "actor.librarian and new.isbn <> 'lost'"


class Loan(ContentType):
    """Named by book and borrower and day; private to the borrower."""

    table = "loan"
    plural = "loans"
    stream = "book_id.shelf_id"
    natural_key = ("book_id", "borrower_id", "day")
    private_to = "borrower_id"

    book_id: Annotated[UUID, Ref("book")]
    borrower_id: Annotated[UUID, Author()]
    day: Annotated[Line, Fixed()]

    may_create = "not actor.barred"
    may_delete = "row.borrower_id = actor.id"


class Letter(ContentType):
    """Messages to readers."""

    table = "letter"
    plural = "letters"
    is_notice = True
    private_to = "user_id"

    user_id: Annotated[UUID, Internal()]
    kind: Annotated[Line, Internal()]
    command_id: Annotated[UUID, Internal()]
    code: Annotated[Line, Internal()]
    detail: Annotated[Line, Internal()]
    returned: Annotated[dict[str, object] | None, Internal()] = None


CONTENT_TYPES = (Reader, Shelf, Book, Loan, Letter)
MIGRATIONS = "tests.content_library"
