"""The trial's way to the API: asks as somebody, and records each answer."""

import asyncio
import base64
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpx2

from schema.identifiers import user_id_for
from tests.trials.model import (
    Kind,
    Read,
    Record,
    Seen,
    Sighting,
    Type,
    foreign_markers,
    reaction_row,
)

TIMEOUT_S: Final = 20.0
TEXT: Final[dict[Type, tuple[str, str]]] = {
    "topic": ("title", "post_count"),
    "post": ("body", "reaction_count"),
}


def user_name(number: int) -> str:
    return f"author-{number:03}"


@dataclass(frozen=True)
class Answer:
    """`status` 0: no answer."""

    status: int
    body: Any
    headers: Mapping[str, str]
    began: float
    ended: float
    api: str

    @property
    def code(self) -> str:
        return str(self.body.get("code", "")) if isinstance(self.body, dict) else ""


@dataclass
class Web:
    """Several API processes. `token` mints the bearer token of a user's name."""

    record: Record
    urls: Mapping[str, str]
    token: Callable[..., str]
    statuses: Counter[str] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)
    """Answers that no fault excuses: 5xx other than 503."""

    def __post_init__(self) -> None:
        limits = httpx2.Limits(max_connections=200, max_keepalive_connections=200)
        self._clients = {
            name: httpx2.AsyncClient(base_url=url, timeout=TIMEOUT_S, limits=limits)
            for name, url in self.urls.items()
        }
        self._tokens: dict[int, str] = {}
        self._numbers: dict[str, int] = {}
        self._walks = itertools.count(1)
        self._turn = itertools.cycle(self._clients)

    async def close(self) -> None:
        for client in self._clients.values():
            await client.aclose()

    def introduce(self, number: int, *roles: str) -> None:
        """From now on this author is known."""
        name = user_name(number)
        self._tokens[number] = self.token(name, *roles)
        self._numbers[str(user_id_for(name))] = number

    async def ask(
        self, who: int, method: str, path: str, body: object = None, **headers: str
    ) -> Answer:
        """One request, to the APIs in turn. Never raises for what becomes of it."""
        api = next(self._turn)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named["Authorization"] = f"Bearer {self._tokens[who]}"
        began = time.time()
        try:
            response = await self._clients[api].request(method, path, json=body, headers=named)
        except httpx2.TransportError as error:
            self.statuses[type(error).__name__] += 1
            return Answer(0, None, {}, began, time.time(), api)
        ended = time.time()
        self.statuses[str(response.status_code)] += 1
        if response.status_code >= 500 and response.status_code != 503:
            self.unexpected.append(f"{method} {path}: {response.status_code} {response.text}")
        told = f"{response.text}\n{json.dumps(dict(response.headers))}"
        markers = foreign_markers(told, who)
        if markers:
            sighting = Sighting(who, f"{method} {path}", began, ended, markers)
            self.record.sightings.append(sighting)
        parsed = json.loads(response.text) if response.text else None
        return Answer(response.status_code, parsed, response.headers, began, ended, api)

    # -- reads ------------------------------------------------------------------------------

    async def row(self, who: int, type_: Type, row: str, row_id: str) -> Read:
        answer = await self.ask(who, "GET", f"/v1/{type_}s/{row_id}")
        read = self._read(who, type_ if type_ != "reaction" else "other", row, answer)
        if answer.status == 200:
            read.rows = (self._seen(type_, answer.body, ""),)
            read.etag = answer.headers.get("etag", "")
        return read

    async def walk(
        self, who: int, kind: Kind, target: str, target_id: str, limit: int, most: int = 100
    ) -> None:
        """A list from its beginning through at most `most` pages, each of them a read."""
        path, type_ = {
            "posts": (f"/v1/topics/{target_id}/posts", "post"),
            "topics": ("/v1/topics", "topic"),
            "reactions": (f"/v1/posts/{target_id}/reactions", "reaction"),
        }[kind]
        walk, cursor = next(self._walks), ""
        for _ in range(most):
            query = f"?limit={limit}" + (f"&after={cursor}" if cursor else "")
            answer = await self.ask(who, "GET", path + query)
            read = self._read(who, kind, target, answer)
            if answer.status != 200:
                return
            read.walk, read.after = walk, _id_of(cursor)
            cursor = answer.body["next"] or ""
            read.until = _id_of(cursor)
            read.rows = tuple(
                self._seen(type_, item, target)  # type: ignore[arg-type]
                for item in answer.body["items"]
            )
            if not cursor:
                return

    async def command(self, who: int, key: str, command: str) -> Read:
        """What the API says of a command; `code` of the read is its state."""
        answer = await self.ask(who, "GET", f"/v1/commands/{command}")
        read = self._read(who, "command", key, answer)
        if answer.status == 200:
            read.code = answer.body["state"]
        return read

    async def notices(self, who: int) -> Read:
        """All notices of somebody; more than one page is not looked at."""
        answer = await self.ask(who, "GET", "/v1/notices?limit=100")
        read = self._read(who, "notices", "", answer)
        if answer.status == 200:
            if "older" in answer.body:  # from the overlay alone
                read.stale_s = 0.0
            read.rows = tuple(
                Seen(n["id"], "post", n["detail"], n["version"], n["state"], command)
                for n in answer.body["items"]
                for command in (n["command_id"], *(n["returned"] or {}).get("dependants", ()))
            )
        return read

    def _read(self, who: int, kind: Kind, target: str, answer: Answer) -> Read:
        read = Read(who, kind, target, answer.began, answer.ended, answer.status, api=answer.api)
        if isinstance(answer.body, dict):
            read.overlay = answer.body.get("overlay", "complete")
            read.stale_s = answer.body.get("stale_s")
            read.code = answer.code
        self.record.reads.append(read)
        return read

    def _seen(self, type_: Type, row: Mapping[str, Any], parent: str) -> Seen:
        command = row.get("command", "")
        if type_ == "reaction":
            number = self._numbers.get(row["author_id"], 0)
            text = reaction_row(parent, number, row["emoji"])
            return Seen(row["id"], type_, text, row["version"], row["state"], command)
        text, count = TEXT[type_]
        return Seen(row["id"], type_, row[text], row["version"], row["state"], command, row[count])


def _id_of(cursor: str) -> str:
    """The row id in a cursor: its first 16 bytes."""
    if not cursor:
        return ""
    raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))[:16].hex()
    return f"{raw[:8]}-{raw[8:12]}-{raw[12:16]}-{raw[16:20]}-{raw[20:]}"


async def pause(seconds: float, until: asyncio.Event) -> None:
    """Wait, or until the event is set."""
    try:
        await asyncio.wait_for(until.wait(), seconds)
    except TimeoutError:
        return
