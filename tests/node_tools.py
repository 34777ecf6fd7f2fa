"""The linters of the interface descriptions, which run on Node. Installed by `.ci/node-tools`."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
INSTALLED = ROOT / ".venv" / "node-tools"
_TIMEOUT_S = 120


def spectral(*files: Path) -> dict[str, list[str]]:
    """What Spectral finds in each file by the house rules, as `rule at place: what`."""
    command = [
        str(_installed() / "node_modules" / ".bin" / "spectral"),
        "lint", "--quiet", "--format", "json", "--ruleset", str(ROOT / ".spectral.yaml"),
        *map(str, files),
    ]  # fmt: skip
    found: dict[str, list[str]] = {str(file): [] for file in files}
    for one in json.loads(_run(command, ok=(0, 1)).partition("\n\n")[0]):
        place = "/".join(map(str, one["path"]))
        found[one["source"]].append(f"{one['code']} at {place}: {one['message']}")
    return found


def asyncapi(*files: Path) -> dict[str, list[str]]:
    """What the AsyncAPI parser finds in each file."""
    script = ROOT / "tests" / "tools" / "asyncapi.mjs"
    found: dict[str, list[str]] = json.loads(_run(["node", str(script), *map(str, files)]))
    return found


def written(folder: Path, name: str, document: Any) -> Path:
    path = folder / f"{name}.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def _installed() -> Path:
    if (INSTALLED / "installed.json").exists():
        return INSTALLED
    told = "NOT RUN: the linters of the interface descriptions are not installed: .ci/node-tools"
    if os.environ.get("CI") == "true":
        pytest.fail(told)
    pytest.skip(told)


def _run(command: list[str], ok: tuple[int, ...] = (0,)) -> str:
    done = subprocess.run(
        command,
        cwd=_installed(),
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    assert done.returncode in ok, done.stdout + done.stderr
    return done.stdout
