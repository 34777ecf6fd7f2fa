"""The repository keeps its own rules: names, sizes, docstrings, what the wheel holds, what is tracked."""

import ast
import re
import subprocess
import tomllib
from importlib.metadata import distribution, packages_distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("schema", "frontend_api", "writer", "deploy")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MAX_LINES = 400
# Packages whose modules stand side by side.
NO_ORDER = {
    "deploy.commands",
    "deploy.doctor",
    "deploy.embedded",
    "writer.audit",
    "deploy.load",
}
_SMALL = 4
# Text that is others' and quoted whole, and the lock file, which names where packages come from.
QUOTED = ("tests/data/", "uv.lock", "deploy/kafka/jars.lock", "LICENSE")


def _project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def _tracked() -> list[Path]:
    """The files of this repository: what git tracks, or everything in an unpacked archive."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout: nothing says which files belong to it")
    names = [name for name in listed.stdout.split("\0") if name and not name.startswith(QUOTED)]
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def _texts() -> dict[str, str]:
    found = {}
    for path in _tracked():
        try:
            found[str(path.relative_to(ROOT))] = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
    assert len(found) > 100
    return found


@pytest.mark.parametrize("name", PACKAGES)
def test_a_top_level_name_has_exactly_one_owner(name: str) -> None:
    """Distributions called `schema` and `writer` exist, and would write their files among ours.

    Installed for development, ours owns its names by a path file, which lists no packages.
    """
    assert set(packages_distributions().get(name, ())) <= {"afterwrite"}
    assert distribution("afterwrite").metadata["Name"] == "afterwrite"
    found = find_spec(name)
    assert found is not None
    assert found.origin == str(ROOT / name / "__init__.py")


def test_the_wheel_has_our_packages_and_nothing_else() -> None:
    wheel = _project()["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel == {"packages": list(PACKAGES)}, "whole folders: .sql files come along"
    for package in PACKAGES:
        assert (ROOT / package / "__init__.py").is_file()
        assert (ROOT / package / "py.typed").is_file()


def test_every_migration_lies_in_a_package_so_that_the_wheel_has_it() -> None:
    found = [path for package in PACKAGES for path in (ROOT / package).rglob("*.sql")]
    assert len(found) >= 3
    for path in found:
        assert (path.parent / "__init__.py").is_file(), path


def test_every_dependency_is_bounded_from_above() -> None:
    project = _project()
    groups = project["dependency-groups"]
    wanted = [
        *project["project"]["dependencies"],
        *(d for extra in project["project"]["optional-dependencies"].values() for d in extra),
        *(d for group in groups.values() for d in group if isinstance(d, str)),
    ]
    unbounded = [d for d in wanted if not re.search(r"==|<", d.partition(";")[0])]
    assert unbounded == []
    names = {re.split(r"[\[<>=; ]", d)[0].lower() for d in wanted}
    assert not names & set(PACKAGES), "these would overwrite our own packages"


def test_the_clients_are_pinned_exactly() -> None:
    pinned = {re.split(r"[\[=]", d)[0] for d in _project()["project"]["dependencies"] if "==" in d}
    assert pinned == {"aiokafka", "asyncpg", "redis"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_is_short_and_says_what_it_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_LINES
    assert ast.get_docstring(ast.parse(text)) or not text.strip(), "what is it for?"


def test_every_linter_exception_has_a_reason_on_its_line() -> None:
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    start = lines.index("ignore = [")
    listed = lines[start + 1 : lines.index("]", start)]
    assert listed
    assert all(re.search(r'^\s+"[A-Z]+\d+",\s+# .{10,}', line) for line in listed)


def test_warnings_are_errors_and_types_are_strict() -> None:
    tool = _project()["tool"]
    assert tool["pytest"]["ini_options"]["filterwarnings"][0] == "error"
    assert tool["pytest"]["ini_options"]["xfail_strict"] is True
    assert tool["mypy"]["strict"] is True
    assert set(tool["mypy"]["packages"]) == {*PACKAGES, "tests"}


def test_layers_are_exhaustive_so_that_every_module_has_its_place() -> None:
    contracts = _project()["tool"]["importlinter"]["contracts"]
    contained = {c["containers"][0] for c in contracts if c.get("exhaustive")}
    # A package of one package is in order when it has a contract, too; a small one need not have it.
    nested = {
        f"{package}.{path.name}": len(list(path.glob("*.py")))
        for package in PACKAGES
        for path in (ROOT / package).iterdir()
        if (path / "__init__.py").exists()
    }
    grown = {name for name, modules in nested.items() if modules > _SMALL}
    assert {*PACKAGES, *grown} - NO_ORDER <= contained <= {*PACKAGES, *nested}
    assert all(len(c["containers"]) == 1 for c in contracts if "containers" in c)


def _marks(path: Path) -> list[str]:
    """The names of the marks that a module puts on all of its tests."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark":
            return re.findall(r"pytest\.mark\.(\w+)", ast.unparse(node.value))
    return []


def test_every_test_module_has_one_tier_and_lies_in_its_folder() -> None:
    declared = _project()["tool"]["pytest"]["ini_options"]["markers"]
    marks = {marker.partition(":")[0] for marker in declared}
    tiers = {mark for mark in marks if (ROOT / "tests" / mark).is_dir()}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        assert tiers.intersection(_marks(path)) == {path.parent.name}, path


# Spelled in parts, so that this file does not find itself.
UNFINISHED = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X")) + r")\b")
PLACES = re.compile(r"(?<![\w./:~$}])/(work|root|home/\w+|Users/\w+)/")
# A host that packages or images come from, other than the public ones that documents may name.
HOSTS = re.compile(
    r"https?://(?!localhost|127\.0\.0\.1)[\w.-]*(registry|mirror|nexus|artifactory|proxy)[\w.-]*",
    re.IGNORECASE,
)


@pytest.mark.parametrize(
    ("what", "pattern"),
    [("unfinished work", UNFINISHED), ("the path of a machine", PLACES), ("a registry", HOSTS)],
)
def test_no_tracked_file_has(what: str, pattern: re.Pattern[str]) -> None:
    found = [
        f"{name}:{number}: {line.strip()[:120]}"
        for name, text in _texts().items()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == [], f"{what} in tracked files"


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (UNFINISHED, "# TO" + "DO: later"),
        (PLACES, "see /wo" + "rk/x and"),
        (PLACES, 'open("/ho' + 'me/ada/x")'),
        (HOSTS, "https:" + "//registry.internal.test/simple"),
    ],
)
def test_the_search_itself_finds_what_it_is_for(pattern: re.Pattern[str], text: str) -> None:
    assert pattern.search(text)


def test_links_between_documents_lead_somewhere() -> None:
    broken = []
    for path in _tracked():
        if path.suffix != ".md":
            continue
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
            if "://" not in target and not (path.parent / target).exists():
                broken.append(f"{path.relative_to(ROOT)}: {target}")
    assert broken == []
