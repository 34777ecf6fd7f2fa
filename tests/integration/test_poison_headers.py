"""Bytes that anybody who reaches the topic can choose never stop a lane: they become dead letters."""

import uuid
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from schema.catalog import load_catalog
from schema.outcomes import Outcome
from tests.commands import KEYRING, author, command, sealed, topic_with_post
from tests.installation import Installation
from writer import statements as sql
from writer.applier import Applier
from writer.flush import Flusher
from writer.lane import take_lane
from writer.loader import Loader
from writer.mass_rejection import MassRejection
from writer.parking import ParkPolicy
from writer.publisher import dead_letter_message
from writer.record import LaneRecord, read_record
from writer.statements import Statements

pytestmark = [pytest.mark.integration, pytest.mark.once]

CATALOG = load_catalog("schema.forum")
STATEMENTS = {kind.name: Statements.of(kind) for kind in CATALOG}
POLICY = ParkPolicy(
    timedelta(minutes=15), timedelta(minutes=5), timedelta(hours=1), timedelta(days=5)
)
POISON: list[list[tuple[str, bytes | None]]] = [
    [("a", b"\0")],
    [("a", b"text\0text")],
    [("a\0b", b"x")],
    [("a", b"hex:")],
    [("a", b"hex:zz")],
    [("a", b"\xff\xfe")],
    [("a", None), ("", b""), ("a", b"twice")],
    [("ce_type", b"\0"), ("ce_signature", b"k1:\0")],
    [("\U0001f600", "\u202e\u2028".encode())],
]


async def test_headers_of_any_bytes_become_dead_letters_and_neighbours_are_saved(
    database: Installation,
) -> None:
    connection = await asyncpg.connect(database.writer_url)
    await connection.set_type_codec("json", encoder=str, decoder=str, schema="pg_catalog")
    try:
        lane = await take_lane(connection, 0, "test", timedelta(minutes=1))
        assert lane is not None
        now_ms = int(datetime.now(UTC).timestamp() * 1000)
        records: list[LaneRecord] = []
        for headers in POISON:
            at = len(records)
            records.append(read_record(0, at, now_ms, b"\0k\xff", b"\0v\xff", headers, KEYRING))
            good = sealed(command(author("ada"), *topic_with_post()), lane.log_id)
            more = [*good.headers, *(h for h in headers if not h[0].startswith("ce_"))]
            records.append(read_record(0, at + 1, now_ms, good.key, good.value, more, KEYRING))
        applier = Applier(
            connection=connection,
            catalog=CATALOG,
            keyring=KEYRING,
            lane=lane,
            loader=Loader(connection, CATALOG, KEYRING, 0, STATEMENTS),
            flusher=Flusher(connection, CATALOG, STATEMENTS, frozenset()),
            policy=POLICY,
            refusals=MassRejection(20),
        )
        decisions = await applier.apply(records)
        assert [d.outcome for d in decisions] == [Outcome.DEAD, Outcome.SAVED] * len(POISON)
        letters = await connection.fetch(sql.DEAD_LETTERS, 0, list(range(len(records))))
        assert len(letters) == len(POISON)
        for headers, letter in zip(POISON, letters, strict=True):
            mirrored = dead_letter_message("dlq", "commands", 0, dict(letter))
            kept = [(n.replace("\0", "\ufffd"), c) for n, c in headers if c is not None]
            assert list(mirrored.headers)[: len(kept)] == kept
            assert (mirrored.key, mirrored.value) == (b"\0k\xff", b"\0v\xff")
    finally:
        connection.terminate()
    assert await database.value("SELECT count(*) FROM topic") == len(POISON)
    assert isinstance(await database.value("SELECT log_id FROM afterwrite.lane"), uuid.UUID)
