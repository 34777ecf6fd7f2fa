"""The documents say what the code says: settings, problems, events, metrics, commands."""

import re
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from typer.testing import CliRunner

from deploy.cli import COMMANDS, build
from schema.outcomes import CODES
from schema.settings import (
    ENV_PREFIX,
    FrontendSettings,
    MailSettings,
    NotifierSettings,
    OwnerSettings,
    ProcessSettings,
    Settings,
    WriterSettings,
)
from schema.telemetry import METRICS, Event

pytestmark = pytest.mark.contract

ROOT = Path(__file__).parent.parent.parent
KINDS: list[type[Settings]] = [
    Settings,
    ProcessSettings,
    FrontendSettings,
    WriterSettings,
    MailSettings,
    NotifierSettings,
    OwnerSettings,
]


def _rows(page: str) -> dict[str, list[str]]:
    """The table rows of a page whose first cell is a name in code type: name → the other cells."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        name = re.fullmatch(r"`([A-Za-z_]+)`", cells[0])
        if line.startswith("|") and name:
            assert name[1] not in found, f"{name[1]} stands twice in {page}"
            found[name[1]] = cells[1:]
    return found


def _source(*folders: str) -> str:
    files = (path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


def test_every_setting_is_described_and_no_other() -> None:
    fields = {
        f"{ENV_PREFIX}{name.upper()}": field
        for kind in KINDS
        for name, field in kind.model_fields.items()
    }
    rows = _rows("configuration.md")
    assert set(rows) == set(fields)
    for name, field in fields.items():
        default, bounds, meaning = rows[name]
        assert meaning == field.description, name
        wanted = "–" if field.default is None else f"`{field.default}`"
        assert default == ("required" if field.is_required() else wanted), name
        numbers = {
            f"{getattr(bound, side):g}"
            for bound in field.metadata
            for side in ("ge", "gt", "le", "lt")
            if getattr(bound, side, None) is not None
        }
        assert {f"{float(n):g}" for n in re.findall(r"[\d.]+", bounds)} == numbers, name


def test_every_problem_is_described_and_no_other() -> None:
    rows = _rows("problems.md")
    assert list(rows) == list(CODES)
    for name, code in CODES.items():
        status, title, what_to_do = rows[name]
        assert (status, title) == (str(code.status), code.title)
        assert what_to_do.endswith("."), name


def test_every_problem_is_used_somewhere() -> None:
    source = _source("schema", "frontend_api", "writer").replace("Code(\n", "Code(")
    declared = re.compile(r'Code\("')
    unused = [
        name
        for name in CODES
        if len(re.findall(f'"{name}"', source))
        - len(re.findall(f'{declared.pattern}{name}"', source))
        < 1
    ]
    assert unused == []


def test_every_event_and_metric_is_described_and_no_other() -> None:
    rows = _rows("observability.md")
    assert set(rows) == {*get_args(Event), *METRICS}
    for name, meaning in METRICS.items():
        assert rows[name][1] == meaning


@pytest.mark.parametrize("name", [*get_args(Event), *METRICS])
def test_every_event_and_metric_is_used(name: str) -> None:
    assert f'"{name}"' in _source("frontend_api", "writer")


def test_an_alert_that_the_page_advises_names_metrics_that_are_there() -> None:
    text = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\bafterwrite_[a-z_]+", text)) <= set(METRICS)


def _commands() -> list[Any]:
    """Every command and its subcommands, as a user calls them."""
    found = []
    for name in COMMANDS:
        command = typer.main.get_command(build([name]))
        target = getattr(command, "commands", {})[name]
        below = getattr(target, "commands", None)
        words = [[name, sub] for sub in below] if below else [[name]]
        found += [pytest.param(w, id=" ".join(w)) for w in words]
    return found


@pytest.mark.parametrize("words", _commands())
def test_every_command_shows_an_example_of_itself(words: list[str]) -> None:
    answer = CliRunner().invoke(build(words), [*words, "--help"])
    assert answer.exit_code == 0, answer.output
    example = answer.output.partition("Example")[2]
    assert f"afterwrite {' '.join(words)}" in " ".join(example.split())


def test_help_lists_every_command_and_an_example() -> None:
    answer = CliRunner().invoke(build([]), ["--help"])
    assert answer.exit_code == 0
    for name in COMMANDS:
        assert re.search(rf"^\s+{name}\s", answer.output, re.MULTILINE), name
    assert "Example: afterwrite up" in answer.output


def test_the_names_of_the_commands() -> None:
    """Scripts and runbooks call them: a name that goes must first be announced."""
    assert set(COMMANDS) >= {
        "up", "env", "logs", "doctor", "serve", "migrate", "status", "lane", "audit", "token", "load",
    }  # fmt: skip
    assert sys.modules["deploy.cli"].__doc__
