"""What the HTTP references share: the model of a post, the token check, and how they are served."""

import os
import uuid
from datetime import datetime
from typing import Annotated

import jwt
import uvicorn
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict

from schema.forum import Body

bearer = HTTPBearer()


class NewPost(BaseModel):
    """What a client sends: the text is checked as Afterwrite checks it."""

    model_config = ConfigDict(extra="forbid")

    body: Body
    reply_to: uuid.UUID | None = None


class Made(BaseModel):
    """The answer to a post."""

    id: uuid.UUID
    state: str


class Post(BaseModel):
    """A post as a page shows it."""

    id: uuid.UUID
    version: int
    state: str = "saved"
    created_at: datetime
    updated_at: datetime
    topic_id: uuid.UUID
    author_id: uuid.UUID
    reply_to: uuid.UUID | None
    body: str
    reaction_count: int


class Page(BaseModel):
    """A page of posts; `next` is the id to go on behind."""

    items: list[Post]
    next: uuid.UUID | None


async def author(given: Annotated[HTTPAuthorizationCredentials, Depends(bearer)]) -> uuid.UUID:
    """The user that the token was made for."""
    try:
        claims = jwt.decode(
            given.credentials,
            os.environ["REFERENCE_SECRET"],
            algorithms=["HS256"],
            options={"require": ["exp", "sub"]},
        )
        return uuid.UUID(claims["sub"])
    except (jwt.PyJWTError, ValueError) as error:
        raise HTTPException(401, "The token is not valid.") from error


Author = Annotated[uuid.UUID, Depends(author)]


def serve(app: FastAPI) -> None:
    """By uvicorn on the event loop and with the HTTP parser that Afterwrite's API runs on."""
    uvicorn.run(
        app,
        port=int(os.environ["REFERENCE_PORT"]),
        loop="uvloop",
        http="httptools" if os.environ["REFERENCE_PARSER"] == "httptools" else "h11",
        access_log=False,
        log_level="warning",
    )
