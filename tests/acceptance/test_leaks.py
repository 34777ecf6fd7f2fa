"""What one user has not saved is nowhere in what another is told: not in any route, header or stream."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest

from schema.identifiers import user_id_for
from tests.acceptance.helpers import Site, hung
from tests.installation import Installation, eventually_async
from tests.leaks import (
    FILES,
    LISTS,
    MOVING,
    OTHER_PAGES,
    PAGES,
    ROW_ROUTES,
    STEADY,
    STREAM_PAGES,
    STREAMS,
    TRACE,
    Ids,
    Stranger,
    Told,
    changed,
    every_type,
    leaks,
    made_up,
    page_routes,
    read_routes,
    secret,
    told_apart,
)

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(150)]


async def test_every_read_route_is_looked_at(installation: Installation) -> None:
    """A route that is new here must be put into tests/leaks.py, or these tests prove less than they say."""
    await installation.start("api", site="forum").ready()
    async with installation.client("ada") as ada:
        description = (await ada.get("/openapi.json")).json()
    known = {*ROW_ROUTES, *LISTS, *STEADY, *MOVING, *STREAMS}
    assert read_routes(description) == known
    assert await page_routes() == {*PAGES, *OTHER_PAGES, *STREAM_PAGES, *FILES}


@dataclass
class Ada:
    """Somebody with something of every kind that is not saved, and all that could give it away."""

    site: Site
    user: str = "ada"
    texts: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    ids: Ids = field(default_factory=dict)
    """Ids that exist only in what is pending."""
    keys: dict[str, tuple[str, str, Any]] = field(default_factory=dict)

    def text(self, what: str) -> str:
        self.texts.append(secret(what))
        return self.texts[-1]

    @property
    def secrets(self) -> list[str]:
        ids = [i for ids in self.ids.values() for i in ids]
        return [*self.texts, *self.commands, *ids, self.address]

    @property
    def address(self) -> str:
        """Where mail to her goes, as her token says: nobody is told, not even she herself."""
        return self.site.installation.emails[self.user]

    @property
    def shown(self) -> list[str]:
        """The texts that stand in the topic at the end; the others are overwritten, or elsewhere."""
        return [self.texts[n] for n in (3, 5, 8, 9)]

    def new(self, type_: str, row_id: str) -> str:
        self.ids.setdefault(type_, []).append(row_id)
        return row_id

    async def send(self, method: str, path: str, body: object = None, **headers: str) -> Any:
        key = secret("key")
        self.keys[key] = (method, path, body)
        headers.setdefault("If_Match", "*")
        answer = await self.site.ask(self.user, method, path, body, Idempotency_Key=key, **headers)
        assert answer.status_code == 202, answer.text
        told = answer.json()
        self.commands.append(told.get("command") or told["id"])
        return told

    async def everything_pending(self, topic: str, mine: list[str], of_another: str) -> None:
        """Creates, edits, deletes, reactions, several of them upon each other, a command of many."""
        opened = {"title": self.text("title"), "body": self.text("first")}
        made = await self.send("POST", "/v1/topics", opened)
        self.new("topic", made["id"])
        self.new("post", made["post"]["id"])
        added = await self.send("POST", f"/v1/topics/{topic}/posts", {"body": self.text("post")})
        self.new("post", added["id"])
        await self.send("PATCH", f"/v1/posts/{added['id']}", {"body": self.text("edit")})
        await self.send("PATCH", f"/v1/posts/{mine[0]}", {"body": self.text("edit of saved")})
        await self.send("PATCH", f"/v1/topics/{topic}", {"title": self.text("new title")})
        await self.send("DELETE", f"/v1/posts/{mine[1]}")
        emoji = self.text("e")[7:23]
        self.texts[-1] = emoji
        put = await self.send("PUT", f"/v1/posts/{of_another}/reactions/{emoji}")
        self.new("reaction", put["id"])
        await self.send("DELETE", f"/v1/posts/{of_another}/reactions/saved")
        me = user_id_for(self.user)
        await self.send("PATCH", f"/v1/users/{me}", {"name": self.text("name")})
        values = {"topic_id": topic, "body": self.text("of a command")}
        change: dict[str, Any] = {"op": "update", "type": "post", "id": mine[0]}
        change |= {"values": {"body": values["body"]}, "expected_version": 2}
        both = [{"op": "create", "type": "post", "values": values}, change]
        command = await self.send("POST", "/v1/commands", {"mutations": both})
        self.new("post", command["rows"][0]["id"])
        waited = {"body": self.text("waited for")}
        late = await self.send("POST", f"/v1/topics/{topic}/posts", waited, Prefer="wait=1")
        self.new("post", late["id"])
        wish = await self.send("PUT", "/v1/preferences", {"mail": False})
        self.new("preference", wish["id"])


@dataclass
class Scene:
    """A forum in which all is saved, and those who look at it."""

    site: Site
    topic: str
    mine: list[str]
    of_another: str
    strangers: list[Stranger]

    @property
    def ids(self) -> Ids:
        users = [str(user_id_for(name)) for name in ("ada", "bob", "mod")]
        return {"topic": [self.topic], "post": [*self.mine, self.of_another], "user": users}


@pytest.fixture
async def scene(installation: Installation) -> AsyncIterator[Scene]:
    for user in ("ada", "dora"):
        installation.emails[user] = f"{secret('mail')}@example.org"
    async with Site(installation) as site:
        await installation.start("writer").ready()
        await site.start_api(site="forum")
        opened = await site.accepted("ada", "The topic")
        second = await site.accepted("ada", "Her second post", opened.topic)
        await site.drained()  # before, there is no such topic for Bob
        other = await site.accepted("bob", "A post of Bob's", opened.topic)
        await site.drained()  # nor such a post for her
        put = await site.ask("ada", "PUT", f"/v1/posts/{other.post}/reactions/saved")
        assert put.status_code == 202
        async with installation.client("mod", "moderator") as mod:
            path = f"/v1/users/{user_id_for('mod')}"
            named = await mod.patch(path, json={"name": "The moderator"})
            assert named.status_code == 202
        await site.accepted("ada", "Her last one", opened.topic)
        await site.audited()
        await site.drained()
        strangers = [
            Stranger(installation, "bob"),
            Stranger(installation, "carol"),
            Stranger(installation, "root", ("admin",)),
            Stranger(installation, "mod", ("moderator",)),
            Stranger(installation, None),
        ]
        posts = [str(opened.post), str(second.post)]
        yield Scene(site, str(opened.topic), posts, str(other.post), strangers)
        for stranger in strangers:
            await stranger.hang_up()


def held(installation: Installation) -> None:
    installation.processes["writer"].signal(signal.SIGSTOP)


def released(installation: Installation) -> None:
    installation.processes["writer"].signal(signal.SIGCONT)


async def _look(scene: Scene, ids: Ids) -> dict[str, dict[str, Told]]:
    return {s.name: await s.everything(ids) for s in scene.strangers}


async def test_nothing_that_is_pending_is_told_to_anybody_else(
    installation: Installation, scene: Scene
) -> None:
    before = await _look(scene, scene.ids)
    for stranger in scene.strangers[:-1]:
        await stranger.listen()
    held(installation)
    ada = Ada(scene.site)
    await ada.everything_pending(scene.topic, scene.mine, scene.of_another)
    ada.new("command", ada.commands[0])
    ada.ids["command"] = list(ada.commands)
    dora = Ada(scene.site, "dora")  # who has never been here: her own row is pending, too
    made = await dora.send("POST", "/v1/topics", {"title": dora.text("t"), "body": dora.text("b")})
    dora.new("topic", made["id"])
    dora.new("user", str(user_id_for("dora")))
    secrets = [*ada.secrets, *dora.secrets, *ada.keys, *dora.keys]

    unknown = made_up()
    hidden = {t: [*ada.ids.get(t, ()), *dora.ids.get(t, ()), unknown] for t in every_type("")}
    for stranger in scene.strangers:
        after = await stranger.everything(scene.ids)
        assert not changed(before[stranger.name], after)
        guessed = await stranger.everything(hidden)
        assert not leaks(after | guessed, secrets)
        real = [i for ids in hidden.values() for i in ids if i != unknown]
        assert not told_apart(guessed, real, unknown)
        pages = await stranger.pages({t: [*scene.ids.get(t, ()), *hidden[t]] for t in hidden})
        assert not leaks(pages, secrets)
        assert all(told.status < 500 for told in pages.values())
    # She herself sees all of it: the search would find it.
    mine = await Stranger(installation, "ada").everything(scene.ids)
    everything = "".join(told.all for told in mine.values())
    assert all(text in everything for text in ada.shown)
    own_pages = await Stranger(installation, "ada").pages(scene.ids)
    assert ada.address not in everything + "".join(told.all for told in own_pages.values())
    released(installation)
    await _settled(installation)
    for stranger in scene.strangers[:-1]:
        heard = bytes(stranger.streamed).decode()
        assert not [s for s in secrets if s in heard]
    bobs = await scene.strangers[0].everything(scene.ids)
    everything = "".join(told.all for told in bobs.values())
    assert all(text in everything for text in ada.shown)  # saved: now it is his to see, too


async def _settled(installation: Installation) -> None:
    async def all_of_it() -> bool:
        status = await asyncio.to_thread(installation.run, "status", "--json")
        open_ = await installation.value(
            "SELECT sum(outcome_seq - settled_seq) FROM afterwrite.lane"
        )
        return status.returncode == 0 and '"pending": 0' in status.stdout and open_ == 0

    await eventually_async(all_of_it, 30, "everything to be settled")


async def test_nobody_can_do_anything_to_what_he_cannot_see(
    installation: Installation, scene: Scene
) -> None:
    """Changing what is another's pending is answered as if it were not there."""
    held(installation)
    ada = Ada(scene.site)
    await ada.everything_pending(scene.topic, scene.mine, scene.of_another)
    topic, posts, reaction = ada.ids["topic"][0], ada.ids["post"], ada.ids["reaction"][0]
    tries: list[tuple[str, str, Any]] = [
        ("PATCH", "/v1/topics/{topic}", {"title": "mine"}),
        ("DELETE", "/v1/topics/{topic}", None),
        ("POST", "/v1/topics/{topic}/posts", {"body": "in it"}),
        ("PATCH", "/v1/posts/{post}", {"body": "mine"}),
        ("DELETE", "/v1/posts/{post}", None),
        ("PUT", "/v1/posts/{post}/reactions/x", None),
        ("DELETE", "/v1/posts/{post}/reactions/x", None),
        ("DELETE", "/v1/reactions/{reaction}", None),
        ("POST", "/v1/topics/" + scene.topic + "/posts", {"body": "to it", "reply_to": "{post}"}),
        ("POST", "/v1/commands", _command("create", None, topic_id="{topic}", body="b")),
        ("POST", "/v1/commands", _command("update", "{post}", body="b")),
        ("POST", "/v1/commands", _command("delete", "{post}")),
    ]
    unknown = {"topic": made_up(), "post": made_up(), "reaction": made_up()}
    for stranger in scene.strangers:
        async with stranger.client() as client:
            for method, path, body in tries:
                real = {"topic": topic, "post": posts[0], "reaction": reaction}
                first = await _try(client, method, path, body, real)
                second = await _try(client, method, path, body, unknown)
                assert first == second, (stranger.name, method, path)
                assert not [s for s in ada.texts if s in str(first)]
            # Her edits have not moved the version that others must name.
            if stranger.name == "mod":
                address = f"/v1/posts/{scene.mine[0]}"
                late = await client.patch(address, json={"body": "x"}, headers={"If-Match": '"v2"'})
                assert (late.status_code, late.headers["etag"]) == (412, '"v1"')
                in_time = await client.patch(
                    address, json={"body": "x"}, headers={"If-Match": '"v1"'}
                )
                assert (in_time.status_code, in_time.json()["version"]) == (202, 2)


def _command(op: str, row_id: str | None, **values: str) -> dict[str, Any]:
    mutation: dict[str, Any] = {"op": op, "type": "post"}
    mutation |= {"id": row_id} if row_id else {}
    mutation |= {"values": values} if values else {}
    return {"mutations": [mutation]}


async def _try(
    client: httpx2.AsyncClient, method: str, path: str, body: Any, ids: dict[str, str]
) -> tuple[int, str]:
    """The answer, with the ids masked."""
    for name, row_id in ids.items():
        path = path.replace("{" + name + "}", row_id)
        body = _filled(body, "{" + name + "}", row_id)
    answer = await client.request(method, path, json=body, headers={"If-Match": "*"})
    text = answer.text
    for row_id in ids.values():
        text = text.replace(row_id, "?")
    return answer.status_code, TRACE.sub("?", text)


def _filled(body: Any, name: str, row_id: str) -> Any:
    if isinstance(body, dict):
        return {key: _filled(value, name, row_id) for key, value in body.items()}
    if isinstance(body, list):
        return [_filled(value, name, row_id) for value in body]
    return row_id if body == name else body


async def test_a_key_of_another_is_a_new_one(installation: Installation, scene: Scene) -> None:
    """Who sends another's Idempotency-Key, with the same body or not, learns nothing by it."""
    held(installation)
    ada = Ada(scene.site)
    await ada.everything_pending(scene.topic, scene.mine, scene.of_another)
    posts = {k: sent for k, sent in ada.keys.items() if sent[:2] == ("POST", "/v1/topics")}
    posts |= {k: s for k, s in ada.keys.items() if s[1] == f"/v1/topics/{scene.topic}/posts"}
    assert len(posts) == 3
    for key, (method, path, body) in posts.items():
        for stranger in scene.strangers[:-1]:
            async with stranger.client() as client:
                for sent in (body, {**body, "body": "Another body"}):
                    headers = {"Idempotency-Key": f"{key}{'' if sent is body else '-2'}"}
                    answer = await client.request(method, path, json=sent, headers=headers)
                    assert answer.status_code == 202, answer.text
                    assert "idempotency-replayed" not in answer.headers
                    told = answer.text + str(answer.headers)
                    texts = [t for t in ada.texts if t not in str(sent)]
                    hers = [i for ids in ada.ids.values() for i in ids]
                    assert not [s for s in [*texts, *hers, *ada.commands] if s in told]
                other = await client.request(
                    method, path, json={**body, "body": "Other"}, headers={"Idempotency-Key": key}
                )
                # It is his own key by now, with another body: what he is told is about his own.
                assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    again = next(iter(posts))
    method, path, body = posts[again]
    replayed = await scene.site.ask("ada", method, path, body, Idempotency_Key=again)
    assert replayed.headers["Idempotency-Replayed"] == "true"
    assert replayed.json()["id"] in [i for ids in ada.ids.values() for i in ids]


async def test_what_is_rejected_is_told_to_its_author_only(
    installation: Installation, scene: Scene
) -> None:
    for stranger in scene.strangers[:-1]:
        await stranger.listen()
    author = Stranger(installation, "ada")
    await author.listen()
    held(installation)
    async with installation.client("mod", "moderator") as mod:
        locked = await mod.patch(f"/v1/topics/{scene.topic}", json={"locked": True})
        assert locked.status_code == 202
    ada = Ada(scene.site)
    path = f"/v1/topics/{scene.topic}/posts"
    late = await ada.send("POST", path, {"body": ada.text("too late")})
    ada.new("post", late["id"])
    edit = await ada.send("PATCH", f"/v1/posts/{late['id']}", {"body": ada.text("and edited")})
    released(installation)
    for command in (late["command"], edit["command"]):
        await scene.site.reaches("ada", command, "rejected")
    await _settled(installation)
    told = (await scene.site.ask("ada", "GET", "/v1/notices")).json()["items"]
    assert [n["command_id"] for n in told] == [late["command"]]  # the edit hung on it
    assert all(any(text in str(n["returned"]) for n in told) for text in ada.texts)
    ada.ids |= {"command": ada.commands, "notice": [n["id"] for n in told]}

    async def heard() -> bool:
        return all(c in bytes(author.streamed).decode() for c in ada.commands)

    await eventually_async(heard, 10, "her stream to tell her")
    assert ada.address not in bytes(author.streamed).decode()
    assert ada.address not in str(told)
    await author.hang_up()
    unknown = made_up()
    hidden = {t: [*ada.ids.get(t, ()), unknown] for t in every_type("")}
    for stranger in scene.strangers:
        answers = await stranger.everything(scene.ids) | await stranger.everything(hidden)
        assert not leaks(answers, [*ada.secrets, *ada.keys])
        assert not told_apart(answers, [i for ids in ada.ids.values() for i in ids], unknown)
        pages = await stranger.pages(hidden)
        assert not leaks(pages, [*ada.secrets, *ada.keys])
        assert not [s for s in [*ada.secrets, *ada.keys] if s in bytes(stranger.streamed).decode()]
    # Nor can anybody read or change her notices.
    for stranger in scene.strangers[:-1]:
        async with stranger.client() as client:
            for notice in told:
                put_aside = await client.patch(f"/v1/notices/{notice['id']}", json={"read": True})
                assert put_aside.status_code == 404
    mine = await scene.site.ask("ada", "GET", f"/v1/posts/{late['id']}")
    assert mine.status_code == 404


async def test_while_servers_are_away_nothing_is_told_either(
    installation: Installation, scene: Scene
) -> None:
    """The cache of rows, and reads without an overlay, are everybody's: nothing pending is in them."""
    await _look(scene, scene.ids)  # all of it is in the cache now
    held(installation)
    ada = Ada(scene.site)
    await ada.everything_pending(scene.topic, scene.mine, scene.of_another)
    secrets = [*ada.secrets, *ada.keys]
    await Stranger(installation, "ada").everything(scene.ids)
    for server in ("postgres", "redis"):
        with hung(installation.services, server):
            begun = time.monotonic()
            await Stranger(installation, "ada").everything(scene.ids)
            for stranger in scene.strangers[:2]:
                answers = await stranger.everything(scene.ids)
                assert not leaks(answers, secrets)
                assert all(told.status < 500 or told.status == 503 for told in answers.values())
            assert time.monotonic() - begun < 60
    for stranger in scene.strangers:
        assert not leaks(await stranger.everything(scene.ids), secrets)
