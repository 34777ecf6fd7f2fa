"""Everything that can be read, asked for by somebody who must not find what is another's.

Every read route has its addresses here. A route that is not known here fails the tests, so that a new
one cannot be forgotten.
"""

import asyncio
import json
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import httpx2

from schema.identifiers import new_row_id
from tests.frontend import front_end
from tests.installation import Installation

ROW_ROUTES: Final[Mapping[str, str]] = {
    "/v1/topics/{id}": "topic",
    "/v1/topics/{id}/posts": "topic",
    "/v1/posts/{id}": "post",
    "/v1/posts/{id}/reactions": "post",
    "/v1/reactions/{id}": "reaction",
    "/v1/users/{id}": "user",
    "/v1/notices/{id}": "notice",
    "/v1/preferences/{id}": "preference",
    "/v1/commands/{id}": "command",
}
"""Routes of one row, and the type whose ids they take."""
LISTS: Final = ("/v1/topics", "/v1/users", "/v1/notices", "/v1/preferences", "/v1/commands")
STEADY: Final = ("/openapi.json", "/asyncapi.json")
MOVING: Final = ("/livez", "/readyz", "/metrics")
"""What differs from one request to the next by itself: only searched, not compared."""
STREAMS: Final = ("/v1/events",)
PAGES: Final[Mapping[str, str]] = {
    "/topics/{id}": "topic",
    "/topics/{id}/edit": "topic",
    "/topics/{id}/delete": "topic",
    "/posts/{id}": "post",
    "/posts/{id}/edit": "post",
    "/posts/{id}/delete": "post",
    "/notices/{id}/resend": "notice",
}
"""Pages for people, with the type whose ids they take."""
OTHER_PAGES: Final = ("/", "/topics/new", "/submissions", "/notices", "/preferences", "/sign-in")
STREAM_PAGES: Final = ("/live",)
FILES: Final = ("/static/{name}",)
_TYPES: Final = (*dict.fromkeys(ROW_ROUTES.values()),)
_VARYING_HEADERS: Final = ("date", "server", "traceparent")
TRACE: Final = re.compile(r'"trace_id":"[0-9a-f]{32}"')
"""What a problem says of its request, different each time."""

Ids = dict[str, list[str]]
"""Ids of rows, and of commands, by type."""


def read_routes(description: Mapping[str, Mapping[str, Mapping[str, object]]]) -> set[str]:
    """The paths of an API description that can be read from."""
    return {path for path, methods in description["paths"].items() if "get" in methods}


async def page_routes() -> set[str]:
    """The pages of the forum that can be read, from the application itself."""
    async with front_end(site="forum") as running:
        routers = [getattr(route, "original_router", None) for route in running.app.routes]
        return {
            route.path
            for router in routers
            for route in (router.routes if router is not None else ())
            if "GET" in route.methods and not route.include_in_schema
        }


@dataclass(frozen=True)
class Told:
    """One answer, without what differs by itself."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def all(self) -> str:
        """Everything in it, to be searched."""
        return f"{self.status} {self.headers} {self.body.decode('utf-8', 'replace')}"


@dataclass
class Stranger:
    """Somebody who looks at everything there is. `user` None: he does not say who he is."""

    installation: Installation
    user: str | None
    roles: tuple[str, ...] = ()
    streamed: bytearray = field(default_factory=bytearray)
    _streams: list[asyncio.Task[None]] = field(default_factory=list)

    def client(self) -> httpx2.AsyncClient:
        if self.user is not None:
            return self.installation.client(self.user, *self.roles)
        return httpx2.AsyncClient(base_url=self.installation.processes["api"].url, timeout=15)

    @property
    def name(self) -> str:
        return self.user or "nobody"

    async def everything(self, ids: Ids) -> dict[str, Told]:
        """The answer to every address that there is, with all these ids in their places."""
        found = {}
        async with self.client() as client:
            for address in addresses(ids):
                found[address] = _told(await client.get(address))
        return found

    async def pages(self, ids: Ids) -> dict[str, Told]:
        """The same for the pages, which are seen with a cookie."""
        cookies = {}
        if self.user is not None:
            token = self.installation.token(self.user, *self.roles)
            cookies = {"afterwrite_session": token}
        url = self.installation.processes["api"].url
        found = {}
        async with httpx2.AsyncClient(base_url=url, cookies=cookies, timeout=15) as client:
            for address in [*OTHER_PAGES, *_filled(PAGES, ids)]:
                found[address] = _told(await client.get(address))
                hx = await client.get(address, headers={"HX-Request": "true"})
                found[f"{address} (htmx)"] = _told(hx)
        return found

    # -- streams ----------------------------------------------------------------------------

    async def listen(self) -> None:
        """Keep all that the event streams say; returns when they have begun."""
        begun = asyncio.Event()
        self._streams = [asyncio.create_task(self._listen(path, begun)) for path in STREAMS]
        async with asyncio.timeout(10):
            await begun.wait()

    async def _listen(self, path: str, begun: asyncio.Event) -> None:
        async with self.client() as client, client.stream("GET", path, timeout=None) as answer:
            begun.set()
            async for chunk in answer.aiter_bytes():
                self.streamed += chunk

    async def hang_up(self) -> None:
        for task in self._streams:
            task.cancel()
        await asyncio.gather(*self._streams, return_exceptions=True)


def addresses(ids: Ids) -> Iterator[str]:
    """Every address of the API, with every id in every place that takes ids of its type."""
    for path in LISTS:
        yield path
        yield f"{path}?limit=1"
    yield from STEADY
    yield from MOVING
    for address in _filled(ROW_ROUTES, ids):
        yield address
        if address.endswith(("/posts", "/reactions")):
            yield f"{address}?limit=1"


def _filled(routes: Mapping[str, str], ids: Ids) -> Iterator[str]:
    for path, type_ in routes.items():
        for row_id in ids.get(type_, ()):
            yield path.replace("{id}", row_id)


def _told(answer: httpx2.Response) -> Told:
    headers = [(k, v) for k, v in answer.headers.items() if k.lower() not in _VARYING_HEADERS]
    body = TRACE.sub('"trace_id":"?"', answer.text).encode()
    return Told(answer.status_code, tuple(sorted(headers)), body)


def leaks(answers: Mapping[str, Told], secrets: Iterable[str]) -> list[str]:
    """Where one of the secrets turns up. That an address itself names an id does not count."""
    found = []
    for address, told in answers.items():
        text = told.all
        found += [f"{s} in {address}: {text[:400]}" for s in secrets if _tells(text, s, address)]
    return found


def _tells(text: str, secret: str, address: str) -> bool:
    if secret in address:  # who asks for an id knows it
        text = text.replace(secret, "")
    return secret in text or json.dumps(secret)[1:-1] in text


def changed(before: Mapping[str, Told], after: Mapping[str, Told]) -> list[str]:
    """Addresses that answer otherwise than before."""
    return [
        f"{address}: {before[address].all[:600]} is now {told.all[:600]}"
        for address, told in after.items()
        if address in before and address not in MOVING and told != before[address]
    ]


def told_apart(answers: Mapping[str, Told], real: Sequence[str], made_up: str) -> list[str]:
    """Addresses with a real id that answer otherwise than the same ones with a made-up id."""
    found = []
    for address, told in answers.items():
        for row_id in (i for i in real if i in address):
            same = answers[address.replace(row_id, made_up)]
            masked = told.body.replace(row_id.encode(), b"?")
            if (told.status, told.headers, masked) != (
                same.status,
                same.headers,
                same.body.replace(made_up.encode(), b"?"),
            ):
                found.append(f"{address}: {told.all[:400]} is not {same.all[:400]}")
    return found


def secret(what: str) -> str:
    """A text that nobody can have by chance."""
    return f"SECRET-{what}-{uuid.uuid4()}"


def every_type(row_id: str) -> Ids:
    """One id in all places."""
    return {type_: [row_id] for type_ in _TYPES}


def made_up() -> str:
    return str(new_row_id())
