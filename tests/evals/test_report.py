"""Reports as a reader gets them: whole pages of real evaluations, by the command line."""

import json
import math
import random
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from autopilot.cli import main
from autopilot_agents.rules import ObserveAgent
from autopilot_evals.agents import make_any_agent
from autopilot_evals.corpus import read_corpus
from autopilot_evals.forks import ALONE, PILOTED, Applied, Outcome
from autopilot_evals.labels import LabelledEvent, Labels, write_labels
from autopilot_evals.report.decisions import decisions_page
from autopilot_evals.report.detection import detection_page
from autopilot_evals.report.sandbox import sandbox_page
from autopilot_evals.report.trials import Trials
from autopilot_evals.scenarios import SCENARIOS
from autopilot_evals.scenarios.moves import REFLEXES
from autopilot_evals.suites import decisions, detection, sandbox
from autopilot_evals.suites.answers import read_answers
from autopilot_evals.suites.engines import Processes
from autopilot_evals.suites.results import Results

HOSTILE = "<script>alert('x')</script>"
_VOID = {"meta", "br", "hr", "img"}


class Page(HTMLParser):
    """What a browser would make of a page: its elements, headings, captions, and where it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.texts: dict[str, list[str]] = {"h2": [], "summary": [], "figcaption": [], "td": []}
        self._open: list[str] = []
        self.feed(text)
        assert not self._open, f"left open: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]
        self.loads += [value or "" for name, value in attrs if name.endswith(":href")]
        if tag not in _VOID:
            self._open.append(tag)
        if tag in self.texts:
            self.texts[tag].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag, texts in self.texts.items():
            if tag in self._open:
                texts[-1] += data


def write_run(
    folder: Path, name: str, events: tuple[LabelledEvent, ...], *, blown_up: tuple[int, ...] = ()
) -> None:
    """A loss that triples where it is labelled, is no number in a ``nan``, and blows up."""
    rng = random.Random(name)
    lines = []
    for step in range(600):
        loss = (2.0 + 2.0 / (1 + 0.03 * step)) * (1 + 0.01 * rng.gauss(0, 1))
        for event in events:
            if event.signal == "loss" and event.onset <= step <= event.end:
                loss *= 3.0
            if event.kind == "nan" and event.onset <= step <= event.end:
                loss = math.nan
        loss *= 100.0 if step in blown_up else 1.0
        lines.append(json.dumps({"step": step, "loss": loss, HOSTILE: 1.0}))
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    write_labels(folder / f"{name}.labels.json", Labels(episodes=events))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    spike = LabelledEvent(kind="spike", signal="loss", onset=300, end=330, note=HOSTILE)
    unseen = LabelledEvent(kind="divergence", onset=450, end=460, note="nobody can see it")
    write_run(folder, "<b>spike & dip", (spike, unseen))
    write_run(folder, "nan", (LabelledEvent(kind="nan", onset=400, end=599),))
    write_run(folder, "alarming", (), blown_up=tuple(range(250, 290)))
    write_run(folder, "healthy", ())
    return folder


@pytest.fixture(autouse=True)
def _restored_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", sys.argv)


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    sys.argv = ["autopilot", *map(str, words)]
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr()
    return int(ended.value.code or 0), told.out, told.err


def reported(capsys: pytest.CaptureFixture[str], out: Path, *words: str | Path) -> str:
    code, _, err = run(capsys, "eval", *words, "--report", out, "--jobs", "1")
    assert (code, err) == (0, "")
    return out.read_text(encoding="utf-8")


def test_a_detection_report_shows_misses_first_then_false_alarms_then_the_rest(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = Page(reported(capsys, tmp_path / "out.html", "detection", "--corpus", corpus))
    assert page.texts["h2"][-2:] == ["Missed: 1", "False alarms: 1"]
    assert page.texts["summary"] == ["Found: 2"]
    missed, false, *found = page.texts["figcaption"]
    assert missed.startswith("missed divergence, steps 450 to 460")
    assert "nobody can see it" in missed
    assert false.startswith("false alarm")
    assert "alarming.jsonl" in false
    assert {caption.split(",")[0] for caption in found} == {"found nan", "found spike (loss)"}
    assert page.tags.count("svg") == 4


def test_what_alarms_and_agents_said_stands_under_the_picture_with_its_kind_and_step(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("detection", "--corpus", corpus, "--agent", "rules", "--agent", "observe")
    page = Page(reported(capsys, tmp_path / "out.html", *words))
    (nan,) = (text for text in page.texts["figcaption"] if text.startswith("found nan"))
    assert "alarm: non_finite at 400" in nan
    assert "to act: non_finite at 400" in nan
    assert re.search(r"rules: rollback\S*: \w+ at 40\d", nan)
    assert "observe:" not in nan


def test_a_report_loads_nothing_and_runs_nothing(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = reported(capsys, tmp_path / "out.html", "detection", "--corpus", corpus)
    page = Page(text)
    assert all(load.startswith("#") for load in page.loads)
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert not re.search(r"@import|https?://|url\((?!#)", text)


def test_names_and_notes_of_a_recording_are_text_and_never_markup(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = reported(capsys, tmp_path / "out.html", "detection", "--corpus", corpus)
    assert HOSTILE not in text
    assert "<b>spike" not in text
    page = Page(text)
    assert any("<b>spike & dip.jsonl" in caption for caption in page.texts["figcaption"])
    assert any(HOSTILE in caption for caption in page.texts["figcaption"])


def test_a_hostile_metric_name_is_text_in_the_picture_too(tmp_path: Path) -> None:
    rows = [{"step": step, HOSTILE: 1.0, "$x_": 2.0} for step in range(200)]
    (tmp_path / "odd.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    event = LabelledEvent(kind="divergence", onset=100, end=120)
    write_labels(tmp_path / "odd.labels.json", Labels(episodes=(event,)))
    text = page_of(tmp_path)
    assert "<script" not in text
    assert "&lt;script" in text


def page_of(folder: Path) -> str:
    runs = read_corpus(folder)
    read = detection.read_all(runs, Results(None), Processes(1))
    found = detection.report(runs, read, seeds=1)
    answers = read_answers(runs, ["rules"], make_any_agent, Results(None), Processes(1))
    return detection_page(found, runs, read, answers)


def test_the_same_evaluation_gives_the_same_page_byte_for_byte(corpus: Path) -> None:
    assert page_of(corpus) == page_of(corpus)


def test_a_series_that_spans_decades_is_drawn_on_a_logarithmic_scale(tmp_path: Path) -> None:
    event = LabelledEvent(kind="spike", signal="loss", onset=300, end=330)
    write_run(tmp_path, "tame", (event,))
    assert ">100<" not in page_of(tmp_path)
    write_run(tmp_path, "wild", (event,), blown_up=(305, 306))
    text = page_of(tmp_path)
    assert ">100<" in text
    assert "mathdefault" not in text


def test_events_at_the_edges_and_a_recording_without_any_figure_can_be_drawn(
    tmp_path: Path,
) -> None:
    first = LabelledEvent(kind="nan", onset=0, end=0)
    last = LabelledEvent(kind="spike", signal="loss", onset=599, end=10_000)
    write_run(tmp_path, "edges", (first, last))
    (tmp_path / "bare.jsonl").write_text('{"step": 0, "loss": "NaN"}\n{"step": 1, "loss": "NaN"}\n')
    write_labels(tmp_path / "bare.labels.json", Labels(episodes=(first,)))
    assert Page(page_of(tmp_path)).tags.count("svg") == 3


def test_a_decisions_report_lists_harmful_answers_first_and_compares_two_agents(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("decisions", "--agent", "rules", "--agent", "observe")
    page = Page(reported(capsys, tmp_path / "out.html", *words))
    assert page.texts["h2"] == [
        "Agreement with experts",
        "Agents compared",
        "Answers of rules",
        "Answers of observe",
    ]
    grades = [text for text in page.texts["td"] if text in ("harmful", "neutral", "acceptable")]
    ours = grades[: len(decisions.reviewed())]
    assert ours == sorted(ours, key=["harmful", "neutral", "acceptable"].index)
    assert "harmful" in ours
    at = page.texts["td"].index("agrees")
    assert page.texts["td"][at : at + 3] == ["agrees", "rules", "observe"]
    ours_mean, theirs, difference = page.texts["td"][at + 3 : at + 6]
    assert float(theirs) < float(ours_mean)
    assert float(difference.replace("−", "-")) == pytest.approx(
        float(theirs) - float(ours_mean), abs=0.011
    )


def test_one_agent_is_compared_with_nobody() -> None:
    found = decisions.report([ObserveAgent], decisions.reviewed(), seeds=1)
    assert "Agents compared" not in decisions_page(found)


SICK = replace(SCENARIOS["schedule-jump"], moves=REFLEXES)
HEALTHY = replace(SCENARIOS["healthy"], moves=REFLEXES)


def outcome(scenario: str, seed: int, arm: str, loss: float, *, acted: bool = False) -> Outcome:
    applied = (Applied(step=9, answer="rollback", cause=None, undone=False),) if acted else ()
    return Outcome(
        scenario=scenario,
        seed=seed,
        arm=arm,
        val_loss=loss,
        executed=100,
        decided_at=50,
        before="",
        whole="",
        applied=applied,
    )


def outcomes() -> list[Outcome]:
    """Two seeds: ``good`` saves 0.9 and 1.0 of 1 nat; ``bad`` nothing, and meddles once."""
    made = []
    for seed, saved in ((0, 0.9), (1, 1.0)):
        made += [
            outcome(SICK.name, seed, ALONE, 3.0),
            *(outcome(SICK.name, seed, move.name, 2.0) for move in REFLEXES),
            outcome(SICK.name, seed, PILOTED + "good", 3.0 - saved, acted=True),
            outcome(SICK.name, seed, PILOTED + "bad", 3.0),
            outcome(HEALTHY.name, seed, ALONE, 1.0),
            *(outcome(HEALTHY.name, seed, move.name, 1.1) for move in REFLEXES),
            outcome(HEALTHY.name, seed, PILOTED + "good", 1.0),
            outcome(HEALTHY.name, seed, PILOTED + "bad", 1.02, acted=seed == 1),
        ]
    return made


def test_runs_of_two_agents_are_paired_by_scenario_and_seed() -> None:
    flown = outcomes()
    scores = sandbox.report([SICK, HEALTHY], flown, ["good", "bad"]).scores["good"]
    trials = Trials(scores, flown)
    gains = trials.gains("good", "bad")
    assert [pair.cluster for pair in gains] == [SICK.name] * 2
    assert [value for pair in gains for value in pair[1:]] == pytest.approx([0.9, 0.0, 1.0, 0.0])
    assert [pair[1:] for pair in trials.left_alone("good", "bad")] == [(1.0, 1.0), (1.0, 0.0)]
    assert trials.successes("good") == {SICK.name: (True, True), HEALTHY.name: (True, True)}
    assert trials.successes("bad") == {SICK.name: (False, False), HEALTHY.name: (True, False)}


def test_a_sandbox_report_tells_gains_costs_and_who_does_well_every_time() -> None:
    flown = outcomes()
    text = sandbox_page(sandbox.report([SICK, HEALTHY], flown, ["good", "bad"]), flown)
    page = Page(text)
    assert page.tags.count("svg") == 2
    cells = page.texts["td"]
    at = cells.index("gain")
    assert cells[at : at + 6] == ["gain", "good", "bad", "0.95", "0.00", "−0.95"]
    passed = [cells[i : i + 3] for i, cell in enumerate(cells) if cell in ("good", "bad")]
    assert ["good", "1.00", "1.00"] in passed
    assert ["bad", "0.25", "0.00"] in passed
    assert cells[cells.index(SICK.name) :][3:6] == ["3.000", "2.050", "2.000"]


def test_where_nothing_is_sick_there_is_no_picture_of_gains() -> None:
    flown = [one for one in outcomes() if one.scenario == HEALTHY.name]
    page = Page(sandbox_page(sandbox.report([HEALTHY], flown, ["good"]), flown))
    assert page.tags.count("svg") == 1
    assert "Gains where something is wrong" not in page.texts["h2"]


@pytest.mark.parametrize(("name", "complaint"), [("", "is a folder"), ("no/a.html", "create it")])
def test_a_report_that_cannot_be_written_is_refused_before_any_work(
    name: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("eval", "detection", "--corpus", "/nowhere", "--report", tmp_path / name)
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert "--report" in err
    assert complaint in err
    assert err.count("\n") == 1
