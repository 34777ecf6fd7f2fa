"""The processes of ours that run on the services: migrations, API, writer, notifier, mail worker.

Each gets the settings it needs and no others: the API never sees a URL that can write.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from deploy.embedded import probes
from deploy.embedded.process import Launch
from deploy.embedded.supervisor import Child

OURS = [sys.executable, "-P", "-m", "deploy.cli"]  # -P: a folder `schema` of a site is not ours
SECRETS_OF = {
    "migrate": {"AFTERWRITE_DATABASE_URL"},
    "api": {
        "AFTERWRITE_FRONTEND_DATABASE_URL",
        "AFTERWRITE_JWT_SECRET",
        "AFTERWRITE_SIGNING_KEYS",
    },
    "writer": {"AFTERWRITE_WRITER_DATABASE_URL", "AFTERWRITE_SIGNING_KEYS"},
    "notifier": {
        "AFTERWRITE_FRONTEND_DATABASE_URL",
        "AFTERWRITE_SIGNING_KEYS",
        "AFTERWRITE_ALERT_URLS",
        "AFTERWRITE_ALERT_SECRET",
    },
    "mail-worker": {"AFTERWRITE_SMTP_URL"},
}
NOT_FOR_ALL = set().union(*SECRETS_OF.values(), {"AFTERWRITE_ADMIN_DATABASE_URL", "AFTERWRITE_URL"})
READY_WITHOUT_READYZ = frozenset({200, 404})
"""Their ports serve metrics; where one has no /readyz, being there is enough."""


@dataclass(frozen=True)
class Commands:
    """The command lines; tests put others in their place."""

    migrate: list[str] = field(default_factory=lambda: [*OURS, "migrate"])
    api: list[str] = field(default_factory=lambda: [*OURS, "serve", "api"])
    writer: list[str] = field(default_factory=lambda: [*OURS, "serve", "writer"])
    notifier: list[str] = field(default_factory=lambda: [*OURS, "serve", "notifier"])
    mail_worker: list[str] = field(default_factory=lambda: [*OURS, "mail-worker"])


def environment_of(
    name: str, inherited: Mapping[str, str], settings: Mapping[str, str]
) -> dict[str, str]:
    """The environment of process `name`: `inherited` and `settings`, less the secrets of others,
    whether they are there themselves or as the path of a file (`…_FILE`)."""
    withheld = NOT_FOR_ALL - SECRETS_OF[name]
    everything = {**inherited, **settings}
    return {k: v for k, v in everything.items() if k.removesuffix("_FILE") not in withheld}


def migrate(
    commands: Commands, inherited: Mapping[str, str], settings: Mapping[str, str]
) -> Launch:
    return Launch(tuple(commands.migrate), environment_of("migrate", inherited, settings))


def api_and_writer(
    commands: Commands,
    inherited: Mapping[str, str],
    settings: Mapping[str, str],
    url: str,
    metrics_port: int,
    site: Mapping[str, str],
) -> list[Child]:
    """`url` is where the API will answer; `metrics_port` where the writer will. `site` are settings
    of the pages beside the API, which no other process of this stack has."""
    port = int(url.rsplit(":", 1)[1])
    api = environment_of("api", inherited, {**settings, **site})
    writer = environment_of("writer", inherited, settings)
    writer["AFTERWRITE_METRICS_PORT"] = str(metrics_port)
    return [
        Child(
            "api",
            lambda: Launch(tuple(commands.api), api, stop_s=15),
            partial(probes.http, f"{url}/readyz"),
            port,
        ),
        _with_metrics("writer", commands.writer, writer, metrics_port, stop_s=30),
    ]


def notifier(
    commands: Commands, inherited: Mapping[str, str], settings: Mapping[str, str], port: int
) -> Child:
    """Tells administrators and authors. `port` is where its metrics will be."""
    environment = environment_of("notifier", inherited, settings)
    environment["AFTERWRITE_NOTIFIER_PORT"] = str(port)
    return _with_metrics("notifier", commands.notifier, environment, port, stop_s=15)


def mail_worker(
    commands: Commands, inherited: Mapping[str, str], settings: Mapping[str, str], port: int
) -> Child:
    """Sends the mail that is queued. `port` is where its metrics will be."""
    environment = environment_of("mail-worker", inherited, settings)
    environment["AFTERWRITE_MAIL_METRICS_PORT"] = str(port)
    return _with_metrics("mail-worker", commands.mail_worker, environment, port, stop_s=15)


def mailbox(folder: Path, port: int) -> Child:
    """Keeps as files what the mail worker sends, where no SMTP server was named."""
    argv = (sys.executable, "-P", "-m", "deploy.embedded.mailbox", str(port), str(folder))
    return Child("mailbox", lambda: Launch(argv, stop_s=5), partial(probes.smtp, port), port)


def _with_metrics(
    name: str, command: list[str], environment: Mapping[str, str], port: int, stop_s: float
) -> Child:
    return Child(
        name,
        lambda: Launch(tuple(command), environment, stop_s=stop_s),
        partial(probes.http, f"http://127.0.0.1:{port}/readyz", READY_WITHOUT_READYZ),
        port,
    )
