"""How a command reaches the system it works on: the settings by name, and what to do without one."""

from collections.abc import Mapping

from deploy.embedded.home import known_settings
from deploy.errors import NotReachable


def environment() -> Mapping[str, str]:
    """The `AFTERWRITE_…` settings: the environment's, else those of the stack that runs in the home."""
    return known_settings()


def required(settings: Mapping[str, str], name: str) -> str:
    """The value of one setting. Raises `NotReachable` when neither environment nor stack has it."""
    value = settings.get(name)
    if not value:
        raise NotReachable(
            f"{name} is not set, and no stack is running in AFTERWRITE_HOME.",
            f"Start one with `afterwrite up`, or set {name}.",
        )
    return value
