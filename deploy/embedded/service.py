"""What the three services have in common, and what an existing server in their place looks like."""

from dataclasses import dataclass
from typing import Literal, Protocol

from deploy.embedded.process import Launch

ServiceName = Literal["postgres", "redis", "kafka"]


class Service(Protocol):
    """A service that runs as our child. `prepare` and `finish` may block and run in a thread."""

    @property
    def name(self) -> ServiceName: ...

    @property
    def port(self) -> int: ...

    def describe(self) -> str:
        """Which binary was taken, in a few words."""

    def prepare(self) -> None:
        """Makes data folder and settings files; idempotent. Raises `Trouble`."""

    def launch(self) -> Launch:
        """How to start it; called at each start."""

    def ready(self) -> bool:
        """Whether it serves requests now; takes at most a second, never raises."""

    def finish(self) -> None:
        """What is to be done once it serves (roles, say); idempotent."""

    def environment(self) -> dict[str, str]:
        """The settings by which our processes reach it."""


@dataclass(frozen=True)
class External:
    """A server that is there already, named by a setting. It is neither started nor stopped."""

    name: ServiceName
    settings: dict[str, str]

    def describe(self) -> str:
        return f"existing server, from {', '.join(sorted(self.settings))}"

    def environment(self) -> dict[str, str]:
        return dict(self.settings)
