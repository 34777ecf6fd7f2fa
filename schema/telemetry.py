"""Names of metrics and log events, and how a process sets up its log.

Dashboards and alerts read these names from both processes: they are part of the contract.
"""

import logging
import sys
from typing import Literal

import structlog

Event = Literal[
    "accepted",
    "not_accepted",
    "outcome_unknown",
    "late_acknowledgement",
    "producer_replaced",
    "overlay_unavailable",
    "overlay_lost",
    "overlay_rebuilt",
    "redis_evicts",
    "database_unavailable",
    "database_available",
    "role_proven",
    "demo_sign_in",
    "lane_taken",
    "lane_released",
    "lane_lost",
    "lane_halted",
    "lane_paused",
    "lane_continued",
    "batch_applied",
    "batch_isolated",
    "command_rejected",
    "command_parked",
    "dead_letter",
    "recovering",
    "lag_hint_failed",
    "channel_failed",
    "channel_works",
    "alert_dropped",
    "settle_failed",
    "acts_wait",
    "act_refused",
    "act_failed",
    "act_performed",
    "log_trimmed",
    "trim_failed",
    "log_full",
    "log_has_room",
    "disk_unknown",
    "leading",
    "standing_by",
    "memory_unavailable",
    "watch_failed",
    "following",
    "incident",
    "authors_told",
    "mail_sent",
    "mail_put_off",
    "mail_dead",
    "mail_possible_duplicate",
    "mail_partitions",
    "mail_partition_taken",
    "smtp_unavailable",
    "smtp_available",
    "stuck",
    "started",
    "stopping",
    "stopped",
    "unexpected_error",
]

METRICS: dict[str, str] = {
    "afterwrite_submissions_total": "Submissions by result.",
    "afterwrite_accept_seconds": "Time from request to answer of a submission.",
    "afterwrite_publish_seconds": "Time until Kafka confirmed a command.",
    "afterwrite_producer_replacements_total": "Producers replaced after a fault.",
    "afterwrite_overlay_failures_total": "Overlay requests that failed.",
    "afterwrite_overlay_complete": "1 while the overlay holds everything that is undecided.",
    "afterwrite_overlay_rebuilds_total": "Rebuilds of the overlay by this process.",
    "afterwrite_database_available": "1 while the front end can read PostgreSQL.",
    "afterwrite_disk_used_ratio": "Used part of the broker's disk, by broker; 1 is full.",
    "afterwrite_read_cache_total": "Rows and pages of the read cache: hit, miss, kept, dropped.",
    "afterwrite_event_streams": "Event streams that are open.",
    "afterwrite_outcomes_total": "Applied commands by outcome.",
    "afterwrite_apply_seconds": "Time of one batch transaction.",
    "afterwrite_batch_commands": "Commands in one batch.",
    "afterwrite_lane_position": "Next offset to apply, by lane.",
    "afterwrite_lane_end": "End of the log, by lane.",
    "afterwrite_lane_halted": "1 while a lane is halted.",
    "afterwrite_log_begin": "First offset that the log still has, by lane.",
    "afterwrite_circuit_state": "Breaker before a server: 0 closed, 1 half-open, 2 open.",
    "afterwrite_lane_paused": "1 while an operator has paused a lane.",
    "afterwrite_settle_lag": "Outcomes not yet settled, by lane.",
    "afterwrite_command_seconds": "Time from acceptance to commit.",
    "afterwrite_mail_total": "Mails by what became of them: sent, put_off, dead, duplicate.",
    "afterwrite_mail_possible_duplicates_total": "Mails sent once more, as the first may be lost.",
    "afterwrite_mail_waiting": "Mails that this worker has taken and not finished.",
    "afterwrite_mail_seconds": "Time from queueing a mail until the server had taken it.",
    "afterwrite_smtp_available": "1 while the SMTP server takes mail.",
    "afterwrite_incidents_open": "Incidents that are open, by kind.",
    "afterwrite_alerts_total": "Alerts given to the channels, by phase.",
    "afterwrite_notices_total": "Notices to users that were published, by kind.",
    "afterwrite_notices_repeated_total": "Notices published again after a crash; users see them once.",
    "afterwrite_mails_queued_total": "Mails to users that were queued.",
    "afterwrite_oldest_pending_seconds": "Age of the oldest command that waits for long.",
    "afterwrite_notifier_leading": "1 while this notifier tells, 0 while it stands by.",
}


def configure_logging(level: str, format_: str) -> None:
    """Log to standard error, JSON lines or text. Called once, by a composition root."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(name)s: %(message)s")
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if format_ == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def in_every_line(**fields: object) -> None:
    """Add fields to every line that the current task logs from now on."""
    structlog.contextvars.bind_contextvars(**fields)


class Log:
    """A logger whose event names are the contract's."""

    def __init__(self, component: str) -> None:
        self._logger = structlog.get_logger(component=component)

    def info(self, event: Event, **fields: object) -> None:
        self._logger.info(event, **fields)

    def warning(self, event: Event, **fields: object) -> None:
        self._logger.warning(event, **fields)

    def error(self, event: Event, **fields: object) -> None:
        self._logger.error(event, **fields)
