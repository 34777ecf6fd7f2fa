"""The forum, with everything but reactions and notices visible to everyone while it is pending."""

from typing import ClassVar

from schema import forum
from schema.content import Visibility


class Topic(forum.Topic):
    """Visible to everyone."""

    visible_while_pending: ClassVar[Visibility] = "everyone"


class Post(forum.Post):
    """Visible to everyone."""

    visible_while_pending: ClassVar[Visibility] = "everyone"


CONTENT_TYPES = (forum.User, Topic, Post, forum.Reaction, forum.Notice)
MIGRATIONS = forum.MIGRATIONS
