"""What the operators' pages are built upon, in memory; the test holds the other end."""

import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from frontend_api.admin.act_desk import ActDesk
from frontend_api.admin.backends import AdminParts
from frontend_api.admin.facts import (
    CommandsFound,
    Counts,
    Lane,
    Ledger,
    LettersFound,
    Log,
    Picture,
    Row,
    Told,
)
from frontend_api.admin.filters import AuditFilter, CommandFilter, LetterFilter
from frontend_api.admin.log_look import Found, LogLook
from frontend_api.admin.store import PAGE, AdminStore, Cursor, Place
from frontend_api.admin.tail import Tail
from frontend_api.kafka_producer import NotAccepted, OutcomeUnknown
from frontend_api.rebuild_log import LogUnavailable
from frontend_api.view import DatabaseUnavailable
from schema.acts import Act, open_act
from schema.commands import Author, Command, Mutation
from schema.envelope import Envelope, Keyring, Record, seal
from schema.identifiers import new_command_id, new_row_id, user_id_for
from schema.settings import Settings
from schema.topics import topics

SECRET = "a-secret-for-tests-only-0123456789abcdef"
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LANE = Lane(0, 100, 3, "writer-a", None, None, 0, 0)


def well(**changes: Any) -> Picture:
    """Everything answers, and nothing waits."""
    hour_ago = NOW - timedelta(hours=1)
    made = Picture(
        NOW,
        Told(True, hour_ago, Ledger((LANE,), Counts(p50_s=0.02, p95_s=0.09)), NOW),
        Told(True, hour_ago, Log({0: 100}), NOW),
        Told(True, hour_ago, True, NOW),
    )
    return replace(made, **changes)


def command(body: str = "Hello", author: str = "Ada") -> Command:
    return Command(
        new_command_id(),
        new_row_id(),
        Author(user_id_for(author), author),
        NOW,
        (Mutation("create", "post", new_row_id(), {"topic_id": str(new_row_id()), "body": body}),),
    )


def sealed(made: Command) -> Record:
    return seal(Envelope(made, uuid.uuid4()), Keyring.parse(f"k1:{SECRET}"), "urn:test")


def letter(
    offset: int, made: Command | None = None, value: bytes | None = None, **changes: Any
) -> dict[str, Any]:
    """A row of the dead letters, with its bytes."""
    record = sealed(made) if made is not None else Record(b"key", value or b"", ())
    return {
        "lane": 0,
        "offset": offset,
        "command_id": made.command_id if made is not None else None,
        "author_id": made.author.id if made is not None else None,
        "code": "forbidden" if made is not None else "malformed",
        "detail": "The topic is locked." if made is not None else "not a JSON object",
        "sqlstate": None,
        "constraint_name": None,
        "attempts": 1,
        "died_at": NOW - timedelta(minutes=offset),
        "type": made.mutations[0].type if made is not None else None,
        "closed": None,
        "closed_at": None,
        "replay_id": None,
        "key": record.key,
        "value": record.value,
        "headers": list(record.headers),
    } | changes


class FakeStore(AdminStore):
    """PostgreSQL. Set `available` to False to take it away."""

    def __init__(self) -> None:
        self.available = True
        self.decided: list[Row] = []
        self.dead: list[Row] = []
        self.parked_rows: list[Row] = []
        self.audit_rows: list[Row] = []

    def _must_answer(self) -> None:
        if not self.available:
            raise DatabaseUnavailable

    async def ledger(self) -> Ledger:
        self._must_answer()
        return Ledger((LANE,), Counts())

    async def commands(self, filter_: CommandFilter, before: uuid.UUID | None) -> CommandsFound:
        self._must_answer()
        rows = [
            row
            for row in self.decided
            if filter_.state in ("", row["outcome"])
            and filter_.author in (None, row["author_id"])
            and (not filter_.code or (row["problem"] or {}).get("code") == filter_.code)
            and (before is None or row["command_id"] < before)
        ]
        rows.sort(key=lambda row: str(row["command_id"]), reverse=True)
        more = len(rows) > PAGE
        return CommandsFound(rows[:PAGE], rows[PAGE - 1]["command_id"] if more else None)

    async def command(self, command: uuid.UUID) -> tuple[list[Row], int | None]:
        self._must_answer()
        return [row for row in self.decided if row["command_id"] == command], 1000

    async def names(self, users: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, str]:
        self._must_answer()
        return {}

    def _chosen(self, filter_: LetterFilter) -> list[Row]:
        self._must_answer()
        closed = {"open": None, "all": ...}.get(filter_.closed, filter_.closed)
        return [
            row
            for row in self.dead
            if closed in (..., row["closed"])
            and filter_.code in ("", row["code"])
            and filter_.type in ("", row["type"] or "-")
            and filter_.author in (None, row["author_id"])
        ]

    async def groups(self, filter_: LetterFilter) -> list[Row]:
        rows = self._chosen(filter_)
        found = Counter((r["code"], r["type"], r["died_at"].date()) for r in rows)
        return [
            {
                "code": code,
                "type": type_,
                "day": day,
                "number": number,
                "authors": 1,
                "newest": NOW,
                "sample": next(r["detail"] for r in rows if r["code"] == code),
            }
            for (code, type_, day), number in found.items()
        ]

    async def letters(
        self, filter_: LetterFilter, after: Cursor | None = None, limit: int = PAGE
    ) -> LettersFound:
        rows = sorted(self._chosen(filter_), key=lambda r: r["died_at"], reverse=True)
        rows = [r for r in rows if after is None or r["died_at"] < after[0]]
        return LettersFound(rows[:limit], len(rows) > limit)

    async def in_order(self, filter_: LetterFilter, limit: int) -> LettersFound:
        rows = sorted(self._chosen(filter_), key=lambda r: (r["lane"], r["offset"]))
        return LettersFound(rows[:limit], len(rows) > limit)

    async def at(self, places: Sequence[Place]) -> list[Row]:
        self._must_answer()
        return [row for row in self.dead if (row["lane"], row["offset"]) in places]

    async def letter(self, place: Place) -> Row | None:
        self._must_answer()
        return next((r for r in self.dead if (r["lane"], r["offset"]) == place), None)

    async def held(self, place: Place) -> Row | None:
        self._must_answer()
        return None

    async def parked(self) -> list[Row]:
        self._must_answer()
        return self.parked_rows

    async def audit(
        self, filter_: AuditFilter, after: tuple[datetime, uuid.UUID] | None
    ) -> LettersFound:
        self._must_answer()
        return LettersFound([r for r in self.audit_rows if r["who"].startswith(filter_.who)])

    async def act(self, act: uuid.UUID) -> Row | None:
        self._must_answer()
        return next((r for r in self.audit_rows if r["act_id"] == act), None)


class FakeLook(LogLook):
    """The log. `records` are those that are in it."""

    def __init__(self) -> None:
        self.available = True
        self.records: list[Found] = []

    def _must_answer(self) -> None:
        if not self.available:
            raise LogUnavailable

    async def hint(self) -> Mapping[int, int]:
        self._must_answer()
        return {0: 0}

    async def bounds(self) -> Mapping[int, tuple[int, int]]:
        self._must_answer()
        return {0: (0, len(self.records))}

    async def record(self, lane: int, offset: int) -> Found | None:
        self._must_answer()
        return next((r for r in self.records if (r.lane, r.offset) == (lane, offset)), None)

    async def waiting(
        self, positions: Mapping[int, int], wanted: Callable[[Found], bool], most: int
    ) -> tuple[list[Found], bool]:
        self._must_answer()
        found = [r for r in self.records if r.offset >= positions.get(r.lane, 0) and wanted(r)]
        return found[:most], len(found) <= most


@dataclass
class FakePublisher:
    """`mode`: ok, refuse or lose."""

    mode: str = "ok"
    records: list[Record] = field(default_factory=list)

    async def publish(self, record: Record) -> None:
        if self.mode == "refuse":
            raise NotAccepted("refused by the fake")
        self.records.append(record)
        if self.mode == "lose":
            raise OutcomeUnknown("lost by the fake")

    def acts(self) -> list[Act]:
        keyring = Keyring.parse(f"k1:{SECRET}")
        return [open_act(r.key, r.value, r.headers, keyring) for r in self.records]


@dataclass
class AdminWorld:
    """The fakes behind one admin page."""

    store: FakeStore = field(default_factory=FakeStore)
    look: FakeLook = field(default_factory=FakeLook)
    mail: FakeLook = field(default_factory=FakeLook)
    publisher: FakePublisher = field(default_factory=FakePublisher)
    picture: Picture = field(default_factory=well)

    def __post_init__(self) -> None:
        self.desk = ActDesk(self.publisher, Keyring.parse(f"k1:{SECRET}"))
        self.tail = Tail("127.0.0.1:1", topics(Settings.model_validate({})))
        self.tail.reading = True

    @property
    def parts(self) -> AdminParts:
        return AdminParts(
            self.store, self.look, self.mail, self.desk, self.tail, lambda: self.picture
        )
