"""The processes of ours that run on the services: migrations, API, writer.

Each gets the settings it needs and no others: the API never sees a URL that can write.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from deploy.embedded import probes
from deploy.embedded.process import Launch
from deploy.embedded.supervisor import Child

OURS = [sys.executable, "-P", "-m", "deploy.cli"]  # -P: a folder `schema` of a site is not ours
SECRETS_OF = {
    "migrate": {"AFTERWRITE_DATABASE_URL"},
    "api": {"AFTERWRITE_FRONTEND_DATABASE_URL", "AFTERWRITE_JWT_SECRET"},
    "writer": {"AFTERWRITE_WRITER_DATABASE_URL"},
}
NOT_FOR_ALL = set().union(*SECRETS_OF.values(), {"AFTERWRITE_ADMIN_DATABASE_URL", "AFTERWRITE_URL"})
READY_WITHOUT_READYZ = frozenset({200, 404})
"""The writer's port serves metrics; where it has no /readyz, being there is enough."""


@dataclass(frozen=True)
class Commands:
    """The command lines; tests put others in their place."""

    migrate: list[str] = field(default_factory=lambda: [*OURS, "migrate"])
    api: list[str] = field(default_factory=lambda: [*OURS, "serve", "api"])
    writer: list[str] = field(default_factory=lambda: [*OURS, "serve", "writer"])


def environment_of(
    name: str, inherited: Mapping[str, str], settings: Mapping[str, str]
) -> dict[str, str]:
    """The environment of process `name`: `inherited` and `settings`, less the secrets of others."""
    withheld = NOT_FOR_ALL - SECRETS_OF[name]
    return {key: value for key, value in {**inherited, **settings}.items() if key not in withheld}


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
        Child(
            "writer",
            lambda: Launch(tuple(commands.writer), writer, stop_s=30),
            partial(probes.http, f"http://127.0.0.1:{metrics_port}/readyz", READY_WITHOUT_READYZ),
            metrics_port,
        ),
    ]
