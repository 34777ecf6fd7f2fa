"""Outcomes: what became of a command, as the ledger, the outcomes topic and the API say it."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """What became of the record at one offset of a lane. The ledger has one for every offset."""

    SAVED = "saved"
    REJECTED = "rejected"
    PARKED = "parked"
    DUPLICATE = "duplicate"
    DEAD = "dead"
    """Bytes that were no command: kept as a dead letter, nobody to tell but administrators."""


class State(StrEnum):
    """What the author of a command sees."""

    PENDING = "pending"
    DELAYED = "delayed"
    PARKED = "parked"
    SAVED = "saved"
    REJECTED = "rejected"


@dataclass(frozen=True)
class Code:
    """A machine-readable reason, with the HTTP status it has when it is found at once."""

    name: str
    status: int
    title: str


_CODES = (
    # Found by the front end or the writer: permission and existence.
    Code("not_found", 404, "There is no such thing"),
    Code("target_missing", 422, "What this refers to does not exist"),
    Code("parent_rejected", 422, "What this refers to could not be saved"),
    Code("forbidden", 403, "You may not do this"),
    Code("version_conflict", 412, "It was changed in the meantime"),
    Code("precondition_required", 428, "Say which version this is meant for"),
    Code("id_taken", 409, "This id is taken"),
    Code("idempotency_key_reused", 422, "This Idempotency-Key came with another request before"),
    Code("idempotency_key_malformed", 400, "The Idempotency-Key cannot be read"),
    Code("in_flight", 409, "The first request with this Idempotency-Key is still in work"),
    Code("invalid", 422, "The request is not valid"),
    # Found by the database.
    Code("unique_violation", 409, "Something like this exists already"),
    Code("check_violation", 422, "A rule of the database refuses this"),
    Code("data_exception", 422, "The database cannot store this value"),
    Code("limit_exceeded", 422, "A limit of the database refuses this"),
    Code("expired", 422, "It could not be saved in time"),
    Code("crashed_writer", 422, "This could not be worked on safely"),
    # The front end's own.
    Code("unauthenticated", 401, "A valid bearer token is needed"),
    Code("json_encoding", 400, "The body must be UTF-8 without a byte order mark"),
    Code("json_syntax", 400, "The body is not well-formed JSON"),
    Code("json_duplicate_key", 400, "An object has the same key twice"),
    Code("json_number", 400, "A number is not acceptable"),
    Code("json_depth", 422, "The body is nested too deep"),
    Code("body_too_large", 413, "The body is too large"),
    Code("header_too_large", 431, "The headers are too large"),
    Code("bad_request", 400, "The request cannot be read"),
    Code("request_timeout", 408, "The request did not arrive in time"),
    Code("unsupported_media_type", 415, "The content type is not supported"),
    Code("method_not_allowed", 405, "This method is not allowed here"),
    Code("rate_limited", 429, "Too many requests"),
    Code("not_accepted", 503, "Not accepted; try again"),
    Code("outcome_unknown", 503, "It is not known whether this was accepted"),
    Code("overloaded", 503, "Too much to do; try again"),
    Code("log_full", 503, "There is no room for new changes now"),
    Code("database_unavailable", 503, "The database cannot be read now"),
    Code("overlay_incomplete", 503, "What is pending cannot be told now"),
    Code("internal", 500, "Something went wrong here"),
)
CODES = {code.name: code for code in _CODES}


@dataclass(frozen=True)
class Problem:
    """Why something failed: RFC 9457's members, the same at once and after the fact.

    `errors` are field problems, each with `pointer` (a JSON Pointer), `code` and `detail`. The
    input itself is never repeated here.
    """

    code: str
    detail: str
    errors: tuple[dict[str, str], ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> int:
        return CODES[self.code].status

    def to_json(self) -> dict[str, Any]:
        code = CODES[self.code]
        shown: dict[str, Any] = {
            "type": f"urn:afterwrite:problem:{code.name.replace('_', '-')}",
            "title": code.title,
            "status": code.status,
            "detail": self.detail,
            "code": code.name,
        }
        if self.errors:
            shown["errors"] = list(self.errors)
        return shown | self.extra
