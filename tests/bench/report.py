"""docs/benchmarks.md and its charts: what was measured, between the two marks in the page.

The rest of the page is written by people. docs/benchmarks/results.json keeps the results, so that a run of
some of the measurements renews theirs and leaves the others, each with the day it was measured.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.charts import bars, short
from tests.bench.result import Ratio, Result
from tests.installation import ROOT

PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- measured -->", "<!-- end of what was measured -->"
OURS = "afterwrite"


@dataclass(frozen=True)
class Entry:
    """A result, or why there is none, and the day."""

    name: str
    title: str
    day: str
    result: Result | None
    wrong: str = ""

    def to_json(self) -> dict[str, Any]:
        result = self.result.to_json() if self.result else None
        return {"title": self.title, "day": self.day, "result": result, "wrong": self.wrong}

    @classmethod
    def from_json(cls, name: str, data: dict[str, Any]) -> "Entry":
        result = Result.from_json(data["result"]) if data["result"] else None
        return cls(name, data["title"], data["day"], result, data["wrong"])


def write(
    entries: Sequence[Entry], versions: Mapping[str, str], order: Sequence[str], page: Path = PAGE
) -> None:
    """Renew these entries in the page, in the order given, and their charts.

    Raises `ValueError` when the page has not the two marks.
    """
    folder = page.with_suffix("")
    folder.mkdir(exist_ok=True)
    kept = _known(folder / "results.json")
    kept |= {entry.name: entry for entry in entries}
    kept = {name: kept[name] for name in order if name in kept}
    stored = {"versions": dict(versions), "entries": {n: e.to_json() for n, e in kept.items()}}
    text = json.dumps(stored, indent=1, ensure_ascii=False) + "\n"
    (folder / "results.json").write_text(text, encoding="utf-8")
    for entry in entries:
        if entry.result and any(entry.result.samples.values()):
            r = entry.result
            (folder / f"{r.name}.svg").write_text(
                bars(f"{r.name}: {r.title}", r.unit, r.samples, OURS), encoding="utf-8"
            )
    page.write_text(
        inserted(page.read_text(encoding="utf-8"), rendered(list(kept.values()), versions)),
        encoding="utf-8",
    )


def _known(path: Path) -> dict[str, Entry]:
    if not path.exists():
        return {}
    stored = json.loads(path.read_text(encoding="utf-8"))["entries"]
    return {name: Entry.from_json(name, data) for name, data in stored.items()}


def inserted(page: str, measured: str) -> str:
    """The page with what was measured between its marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page needs the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{measured}\n{END}{after}"


def rendered(entries: Sequence[Entry], versions: Mapping[str, str]) -> str:
    """The tables: all goals first, then each measurement with its competitors."""
    lines = ["## Goals", "", "| | measure | goal | min | median | max | met | measured |"]
    lines.append("|---|---|---|---:|---:|---:|---|---|")
    lines += [_goal_row(entry) for entry in entries]
    for entry in entries:
        if entry.result is not None:
            lines += ["", *_section(entry.result)]
    lines += ["", "## Versions", "", "| what | version |", "|---|---|"]
    lines += [f"| {_cell(what)} | {_cell(which)} |" for what, which in versions.items()]
    return "\n".join(lines) + "\n"


def _goal_row(entry: Entry) -> str:
    if entry.result is None:
        return (
            f"| {entry.name} | {entry.title} | | | | | wrong: {_cell(entry.wrong)} | {entry.day} |"
        )
    r = entry.result
    figures = " | ".join(_three(r.ratio)) if r.ratio else " | | "
    met = "yes" if r.met else "**no**"
    link = f"[{r.name}](#{_anchor(r)})"
    return f"| {link} | {_cell(r.title)} | {_cell(r.goal)} | {figures} | {met} | {entry.day} |"


def _section(r: Result) -> list[str]:
    lines = [f"### {r.name}: {r.title}", ""]
    if any(r.samples.values()):
        lines += [f"![{r.name}: {r.title}](benchmarks/{r.name}.svg)", ""]
        lines += [f"| {_cell(r.unit)} | min | median | max |", "|---|---:|---:|---:|"]
        for who, figures in r.samples.items():
            if figures:
                lines.append(f"| {_cell(who)} | {' | '.join(_three(Ratio.of(figures)))} |")
        lines.append("")
    lines += [f"- {note}" for note in r.notes]
    lines += [f"- {what}: {how}" for what, how in r.settings.items()]
    if r.cpu_s:
        cpu = ", ".join(f"{who} {seconds:.1f}" for who, seconds in r.cpu_s.items())
        lines.append(f"- CPU seconds by process, over all repeats: {cpu}")
    lines += [f"- checked after each run: {r.verified}"] * bool(r.verified)
    return lines


def _three(ratio: Ratio) -> tuple[str, str, str]:
    return short(ratio.min), short(ratio.median), short(ratio.max)


def _anchor(r: Result) -> str:
    """As the usual renderers make one of a heading."""
    heading = f"{r.name}: {r.title}".lower()
    return "".join("-" if c == " " else c for c in heading if c.isalnum() or c in " -_")


def _cell(text: str) -> str:
    """Text inside a table: one line, no bar."""
    return " ".join(text.split()).replace("|", "\\|")
