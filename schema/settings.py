"""The settings vocabulary: every name the processes read from the environment.

One prefix, `AFTERWRITE_`. Values are read once, by the composition root of a process, and handed
down. Durations are seconds (`_s`), sizes are bytes (`_bytes`). A secret never shows in `repr`.
A name ending in `_FILE` holds the path of a file with the value, for secrets mounted as files.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

ENV_PREFIX = "AFTERWRITE_"
LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


def _signing_keys(value: SecretStr) -> SecretStr:
    for part in value.get_secret_value().split(","):
        kid, sep, secret = part.partition(":")
        if not sep or not kid or len(secret) < 32:
            raise ValueError(
                "wants KID:SECRET[,KID:SECRET…]; the first signs, all verify; "
                "a secret has at least 32 characters"
            )
    return value


class Settings(BaseSettings):
    """What everything must agree on."""

    # A value that is refused may be a secret: it is not shown in the error either.
    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True
    )

    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        repr=False,  # it may hold a password
        description="Redis or Valkey URL.",
    )
    kafka_bootstrap: str = Field("127.0.0.1:9092", description="Kafka bootstrap servers.")
    prefix: str = Field(
        "afterwrite",
        pattern=r"^[a-z0-9]([a-z0-9._-]{0,40}[a-z0-9])?$",
        description="First part of every topic name and Redis key.",
    )
    lanes: int = Field(1, ge=1, le=64, description="Partitions of the command topic.")
    content: str = Field("schema.forum", description="Module that declares the content types.")
    settled_grace_s: float = Field(
        600, ge=10, le=86_400, description="How long a settled entry stays in the overlay."
    )
    horizon_s: float = Field(
        432_000, ge=1, description="How long a command is tried before it bounces."
    )
    delay_notice_after: float = Field(
        300, ge=1, description="How long a command waits before its author is told, in seconds."
    )
    public_url: str = Field(
        "http://127.0.0.1:8000",
        pattern=r"^https?://[^/\s]+(/[^\s]*)?$",
        description="Where users find the site; links in notices and mail begin with it.",
    )
    failures_url: str = Field(
        "docs/failures.md",
        description="Where administrators find the failure cases; links in alerts begin with it.",
    )
    log_level: str = Field(
        "info", pattern="^(debug|info|warning|error)$", description="Least level logged."
    )
    log_format: str = Field("json", pattern="^(json|text)$", description="`json` lines, or `text`.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _secret_files(settings_cls)


def _secret_files(settings_cls: type[BaseSettings]) -> InitSettingsSource:
    """Values of `AFTERWRITE_<NAME>_FILE`, read from the files they name."""
    values: dict[str, Any] = {}
    for name in settings_cls.model_fields:
        path = os.environ.get(f"{ENV_PREFIX}{name.upper()}_FILE")
        if path:
            values[name] = Path(path).read_text(encoding="utf-8").strip()
    return InitSettingsSource(settings_cls, init_kwargs=values)


class ProcessSettings(Settings):
    """What the processes on the way of a command share."""

    signing_keys: Annotated[SecretStr, AfterValidator(_signing_keys)] = Field(
        description="HMAC keys of the envelope, KID:SECRET[,KID:SECRET…]; the first one signs."
    )


class FrontendSettings(ProcessSettings):
    """Settings of the front-end API."""

    frontend_database_url: SecretStr = Field(description="PostgreSQL URL of the read-only role.")
    host: str = Field("127.0.0.1", description="Address the API listens on.")
    port: int = Field(8000, ge=0, le=65_535, description="Port the API listens on.")
    jwt_secret: SecretStr | None = Field(
        None, min_length=32, description="HS256 key of the bearer tokens."
    )
    jwks: str | None = Field(
        None, description="Path or URL of a JWKS, instead of `AFTERWRITE_JWT_SECRET`."
    )
    jwt_audience: str | None = Field(None, description="Required `aud` claim, if set.")
    site: str = Field(
        "none",
        pattern="^(none|forum)$",
        description="Pages served beside the API: `none`, or the `forum`.",
    )
    admin: bool = Field(
        False, description="Serve the operators' pages under `/admin` beside the API."
    )
    session_cookie: str = Field(
        "afterwrite_session",
        pattern=r"^[A-Za-z0-9_-]{1,64}$",
        description="Cookie that holds the token (JWT) of who uses the pages.",
    )
    demo_sign_in_anywhere: bool = Field(
        False, description="Allow that although the API listens on more than this machine."
    )
    demo_sign_in: bool = Field(
        False, description="Let anybody use the pages under any name, for trying out."
    )
    accept_deadline_s: float = Field(
        3.0, gt=0.1, le=30, description="Longest time a submission may take, whatever is down."
    )
    redis_timeout_s: float = Field(
        0.5, gt=0, le=5, description="Longest time one Redis request may take."
    )
    read_timeout_s: float = Field(
        0.5, gt=0, le=30, description="Longest time a read waits for PostgreSQL."
    )
    read_cache_entries: int = Field(
        10_000,
        ge=0,
        description="Rows and pages kept in Redis for reads while PostgreSQL is away; 0: none.",
    )
    read_cache_ttl_s: float = Field(
        86_400, ge=1, description="Longest time a row or page is kept for such reads."
    )
    max_body_bytes: int = Field(
        131_072, ge=1024, le=262_144, description="Largest request body; well below the broker's."
    )
    max_wait_s: float = Field(30, ge=0, le=120, description="Most that `Prefer: wait=N` may ask.")
    writes_per_minute: int = Field(
        600, ge=1, description="Submissions one author may make in a minute."
    )
    body_timeout_s: float = Field(
        10, gt=0, le=60, description="Longest time a client may take to send its request."
    )
    max_in_flight: int = Field(
        256, ge=1, description="Submissions in work at once; beyond it, 503 with Retry-After."
    )
    streams_per_author: int = Field(
        8, ge=1, le=1000, description="Event streams one author may have open per process."
    )
    max_streams: int = Field(
        1000, ge=1, description="Event streams open at once per process; beyond it, 503."
    )
    idempotency_ttl_s: int = Field(
        86_400, ge=60, description="How long a repeated Idempotency-Key is answered from Redis."
    )
    cors_origins: str | None = Field(
        None,
        pattern=r"^(\*|( *https?://[A-Za-z0-9.\[\]:-]+ *(,|$))*)$",
        description="Origins whose pages may use the API, with commas; `*` for all.",
    )
    require_if_match: bool = Field(
        True, description="Whether changes and deletions of a row must say `If-Match`."
    )
    disk_shed_percent: float = Field(
        80,
        gt=0,
        le=100,
        description="How full a broker's disk may be; beyond it, 503 for new changes.",
    )
    database_pool: int = Field(8, ge=1, le=100, description="PostgreSQL connections per process.")

    @field_validator("demo_sign_in")
    @classmethod
    def _demo_stays_at_home(cls, value: bool, info: ValidationInfo) -> bool:
        if not value:
            return value
        if info.data.get("jwt_secret") is None:
            raise ValueError("it makes tokens, and needs AFTERWRITE_JWT_SECRET")
        if info.data.get("host") not in LOOPBACK and not info.data.get("demo_sign_in_anywhere"):
            raise ValueError(
                "it lets anybody be anybody, and AFTERWRITE_HOST is not a loopback address; if "
                "that is meant, set AFTERWRITE_DEMO_SIGN_IN_ANYWHERE, too"
            )
        return value


class WriterSettings(ProcessSettings):
    """Settings of the writer."""

    writer_database_url: SecretStr = Field(description="PostgreSQL URL of the writer's role.")
    batch_size: int = Field(
        5000,
        ge=1,
        le=5000,
        description="Most commands in one transaction; while there are fewer, none waits for more.",
    )
    lease_s: float = Field(
        5.0,
        ge=1,
        le=60,
        description="How long a silent writer keeps its lane, if its connection does not end.",
    )
    writer_lanes: str = Field(
        "",
        pattern=r"^(\d{1,2}(,\d{1,2})*)?$",
        description="Lanes that this writer may take, as numbers with commas between; none: all.",
    )
    database_backoff_min_s: float = Field(1.0, gt=0, description="First wait for a lost server.")
    database_backoff_max_s: float = Field(60.0, gt=0, description="Longest wait for a lost server.")
    park_backoff_min_s: float = Field(300, gt=0, description="First wait of a parked stream.")
    park_backoff_max_s: float = Field(4000, gt=0, description="Longest wait of a parked stream.")
    dependency_wait_s: float = Field(
        900, ge=0, description="How long a command waits for a row it refers to."
    )
    mass_rejection_limit: int = Field(
        20,
        ge=2,
        description="Database rejections in a row that stop the lane before anyone is told.",
    )
    trim_window_s: float = Field(
        86_400, ge=0, description="How long an applied command stays in the log."
    )
    statement_timeout_s: float = Field(10, gt=0, description="`statement_timeout` of the writer.")
    metrics_port: int = Field(
        0, ge=0, le=65_535, description="Port of the writer's /metrics; 0: none."
    )

    @field_validator("writer_lanes")
    @classmethod
    def _there_are_such_lanes(cls, value: str, info: ValidationInfo) -> str:
        most = info.data.get("lanes", 1) - 1
        if any(int(lane) > most for lane in value.split(",") if lane):
            raise ValueError(f"names a lane beyond {most}, the last one")
        return value

    @property
    def own_lanes(self) -> list[int]:
        """The lanes that this writer may take, in order, each once."""
        named = {int(lane) for lane in self.writer_lanes.split(",") if lane}
        return sorted(named) or list(range(self.lanes))


class AlertSettings(Settings):
    """How administrators are reached."""

    alert_urls: SecretStr | None = Field(
        None, description="Channels to the administrators, as URLs with commas between."
    )
    alert_secret: SecretStr | None = Field(
        None, min_length=32, description="HMAC key that signs alerts to `json://` channels."
    )


class NotifierSettings(AlertSettings, ProcessSettings):
    """Settings of the notifier, which watches and tells."""

    frontend_database_url: SecretStr = Field(description="PostgreSQL URL of the read-only role.")
    incident_after_s: float = Field(
        5, ge=0.5, le=3600, description="How long something is wrong before an incident opens."
    )
    rejections_every_s: float = Field(
        900, ge=1, description="How often rejected commands are summed up for administrators."
    )
    disk_alert_percent: float = Field(
        60,
        gt=0,
        le=100,
        description="How full a broker's disk may be before administrators hear of it.",
    )
    mail_per_user_day: int = Field(
        3,
        ge=0,
        le=1000,
        description="Mails to one user in a day; what is beyond comes as a digest.",
    )
    mail_per_minute: int = Field(
        60, ge=1, description="Mails to all users in a minute; what is beyond waits."
    )
    notifier_port: int = Field(
        0, ge=0, le=65_535, description="Port of the notifier's /metrics; 0: none."
    )


class MailSettings(Settings):
    """Settings of the mail workers."""

    smtp_url: SecretStr = Field(
        description="SMTP server: smtp://[USER:PASSWORD@]HOST[:PORT], smtps://…; STARTTLS if it can."
    )
    mail_from: str = Field("Afterwrite <afterwrite@localhost>", description="Sender of all mail.")
    mail_backoff_min_s: float = Field(300, gt=0, description="First wait of a mail put off (4xx).")
    mail_backoff_max_s: float = Field(4000, gt=0, description="Longest wait of a mail put off.")
    smtp_timeout_s: float = Field(30, gt=0, description="Longest time one SMTP step may take.")
    mail_metrics_port: int = Field(
        0, ge=0, le=65_535, description="Port of the mail worker's /metrics; 0: none."
    )


class OwnerSettings(Settings):
    """Settings of `afterwrite migrate` and `afterwrite audit`."""

    database_url: SecretStr = Field(description="PostgreSQL URL of the owner (migrations).")
    replication_factor: int = Field(1, ge=1, le=9, description="Replicas of each topic.")
    min_insync_replicas: int = Field(1, ge=1, le=9, description="Replicas that must confirm.")


class OperatorSettings(Settings):
    """Settings of the operators' commands: names of other processes, of which each command needs some."""

    database_url: SecretStr | None = None
    writer_database_url: SecretStr | None = None
    signing_keys: Annotated[SecretStr, AfterValidator(_signing_keys)] | None = None
