"""`afterwrite migrate`: database and topics as the contract declares them."""

import asyncio

import asyncpg
import typer
from aiokafka.errors import KafkaError

from deploy.errors import NotReachable, Trouble, UsageTrouble
from deploy.settings import read_catalog, read_settings
from schema.settings import OwnerSettings
from schema.sql import MalformedMigration
from writer.migrate import MigrationError, migrate_database
from writer.topic_admin import has_command_topic, migrate_topics


def migrate() -> None:
    """Apply missing migrations and make missing topics. May be run at any time, by several at once.

    Reads AFTERWRITE_DATABASE_URL (the owner) and AFTERWRITE_KAFKA_BOOTSTRAP. Exit code 1 when the
    database cannot be migrated, 3 when a server cannot be reached.

    Example: afterwrite migrate
    """
    asyncio.run(_migrate(read_settings(OwnerSettings)))


async def _migrate(settings: OwnerSettings) -> None:
    catalog = read_catalog(settings)
    try:
        connection = await asyncpg.connect(
            settings.database_url.get_secret_value(), timeout=15, command_timeout=600
        )
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        raise NotReachable(
            f"PostgreSQL cannot be reached as the owner: {error}.",
            "Check AFTERWRITE_DATABASE_URL and that the server runs.",
        ) from error
    try:
        await migrate_database(connection, catalog, settings.lanes, _say)
        applied = await connection.fetchval("SELECT max(position) FROM afterwrite.lane")
    except MigrationError as error:
        raise Trouble(
            f"The database was not migrated: {error}", "Mend that, then run it again."
        ) from error
    except MalformedMigration as error:
        raise UsageTrouble(
            f"The migrations cannot be read: {error}.", "Mend that, then run it again."
        ) from error
    except (asyncpg.DuplicateTableError, asyncpg.DuplicateObjectError) as error:
        raise Trouble(
            f"A migration makes what is there already: {error}.",
            "If these tables belong to other content types: set AFTERWRITE_CONTENT as it was, or use "
            "another database (with `afterwrite up`: another AFTERWRITE_HOME).",
        ) from error
    except asyncpg.PostgresError as error:
        raise Trouble(
            f"PostgreSQL refused a migration: {error}",
            "Mend the file named last, then run it again: of a migration that fails nothing stays.",
        ) from error
    finally:
        await connection.close()
    try:
        if applied and not await has_command_topic(settings):
            raise Trouble(
                f"The command topic is gone, although {applied} commands of it were applied: "
                "the log was lost, and with it whatever was accepted after them.",
                "Bring Kafka's data back, or check AFTERWRITE_PREFIX and AFTERWRITE_KAFKA_BOOTSTRAP.",
            )
        await migrate_topics(
            settings, settings.replication_factor, settings.min_insync_replicas, _say
        )
    except KafkaError as error:
        raise NotReachable(
            f"Kafka cannot be reached: {error!r}.",
            "Check AFTERWRITE_KAFKA_BOOTSTRAP and that a broker runs.",
        ) from error
    _say("database and topics are up to date")


def _say(line: str) -> None:
    typer.echo(line, err=True)
