"""An API that is killed between its steps, told to stop, given too much, or given too many rights."""

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import asyncpg
import httpx2
import pytest

from tests.acceptance.helpers import Site
from tests.installation import ROOT, Installation, eventually, eventually_async

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(150)]

MAX_BODY_BYTES = 131_072
MAX_POST_BYTES = 65_536


@pytest.mark.parametrize("point", ["api_after_overlay", "api_after_publish"])
async def test_an_api_killed_while_accepting_does_it_once_when_asked_again(
    installation: Installation, tmp_path: Path, point: str
) -> None:
    armed = tmp_path / "armed"
    async with Site(installation) as site:
        await installation.start("writer").ready()
        await site.start_api(failpoints=f"{point}={armed}")
        topic = (await site.accepted("ada", "The topic")).topic
        await site.drained()

        bodies = {"again": "Sent, and sent again", "given-up": "Sent once only"}
        for key, body in bodies.items():
            armed.touch()
            with pytest.raises(httpx2.TransportError):
                await site.send_post("ada", topic, body, Idempotency_Key=key)
            assert await installation.processes["api"].ended() == -signal.SIGKILL
            site.unsure.add(body)
            await site.start_api(failpoints=f"{point}={armed}")

        # Nobody repeats the second one. Whether it is saved depends on whether it was published.
        published = point == "api_after_publish"
        if published:
            await _saved(installation, list(bodies.values()))
        shown = {p["body"]: p["state"] for p in await site.posts("ada", topic)}
        assert shown.get("Sent once only") in (("saved",) if published else ("pending", None))

        repeated = await _repeat(site, topic, bodies["again"], "again")
        assert repeated["state"] == "pending"
        first = await site.send_post("ada", topic, bodies["again"], Idempotency_Key="again")
        assert (first.json()["id"], first.json()["command"]) == (
            repeated["id"],
            repeated["command"],
        )
        assert first.headers["Idempotency-Replayed"] == "true"
        assert len({s.post for s in site.sent if s.body == bodies["again"]}) == 1
        await site.reaches("ada", repeated["command"], "saved")
        rows = await installation.fetch("SELECT id, body FROM post WHERE topic_id = $1", topic)
        found = [r["body"] for r in rows]
        assert found.count(bodies["again"]) == 1
        assert found.count(bodies["given-up"]) == (1 if published else 0)
        assert {str(r["id"]) for r in rows} >= {repeated["id"]}
        if published:
            await site.prove()
        assert installation.run("audit").returncode == 0


async def _saved(installation: Installation, bodies: list[str]) -> None:
    async def there() -> bool:
        found = await installation.value("SELECT count(*) FROM post WHERE body = ANY($1)", bodies)
        return bool(found == len(bodies))

    await eventually_async(there, 20, "both to be saved")


async def _repeat(site: Site, topic: uuid.UUID, body: str, key: str) -> dict[str, str]:
    """Repeat a request until the claim of the dead process is taken over."""
    deadline = time.monotonic() + 15
    while True:
        answer = await site.send_post("ada", topic, body, Idempotency_Key=key)
        if answer.status_code == 202:
            found: dict[str, str] = answer.json()
            return found
        assert answer.status_code == 409, answer.text
        assert time.monotonic() < deadline
        await asyncio.sleep(0.2)


async def test_an_api_told_to_stop_answers_what_is_in_work(installation: Installation) -> None:
    async with Site(installation) as site:
        await site.start()
        api, writer = installation.processes["api"], installation.processes["writer"]
        await site.accepted("ada", "Before")
        await site.drained()
        writer.signal(signal.SIGSTOP)
        waiting = [
            asyncio.create_task(site.send_topic(f"user-{n}", f"In work {n}", Prefer="wait=10"))
            for n in range(6)
        ]

        def published() -> bool:
            return len([e for e in api.events() if e["event"] == "accepted"]) == 7

        await eventually(published, 20, "six submissions in work")
        api.signal(signal.SIGTERM)
        writer.signal(signal.SIGCONT)
        answers = await asyncio.gather(*waiting)
        assert {a.status_code for a in answers} <= {201, 202}
        assert await api.ended(10) == 0
        await site.start_api()
        for sent in site.sent:
            await site.reaches(sent.user, sent.command, "saved")
        assert await installation.value("SELECT count(*) FROM post") == 7
        assert installation.run("audit").returncode == 0


async def test_a_body_at_the_limit_is_taken_and_one_byte_more_is_not(
    installation: Installation,
) -> None:
    async with Site(installation) as site:
        await site.start()
        topic = (await site.accepted("ada", "The topic")).topic
        url = f"/v1/topics/{topic}/posts"
        empty = len('{"body":""}')
        async with installation.client("ada") as client:
            for size, status in ((MAX_POST_BYTES, 202), (MAX_POST_BYTES + 1, 422)):
                answer = await client.post(url, json={"body": "x" * size})
                assert answer.status_code == status, size
            spaces = MAX_BODY_BYTES - empty - 4
            for size, status in ((spaces, 202), (spaces + 1, 413)):
                raw = b'{"body":"four"' + b" " * size + b"}"
                json_type = {"Content-Type": "application/json"}
                answer = await client.post(url, content=raw, headers=json_type)
                assert (len(raw) - MAX_BODY_BYTES, answer.status_code) == (size - spaces, status)
            most = await client.post(
                "/v1/commands",
                json={
                    "mutations": [
                        {
                            "op": "create",
                            "type": "post",
                            "values": {"topic_id": str(topic), "body": body * 20_000},
                        }
                        for body in ("\u0001", "ä")
                    ]
                },
            )
            assert most.status_code in (202, 413, 422)
        await site.accepted("ada", "The producer lives", topic)
        await site.drained()
        assert "producer_replaced" not in {
            e["event"] for e in installation.processes["api"].events()
        }
        lengths = await installation.fetch(
            "SELECT octet_length(body) AS n FROM post WHERE topic_id = $1", topic
        )
        assert {MAX_POST_BYTES, 4} <= {row["n"] for row in lengths}
        assert installation.run("audit").returncode == 0


DENIED = (
    "INSERT INTO {t} DEFAULT VALUES",
    "UPDATE {t} SET {c} = DEFAULT",
    "DELETE FROM {t}",
    "TRUNCATE {t}",
    "DROP TABLE {t}",
    "ALTER TABLE {t} ADD COLUMN x integer",
    "ALTER TABLE {t} DISABLE TRIGGER ALL",
    "CREATE INDEX ON {t} ({c})",
    "DO $$BEGIN LOCK TABLE {t} IN ROW EXCLUSIVE MODE; END$$",
    "COPY {t} FROM STDIN",
    "MERGE INTO {t} USING (SELECT 1) s ON false WHEN NOT MATCHED THEN INSERT DEFAULT VALUES",
)
DENIED_ANYWHERE = (
    "CREATE TABLE public.mine (a integer)",
    "CREATE TABLE afterwrite.mine (a integer)",
    "CREATE SCHEMA mine",
    "CREATE FUNCTION public.f() RETURNS integer LANGUAGE sql AS 'select 1'",
    "CREATE ROLE mine",
    "DROP SCHEMA afterwrite CASCADE",
    "SET ROLE afterwrite_writer",
    "SET ROLE afterwrite_owner",
    "SET SESSION AUTHORIZATION afterwrite_writer",
    "ALTER ROLE afterwrite_frontend SUPERUSER",
    "GRANT afterwrite_writer TO afterwrite_frontend",
    "SELECT afterwrite.ensure_ledger_period('2030-01-01')",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "ALTER SYSTEM SET work_mem = '1MB'",
)


async def test_the_front_ends_role_is_denied_every_way_to_write(
    installation: Installation,
) -> None:
    tables = await installation.fetch(
        "SELECT c.oid::regclass::text AS t, "
        "(SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = c.oid AND attnum = 1) AS c "
        "FROM pg_class c WHERE c.relkind IN ('r', 'p') "
        "AND c.relnamespace IN ('public'::regnamespace, 'afterwrite'::regnamespace)"
    )
    assert len(tables) >= 11
    tries = [verb.format(t=row["t"], c=row["c"]) for row in tables for verb in DENIED]
    connection = await asyncpg.connect(installation.frontend_url)
    try:
        for statement in (*tries, *DENIED_ANYWHERE):
            await _denied(connection, statement)
        for row in tables:  # where it may read, PostgreSQL only warns that it grants nothing
            with contextlib.suppress(asyncpg.InsufficientPrivilegeError):
                await connection.execute(f"GRANT ALL ON {row['t']} TO afterwrite_frontend")
            for verb in ("INSERT", "UPDATE", "DELETE", "TRUNCATE"):
                may = await connection.fetchval(
                    "SELECT has_table_privilege($1, $2)", str(row["t"]), verb
                )
                assert may is False, (row["t"], verb)
    finally:
        await connection.close()


async def _denied(connection: asyncpg.Connection, statement: str) -> None:
    try:
        await connection.execute(statement)
    except asyncpg.InsufficientPrivilegeError:
        return
    except asyncpg.PostgresError as error:
        raise AssertionError(f"{statement}: {error.sqlstate} {error}") from error
    raise AssertionError(f"{statement}: was done")


@pytest.mark.parametrize("role", ["afterwrite_writer", "afterwrite_owner"])
async def test_an_api_that_could_write_does_not_run(installation: Installation, role: str) -> None:
    environment = installation.environment() | {
        "AFTERWRITE_FRONTEND_DATABASE_URL": installation.url_of(role),
        "AFTERWRITE_PORT": "0",
    }
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "deploy.cli", "serve", "api"],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert ended.returncode not in (0, 1, -signal.SIGKILL)
    assert "database role can write" in ended.stderr
    assert "Traceback" not in ended.stderr
