"""Do database and topics hold what the contract declares: tables, grants, topics?"""

from collections.abc import Mapping

import asyncpg
from aiokafka.errors import KafkaError

from deploy.doctor import Finding
from frontend_api.role_proof import RoleCanWrite, prove_read_only
from schema.catalog import load_catalog
from schema.settings import OwnerSettings
from schema.sql.tables import TablesDiffer
from writer.grants import writer_faults
from writer.migrate import check_tables
from writer.topic_admin import topic_faults

CONNECT_S = 5.0


async def check_content(settings: Mapping[str, str]) -> list[Finding]:
    """The tables of the content types, and the rights of the two roles on them."""
    findings: list[Finding] = []
    catalog = load_catalog(settings.get("AFTERWRITE_CONTENT", "schema.forum"))
    owner = await _connect(settings, "AFTERWRITE_DATABASE_URL")
    if owner is not None:
        try:
            await check_tables(owner, catalog)
            findings.append(Finding("tables", "ok", "as the content types declare them"))
        except TablesDiffer as error:
            findings.append(Finding("tables", "bad", str(error), "Run `afterwrite migrate`."))
        finally:
            await owner.close()
    frontend = await _connect(settings, "AFTERWRITE_FRONTEND_DATABASE_URL")
    if frontend is not None:
        findings.append(await _frontend(frontend))
    writer = await _connect(settings, "AFTERWRITE_WRITER_DATABASE_URL")
    if writer is not None:
        try:
            faults = await writer_faults(writer, catalog)
        finally:
            await writer.close()
        todo = "Run `afterwrite migrate`; take back what was granted by hand."
        findings += [Finding("grants of the writer", "bad", fault, todo) for fault in faults] or [
            Finding("grants of the writer", "ok", "writes rows, and nothing else")
        ]
    return findings


async def _frontend(connection: asyncpg.Connection) -> Finding:
    subject = "grants of the front end"
    try:
        tried = await prove_read_only(connection)
    except RoleCanWrite as error:
        todo = "Take these rights back: the API refuses to start with them."
        return Finding(subject, "bad", f"it can write: {error}", todo)
    finally:
        await connection.close()
    return Finding(subject, "ok", f"read-only; {tried} writes were tried and denied")


async def check_topics(settings: Mapping[str, str]) -> list[Finding]:
    """Every topic is there, with its partitions and settings."""
    if not settings.get("AFTERWRITE_DATABASE_URL"):
        return []
    values = {
        name: settings[key]
        for name in OwnerSettings.model_fields
        if (key := f"AFTERWRITE_{name.upper()}") in settings
    }
    owner = OwnerSettings.model_validate(values)
    try:
        faults = await topic_faults(owner, owner.min_insync_replicas)
    except (KafkaError, OSError):
        return []  # that Kafka does not answer is said by its own check
    todo = "Run `afterwrite migrate`; settings of topics that exist are changed with Kafka's tools."
    return [Finding("topics", "bad", fault, todo) for fault in faults] or [
        Finding("topics", "ok", "all there, with the settings they need")
    ]


async def _connect(settings: Mapping[str, str], name: str) -> asyncpg.Connection | None:
    """A connection, or None where the check of the server says already that there is none."""
    if not settings.get(name):
        return None
    try:
        return await asyncpg.connect(settings[name], timeout=CONNECT_S, command_timeout=CONNECT_S)
    except (OSError, TimeoutError, asyncpg.PostgresError, ValueError):
        return None
