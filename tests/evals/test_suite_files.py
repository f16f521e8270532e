"""Evaluations written down in TOML: what they may say, what overrides them, what is refused."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from autopilot.cli import main
from autopilot.errors import BadInput
from autopilot_evals.labels import LabelledEvent, Labels, write_labels
from autopilot_evals.suites.asked import Asked, read_asked


def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str | Path
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["autopilot", "eval", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr()
    return int(ended.value.code or 0), told.out, told.err


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def write_corpus(folder: Path) -> None:
    folder.mkdir()
    for name in ("a", "b"):
        rows = ({"step": s, "loss": 2.0 if s < 200 else float("nan")} for s in range(300))
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        event = LabelledEvent(kind="nan", onset=200, end=299)
        write_labels(folder / f"{name}.labels.json", Labels(episodes=(event,)))


WHOLE = """
[[suite]]
suite = "detection"
corpus = "recordings"

[[suite]]
name = "two-agents"
suite = "decisions"
agents = ["observe", "rules"]
seeds = 1

[[suite]]
name = "calm"
suite = "sandbox"
agents = ["observe"]
scenarios = ["lr-too-high", "constant-rate"]
seeds = 1
split = "development"
"""


def test_one_file_is_a_whole_evaluation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_corpus(tmp_path / "recordings")
    path = write(tmp_path, WHOLE.partition('[[suite]]\nname = "calm"')[0])
    page, out = tmp_path / "page.html", tmp_path / "out.jsonl"
    words = (path, "--jobs", "1", "--report", page, "--out", out)
    code, told, err = run(capsys, monkeypatch, *words, "--json")
    assert (code, err) == (0, "")
    found: dict[str, Any] = json.loads(told)
    assert list(found) == ["detection", "two-agents"]
    assert found["detection"]["lines"]["all"][0]["found"] == 2
    assert list(found["two-agents"]["answers"]) == ["observe", "rules"]
    assert (tmp_path / "page-detection.html").exists()
    assert (tmp_path / "page-two-agents.html").exists()
    kept = [json.loads(line) for line in out.read_text().splitlines()]
    suites = [row["key"].partition(":")[0] for row in kept]
    assert suites == ["detection"] * 4 + ["decisions"] * 2 * 65
    code, told, _ = run(capsys, monkeypatch, path, "--jobs", "1")
    assert code == 0
    assert "two-agents" in told


def test_a_file_of_one_suite_says_what_the_options_would(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, 'suite = "decisions"\nagents = ["observe"]\nseeds = 3\n')
    by_file = run(capsys, monkeypatch, path, "--json")
    words = ("decisions", "--agent", "observe", "--seeds", "3", "--json")
    assert by_file == run(capsys, monkeypatch, *words)


def test_options_override_a_file_where_they_mean_something(tmp_path: Path) -> None:
    path = write(tmp_path, WHOLE)
    asked = read_asked(str(path), {"seeds": 7, "scenarios": ("healthy",)})
    assert [one.seeds for one in asked.values()] == [7, 7, 7]
    assert [one.scenarios for one in asked.values()] == [(), (), ("healthy",)]
    assert asked["detection"].corpus == tmp_path / "recordings"
    assert asked["two-agents"].agents == ("observe", "rules")
    assert read_asked("sandbox", {}) == {"": Asked(suite="sandbox")}


def test_a_side_of_the_split_leaves_the_other_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = tmp_path / "recordings"
    write_corpus(corpus)
    words = ("detection", "--corpus", corpus, "--jobs", "1", "--json", "--split")
    sides = [run(capsys, monkeypatch, *words, side) for side in ("development", "held_out")]
    told = [json.loads(out) for code, out, _ in sides if code == 0]
    assert sum(one["lines"]["all"][0]["runs"] for one in told) == 2
    for code, _, err in sides:
        assert code == 0 or "no run of" in err


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            'suite = "sandbox"\nagnets = ["rules"]',
            "agnets: no such key; known: suite, name",
        ),
        ('suite = "guessing"', "suite: Input should be 'detection'"),
        ("agents = []", "suite: Field required"),
        ('suite = "detection"\nscenarios = ["healthy"]', "scenarios: nothing to detection"),
        ('suite = "sandbox"\nseeds = 0', "seeds: Input should be greater"),
        ('suite = "sandbox"\nsplit = "dev"', "split: Input should be 'development'"),
        ('[[suite]]\nsuite = "sandbox"\n[[suite]]\nsuit = 1', "suite 2: suit: no such key"),
        ('[[suite]]\nsuite = "sandbox"\n[[suite]]\nsuite = "sandbox"', "called 'sandbox'"),
        ('seeds = 1\n[[suite]]\nsuite = "sandbox"', "seeds stands outside"),
        ("suite = []", "expected a name, or [[suite]] tables"),
        ('suite = "sandbox"\nseeds = ', "not valid TOML: Invalid value (at line 2"),
        ('suite = "sandbox"\nagents = [', "line 2, the last"),
    ],
)
def test_what_a_file_may_not_say_is_one_line_that_names_it(
    text: str, complaint: str, tmp_path: Path
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(BadInput) as refused:
        read_asked(str(path), {})
    said = str(refused.value)
    assert said.startswith(str(path))
    assert complaint in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("decisions", "--scenario", "healthy"), "--scenario: nothing to decisions"),
        (("sandbox", "--split", "dev"), "--split: Input should be"),
        (("nowhere.toml",), "nowhere.toml: cannot be read"),
        (("sandbox", "--engine", "dask"), "known: processes, ray"),
    ],
)
def test_what_options_may_not_say_is_one_line(
    words: tuple[str, ...],
    complaint: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code, out, err = run(capsys, monkeypatch, *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert complaint in err


def test_a_wrong_name_in_the_last_suite_ends_before_the_first_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = '[[suite]]\nsuite = "decisions"\n[[suite]]\nsuite = "sandbox"\nagents = ["nobody"]'
    out = tmp_path / "out.jsonl"
    code, told, err = run(capsys, monkeypatch, write(tmp_path, text), "--out", out)
    assert (code, told, err.count("\n")) == (2, "", 1)
    assert "mine.toml, sandbox: --agent nobody" in err
    assert not out.exists()
