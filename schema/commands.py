"""Commands: one accepted request of one author, applied all or not at all."""

import uuid
from collections.abc import Mapping
from dataclasses import field
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal

from schema.fields import parse_time, render_time
from schema.identifiers import CommandId, IdReader, RowId, UserId
from schema.strict_json import encode_text
from schema.structs import struct

Op = Literal["create", "update", "delete"]
MAX_MUTATIONS = 100


@struct(frozen=True)
class Author:
    """Who commands, as his token says. Roles are the token's at the time of acceptance.

    `email` and `locale` are how he can be told of it while no database can be asked.
    """

    id: UserId
    name: str
    roles: tuple[str, ...] = ()
    email: str | None = None
    locale: str | None = None

    def to_json(self) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "id": str(self.id),
            "name": self.name,
            "roles": list(self.roles),
        }
        told = (("email", self.email), ("locale", self.locale))
        return shown | {name: value for name, value in told if value is not None}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], read_id: IdReader = uuid.UUID) -> "Author":
        roles, name = data["roles"], data["name"]
        if not isinstance(roles, list):
            raise TypeError("roles are malformed")
        for role in roles:
            if not isinstance(role, str):
                raise TypeError("roles are malformed")
        if not isinstance(name, str):
            raise TypeError("author is malformed")
        email, locale = _text(data, "email"), _text(data, "locale")
        return cls(UserId(read_id(data["id"])), name, tuple(roles), email, locale)


@struct(frozen=True)
class Mutation:
    """Create, update or delete of one row. `values` are JSON values, as they travel.

    `expected_version` is the version the author saw; the writer refuses when the row has another.
    """

    op: Op
    type: str
    id: RowId
    values: Mapping[str, Any]
    expected_version: int | None = None

    def to_json(self) -> dict[str, Any]:
        shown: dict[str, Any] = {"op": self.op, "type": self.type, "id": str(self.id)}
        if self.op != "delete":
            shown["values"] = dict(self.values)
        if self.expected_version is not None:
            shown["expected_version"] = self.expected_version
        return shown

    @property
    def text(self) -> str:
        """Its JSON with sorted keys."""
        version = self.expected_version
        seen = "" if version is None else f'"expected_version":{version},'
        values = "" if self.op == "delete" else f',"values":{encode_text(self.values)}'
        type_ = encode_text(self.type)
        return f'{{{seen}"id":"{self.id}","op":"{self.op}","type":{type_}{values}}}'

    @classmethod
    def from_json(cls, data: Mapping[str, Any], read_id: IdReader = uuid.UUID) -> "Mutation":
        op, type_, version = data["op"], data["type"], data.get("expected_version")
        if op not in ("create", "update", "delete") or not isinstance(type_, str):
            raise ValueError("a mutation needs op and type")
        values = data.get("values", {})
        if not isinstance(values, dict) or not (version is None or type(version) is int):
            raise ValueError("values or expected_version of a mutation are malformed")
        return cls(op, type_, RowId(read_id(data["id"])), values, version)


@struct(frozen=True)
class Command:
    """What the front end accepted: everything the writer needs, so that it asks nobody.

    `stream` orders it among others. `idempotency_key` is the client's, unique per author;
    `fingerprint` is the SHA-256 of the request it came with. `replays` names the command that this
    one repeats after it had been rejected. `system`: Afterwrite itself made it, to tell its author
    something; it may create notices and nothing else.
    """

    command_id: CommandId
    stream: RowId
    author: Author
    accepted_at: datetime
    mutations: tuple[Mutation, ...]
    idempotency_key: str | None = None
    fingerprint: str | None = None
    replays: CommandId | None = None
    system: bool = False
    _halves: tuple[str, str] | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def halves(self) -> tuple[str, str]:
        """The members of its JSON object, without its brackets, sorted by their keys: those before
        `log_id` and those behind it, which the envelope puts between.

        Made once: the record and the entry of the overlay are both made of it.
        """
        if self._halves is None:
            object.__setattr__(self, "_halves", self._cut())
            assert self._halves is not None
        return self._halves

    def _cut(self) -> tuple[str, str]:
        head = (
            f'"accepted_at":"{render_time(self.accepted_at)}","author":{_author_text(self.author)},'
            f'"command_id":"{self.command_id}"'
        )
        if self.fingerprint is not None:
            head += f',"fingerprint":{encode_text(self.fingerprint)}'
        if self.idempotency_key is not None:
            head += f',"idempotency_key":{encode_text(self.idempotency_key)}'
        mutations = ",".join([m.text for m in self.mutations])
        replays = f',"replays":"{self.replays}"' if self.replays is not None else ""
        system = ',"system":true' if self.system else ""
        return head, f'"mutations":[{mutations}]{replays},"stream":"{self.stream}"{system}'

    @property
    def text(self) -> str:
        """Its JSON: that of `to_json`, with sorted keys."""
        return f"{{{self.halves[0]},{self.halves[1]}}}"

    def to_json(self) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "command_id": str(self.command_id),
            "stream": str(self.stream),
            "author": self.author.to_json(),
            "accepted_at": render_time(self.accepted_at),
            "mutations": [m.to_json() for m in self.mutations],
        }
        if self.idempotency_key is not None:
            shown["idempotency_key"] = self.idempotency_key
        if self.fingerprint is not None:
            shown["fingerprint"] = self.fingerprint
        if self.replays is not None:
            shown["replays"] = str(self.replays)
        if self.system:
            shown["system"] = True
        return shown

    @classmethod
    def from_json(cls, data: Mapping[str, Any], read_id: IdReader = uuid.UUID) -> "Command":
        """Raises ValueError, KeyError, TypeError or AttributeError when the data are malformed."""
        mutations = tuple([Mutation.from_json(m, read_id) for m in data["mutations"]])
        if not 1 <= len(mutations) <= MAX_MUTATIONS:
            raise ValueError(f"a command has 1 to {MAX_MUTATIONS} mutations")
        replays = data.get("replays")
        return cls(
            CommandId(read_id(data["command_id"])),
            RowId(read_id(data["stream"])),
            Author.from_json(data["author"], read_id),
            parse_time(data["accepted_at"]),
            mutations,
            _text(data, "idempotency_key"),
            _text(data, "fingerprint"),
            CommandId(read_id(replays)) if replays else None,
            data.get("system") is True,
        )


@lru_cache(maxsize=4096)
def _author_text(author: Author) -> str:
    """Authors come again."""
    return encode_text(author.to_json())


def _text(data: Mapping[str, Any], name: str) -> str | None:
    found = data.get(name)
    if found is not None and not isinstance(found, str):
        raise TypeError(f"{name} is a text")
    return found
