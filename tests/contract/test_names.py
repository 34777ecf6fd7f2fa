"""Names that others rely on: topics and their settings, Redis keys, problem codes, states, metrics.

Dashboards, runbooks and clients use them, and what is in a server was written under them. A change
here is a change of the contract: it needs an entry in the change log, and a way for what is old.
"""

import uuid

import pytest

from schema.outcomes import CODES, Outcome, Problem, State
from schema.overlay import EntryState
from schema.redis_keys import RedisKeys
from schema.settings import Settings
from schema.telemetry import METRICS
from schema.topics import lane_of, topics

pytestmark = pytest.mark.contract

COMMON = {
    "min.insync.replicas": "2",
    "unclean.leader.election.enable": "false",
    "max.message.bytes": "1048576",
}
ENDLESS = COMMON | {
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "message.timestamp.type": "LogAppendTime",
}
WEEKLY = COMMON | {"cleanup.policy": "delete", "retention.ms": "604800000"}


def test_topics_and_their_settings() -> None:
    settings = Settings.model_validate({"prefix": "site", "lanes": 3})
    found = [(t.name, t.partitions, t.config) for t in topics(settings, 2).all()]
    assert found == [
        ("site.commands", 3, ENDLESS),
        ("site.commands.dlq", 1, ENDLESS),
        ("site.outcomes", 3, WEEKLY),
        ("site.notices", 1, COMMON | {"cleanup.policy": "compact"}),
        ("site.mail", 8, WEEKLY),
        ("site.mail.state", 8, COMMON | {"cleanup.policy": "compact"}),
        ("site.mail.dlq", 1, ENDLESS),
        ("site.alerts", 1, WEEKLY),
        ("site.acts", 1, WEEKLY),
    ]


def test_mail_is_kept_for_longer_than_it_is_tried() -> None:
    settings = Settings.model_validate({"horizon_s": 20 * 86_400})
    assert topics(settings).mail.config["retention.ms"] == str(22 * 86_400_000)


def test_names_without_any_setting() -> None:
    settings = Settings.model_construct()
    assert topics(settings).commands.name == "afterwrite.commands"


@pytest.mark.parametrize(
    ("stream", "lane"),
    [
        ("00000000-0000-7000-8000-000000000000", 0),
        ("00000000-0000-7000-8000-000000000001", 1),
        ("01997f6e-3a52-7cc4-b2a1-9d2f0c5e7a11", 1),
        ("fe3e2909-2cdb-8191-a15b-ae7babe6100f", 7),
    ],
)
def test_the_lane_of_a_stream(stream: str, lane: int) -> None:
    """Another lane for the same stream would break its order."""
    assert lane_of(uuid.UUID(stream), 8) == lane


def test_redis_keys() -> None:
    author = uuid.UUID("0a0a0a0a-0000-7000-8000-000000000001")
    row = uuid.UUID("0b0b0b0b-0000-7000-8000-000000000002")
    keys = RedisKeys("site")
    tag, short = "{0a1850k000e008000000000001}", "0b1c5gm000e008000000000002"
    assert {
        "entries": keys.entries(author),
        "index": keys.index(author),
        "row": keys.row(author, "post", row),
        "list": keys.list(author, "topic_posts", row),
        "list of all": keys.list(author, "topics", None),
        "count": keys.count(author, "topic", row),
        "idempotency": keys.idempotency(author, "key"),
        "rate": keys.rate(author, 29_000_000),
        "stream": keys.stream(row),
        "sweep": keys.sweep(),
    } == {
        "entries": f"site:overlay:{tag}:entries",
        "index": f"site:overlay:{tag}:index",
        "row": f"site:overlay:{tag}:row:post:{short}",
        "list": f"site:overlay:{tag}:list:topic_posts:{short}",
        "list of all": f"site:overlay:{tag}:list:topics:",
        "count": f"site:overlay:{tag}:count:topic:{short}",
        "idempotency": (
            f"site:idempotency:{tag}:"
            "2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683"
        ),
        "rate": f"site:rate:{tag}:29000000",
        "stream": f"site:stream:{{{row}}}",
        "sweep": "site:sweep",
    }


def test_states_and_outcomes() -> None:
    assert [s.value for s in State] == ["pending", "delayed", "parked", "saved", "rejected"]
    assert [o.value for o in Outcome] == ["saved", "rejected", "parked", "duplicate", "dead"]
    assert [e.value for e in EntryState] == [
        "unconfirmed", "pending", "parked", "saved", "rejected",
    ]  # fmt: skip


def test_problem_codes_and_their_status() -> None:
    assert {code.name: code.status for code in CODES.values()} == {
        "not_found": 404,
        "target_missing": 422,
        "parent_rejected": 422,
        "forbidden": 403,
        "version_conflict": 412,
        "precondition_required": 428,
        "id_taken": 409,
        "idempotency_key_reused": 422,
        "idempotency_key_malformed": 400,
        "in_flight": 409,
        "invalid": 422,
        "unique_violation": 409,
        "check_violation": 422,
        "data_exception": 422,
        "limit_exceeded": 422,
        "expired": 422,
        "crashed_writer": 422,
        "unauthenticated": 401,
        "json_encoding": 400,
        "json_syntax": 400,
        "json_duplicate_key": 400,
        "json_number": 400,
        "json_depth": 422,
        "body_too_large": 413,
        "header_too_large": 431,
        "bad_request": 400,
        "request_timeout": 408,
        "unsupported_media_type": 415,
        "method_not_allowed": 405,
        "rate_limited": 429,
        "not_accepted": 503,
        "outcome_unknown": 503,
        "overloaded": 503,
        "log_full": 503,
        "database_unavailable": 503,
        "overlay_incomplete": 503,
        "internal": 500,
    }


def test_the_form_of_a_problem() -> None:
    error = {"pointer": "/title", "code": "text_long", "detail": "is longer than 300 characters"}
    problem = Problem("version_conflict", "Other.", (error,), {"current_version": 3})
    assert problem.to_json() == {
        "type": "urn:afterwrite:problem:version-conflict",
        "title": "It was changed in the meantime",
        "status": 412,
        "detail": "Other.",
        "code": "version_conflict",
        "errors": [error],
        "current_version": 3,
    }


def test_names_of_metrics() -> None:
    assert set(METRICS) == {
        "afterwrite_submissions_total",
        "afterwrite_accept_seconds",
        "afterwrite_publish_seconds",
        "afterwrite_producer_replacements_total",
        "afterwrite_overlay_failures_total",
        "afterwrite_overlay_complete",
        "afterwrite_overlay_rebuilds_total",
        "afterwrite_read_cache_total",
        "afterwrite_event_streams",
        "afterwrite_database_available",
        "afterwrite_outcomes_total",
        "afterwrite_apply_seconds",
        "afterwrite_batch_commands",
        "afterwrite_lane_position",
        "afterwrite_lane_end",
        "afterwrite_lane_halted",
        "afterwrite_lane_paused",
        "afterwrite_settle_lag",
        "afterwrite_command_seconds",
        "afterwrite_mail_total",
        "afterwrite_mail_possible_duplicates_total",
        "afterwrite_mail_waiting",
        "afterwrite_mail_seconds",
        "afterwrite_smtp_available",
        "afterwrite_incidents_open",
        "afterwrite_alerts_total",
        "afterwrite_notices_total",
        "afterwrite_notices_repeated_total",
        "afterwrite_mails_queued_total",
        "afterwrite_oldest_pending_seconds",
        "afterwrite_log_begin",
        "afterwrite_circuit_state",
        "afterwrite_disk_used_ratio",
        "afterwrite_notifier_leading",
    }
