"""The benchmark's own parts: what is drained, how it is judged, and how it is shown."""

import subprocess
import uuid
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

import pytest
import typer

from deploy.commands import bench as bench_command
from deploy.errors import UsageTrouble
from schema.commands import Command, Mutation
from schema.identifiers import is_uuid7, time_of
from tests.bench import backlog, workload
from tests.bench.charts import bars
from tests.bench.draining import Drained, Timing, watch
from tests.bench.drains import COPY, OURS, PROMISES, SINKS, Session, against_copy, against_sink
from tests.bench.registry import BENCHMARKS, load
from tests.bench.report import BEGIN, END, Entry, inserted, write
from tests.bench.result import Ratio, Result, WrongRun, ratios
from tests.bench.rig import Bench
from tests.bench.workload import BAD, Bad, Expected, Mixture, Origin

pytestmark = pytest.mark.unit
ORIGIN = Origin(1_760_000_000_000, uuid.UUID(int=7))
COUNT = 4_000


# -- what is drained ----------------------------------------------------------------------------


class Model:
    """Applies commands one by one, as plainly as can be."""

    def __init__(self) -> None:
        self.topics: dict[uuid.UUID, str] = {}
        self.posts: dict[uuid.UUID, tuple[uuid.UUID, uuid.UUID, str, int]] = {}
        self.reactions: dict[uuid.UUID, uuid.UUID] = {}
        self.refused = 0

    def apply(self, command: Command) -> None:
        for mutation in command.mutations:
            if not self._allowed(command, mutation):
                self.refused += 1
                return
        for mutation in command.mutations:
            self._do(command, mutation)

    def _allowed(self, command: Command, m: Mutation) -> bool:
        if m.type == "post" and m.op != "create":
            post = self.posts.get(m.id)
            if post is None or post[1] != command.author.id:
                return False
            return m.expected_version in (None, post[3])
        if m.type == "post":
            return uuid.UUID(m.values["topic_id"]) != ORIGIN.row_id(workload.TOPICS - 1)
        return m.type != "reaction" or uuid.UUID(m.values["post_id"]) in self.posts

    def _do(self, command: Command, m: Mutation) -> None:
        if m.type == "topic" and m.op == "create":
            self.topics[m.id] = m.values["title"]
        elif m.type == "reaction":
            self.reactions[m.id] = uuid.UUID(m.values["post_id"])
        elif m.type == "post" and m.op == "delete":
            del self.posts[m.id]
            self.reactions = {r: on for r, on in self.reactions.items() if on != m.id}
        elif m.type == "post" and m.op == "update":
            topic, author, _, version = self.posts[m.id]
            self.posts[m.id] = (topic, author, m.values["body"], version + 1)
        elif m.type == "post":
            topic = uuid.UUID(m.values["topic_id"])
            self.posts[m.id] = (topic, command.author.id, m.values["body"], 1)

    def same_as(self, expected: Expected) -> bool:
        bodies = {post: row[2] for post, row in self.posts.items()}
        return (bodies, self.topics, set(self.reactions)) == (
            expected.posts,
            expected.topics,
            expected.reactions,
        )


def founded() -> Model:
    model = Model()
    for n, command in enumerate(workload.founding(ORIGIN)):
        if n < workload.TOPICS:
            for mutation in command.mutations:
                model._do(command, mutation)
    return model


@pytest.mark.parametrize("bad_share", [0.0, 0.05])
def test_what_a_mixture_expects_is_what_its_commands_do(bad_share: float) -> None:
    model, mixture = founded(), Mixture(ORIGIN, bad_share)
    kinds: Counter[str] = Counter()
    for step in mixture.steps(COUNT):
        if isinstance(step, Bad):
            kinds[step.kind] += 1
            if BAD[step.kind] == "rejected":
                before = model.refused
                model.apply(step.command)
                assert model.refused == before + 1, step
        else:
            before = model.refused
            model.apply(step)
            assert model.refused == before, step
    assert model.same_as(mixture.expected)
    outcomes = Counter({"saved": workload.FOUNDING + COUNT - kinds.total()})
    for kind, count in kinds.items():
        outcomes[BAD[kind]] += count
    assert mixture.expected.outcomes == outcomes
    assert set(kinds) == (set(BAD) if bad_share else set())
    assert kinds.total() == pytest.approx(COUNT * bad_share, rel=0.3)


def test_a_mixture_has_its_shares_and_is_the_same_each_time() -> None:
    first, again = (list(Mixture(ORIGIN).steps(COUNT)) for _ in range(2))
    assert first == again
    shares: Counter[str] = Counter()
    topics: Counter[uuid.UUID] = Counter()
    for step in first:
        assert isinstance(step, Command)
        shares[f"{step.mutations[-1].op} {step.mutations[-1].type} {len(step.mutations)}"] += 1
        topics[step.stream] += 1
    wanted = {
        "create post 1": 0.55,
        "create post 2": 0.10,
        "update post 1": 0.15,
        "delete post 1": 0.05,
        "create reaction 1": 0.15,
    }
    assert {k: n / COUNT for k, n in shares.items()} == pytest.approx(wanted, abs=0.03)
    assert topics.most_common(1)[0][1] > 10 * COUNT / workload.TOPICS  # Zipf's law, not chance


def test_creates_tell_their_number_and_rise() -> None:
    commands = list(workload.creates(ORIGIN, 0, 500))
    rows = [command.mutations[0].id for command in commands]
    assert rows == sorted(rows)
    assert [workload.number_of(row) - workload.FIRST for row in rows] == list(range(500))
    assert all(is_uuid7(row) and time_of(row) is not None for row in rows)
    assert len({c.command_id for c in commands} | set(rows)) == 1000
    expected = workload.created(ORIGIN, 500)
    bodies = {c.mutations[0].id: c.mutations[0].values["body"] for c in commands}
    assert expected.posts.items() >= bodies.items()
    lengths = [len(body) for body in bodies.values()]
    assert 220 <= min(lengths) <= max(lengths) <= 245
    assert len(set(bodies.values())) == 500


# -- how it is judged ---------------------------------------------------------------------------


def run(*rates: float, count: int = 1000, memory: tuple[int, ...] = (100,) * 10) -> Drained:
    """A run with these rates in equal parts."""
    part, at = count // len(rates), 0.0
    timing = Timing(count, 0.0, [(0.0, 0)])
    for n, rate in enumerate(rates):
        at += part / rate
        timing.marks.append((at, part * (n + 1)))
    held = [(count * n // 10 + 1, mib * 2**20) for n, mib in enumerate(memory)]
    return Drained(timing, memory=held)


def test_a_rate_is_from_the_first_rows_seen_to_the_last() -> None:
    """Whatever time passed until then, and however many the first look has shown."""
    timing = Timing(100, 0.0, [(10.0, 20), (11.0, 60), (13.0, 100)])
    assert timing.rate() == pytest.approx(80 / 3)
    assert timing.rate(0.5) == pytest.approx(40 / 2)
    assert timing.rate(0.0, 0.5) == pytest.approx(40 / 1)
    assert Timing(100, 5.0, [(10.0, 100)]).rate() == pytest.approx(100 / 5)


async def test_a_watch_ends_with_the_process_that_is_watched() -> None:
    answers = iter([0, 3, 3, 7])

    async def ask() -> int:
        return next(answers)

    def ended() -> None:
        raise WrongRun("it ended")

    timing = await watch(ask, 7, lambda: None)
    assert [seen for _, seen in timing.marks] == [3, 7]
    answers = iter([3, 3])
    with pytest.raises(WrongRun, match="it ended"):
        await watch(ask, 7, ended)


def bench_with(**runs: list[Drained]) -> Bench:
    names = {"ours": OURS, "copy": COPY, "promises": PROMISES} | dict(
        zip(("small", "large"), SINKS, strict=True)
    )
    bench = Bench(repeats=len(runs["ours"]))
    bench.memory["drains"] = Session({names[who]: them for who, them in runs.items()})
    return bench


async def test_the_better_sink_of_each_repeat_is_the_measure() -> None:
    ours = [run(300, 300), run(300, 300)]
    with bench_with(
        ours=ours, small=[run(100, 100), run(150, 150)], large=[run(200, 200), run(50, 50)]
    ) as bench:
        result = await against_sink(bench)
    assert result.ratio is not None
    assert (result.ratio.min, result.ratio.max) == pytest.approx((1.5, 2.0))
    assert result.met


async def test_a_sink_that_warms_up_late_is_not_beaten_early() -> None:
    with bench_with(ours=[run(300, 300)], small=[run(10, 290)], large=[run(10, 280)]) as bench:
        result = await against_sink(bench)
    assert result.ratio is not None
    assert result.ratio.median > 1.5
    assert not result.met


async def test_a_goal_is_met_by_the_median() -> None:
    ours = [run(100, 100)] * 3
    for theirs, met in (((200, 200, 900), True), ((200, 300, 300), False)):
        copies = [run(rate, rate) for rate in theirs]
        with bench_with(ours=ours, copy=copies, promises=copies) as bench:
            found = await against_copy(bench)
        assert found.met is met
        assert PROMISES in found.samples


@pytest.mark.parametrize(
    ("last", "memory", "met"),
    [
        (96, (100,) * 10, True),
        (90, (100,) * 10, False),
        (100, (80, 90, 100, 110) + (120,) * 6, True),
        (100, (100,) * 9 + (120,), False),
        (100, (210,) * 10, False),
    ],
    ids=["good", "slower", "warming-up", "growing", "large"],
)
def test_a_backlog_must_not_slow_down_nor_grow(
    last: float, memory: tuple[int, ...], met: bool
) -> None:
    assert backlog.judged([run(*(100,) * 9, last, memory=memory)]).met is met


def test_ratios_are_taken_repeat_by_repeat() -> None:
    assert ratios([4, 9], [2, 3]) == Ratio(2, 2.5, 3)
    with pytest.raises(ValueError, match="no figure"):
        Ratio.of([])


def test_every_measurement_is_there() -> None:
    assert all(callable(load(name)) for name in BENCHMARKS)


def test_the_command_runs_the_checkout_and_says_when_there_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    called: list[list[str]] = []

    def run_it(words: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        called.append(words[1:])
        return subprocess.CompletedProcess(words, 1)

    monkeypatch.setattr(subprocess, "run", run_it)
    with pytest.raises(typer.Exit) as ended:
        bench_command.bench(["D1"], as_json=True, repeats=2)
    assert ended.value.exit_code == 1
    assert called == [["-m", "tests.bench", "D1", "--repeats", "2", "--json"]]
    monkeypatch.setattr(bench_command, "ROOT", tmp_path)
    with pytest.raises(UsageTrouble, match="part of the checkout"):
        bench_command.bench()


# -- how it is shown ----------------------------------------------------------------------------

RESULT = Result(
    "D2", "a ÷ b | c", "≥ 0.4", False, Ratio(0.1, 0.2, 0.3), {"afterwrite": [1, 2], "b <&>": [10]},
    "rows/s", {"writer": 1.25}, {"b": "tuned"}, "contents", ["a note"],
)  # fmt: skip


def test_a_page_keeps_what_people_wrote_and_other_results(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text(f"# By hand\n{BEGIN}\nold\n{END}\nMore by hand.\n")
    day = "2026-01-02"
    write([Entry("D1", "one", day, None, "rows: 1, must be 2")], {"a": "1"}, ["D1", "D2"], page)
    write([Entry("D2", "two", "2026-01-03", RESULT)], {"a": "2"}, ["D1", "D2"], page)
    text = page.read_text()
    assert text.startswith("# By hand\n")
    assert text.endswith("More by hand.\n")
    assert "old" not in text
    assert "**0 of 2 goals are met**; 1 could not be measured." in text
    assert "| D1 | one | | | | not measured: rows: 1, must be 2 | 2026-01-02 |" in text
    assert "| a ÷ b \\| c | ≥ 0.4 | 0.2 | 0.1 to 0.3 | **no** | 2026-01-03 |" in text
    assert "Goal ≥ 0.4: **not met**. Median 0.2, 0.1 to 0.3 in 2 repeats." in text
    assert "| CPU seconds, all repeats together | writer |\n|---|---:|\n|  | 1.2 |" in text
    assert "| afterwrite | 1 | 1.5 | 2 |" in text
    assert "| a | 2 |" in text
    ET.parse(tmp_path / "benchmarks" / "D2.svg")
    with pytest.raises(ValueError, match="needs the lines"):
        inserted("a page without marks", "")


def test_a_result_is_the_same_after_json() -> None:
    assert Result.from_json(RESULT.to_json()) == RESULT


def test_a_chart_has_a_bar_for_each_and_marks_ours() -> None:
    chart = bars("t <1>", "rows/s", RESULT.samples, "afterwrite")
    root = ET.fromstring(chart)
    bars_ = [e for e in root.iter() if e.tag.endswith("rect")]
    assert [e.get("class") for e in bars_] == ["ours", "other"]
    assert float(bars_[1].get("width", 0)) > 6 * float(bars_[0].get("width", 0))
    with pytest.raises(ValueError, match="figures"):
        bars("t", "u", {"a": []}, "a")
