"""The content types of a forum, the default: who writes, what, and how he is told of it."""

from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator
from pydantic import Field as PydanticField

from schema.contact import LANGUAGE, MAX_LANGUAGE
from schema.content import ContentType, Listing, Opening
from schema.fields import Author, ByRule, Fixed, Internal, Ref, Text

_TITLE = Text(max_bytes=1200, max_chars=300, one_line=True)
_BODY = Text(max_bytes=65_536)
_NAME = Text(max_bytes=400, max_chars=100, one_line=True)
_EMOJI = Text(max_bytes=64, max_chars=16, one_line=True)
_WORD = Text(max_bytes=100, one_line=True)

Title = Annotated[
    str,
    AfterValidator(_TITLE.check),
    _TITLE,
    PydanticField(examples=["Why does my espresso taste sour?"]),
]
Body = Annotated[
    str,
    AfterValidator(_BODY.check),
    _BODY,
    PydanticField(examples=["Grind finer, and let it run longer."]),
]
Name = Annotated[str, AfterValidator(_NAME.check), _NAME, PydanticField(examples=["Ada"])]
Emoji = Annotated[str, AfterValidator(_EMOJI.check), _EMOJI, PydanticField(examples=["☕"])]
Language = Annotated[
    str | None,
    Text(max_bytes=MAX_LANGUAGE, one_line=True),
    PydanticField(
        pattern=LANGUAGE,
        max_length=MAX_LANGUAGE,
        description="A language tag (BCP 47). Null: as the token says.",
        examples=["en"],
    ),
]
Word = Annotated[str, AfterValidator(_WORD.check), _WORD]


class User(ContentType):
    """Who writes. The row is made by the author's first command, from the token."""

    table = "user"
    plural = "users"
    is_actor = True
    lists = {"users": Listing()}

    name: Name
    banned: Annotated[bool, ByRule("actor.moderator or actor.admin")] = False
    moderator: Annotated[bool, ByRule("actor.admin")] = False

    may_change = "row.id = actor.id and not actor.banned or actor.moderator or actor.admin"


class Topic(ContentType):
    """A discussion: a title, and posts of which the first is created with it."""

    table = "topic"
    plural = "topics"
    stream = "id"
    lists = {"topics": Listing(newest_first=True)}
    opens_with = Opening("post", by="topic_id", fields=("body",))

    author_id: Annotated[UUID, Author()]
    title: Title
    locked: Annotated[bool, ByRule("actor.moderator or actor.admin")] = False

    may_create = "not actor.banned"
    may_change = "(row.author_id = actor.id and not actor.banned) or actor.moderator or actor.admin"
    may_delete = "(row.author_id = actor.id and not actor.banned) or actor.moderator or actor.admin"


class Post(ContentType):
    """A contribution to a topic."""

    table = "post"
    plural = "posts"
    stream = "topic_id"
    lists = {"topic_posts": Listing(by="topic_id")}
    counted_in = {"topic_id": "post_count"}

    topic_id: Annotated[UUID, Ref("topic")]
    author_id: Annotated[UUID, Author()]
    reply_to: Annotated[UUID | None, Ref("post", weak=True)] = None
    body: Body

    may_create = (
        "not actor.banned and (not parent.topic.locked or actor.moderator or actor.admin) "
        "and (row.reply_to is null or parent.reply_to.topic_id = row.topic_id)"
    )
    may_change = "(row.author_id = actor.id and not actor.banned) or actor.moderator or actor.admin"
    may_delete = "(row.author_id = actor.id and not actor.banned) or actor.moderator or actor.admin"


class Reaction(ContentType):
    """One author's emoji under one post. Putting it twice is one reaction."""

    table = "reaction"
    plural = "reactions"
    stream = "post_id.topic_id"
    lists = {"post_reactions": Listing(by="post_id")}
    counted_in = {"post_id": "reaction_count"}
    natural_key = ("post_id", "author_id", "emoji")

    post_id: Annotated[UUID, Ref("post")]
    author_id: Annotated[UUID, Author()]
    emoji: Annotated[Emoji, Fixed()]

    may_create = "not actor.banned"
    may_delete = "row.author_id = actor.id or actor.moderator or actor.admin"


class Notice(ContentType):
    """A message to the author of a command, with the text he sent when it could not be saved."""

    table = "notice"
    plural = "notices"
    lists = {"notices": Listing(newest_first=True)}
    private_to = "user_id"
    is_notice = True

    user_id: Annotated[UUID, Internal()]
    kind: Annotated[Word, Internal()]
    command_id: Annotated[UUID, Internal()]
    code: Annotated[Word, Internal()]
    detail: Annotated[Body, Internal()]
    returned: Annotated[dict[str, object] | None, Internal()] = None
    read: bool = False

    may_change = "row.user_id = actor.id"


class Preference(ContentType):
    """How a user wants to be told what became of his changes: by mail or not, in which language."""

    table = "preference"
    plural = "preferences"
    lists = {"preferences": Listing()}
    natural_key = ("user_id",)
    private_to = "user_id"
    is_preference = True

    user_id: Annotated[UUID, Author()]
    mail: bool = True
    locale: Language = None

    may_create = "row.user_id = actor.id"
    may_change = "row.user_id = actor.id"


CONTENT_TYPES = (User, Topic, Post, Reaction, Notice, Preference)
MIGRATIONS = "schema.sql.forum"
