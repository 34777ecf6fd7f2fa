"""What the state topic says: which mail is sent, which addresses refused, who has which partition. Pure.

Keys: `<mail_id>`, with the mail's own partition; `address:<address>`; `owner:<partition>`. An owner's
record is a fence: whoever writes one reads the topic up to it and so knows all that was done before, and
whoever had the partition finds it before his next mail, and sends nothing any more.
"""

import json
import uuid
import zlib
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, get_args

from schema.fields import parse_time, render_time
from schema.mail import ADDRESS_KEY

State = Literal["sending", "sent", "failed", "deferred"]
_OWNER_KEY: Final = "owner:"


@dataclass(frozen=True, slots=True)
class MailState:
    """What became of one mail so far. `maybe_sent`: an earlier attempt may have got through. `worker`: who
    wants to send it, if the state is `sending`."""

    state: State
    at: datetime
    attempts: int = 0
    next_at: datetime | None = None
    maybe_sent: bool = False
    code: str | None = None
    worker: str | None = None

    @property
    def finished(self) -> bool:
        return self.state in ("sent", "failed")

    def to_json(self) -> dict[str, Any]:
        return {
            "state": self.state,
            "at": render_time(self.at),
            "attempts": self.attempts,
            "next_at": render_time(self.next_at) if self.next_at else None,
            "maybe_sent": self.maybe_sent,
            "code": self.code,
            "worker": self.worker,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "MailState":
        if data["state"] not in get_args(State):
            raise ValueError("the state is not known")
        return cls(
            state=data["state"],
            at=parse_time(data["at"]),
            attempts=int(data["attempts"]),
            next_at=parse_time(data["next_at"]) if data["next_at"] else None,
            maybe_sent=bool(data["maybe_sent"]),
            code=data["code"],
            worker=data.get("worker"),
        )


@dataclass(frozen=True)
class AddressMark:
    """An address that refused mail for good. `reply` is the server's, `mail_id` what it refused."""

    code: int
    reply: str
    mail_id: str
    at: datetime

    def to_json(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "reply": self.reply,
            "mail_id": self.mail_id,
            "at": render_time(self.at),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "AddressMark":
        return cls(
            int(data["code"]), str(data["reply"]), str(data["mail_id"]), parse_time(data["at"])
        )


def mail_key(mail_id: uuid.UUID) -> bytes:
    return str(mail_id).encode()


def address_key(address: str) -> bytes:
    return f"{ADDRESS_KEY}{address}".encode()


def owner_key(partition: int) -> bytes:
    return f"{_OWNER_KEY}{partition}".encode()


def address_partition(address: str, partitions: int) -> int:
    """Where the mark of an address is; every worker reads all partitions."""
    return zlib.crc32(address.encode()) % partitions


def encoded(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode()


@dataclass
class Memory:
    """The state topic, folded. Of a finished mail only its id, and when and how it was finished, are kept
    (some 150 bytes)."""

    addresses: dict[str, AddressMark] = field(default_factory=dict)
    owners: dict[int, str] = field(default_factory=dict)
    _open: dict[uuid.UUID, MailState] = field(default_factory=dict)
    _finished: dict[int, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))

    def fold(self, partition: int, key: bytes | None, value: bytes | None) -> None:
        """Take in one record. One that is not ours is passed over: it must not stop anybody."""
        try:
            name = (key or b"").decode()
            data = None if value is None else json.loads(value)
            if name.startswith(_OWNER_KEY):
                if data is not None:
                    self.owners[int(name.removeprefix(_OWNER_KEY))] = str(data["worker"])
            elif name.startswith(ADDRESS_KEY):
                self._fold_address(name.removeprefix(ADDRESS_KEY), data)
            else:
                self._fold_mail(partition, uuid.UUID(name), data)
        except (ValueError, KeyError, TypeError):
            return

    def _fold_address(self, address: str, data: dict[str, Any] | None) -> None:
        if data is None:
            self.addresses.pop(address, None)
        else:
            self.addresses[address] = AddressMark.from_json(data)

    def _fold_mail(self, partition: int, mail_id: uuid.UUID, data: dict[str, Any] | None) -> None:
        state = None if data is None else MailState.from_json(data)
        if state is not None and not self._holds(partition, mail_id, state):
            return
        self._open.pop(mail_id, None)
        self._finished[partition].pop(mail_id.int, None)
        if state is None:
            return
        if state.finished:
            at = state.at.timestamp()
            self._finished[partition][mail_id.int] = at if state.state == "sent" else -at
        else:
            self._open[mail_id] = state

    def _holds(self, partition: int, mail_id: uuid.UUID, state: MailState) -> bool:
        """False for what a worker wrote that was frozen, and did not know that it has lost the partition:
        it reads up to its own record before it sends anything, and then it knows."""
        if state.finished:
            return True
        if self.finished(mail_id):
            return False
        owner = self.owners.get(partition)
        return state.state != "sending" or owner is None or state.worker in (owner, None)

    def open(self, mail_id: uuid.UUID) -> MailState | None:
        """The state of a mail that was tried, and is not finished."""
        return self._open.get(mail_id)

    def state_of(self, mail_id: uuid.UUID) -> State | None:
        """The last that was noted of a mail."""
        if mail_id in self._open:
            return self._open[mail_id].state
        for done in self._finished.values():
            if mail_id.int in done:
                return "sent" if done[mail_id.int] > 0 else "failed"
        return None

    def finished(self, mail_id: uuid.UUID) -> bool:
        """Whether it is sent, or dead."""
        return any(mail_id.int in done for done in self._finished.values())

    def old(self, partition: int, before: datetime, most: int) -> list[uuid.UUID]:
        """Finished mails of a partition which nobody can ask about any more."""
        limit = before.timestamp()
        found: list[uuid.UUID] = []
        for number, at in self._finished[partition].items():
            if len(found) == most:
                break
            if abs(at) < limit:
                found.append(uuid.UUID(int=number))
        return found
