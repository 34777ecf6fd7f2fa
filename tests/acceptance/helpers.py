"""A site under test: what its users sent, what they were told, and the proof that it all came true."""

import asyncio
import itertools
import json
import statistics
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import httpx2

from schema.commands import Command
from schema.envelope import Record
from tests.commands import publish, sealed
from tests.installation import Installation, Running, eventually_async
from tests.services import ServiceName, Services

TRY_AGAIN = (409, 503)
"""Answers after which a client repeats its request with the same Idempotency-Key."""
_AGAIN_S = 0.1
"""How long a client waits before it repeats a request: nothing tells it when that is of use."""
_PAUSE_S = 0.02
"""What an author of a load takes between two posts: the load is steady, and not all that is possible."""
LIVELY = {"writes_per_minute": "1000000"}
"""The rate limit is not what these tests are about."""


def figure(name: str, value: object) -> None:
    """Something measured, shown by `pytest -rP`."""
    sys.stdout.write(f"figure: {name} = {value}\n")


@dataclass(frozen=True)
class Sent:
    """A post that was answered 202. The first one of a topic was accepted together with it."""

    user: str
    command: uuid.UUID
    topic: uuid.UUID
    post: uuid.UUID
    body: str
    opens_topic: bool


@dataclass
class Site:
    """An installation with its users. `prove` checks what must hold after every fault."""

    installation: Installation
    sent: list[Sent] = field(default_factory=list)
    unsure: set[str] = field(default_factory=set)
    """Bodies whose sender was told that it is not known what became of them."""
    statuses: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    _clients: dict[str, httpx2.AsyncClient] = field(default_factory=dict)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.forget_connections()

    async def start(self, **writer: str) -> Self:
        """Start an API and a writer; returns when both are ready."""
        self.installation.start("writer", **writer)
        await self.start_api()
        await self.installation.processes["writer"].ready()
        return self

    async def start_api(self, **settings: str) -> Running:
        await self.forget_connections()
        return await self.installation.start("api", **(LIVELY | settings)).ready()

    async def forget_connections(self) -> None:
        for client in self._clients.values():
            await client.aclose()
        self._clients.clear()

    # -- what users do ----------------------------------------------------------------------

    async def ask(
        self, user: str, method: str, path: str, body: object = None, **headers: str
    ) -> httpx2.Response:
        """One request of a user. Header names are written with underscores."""
        if user not in self._clients:
            self._clients[user] = self.installation.client(user)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        response = await self._clients[user].request(
            method, path, json=body, headers=named, timeout=30
        )
        self.statuses[response.status_code] += 1
        if response.status_code >= 500 and response.status_code != 503:
            raise AssertionError(f"{method} {path}: {response.text}\n{self._last_error()}")
        if response.status_code >= 400:
            assert response.headers["content-type"] == "application/problem+json"
            assert response.json()["code"]
        return response

    def _last_error(self) -> str:
        events = self.installation.processes["api"].events()
        return str(next((e for e in reversed(events) if e["event"] == "unexpected_error"), ""))

    async def send_topic(self, user: str, body: str, **headers: str) -> httpx2.Response:
        request = {"title": f"About {body[:40]}", "body": body}
        return self._note(
            user, body, await self.ask(user, "POST", "/v1/topics", request, **headers)
        )

    async def send_post(
        self, user: str, topic: uuid.UUID, body: str, **headers: str
    ) -> httpx2.Response:
        path = f"/v1/topics/{topic}/posts"
        return self._note(user, body, await self.ask(user, "POST", path, {"body": body}, **headers))

    async def accepted(self, user: str, body: str, topic: uuid.UUID | None = None) -> Sent:
        """Send until it is accepted, always with the same key, as a browser's outbox does."""
        key = str(uuid.uuid4())
        while True:
            try:
                if topic is None:
                    response = await self.send_topic(user, body, Idempotency_Key=key)
                else:
                    response = await self.send_post(user, topic, body, Idempotency_Key=key)
            except httpx2.TransportError:
                await asyncio.sleep(_AGAIN_S)
                continue
            if response.status_code == 202:
                return self.sent[-1]
            assert response.status_code in TRY_AGAIN, response.text
            await asyncio.sleep(_AGAIN_S)

    async def many(self, count: int, user: str = "ada") -> list[Sent]:
        """A topic with `count` posts, all of them accepted, in order."""
        first = await self.accepted(user, f"{user} opens {uuid.uuid4()}")
        return [first] + [
            await self.accepted(user, f"{user} says {n} {uuid.uuid4()}", first.topic)
            for n in range(1, count)
        ]

    def _note(self, user: str, body: str, response: httpx2.Response) -> httpx2.Response:
        answer = response.json()
        if response.status_code == 503 and answer["code"] == "outcome_unknown":
            self.unsure.add(body)
        if response.status_code == 202:
            post = answer.get("post", answer)
            self.unsure.discard(body)
            self.sent.append(
                Sent(
                    user,
                    uuid.UUID(answer["command"]),
                    uuid.UUID(post["topic_id"]),
                    uuid.UUID(post["id"]),
                    body,
                    "post" in answer,
                )
            )
        return response

    async def state(self, user: str, command: uuid.UUID | str) -> str:
        return str((await self.ask(user, "GET", f"/v1/commands/{command}")).json()["state"])

    async def reaches(self, user: str, command: uuid.UUID | str, state: str) -> dict[str, Any]:
        """Wait until GET /v1/commands/{id} shows this state; returns the answer."""
        found: dict[str, Any] = {}

        async def there() -> bool:
            response = await self.ask(user, "GET", f"/v1/commands/{command}")
            found.update(response.json())
            return bool(found.get("state") == state)

        await eventually_async(there, 20, f"{command} to be {state}, it is {found}")
        return found

    # -- what must hold ---------------------------------------------------------------------

    async def drained(self, timeout: float = 60) -> None:
        """Wait until every accepted command is decided, and settled."""
        commands = [s.command for s in self.sent]

        async def done() -> bool:
            decided = await self.installation.value(
                "SELECT count(*) FROM afterwrite.ledger WHERE command_id = ANY($1) "
                "AND outcome IN ('saved', 'rejected')",
                commands,
            )
            open_ = await self.installation.value(
                "SELECT sum(outcome_seq - settled_seq) FROM afterwrite.lane"
            )
            return bool(decided == len(set(commands)) and open_ == 0)

        await eventually_async(done, timeout, f"{len(commands)} commands to be settled")

    async def prove(self, timeout: float = 60) -> None:
        """Drain; then: nothing lost, nothing doubled, all as sent, in order, shown once, audited."""
        await self.drained(timeout)
        rows = await self.installation.fetch("SELECT id, topic_id, body FROM post")
        found = sorted((r["id"], r["topic_id"], r["body"]) for r in rows)
        wanted = sorted({(s.post, s.topic, s.body) for s in self.sent})
        assert [f for f in found if f[2] not in self.unsure] == wanted
        bodies = [r["body"] for r in rows]
        assert len(set(bodies)) == len(bodies)
        await self._in_order()
        await self._reads_again()
        await self._shown_once()
        await self.audited()

    async def audited(self) -> None:
        """The writer has come to the end of the log, and all that it did there agrees."""

        async def at_the_end() -> bool:
            status = await asyncio.to_thread(
                self.installation.run, "status", "--json", "--no-rates"
            )
            return status.returncode == 0 and json.loads(status.stdout)["pending"] == 0

        await eventually_async(at_the_end, 30, "the writer to come to the end of the log")
        audit = await asyncio.to_thread(self.installation.run, "audit")
        assert audit.returncode == 0, audit.stdout + audit.stderr

    async def _in_order(self) -> None:
        rows = await self.installation.fetch(
            "SELECT command_id, \"offset\" FROM afterwrite.ledger WHERE outcome = 'saved'"
        )
        at = {r["command_id"]: r["offset"] for r in rows}
        for sent in self.by_topic().values():
            offsets = [at[s.command] for s in sent]
            assert offsets == sorted(offsets)

    async def _reads_again(self) -> None:
        """The API looks for a lost PostgreSQL in intervals of its own."""

        await self.answers(f"/v1/topics/{self.sent[0].topic}")

    async def answers(self, path: str) -> None:
        """Wait while the API says, by a 503, that PostgreSQL does not answer it in time."""
        seen: list[int] = []

        async def there() -> bool:
            seen.append((await self.ask("anyone", "GET", path)).status_code)
            return seen[-1] != 503

        await eventually_async(there, 15, f"the API to read {path} from PostgreSQL again")
        assert seen[-1] == 200

    async def _shown_once(self) -> None:
        for topic, sent in self.by_topic().items():
            await self.answers(f"/v1/topics/{topic}/posts?limit=100")
            shown = await self.posts(sent[0].user, topic)
            known = [p["body"] for p in shown if p["body"] not in self.unsure]
            assert known == [s.body for s in sent]
            assert {p["state"] for p in shown} == {"saved"}

    def by_topic(self) -> dict[uuid.UUID, list[Sent]]:
        """What was accepted in each topic, once each, in the order accepted."""
        found: dict[uuid.UUID, list[Sent]] = defaultdict(list)
        for sent in dict.fromkeys(self.sent):
            found[sent.topic].append(sent)
        return found

    async def posts(self, user: str, topic: uuid.UUID) -> list[dict[str, Any]]:
        """All posts of a topic as a user sees them, through all pages."""
        items: list[dict[str, Any]] = []
        path: str | None = f"/v1/topics/{topic}/posts?limit=100"
        while path is not None:
            page = await self.ask(user, "GET", path)
            assert page.status_code == 200, page.text
            items += page.json()["items"]
            link = page.headers.get("link")
            path = link[1 : link.index(">")] if link else None
        return items

    # -- load -------------------------------------------------------------------------------

    @asynccontextmanager
    async def load(self, authors: int = 3) -> AsyncIterator["Load"]:
        """Authors who keep posting, each into a topic of his own, while the block runs."""
        load = Load(self)
        tasks = [asyncio.create_task(load.keep_posting(f"author-{n}")) for n in range(authors)]
        try:
            await load.more(authors * 2)
            yield load
        except BaseException:
            for task in tasks:
                task.cancel()
            raise
        finally:
            load.ending = True
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(outcome, Exception):
                    raise outcome


@dataclass
class Load:
    """A running load. `seconds` has the time of each accepted request, in order."""

    site: Site
    ending: bool = False
    seconds: list[float] = field(default_factory=list)
    unseen: list[Sent] = field(default_factory=list)
    """What its author was not shown at once, and not told 503 about."""

    async def keep_posting(self, user: str) -> None:
        topic = None
        for n in itertools.count():
            if self.ending:
                return
            started = time.perf_counter()
            sent = await self.site.accepted(user, f"{user} {n} {uuid.uuid4()}", topic)
            self.seconds.append(time.perf_counter() - started)
            topic = sent.topic
            await self._look(sent)
            await asyncio.sleep(_PAUSE_S)

    async def _look(self, sent: Sent) -> None:
        try:
            seen = await self.site.ask(sent.user, "GET", f"/v1/posts/{sent.post}")
        except httpx2.TransportError:
            return
        if seen.status_code != 503 and (
            seen.status_code != 200 or seen.json()["body"] != sent.body
        ):
            self.unseen.append(sent)

    async def more(self, count: int, timeout: float = 30) -> list[float]:
        """Wait for `count` more accepted posts; returns how long each took."""
        before = len(self.seconds)

        async def enough() -> bool:
            return len(self.seconds) >= before + count

        await eventually_async(enough, timeout, f"{count} more accepted posts")
        return self.seconds[before:]

    async def median(self, count: int = 40) -> float:
        return statistics.median(await self.more(count))


@contextmanager
def down(services: Services, name: ServiceName) -> Iterator[None]:
    """A server that is killed, and started again at the end."""
    services.kill(name)
    try:
        yield
    finally:
        services.restart(name)


@contextmanager
def hung(services: Services, name: ServiceName) -> Iterator[None]:
    """A server that keeps its connections and answers nothing."""
    services.pause(name)
    try:
        yield
    finally:
        services.resume(name)


# -- straight into the log --------------------------------------------------------------------


async def send(installation: Installation, *commands: Command, raw: Sequence[Record] = ()) -> None:
    """Put commands, then raw records, into lane 0 without an API."""
    log_id = await installation.value("SELECT log_id FROM afterwrite.lane WHERE lane = 0")
    records = [*(sealed(c, log_id) for c in commands), *raw]
    await publish(
        installation.services.kafka_bootstrap, f"{installation.name}.commands", records, lane=0
    )


async def applied(installation: Installation, position: int, timeout: float = 30) -> None:
    async def there() -> bool:
        at = await installation.value("SELECT position FROM afterwrite.lane WHERE lane = 0")
        return bool(at >= position)

    await eventually_async(there, timeout, f"position {position}")


async def outcomes(installation: Installation) -> list[str]:
    rows = await installation.fetch('SELECT outcome FROM afterwrite.ledger ORDER BY "offset"')
    return [row["outcome"] for row in rows]
