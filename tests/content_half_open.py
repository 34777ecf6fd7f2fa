"""The forum, with posts that everyone may see while they are pending, and topics that only authors may."""

from typing import ClassVar

from schema import forum
from schema.content import Visibility


class Post(forum.Post):
    """Visible to everyone, if its topic is."""

    visible_while_pending: ClassVar[Visibility] = "everyone"


CONTENT_TYPES = (forum.User, forum.Topic, Post, forum.Reaction, forum.Notice)
MIGRATIONS = forum.MIGRATIONS
