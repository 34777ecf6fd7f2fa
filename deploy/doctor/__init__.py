"""`afterwrite doctor`: what is wrong here, and what to do about it.

A check is an async function of the settings (`AFTERWRITE_…` name to value) that returns findings.
To add one, write it in a module of its own and name it in `CHECKS`; it is imported only when the
doctor runs. A check may fail: that is a finding too.
"""

import asyncio
import importlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

CHECKS: tuple[str, ...] = (
    "deploy.doctor.versions:check",
    "deploy.doctor.settings:check",
    "deploy.doctor.alerts:check_channels",
    "deploy.doctor.services:check_postgres",
    "deploy.doctor.services:check_redis",
    "deploy.doctor.services:check_kafka",
    "deploy.doctor.services:check_api",
    "deploy.doctor.contract:check_content",
    "deploy.doctor.contract:check_topics",
)
TIMEOUT_S = 15.0


@dataclass(frozen=True)
class Finding:
    """One line of the report. `todo` says what to do, unless all is `ok`."""

    subject: str
    state: Literal["ok", "warning", "bad"]
    text: str
    todo: str = ""


Check = Callable[[Mapping[str, str]], Awaitable[list[Finding]]]


async def examine(settings: Mapping[str, str], checks: Sequence[str] = CHECKS) -> list[Finding]:
    """Runs the checks side by side, each for at most `TIMEOUT_S`; findings come in their order."""
    found = await asyncio.gather(*(_run(name, settings) for name in checks))
    return [finding for findings in found for finding in findings]


async def _run(name: str, settings: Mapping[str, str]) -> list[Finding]:
    module, _, function = name.partition(":")
    try:
        check: Check = getattr(importlib.import_module(module), function)
        async with asyncio.timeout(TIMEOUT_S):
            return await check(settings)
    except TimeoutError:
        return [Finding(name, "bad", f"no answer in {TIMEOUT_S:g} s", "Is its server overloaded?")]
    except Exception as error:  # noqa: BLE001 (one broken check must not hide the others)
        text = f"the check itself failed: {type(error).__name__}: {error}"
        return [Finding(name, "bad", text, "Please report this.")]
