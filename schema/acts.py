"""Acts: what an operator orders, as the administrators' page sends it to the writer.

The page's process cannot write to the database. It publishes an act on the acts topic, signed like a
command but with a type of its own, so that neither can ever be taken for the other; the writer checks
who may do it, does it once, and writes it into the audit log.
"""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, get_args

from schema.envelope import CONTENT_TYPE, Keyring, Malformed, Record, genuine
from schema.fields import parse_time, render_time
from schema.identifiers import is_uuid7
from schema.strict_json import encode

VERSION: Final = 1
TYPE_PREFIX: Final = "org.afterwrite.act.v"
_TYPE: Final = f"{TYPE_PREFIX}{VERSION}".encode()
MAX_LETTERS: Final = 10_000
"""Dead letters that one act may name, or find by a filter."""
MAX_REASON: Final = 1000
"""Characters of a reason."""
MAY_ACT: Final = frozenset({"operator", "admin"})
"""Roles that may order an act; a viewer only looks."""

ActKind = Literal["replay", "edit", "discard", "pause", "resume", "continue", "retry_parked"]
LETTER_KINDS: Final = frozenset({"replay", "edit", "discard"})
"""The acts that are about dead letters."""
Place = tuple[int, int]
"""A lane and an offset in it."""


@dataclass(frozen=True)
class Operator:
    """Who orders it, as his token says."""

    id: uuid.UUID
    name: str
    roles: tuple[str, ...] = ()

    @property
    def may_act(self) -> bool:
        return not MAY_ACT.isdisjoint(self.roles)

    def to_json(self) -> dict[str, Any]:
        return {"id": str(self.id), "name": self.name, "roles": list(self.roles)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Operator":
        _only(data, "id", "name", "roles")
        return cls(
            uuid.UUID(_text(data["id"])),
            _text(data["name"]),
            tuple(_text(role) for role in _list(data["roles"])),
        )


@dataclass(frozen=True)
class Letters:
    """Which open dead letters: those that meet every condition given, `limit` of them at most.

    `places` are (lane, offset) pairs. `since` is inclusive, `until` exclusive; both are about when the
    letter died. They are always taken in the order of (lane, offset), so that a limit never takes a
    command of a stream before an earlier one.
    """

    places: tuple[Place, ...] | None = None
    code: str | None = None
    type: str | None = None
    author: uuid.UUID | None = None
    since: datetime | None = None
    until: datetime | None = None
    limit: int | None = None

    def to_json(self) -> dict[str, Any]:
        shown: dict[str, Any] = {}
        if self.places is not None:
            shown["places"] = [list(place) for place in self.places]
        if self.author is not None:
            shown["author"] = str(self.author)
        for name, value in (("code", self.code), ("type", self.type), ("limit", self.limit)):
            if value is not None:
                shown[name] = value
        for name, at in (("since", self.since), ("until", self.until)):
            if at is not None:
                shown[name] = render_time(at)
        return shown

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Letters":
        """Raises ValueError, KeyError or TypeError when the data are malformed."""
        _only(data, "places", "code", "type", "author", "since", "until", "limit")
        given = {name: value for name, value in data.items() if value is not None}
        return cls(
            places=tuple(_place(p) for p in _list(given["places"])) if "places" in given else None,
            code=_text(given["code"]) if "code" in given else None,
            type=_text(given["type"]) if "type" in given else None,
            author=uuid.UUID(_text(given["author"])) if "author" in given else None,
            since=parse_time(_text(given["since"])) if "since" in given else None,
            until=parse_time(_text(given["until"])) if "until" in given else None,
            limit=_number(given["limit"], 1) if "limit" in given else None,
        )


@dataclass(frozen=True)
class Act:
    """One thing that an operator orders. `act_id` (UUIDv7) makes asking twice the same as once.

    `letters` are what `replay`, `edit` (exactly one place) and `discard` are about; of `retry_parked`
    its `places` name parked commands, whose streams are tried now. `lane` is what `pause`, `resume`,
    `continue` (of a halted lane) and `retry_parked` are about; None: all lanes.

    `values` has, by the number of the mutation (from 0), the fields that an edit gives other values,
    as JSON values; with `any_version` an edit also drops the versions that its author had seen.
    `rate`: replays a second at most. `dry_run`: say what an act about letters would do, and do nothing.
    """

    act_id: uuid.UUID
    kind: ActKind
    who: Operator
    at: datetime
    reason: str | None = None
    letters: Letters | None = None
    lane: int | None = None
    values: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    any_version: bool = False
    rate: float | None = None
    dry_run: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for an act that cannot be meant."""
        if not is_uuid7(self.act_id):
            raise ValueError("act_id must be a UUIDv7")
        if self.reason is not None and not 0 < len(self.reason.strip()) <= MAX_REASON:
            raise ValueError(f"a reason has 1 to {MAX_REASON} characters")
        if self.reason is None and self.kind in ("discard", "pause"):
            raise ValueError(f"{self.kind} needs a reason")
        if self.kind in LETTER_KINDS:
            self._check_letters()
        else:
            self._check_lane()

    def _check_letters(self) -> None:
        letters = self.letters
        if letters is None:
            raise ValueError(f"{self.kind} needs letters")
        if letters.places is None and letters.limit is None:
            raise ValueError("letters that are found by a filter need a limit")
        if max(len(letters.places or ()), letters.limit or 0) > MAX_LETTERS:
            raise ValueError(f"an act is about {MAX_LETTERS} letters at most")
        if self.rate is not None and not 0 < self.rate <= 10_000:
            raise ValueError("rate lies between 0 and 10,000 a second")
        changes = bool(self.values) or self.any_version
        if changes is not (self.kind == "edit"):
            raise ValueError("an edit changes something, and nothing else does")
        if self.kind == "edit" and len(letters.places or ()) != 1:
            raise ValueError("an edit is about exactly one letter")

    def _check_lane(self) -> None:
        if self.kind == "continue" and self.lane is None:
            raise ValueError("say which lane is to go on")
        if self.values or self.any_version or self.dry_run or self.rate is not None:
            raise ValueError(f"{self.kind} has no values, no rate and no dry run")
        if self.letters is not None and (self.kind != "retry_parked" or not self.letters.places):
            raise ValueError("parked commands are named by their places, and nothing else is")

    def to_json(self) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "act_id": str(self.act_id),
            "kind": self.kind,
            "who": self.who.to_json(),
            "at": render_time(self.at),
        }
        if self.letters is not None:
            shown["letters"] = self.letters.to_json()
        if self.values:
            shown["values"] = {str(n): dict(values) for n, values in self.values.items()}
        for name in _FLAGS:
            if getattr(self, name):
                shown[name] = True
        for name, value in (("reason", self.reason), ("lane", self.lane), ("rate", self.rate)):
            if value is not None:
                shown[name] = value
        return shown

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Act":
        """Raises ValueError, KeyError, TypeError or AttributeError when the data are malformed."""
        _only(data, "act_id", "kind", "who", "at", "letters", "values", *_OPTIONAL, *_FLAGS)
        if data["kind"] not in get_args(ActKind):
            raise ValueError("no such kind of act")
        reason, lane, rate = (data.get(name) for name in _OPTIONAL)
        if rate is not None and type(rate) not in (int, float):
            raise TypeError("rate is a number")
        values = data.get("values", {})
        return cls(
            act_id=uuid.UUID(_text(data["act_id"])),
            kind=data["kind"],
            who=Operator.from_json(data["who"]),
            at=parse_time(_text(data["at"])),
            reason=None if reason is None else _text(reason),
            letters=Letters.from_json(data["letters"]) if "letters" in data else None,
            lane=None if lane is None else _number(lane, 0),
            values={_index(n): dict(changed.items()) for n, changed in values.items()},
            any_version=data.get("any_version") is True,
            dry_run=data.get("dry_run") is True,
            rate=None if rate is None else float(rate),
        )


_OPTIONAL: Final = ("reason", "lane", "rate")
_FLAGS: Final = ("any_version", "dry_run")


def seal_act(act: Act, keyring: Keyring, source: str) -> Record:
    """The signed record of an act. `source` is the CloudEvents source, a URI reference."""
    key = str(act.act_id).encode()
    value = encode({"v": VERSION} | act.to_json())
    headers = (
        ("ce_specversion", b"1.0"),
        ("ce_id", key),
        ("ce_source", source.encode()),
        ("ce_type", _TYPE),
        ("ce_time", render_time(act.at).encode()),
        ("content-type", CONTENT_TYPE),
        ("ce_signature", keyring.sign(_TYPE, key, value)),
    )
    return Record(key, value, headers)


def open_act(
    key: bytes | None,
    value: bytes | None,
    headers: Iterable[tuple[str, bytes | None]],
    keyring: Keyring,
) -> Act:
    """The act of a record. Raises `EnvelopeError`; never anything else."""
    by_name = {name: content for name, content in headers if content is not None}
    data = genuine(key, value, by_name, keyring, _TYPE, VERSION)
    try:
        act = Act.from_json({name: found for name, found in data.items() if name != "v"})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Malformed(f"not an act: {type(error).__name__}") from error
    if key != str(act.act_id).encode():
        raise Malformed("the key is not the act's id")
    return act


def _only(data: Mapping[str, Any], *names: str) -> None:
    unknown = set(data) - set(names)
    if unknown:
        raise ValueError(f"unknown members: {sorted(unknown)}")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a text is expected")
    return value


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("a list is expected")
    return value


def _number(value: object, least: int) -> int:
    if type(value) is not int or value < least:
        raise ValueError(f"a whole number of at least {least} is expected")
    return value


def _index(text: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise ValueError("a mutation is named by its number")
    return int(text)


def _place(value: object) -> Place:
    lane, offset = _list(value)
    return _number(lane, 0), _number(offset, 0)
