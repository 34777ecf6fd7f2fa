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
from tests.bench.registry import BENCHMARKS, GROUPS
from tests.bench.result import REPORTED, Ratio, Result
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


def blank(page: Path) -> None:
    """See to it that there is a page to write into: a new one says what docs/benchmarks.md says.

    Raises `ValueError` when it has not the two marks.
    """
    if not page.exists():
        page.parent.mkdir(parents=True, exist_ok=True)
        _replace(page, inserted(PAGE.read_text(encoding="utf-8"), "Nothing was measured yet.\n"))
    inserted(page.read_text(encoding="utf-8"), "")


def write(
    entries: Sequence[Entry], versions: Mapping[str, str], order: Sequence[str], page: Path = PAGE
) -> None:
    """Renew these entries in the page, in the order given, and their charts.

    Each file is there whole, as it was or as it is now. Raises `ValueError` when the page has not the
    two marks.
    """
    folder = page.with_suffix("")
    folder.mkdir(exist_ok=True)
    kept = _known(folder / "results.json")
    kept |= {entry.name: entry for entry in entries}
    kept = {name: kept[name] for name in order if name in kept}
    text = inserted(
        page.read_text(encoding="utf-8"), rendered(list(kept.values()), versions, folder.name)
    )
    for entry in entries:
        chart = folder / f"{entry.name}.svg"
        if entry.result and any(entry.result.samples.values()):
            r = entry.result
            _replace(chart, bars(f"{r.name}: {r.title}", r.unit, r.samples, OURS))
        else:
            chart.unlink(missing_ok=True)
    stored = {"versions": dict(versions), "entries": {n: e.to_json() for n, e in kept.items()}}
    _replace(folder / "results.json", json.dumps(stored, indent=1, ensure_ascii=False) + "\n")
    _replace(page, text)


def _replace(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


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


def rendered(entries: Sequence[Entry], versions: Mapping[str, str], folder: str) -> str:
    """All goals in a table first, then each measurement with its competitors.

    `folder` has the charts, beside the page.
    """
    judged = [entry for entry in entries if entry.result is None or _has_goal(entry.result)]
    met = sum(entry.result is not None and entry.result.met for entry in judged)
    failed = sum(entry.result is None for entry in entries)
    lines = ["## Results", "", f"**{met} of {len(judged)} goals are met**"]
    lines[-1] += f"; {failed} could not be measured." * bool(failed) or "."
    lines += ["", "| | measure | goal | median | least to greatest | met | measured |"]
    lines.append("|---|---|---|---:|---:|---|---|")
    lines += [_goal_row(entry) for entry in entries]
    group = ""
    for entry in entries:
        if entry.result is not None:
            if entry.name[0] != group:
                group = entry.name[0]
                lines += ["", f"## {GROUPS[group]}"]
            lines += ["", *_section(entry.result, folder)]
    lines += ["", "## Machine and versions", "", "| what | version |", "|---|---|"]
    lines += [f"| {_cell(what)} | {_cell(which)} |" for what, which in versions.items()]
    return "\n".join(lines) + "\n"


def _goal_row(entry: Entry) -> str:
    r = entry.result
    if r is None:
        wrong = f"not measured: {_cell(entry.wrong)}"
        return f"| {entry.name} | {_cell(entry.title)} | | | | {wrong} | {entry.day} |"
    median, span = (short(r.ratio.median), _span(r.ratio)) if r.ratio else ("", "")
    met = ("yes" if r.met else "**no**") if _has_goal(r) else ""
    link = f"[{r.name}](#{_anchor(r)})"
    return (
        f"| {link} | {_cell(r.title)} | {_cell(r.goal)} | {median} | {span} | {met} | {entry.day} |"
    )


def _has_goal(r: Result) -> bool:
    return r.goal != REPORTED


def _span(ratio: Ratio) -> str:
    return f"{short(ratio.min)} to {short(ratio.max)}"


def _section(r: Result, folder: str) -> list[str]:
    """A measurement: what it is, how it came out, who took part, how, at which cost."""
    lines = [f"### {r.name}: {r.title}", ""]
    if r.name in BENCHMARKS:
        lines += [BENCHMARKS[r.name].about, ""]
    lines += [_verdict(r), ""]
    if any(r.samples.values()):
        lines += [f"![{r.name}: {r.title}]({folder}/{r.name}.svg)", ""]
        lines += [f"| {_cell(r.unit)} | min | median | max |", "|---|---:|---:|---:|"]
        for who, figures in r.samples.items():
            if figures:
                lines.append(f"| {_cell(who)} | {' | '.join(_three(Ratio.of(figures)))} |")
        lines.append("")
    lines += [f"- {_cell(note)}" for note in r.notes]
    lines += [f"- *{what}:* {_cell(how)}" for what, how in r.settings.items()]
    lines += [f"- *checked after each run:* {r.verified}"] * bool(r.verified)
    if r.cpu_s:
        lines += ["", *_cpu_table(r.cpu_s)]
    return lines


def _verdict(r: Result) -> str:
    goal = f"Goal {r.goal}: **{'met' if r.met else 'not met'}**." if _has_goal(r) else "No goal."
    if r.ratio is None:
        return goal
    repeats = max(map(len, r.samples.values()), default=0)
    many = f"{repeats} repeat{'s' * (repeats != 1)}"
    return f"{goal} Median {short(r.ratio.median)}, {_span(r.ratio)} in {many}."


def _cpu_table(cpu_s: Mapping[str, float]) -> list[str]:
    """CPU seconds by competitor, if `who: process` names one, and by process."""
    rows: dict[str, dict[str, float]] = {}
    for name, seconds in cpu_s.items():
        who, _, process = name.rpartition(": ")
        rows.setdefault(who, {})[process] = seconds
    processes = list(dict.fromkeys(process for row in rows.values() for process in row))
    lines = [f"| CPU seconds, all repeats together | {' | '.join(map(_cell, processes))} |"]
    lines.append(f"|---|{'---:|' * len(processes)}")
    for who, row in rows.items():
        shown = (f"{row[p]:.1f}" if p in row else "" for p in processes)
        lines.append(f"| {_cell(who)} | {' | '.join(shown)} |")
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
