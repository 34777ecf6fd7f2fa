"""The benchmark as a whole: what fails costs nobody else his figures, and nothing is written by halves."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bench import __main__ as whole
from tests.bench.registry import BENCHMARKS, GROUPS
from tests.bench.report import PAGE, Entry, blank
from tests.bench.result import REPORTED, Ratio, Result, WrongRun
from tests.bench.rig import Bench

pytestmark = pytest.mark.unit
NAMES = ("D1", "A1", "R1")
VERSIONS = {"machine": "a small one"}


def result(name: str, met: bool = True) -> Result:
    return Result(name, "a ÷ b", "≥ 1", met, Ratio(1, 2, 3), {"afterwrite": [1.0]}, "rows/s")


@pytest.fixture(autouse=True)
def _no_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    async def versions(bench: Bench) -> dict[str, str]:
        return VERSIONS

    monkeypatch.setattr(Bench, "versions", versions)


def run(monkeypatch: pytest.MonkeyPatch, behave: dict[str, object], *words: str) -> int:
    """The benchmark with measurements that give this back, raise it, or hang (None)."""

    def load(name: str) -> object:
        async def measure(bench: Bench) -> Result:
            what = behave[name]
            if isinstance(what, BaseException):
                raise what
            if what is None:
                await asyncio.Event().wait()
            assert isinstance(what, Result)
            return what

        return measure

    monkeypatch.setattr(whole, "load", load)
    monkeypatch.setattr("sys.argv", ["bench", *behave, *words])
    return whole.main()


def stored(page: Path) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = json.loads(
        (page.with_suffix("") / "results.json").read_text()
    )["entries"]
    return found


def test_what_cannot_be_measured_costs_nobody_else_his_figures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for fault in (WrongRun("one is missing"), KeyError("no such port"), TimeoutError("inside")):
        page = tmp_path / f"{type(fault).__name__}.md"
        behave: dict[str, object] = {"D1": result("D1"), "A1": fault, "R1": result("R1")}
        assert run(monkeypatch, behave, "--page", str(page)) == 1
        entries = stored(page)
        assert [bool(entries[name]["result"]) for name in NAMES] == [True, False, True]
        assert str(fault) in str(entries["A1"]["wrong"])
        text = page.read_text()
        assert "**2 of 3 goals are met**; 1 could not be measured." in text
        assert "a small one" in text
        assert sorted(p.name for p in page.with_suffix("").glob("*.svg")) == ["D1.svg", "R1.svg"]


def test_a_goal_that_is_not_met_is_told_and_no_failure_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    behave: dict[str, object] = {"D1": result("D1", met=False), "A1": result("A1")}
    assert run(monkeypatch, behave, "--page", str(page)) == 0
    assert "goal ≥ 1: NOT MET" in capsys.readouterr().err
    assert "| **no** |" in page.read_text()
    assert run(monkeypatch, behave, "--strict") == 1
    assert run(monkeypatch, {"A1": result("A1")}, "--strict") == 0


def test_what_hangs_is_given_up_in_time_and_the_rest_not_begun(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    behave: dict[str, object] = {"D1": result("D1"), "A1": None, "R1": result("R1")}
    assert run(monkeypatch, behave, "--page", str(page), "--limit-min", "0.002") == 1
    entries = stored(page)
    assert entries["D1"]["result"]
    assert entries["A1"]["wrong"] == "given up: the time was up"
    assert entries["R1"]["wrong"] == "not begun: the time was up"


@pytest.mark.parametrize("how", [KeyboardInterrupt(), asyncio.CancelledError()], ids=repr)
def test_an_interrupted_run_leaves_the_page_as_it_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: BaseException
) -> None:
    page = tmp_path / "page.md"
    assert run(monkeypatch, {"D1": result("D1")}, "--page", str(page)) == 0
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    behave: dict[str, object] = {"D1": result("D1", met=False), "A1": how}
    assert run(monkeypatch, behave, "--page", str(page)) == 130
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_quick_run_is_not_written_into_the_docs(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, {"D1": result("D1")}, "--quick", "--write")


def test_help_names_every_measurement(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["bench", "--help"])
    with pytest.raises(SystemExit) as ended:
        whole.main()
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in BENCHMARKS)


def test_a_page_of_ones_own_begins_as_the_one_in_the_docs(tmp_path: Path) -> None:
    page = tmp_path / "new" / "page.md"
    blank(page)
    assert page.read_text().partition("<!--")[0] == PAGE.read_text().partition("<!--")[0]
    page.write_text("without marks")
    with pytest.raises(ValueError, match="needs the lines"):
        blank(page)


def test_what_has_no_goal_is_not_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    behave: dict[str, object] = {"D1": result("D1"), "A1": replace(result("A1"), goal=REPORTED)}
    assert run(monkeypatch, behave, "--page", str(page)) == 0
    assert "**1 of 1 goals are met**." in page.read_text()
    assert "1 of 1 goals are met" in capsys.readouterr().err


async def test_what_was_measured_stays_with_its_name_and_day() -> None:
    loop = asyncio.get_running_loop()
    with Bench() as bench:
        late = await whole.measured(bench, "D1", loop.time() - 1)
    assert late == Entry("D1", BENCHMARKS["D1"].title, late.day, None, "not begun: the time was up")


def test_every_measurement_is_told_of_and_has_its_place() -> None:
    assert {name[0] for name in BENCHMARKS} == set(GROUPS)
    for name, measure in BENCHMARKS.items():
        assert measure.about.endswith("."), name
