"""FastAPI that checks the token and the post, stores nothing, and answers 202: what HTTP costs."""

import uuid

from fastapi import FastAPI

from schema.identifiers import new_row_id
from tests.bench.references.http_posts import Author, Made, NewPost, serve

app = FastAPI()


@app.post("/v1/topics/{topic_id}/posts", status_code=202)
async def create_post(topic_id: uuid.UUID, post: NewPost, author: Author) -> Made:
    return Made(id=new_row_id(), state="pending")


if __name__ == "__main__":
    serve(app)
